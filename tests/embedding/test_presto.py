"""Presto: equal to a forward pass in NumPy, to numbers of the official code, and to the published score."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import erf

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.core import geometry
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError, SourceError
from geoemb_xr.embedding import presto

torch = pytest.importorskip("torch")

BANDS = presto.BANDS
#: Four numbers of the first sample's vector, all sensors and each absent: rslearn 0.1.19's copy of the official
#: single-file code, with the official weights, in float32.
OFFICIAL = {
    (): [-0.288252, -1.683446, 1.777102, -1.7916],
    ("VV", "VH"): [0.003415, -1.954985, 1.715042, -1.873247],
    BANDS[2:12]: [-0.193438, -2.099154, 0.983253, -1.638969],
    ("temperature_2m", "total_precipitation"): [-0.53596, -1.542812, 1.052705, -0.955089],
    ("elevation", "slope"): [-0.148391, -1.69969, 1.774079, -1.816444],
    ("dynamic_world",): [-0.459886, -1.763382, 1.885417, -1.524758],
}


# --- a forward pass in NumPy, from the paper ----------------------------------------------------------------


def numpy_presto(state, series, months, lon, lat):
    """The vector of one series ``(time, 17)`` in physical units, NaN where absent."""
    w = {k.removeprefix("encoder."): v.double().numpy() for k, v in state.items() if k.startswith("encoder.")}
    values = {
        "S1": (series[:, :2] + 25) / 25, "S2_RGB": series[:, 2:5] / 1e4, "S2_Red_Edge": series[:, 5:8] / 1e4,
        "S2_NIR_10m": series[:, 8:9] / 1e4, "S2_NIR_20m": series[:, 9:10] / 1e4, "S2_SWIR": series[:, 10:12] / 1e4,
        "ERA5": (series[:, 12:14] - (272.15, 0)) / (35, 0.03), "SRTM": series[:, 14:16] / (2000, 50),
        "NDVI": ((series[:, 8] - series[:, 4]) / (series[:, 8] + series[:, 4]))[:, None],
    }  # fmt: skip
    lo, la = np.radians(lon), np.radians(lat)
    here = np.array([np.cos(la) * np.cos(lo), np.cos(la) * np.sin(lo), np.sin(la)])
    tokens = [w["latlon_embed.weight"] @ here + w["latlon_embed.bias"]]

    def told(channel, t):
        return np.concatenate(
            [w["month_embed.weight"][months[t]], w["channel_embed.weight"][channel], w["pos_embed"][0, t]]
        )

    for channel, (name, table) in enumerate(values.items()):
        for t in range(1 if name == "SRTM" else len(series)):
            if np.isfinite(table[t]).all():
                made = w[f"eo_patch_embed.{name}.weight"] @ table[t] + w[f"eo_patch_embed.{name}.bias"]
                own = told(channel, t)
                if name == "SRTM":
                    own[:32], own[64:] = 0, 0
                tokens.append(made + own)
    for t, one in enumerate(series[:, 16]):
        if np.isfinite(one):
            tokens.append(w["dw_embed.weight"][int(one)] + told(9, t))
    x = np.stack(tokens)

    def norm(v, at):
        v = (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)
        return v * w[f"{at}.weight"] + w[f"{at}.bias"]

    for b in ("blocks.0", "blocks.1"):
        q, k, v = np.split(
            norm(x, f"{b}.norm1") @ w[f"{b}.attn.qkv.weight"].T + w[f"{b}.attn.qkv.bias"], 3, axis=1
        )
        heads = []
        for h in range(8):
            some = slice(16 * h, 16 * h + 16)
            score = np.exp(q[:, some] @ k[:, some].T / 4)
            heads.append(score / score.sum(1, keepdims=True) @ v[:, some])
        x = x + np.concatenate(heads, 1) @ w[f"{b}.attn.proj.weight"].T + w[f"{b}.attn.proj.bias"]
        inner = norm(x, f"{b}.norm2") @ w[f"{b}.mlp.fc1.weight"].T + w[f"{b}.mlp.fc1.bias"]
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = x + inner @ w[f"{b}.mlp.fc2.weight"].T + w[f"{b}.mlp.fc2.bias"]
    return norm(x.mean(0), "norm")


# --- what it is given ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights, by the names and in the shapes of the official file; and the file."""
    shapes = {
        "pos_embed": (1, 24, 64),
        "dw_embed.weight": (10, 128),
        "latlon_embed.weight": (128, 3),
        "latlon_embed.bias": (128,),
        "norm.weight": (128,),
        "norm.bias": (128,),
        "month_embed.weight": (12, 32),
        "channel_embed.weight": (10, 32),
    }
    for name, group in presto.GROUPS.items():
        shapes |= {f"eo_patch_embed.{name}.weight": (128, len(group)), f"eo_patch_embed.{name}.bias": (128,)}
    parts = {"attn.qkv": (384, 128), "attn.proj": (128, 128), "mlp.fc1": (512, 128), "mlp.fc2": (128, 512)}
    for b in ("blocks.0", "blocks.1"):
        for part, shape in parts.items():
            shapes |= {f"{b}.{part}.weight": shape, f"{b}.{part}.bias": shape[:1]}
        shapes |= {f"{b}.norm{k}.{part}": (128,) for k in (1, 2) for part in ("weight", "bias")}
    draw = torch.Generator().manual_seed(0)
    state = {f"encoder.{k}": torch.randn(s, generator=draw) * 0.2 for k, s in shapes.items()}
    state["decoder.mask_token"] = torch.zeros(128)  # which nobody needs here
    path = tmp_path_factory.mktemp("presto") / "model.pt"
    torch.save(state, path)
    return state, path


