"""NeuCo-Bench and Embed2Scale: their formats and formulas on fixed inputs."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import ShuffleSplit

import geoemb_xr as gx
from geoemb_xr.comparing import embed2scale, neucobench
from geoemb_xr.comparing.neucobench import Task
from geoemb_xr.core.errors import EmbeddingError, SourceError

# --- NeuCo-Bench ------------------------------------------------------------------------------------------------


def test_files_are_read_as_the_benchmark_reads_them(tmp_path):
    path = tmp_path / "e.csv"
    path.write_text("id,1,0,10,note\na.zarr.zip,2,1,x,9\nb.zarr,5,,6,9\n007,8,7,9,9\n")
    found = neucobench.read_embeddings(path, dims=5)
    assert found.index.tolist() == ["a", "b", "007"]
    assert found.to_numpy().tolist() == [[1, 2, 0, 0, 0], [0, 5, 6, 0, 0], [7, 8, 9, 0, 0]]
    assert found.to_numpy().dtype == np.float32
    with pytest.raises(SourceError, match="3 dimensions; 2 are expected"):
        neucobench.read_embeddings(path, dims=2)
    path.write_text("name,0\na,1\n")
    with pytest.raises(SourceError, match="no column 'id'"):
        neucobench.read_embeddings(path)
    with pytest.raises(SourceError, match="no such file"):
        neucobench.read_embeddings(tmp_path / "no.csv")


def test_vectors_come_back_from_a_file(tmp_path):
    da = gx.testing.synthetic("alphaearth", shape=(16, 16)).emb.year(2018)
    points = da.emb.sample(gx.testing.scene().points(12, radius=70)).dropna("location")
    path = neucobench.write_embeddings(points, tmp_path / "out.csv")
    assert path.read_text().startswith("id,0,1,2,")
    found = neucobench.read_embeddings(path)
    np.testing.assert_allclose(found.to_numpy(), points.transpose("location", "band").values, rtol=1e-6)
    assert found.index.tolist() == [str(each) for each in points.location.values]
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


def test_q_of_no_score_is_none():
    with pytest.raises(EmbeddingError, match="got none that is a number"):
        neucobench.q_score([np.nan])


def test_labels_are_files_by_task_and_type(tmp_path):
    (tmp_path / "clouds_reg__regr.csv").write_text("id,label\na,0.5\n002,\nc,1\n")
    (tmp_path / "flood__cls.csv").write_text("id,label\na.zarr.zip,1\nb.zarr,0\n")
    found = neucobench.read_labels(tmp_path)
    assert {name: task.kind for name, task in found.items()} == {
        "clouds_reg": "regression",
        "flood": "classification",
    }
    assert found["clouds_reg"].labels.to_dict() == {"a": 0.5, "c": 1.0}
    assert found["flood"].labels.to_dict() == {"a": 1, "b": 0}
    (tmp_path / "x__kind.csv").write_text("id,label\n")
    with pytest.raises(SourceError, match="x__kind"):
        neucobench.read_labels(tmp_path)


def test_q_is_the_formula():
    assert neucobench.q_score([0.8] * 40) == pytest.approx(80)
    assert neucobench.q_score([1.0] * 40) == pytest.approx(100)
    assert neucobench.q_score([0.2, 0.4, np.nan]) == pytest.approx(2 * 0.3 / (0.02 + 0.1))


def test_the_leaderboard_is_the_formula():
    scores = pd.DataFrame({"a": [10.0, 12.0, 12.0, 1.0], "b": [1.0, 3.0, 2.0, np.nan]}, index=list("wxyz"))
    found = neucobench.leaderboard(scores)
    sd = np.array([np.std([10, 12, 12], ddof=1), 1.0])
    weights = sd / sd.sum()
    expected = {"w": 3 * weights[0] + 3 * weights[1], "x": 1.0, "y": weights[0] + 2 * weights[1]}
    assert found.weighted_score.to_dict() == pytest.approx(expected)
    assert found.index.tolist() == ["x", "y", "w"]
    assert found.aggregated_rank.tolist() == [1, 2, 3]


def planted(n=240, dims=12, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (n, dims))
    value = x[:, 0] - 0.5 * x[:, 3] + rng.normal(0, 0.3, n)
    ids = [f"id{i}" for i in range(n)]
    tasks = {
        "value": Task("regression", pd.Series(value, ids)),
        "class": Task("classification", pd.Series((value > 0).astype(float), ids)),
        "noise": Task("regression", pd.Series(rng.normal(0, 1, n), ids)),
    }
    return pd.DataFrame(x.astype("f4"), ids), tasks


def test_the_linear_protocol_finds_what_a_linear_model_finds():
    x, tasks = planted()
    found = neucobench.evaluate(x, tasks, epochs=60, learning_rate=0.02)
    y = tasks["value"].labels.to_numpy()
    expected = [
        LinearRegression().fit(x.to_numpy()[a], y[a]).score(x.to_numpy()[b], y[b])
        for a, b in ShuffleSplit(40, test_size=0.1, random_state=42).split(y)
    ]
    # the best epoch is taken on what is tested: no worse than least squares, and hardly better
    assert np.mean(expected) - 0.01 < found.mean_score["value"] < np.mean(expected) + 0.03
    assert found.mean_score["class"] > 0.85
    assert found.mean_score["noise"] < 0.1
    assert len(found.scores["value"]) == 40
    assert found.q_stat["value"] == pytest.approx(neucobench.q_score(found.scores["value"]))
    pd.testing.assert_frame_equal(found, neucobench.evaluate(x, tasks, epochs=60, learning_rate=0.02))


def test_steps_are_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start, slopes = rng.normal(0, 1, (3, 5)).astype("f4"), rng.normal(0, 1, (20, 3, 5)).astype("f4")
    theirs = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.AdamW([theirs], lr=0.01)
    ours = start.copy()
    step = neucobench.AdamW(ours, 0.01)
    for slope in slopes:
        theirs.grad = torch.tensor(slope)
        optimizer.step()
        step(slope)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_results_are_written_as_the_benchmark_writes_them(tmp_path):
    x, tasks = planted(60)
    found = neucobench.evaluate(x, tasks, splits=3, epochs=2)
    path = neucobench.write_results(found, tmp_path / "run", "ours")
    summary = json.loads(path.read_text())
    assert summary["experiment"] == "ours"
    assert summary["overall_score"] == pytest.approx(found.q_stat.mean())
    own = json.loads((tmp_path / "run" / "value_result.json").read_text())
    assert own.pop("hyperparamaters") == {
        "k_folds": 3,
        "probe_type": "linear",
        "batch_size": 64,
        "epochs": 2,
        "learning_rate": 1e-3,
    }
    assert own == {k: found.loc["value", k] for k in ("q_stat", "mean_score", "std_dev")}
    with pytest.raises(EmbeddingError, match="10 labels with an embedding"):
        neucobench.evaluate(x.iloc[:10], tasks)
    with pytest.raises(EmbeddingError, match="no id"):
        neucobench.evaluate(x.set_axis([f"x{i}" for i in range(60)]), tasks)


# --- Embed2Scale ----------------------------------------------------------------------------------------------


def submission(n=5, dims=1024):
    values = np.random.default_rng(0).normal(0, 1, (n, dims))
    return pd.DataFrame(values, [f"{i:04x}.zarr.zip" for i in range(n)])


def test_a_submission_passes_the_servers_checks(tmp_path):
    path = embed2scale.write_submission(submission(), tmp_path / "s.csv", ids=[f"{i:04x}" for i in range(5)])
    # the server's own steps
    table = pd.read_csv(path, header=0).set_index("id")
    assert table.shape == (5, 1024)
    assert not table.astype(float).isna().any().any()
    found = embed2scale.check_submission(path, ids=submission().index)
    np.testing.assert_allclose(found, submission())
    assert found.index.tolist() == ["0000", "0001", "0002", "0003", "0004"]


def test_what_the_server_refuses_is_refused(tmp_path):
    target = tmp_path / "s.csv"
    with pytest.raises(EmbeddingError, match="1024 numbers are expected for each id; got 512"):
        embed2scale.write_submission(submission(dims=512), target)
    with pytest.raises(EmbeddingError, match="1 ids are missing, such as 'ffff'"):
        embed2scale.write_submission(submission(), target, ids=["ffff"])
    gaps = submission()
    gaps.iloc[2, 7] = np.nan
    with pytest.raises(
        EmbeddingError, match="1 ids have something that is no finite number, the first '0002'"
    ):
        embed2scale.write_submission(gaps, target)
    twice = pd.concat([submission(), submission(1)])
    with pytest.raises(EmbeddingError, match="'0000' is there more than once"):
        embed2scale.write_submission(twice, target)
    assert not list(tmp_path.iterdir())
    target.write_text("name,0\na,1\n")
    with pytest.raises(SourceError, match="no column 'id'"):
        embed2scale.check_submission(target)


def test_components_keep_distances_and_their_order():
    x = pd.DataFrame(np.random.default_rng(0).normal(0, [5, 1, 3], (40, 3)), [f"i{k}" for k in range(40)])
    found = embed2scale.first_components(x)
    apart = np.linalg.norm(x.to_numpy()[:, None] - x.to_numpy(), axis=2)
    np.testing.assert_allclose(
        np.linalg.norm(found.to_numpy()[:, None] - found.to_numpy(), axis=2), apart, atol=1e-4
    )
    assert (np.diff(found.to_numpy().var(axis=0)[:4]) < 0).all()
    assert not found.to_numpy()[:, 3:].any()
    x.loc["i3", 1] = np.nan
    with pytest.raises(EmbeddingError, match="1 ids have no vector"):
        embed2scale.first_components(x)


def test_the_training_free_baseline_is_a_submission(tmp_path):
    """Random convolutional features of each date, their mean over time, 1,024 principal components."""
    pytest.importorskip("torch")
    whole = gx.testing.images((128, 160), dates=["2018-04-01", "2018-07-01"])
    vectors = gx.embed(whole, "rcf", time="each").mean("time").stack(location=("y", "x"), create_index=False)
    vectors = vectors.dropna("location")  # chips at the edge
    assert vectors.sizes["location"] > 1
    ids = [f"{k:04x}" for k in range(vectors.sizes["location"])]
    vectors = vectors.assign_coords(location=[f"{each}.zarr.zip" for each in ids])
    made = embed2scale.first_components(vectors.transpose("location", "band"))
    path = embed2scale.write_submission(made, tmp_path / "s.csv", ids=ids)
    assert embed2scale.check_submission(path).shape == (len(ids), 1024)