@pytest.fixture(scope="module")
def series():
    """Five months of all bands on six pixels, some of them missing."""
    rng = np.random.default_rng(4)
    low = [-25, -30, *[100] * 10, 260, 0, 0, 0]
    high = [-5, -10, *[6000] * 10, 300, 0.2, 3000, 40]
    data = rng.uniform(low, high, (5, 2, 3, 16))
    data = np.concatenate([data, rng.integers(0, 9, (5, 2, 3, 1))], -1)
    data[2, 0, 1, 2:12] = np.nan  # a cloudy month
    data[:, 1, 2, :2] = np.nan  # no radar
    data[:, 1, 0] = np.nan  # nothing at all
    grid = testing.geobox((2, 3))
    lon, lat = testing.lonlat_of(grid)
    dates = pd.date_range("2019-11-01", periods=5, freq="MS").to_numpy("datetime64[ns]")
    coords = {"time": dates, "band": list(BANDS), **geometry.grid_coords(grid)}
    data = np.moveaxis(data, -1, 1).astype("f4")
    images = xr.DataArray(data, dims=("time", "band", "y", "x"), coords=coords)
    return images, lon, lat


def test_vectors_are_those_of_the_paper_s_arithmetic(weights, series):
    state, path = weights
    images, lon, lat = series
    da = gx.embed(images.chunk({"y": 1, "x": 2, "time": 2}), gx.encoder("presto", weights=path))
    assert da.dims == ("time", "band", "y", "x")
    assert da.time.values[0] == images.time.values[0]
    found = da.values[0]
    assert np.isnan(found[:, 1, 0]).all()
    for y, x in np.ndindex(2, 3):
        if (y, x) != (1, 0):
            own = images.values[:, :, y, x].astype("f8")
            expected = numpy_presto(state, own, [10, 11, 0, 1, 2], lon[y, x], lat[y, x])
            np.testing.assert_allclose(found[:, y, x], expected, atol=2e-5)


def test_bands_that_are_absent_are_masked_not_zero(weights, series):
    state, path = weights
    images, lon, lat = series
    some = images.sel(band=["B08", "B04", "B03", "B02", "VV", "VH"])
    da = gx.embed(some, gx.encoder("presto", weights=path)).values[0]
    own = images.values[:, :, 0, 0].astype("f8")
    own[:, [5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16]] = np.nan
    np.testing.assert_allclose(
        da[:, 0, 0], numpy_presto(state, own, [10, 11, 0, 1, 2], lon[0, 0], lat[0, 0]), atol=2e-5
    )
    with pytest.raises(EmbeddingError, match="the images have none: red edge"):
        gx.embed(images.isel(band=[0]).assign_coords(band=["red edge"]), gx.encoder("presto", weights=path))


def test_sensors_come_by_name_on_their_own_grids_and_dates(weights, series):
    _, path = weights
    images, *_ = series
    card = gx.encoder("presto", weights=path)
    expected = gx.embed(images, card)
    optical, radar = images.sel(band=list(BANDS[2:12])), images.sel(band=["VV", "VH"])
    terrain, weather = (
        images.isel(time=0).sel(band=["elevation", "slope"]),
        images.sel(band=list(BANDS[12:14])),
    )
    classes = images.sel(band=["dynamic_world"])
    late = radar.assign_coords(time=radar.time + np.timedelta64(9, "D")).isel(time=slice(None, None, -1))
    terrain = terrain.drop_vars("time").fillna(images.sel(band=["elevation", "slope"]).mean("time"))
    by_name = {
        "s2": optical / 10_000, "s1": late.chunk({"x": 1}), "era5": weather, "dem": terrain.chunk(), "dw": classes,
    }  # fmt: skip
    with testing.raise_if_dask_computes():
        da = gx.embed(by_name, card, scale={"s2": 10_000})
    np.testing.assert_allclose(da.values, expected.values, atol=1e-4)
    few = gx.embed({"s2": optical, "s1": radar.isel(time=[0, 3])}, card)
    gap = xr.concat([optical, radar.where(radar.time.isin(radar.time[[0, 3]]))], "band", coords="minimal")
    np.testing.assert_allclose(few.values, gx.embed(gap, card).values, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b: {}, "no images"),
        (lambda a, b: {"s2": a, "copy": a}, "two sensors have the band B02"),
        (
            lambda a, b: {"s2": a, "s1": b.assign_coords(time=b.time.values[[0, 0, 2, 3, 4]])},
            "two images of 2019-11",
        ),
        (lambda a, b: {"s2": a.isel(time=0, drop=True), "s1": b}, "has dates, and the first one has none"),
        (lambda a, b: a.isel(time=0, drop=True), "no dimension 'time'"),
        (lambda a, b: a.drop_vars("time"), "must be dates"),
        (lambda a, b: xr.concat([a] * 6, "time"), "up to 24 dates, and the images have 30"),
    ],
)
def test_series_that_cannot_be_say_why(weights, series, change, message):
    images, *_ = series
    optical, radar = images.sel(band=list(BANDS[2:12])), images.sel(band=["VV", "VH"])
    with pytest.raises(EmbeddingError, match=message):
        gx.embed(change(optical, radar), gx.encoder("presto", weights=weights[1]))
    with pytest.raises(EmbeddingError, match=r"scale names \['s3'\]"):
        gx.embed({"s2": optical}, gx.encoder("presto", weights=weights[1]), scale={"s3": 2.0})


def test_weights_that_are_not_there_or_not_presto_s_say_so(tmp_path, series):
    images, *_ = series
    with pytest.raises(SourceError, match="needs its weights: fetch"):
        gx.embed(images, "presto").compute()
    torch.save({"encoder.norm.weight": torch.ones(128)}, tmp_path / "other.pt")
    with pytest.raises(SourceError, match="does not hold the weights of Presto"):
        gx.encoder("presto", weights=tmp_path / "other.pt").load()


# --- the official weights -----------------------------------------------------------------------------------


def samples(folder):
    """The labelled series: values in our bands' order, months, places."""
    raw = np.load(folder / "s1_s2_era5_srtm.npy")
    values = np.concatenate(
        [np.delete(raw, [10, 17], -1), np.load(folder / "dynamic_world.npy")[..., None]], -1
    )
    return values.astype("f4"), np.load(folder / "month.npy"), np.load(folder / "latlon.npy")


def raster(values, months, latlon):
    """One series as the first pixel of a small raster at its place."""
    lat, lon = latlon
    dates = [np.datetime64(f"{2019 + int(m < months[0])}-{m + 1:02d}-01", "ns") for m in months]
    data = np.broadcast_to(values[:, :, None, None], (*values.shape, 2, 2))
    coords = {
        "time": dates,
        "band": list(BANDS),
        "y": [lat, lat - 1e-4],
        "x": [lon, lon + 1e-4],
        "spatial_ref": geometry.crs_coord("EPSG:4326"),
    }
    return xr.DataArray(data, dims=("time", "band", "y", "x"), coords=coords)


@pytest.mark.parametrize("absent", list(OFFICIAL), ids=lambda bands: bands[0] if bands else "all there")
def test_official_weights_give_the_official_code_s_numbers(real_data, absent):
    card = gx.encoder("presto", weights=real_data / "presto" / "default_model.pt")
    assert card.digest == gx.encoder("presto").sha256
    values, months, latlon = samples(real_data / "presto" / "algae_blooms")
    images = raster(values[0], months[0], latlon[0])
    da = gx.embed(images.drop_sel(band=list(absent)), card)
    np.testing.assert_allclose(da.values[0, :4, 0, 0], OFFICIAL[absent], atol=1e-4)


@pytest.mark.complete
def test_the_published_score_of_algae_blooms_with_its_controls(real_data):
    """RMSE 0.861 ± 0.009 by a random forest on the vectors; the paper has 0.884 ± 0.01, the mean alone 0.869."""
    from sklearn.ensemble import RandomForestRegressor

    from geoemb_xr.embedding import batches

    folder = real_data / "presto" / "algae_blooms"
    card = gx.encoder("presto", weights=real_data / "presto" / "default_model.pt")
    values, months, latlon = samples(folder)
    extra = {
        "months": torch.from_numpy(months.astype("i8")),
        "lonlat": torch.from_numpy(latlon[:, ::-1].astype("f4")),
    }

    def take(some):
        given, absent = batches.masked(torch.from_numpy(values[some]), card, tuple(range(len(BANDS))))
        return given, {"absent": absent, **{name: each[some] for name, each in extra.items()}}

    how = {"device": "cpu", "precision": "float32", "batch": 256}
    vectors = batches.run(card.load(), len(values), take, card, "pixels", "mean", **how).numpy()
    target, test = np.load(folder / "target.npy"), np.load(folder / "is_test.npy") == 1

    def rmse(features, seed, trees=100):
        forest = RandomForestRegressor(trees, random_state=seed).fit(features[~test], target[~test])
        return float(np.sqrt(((forest.predict(features[test]) - target[test]) ** 2).mean()))

    scores = [rmse(vectors, seed) for seed in range(3)]
    assert np.mean(scores) == pytest.approx(0.861, abs=0.01)
    raw = rmse(values.reshape(len(values), -1), 0, trees=20)
    mean = float(np.sqrt(((target[test] - target[~test].mean()) ** 2).mean()))
    assert mean == pytest.approx(0.869, abs=0.001)
    assert np.mean(scores) < mean < raw  # a mean nearly does as well, and what went in does worse


# --- as one graph of ONNX ---------------------------------------------------------------------------------------


def feed_of(images, lon, lat):
    pixels = images.transpose("y", "x", "time", "band").values.reshape(-1, len(images.time), len(BANDS))
    months = np.broadcast_to(images["time"].dt.month.values - 1, pixels.shape[:2]).astype(np.int64)
    return {
        "series": pixels,
        "months": np.ascontiguousarray(months),
        "lonlat": np.stack([lon.ravel(), lat.ravel()], -1).astype(np.float32),
    }


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of loops over bands, whose number is fixed
def test_images_become_labels_without_torch(series, real_data, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    images, lon, lat = series
    card = gx.encoder("presto", weights=real_data / "presto" / "default_model.pt")
    vectors = gx.embed(images, card).compute().isel(time=0)
    rows = vectors.transpose("y", "x", "band").values.reshape(6, 128)
    feed = feed_of(images, lon, lat)

    def run(path):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_outputs()]
        return dict(zip(names, session.run(None, feed), strict=True))

    path = card.to_onnx(tmp_path / "small")
    small = run(path)["vectors"]
    there = np.isfinite(rows).all(axis=1)
    np.testing.assert_array_equal(np.isfinite(small).all(axis=1), there)
    cosine = (small * rows).sum(1) / np.linalg.norm(small, axis=1) / np.linalg.norm(rows, axis=1)
    assert cosine[there].min() > 0.98
    labels = xr.DataArray([[1, 2, 1], [2, 1, 2]], dims=("y", "x"), coords=vectors.drop_vars("band").coords)
    probe = vectors.emb.fit_probe(labels.rename("crop"), method="centroid", cv=0)
    found = run(card.to_onnx(tmp_path / "labels", probe, quantize=False))
    np.testing.assert_array_equal(found["label"], vectors.emb.predict(probe).values.ravel())
    exact = vectors.emb.predict(probe, output="proba").transpose("y", "x", ...).values.reshape(6, 2)
    np.testing.assert_allclose(found["probabilities"], exact, atol=2e-5)
    assert path.stat().st_size < 700_000 < (tmp_path / "labels.onnx").stat().st_size
    assert gx.load_model(tmp_path / "labels.onnx") == probe
    other = gx.testing.synthetic("alphaearth", shape=(16, 16)).emb.fit_pca(2)
    with pytest.raises(ComparabilityError, match="fitted on alphaearth synthetic, not on presto"):
        card.to_onnx(tmp_path / "other", other)
    with pytest.raises(EmbeddingError, match="only encoders of the series of a pixel"):
        gx.encoder("rcf").to_onnx(tmp_path / "rcf")
    assert len(list(tmp_path.iterdir())) == 2
