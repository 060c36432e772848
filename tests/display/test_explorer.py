"""What the app shows and answers, without a display: windows, clicks, labels."""

import numpy as np
import pytest
import xarray as xr
from explored import label_truth, place

import geoemb_xr as gx
from geoemb_xr.display import explorer, windows
from geoemb_xr.display.explorer import Explorer
from geoemb_xr.display.windows import Span

# --- which pixels are shown -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7, 64, 100])
@pytest.mark.parametrize("step", [1, 2, 3, 8, 130])
def test_cells_cover_what_is_looked_at_and_show_pixels_of_the_array(size, step):
    for start, stop in [(0, size), (size * 0.3, size * 0.6), (-50, size + 50), (size - 1.5, size + 9)]:
        span = Span.of(start, stop, size, step)
        shown = np.arange(size)[span.pixels]
        assert len(shown) == span.cells >= 1
        assert span.first % step == 0
        assert [span.cell(p) for p in shown] == list(range(span.cells))
        # all but the last half cell of the array is covered
        assert span.edges[0] <= max(start, 0)
        assert span.edges[1] >= min(stop, size) - step


def test_a_view_has_at_most_the_screens_pixels_and_shows_pixels_as_they_are(codes, state):
    picture = state.view(None, None, 30, 30)
    assert picture.sizes["y"] <= 31
    assert picture.sizes["x"] <= 31
    step = state.window.rows.step
    whole = codes.isel(time=-1).emb.rgb(state.model).transpose("y", "x", "rgb")
    expected = whole.sel(y=picture.y, x=picture.x)
    np.testing.assert_array_equal(picture.transpose("y", "x", "rgb").values, expected.values)
    assert step == 4


def test_zooming_in_shows_every_pixel_and_panning_shows_the_same_pixels(state):
    left, bottom, right, top = state.bounds
    middle = (left + 100, left + 400), (bottom + 100, bottom + 400)
    near = state.view(*middle, 80, 80)
    assert state.window.rows.step == 1
    assert near.sizes["x"] == 30
    state.view((left, right), (bottom, top), 20, 20)
    before = set(state.picture().x.values)
    state.view((left + 37, right + 37), (bottom, top), 20, 20)
    assert set(state.picture().x.values) <= before


def test_shown_bounds_are_the_edges_of_the_cells(state):
    state.view(None, None, 80, 96)
    assert state.shown == pytest.approx(state.bounds)


def test_lazy_arrays_are_not_computed_beyond_the_screen(codes):
    computed = []

    def noted(block):
        computed.append(block.shape)
        return block

    lazy = codes.chunk(time=1, y=24, x=20)
    lazy.data = lazy.data.map_blocks(noted, dtype=lazy.dtype, meta=np.empty((0,) * 4, lazy.dtype))
    state = Explorer(lazy, size=(20, 20), model=codes.emb.fit_pca(3))
    assert computed == []
    left, _, _, top = state.bounds
    state.view((left, left + 100), (top - 100, top), 20, 20)
    assert computed == [(1, 64, 24, 20)]  # the one block in view, of the one year shown
    state.click(left + 15, top - 15)
    assert len(computed) == 1


def test_lazy_and_loaded_show_the_same(codes, state):
    lazy = Explorer(codes.chunk(time=1, y=40, x=33), size=(80, 96), model=state.model)
    xr.testing.assert_identical(lazy.picture(), state.picture())


def test_a_view_that_would_read_too_much_shows_its_middle(codes, monkeypatch):
    lazy = codes.chunk(time=1, y=24, x=20)
    monkeypatch.setattr(windows, "READ_LIMIT", 2 * 64 * 24 * 2 * 20)
    state = Explorer(lazy, size=(80, 96))
    assert "would read over" in state.note
    rows, cols = state.window
    assert rows.edges[0] >= 24
    assert rows.edges[1] <= 72
    assert cols.edges[0] >= 20
    assert cols.edges[1] <= 60


def test_windows_are_kept_within_memory(codes):
    state = Explorer(codes, size=(80, 96), memory=2 * 64 * 96 * 80)
    for step in range(3):
        state.go_to(step)
        state.picture()
    assert [key[0] for key in state._kept] == [1, 2]
    state.memory = 1
    state.view(None, None, 40, 40)
    assert len(state._kept) == 1


def test_south_up_is_shown_north_up(codes, state):
    flipped = Explorer(codes.isel(y=slice(None, None, -1)), size=(80, 96), model=state.model)
    np.testing.assert_array_equal(flipped.picture().values, state.picture().values)


# --- clicks ---------------------------------------------------------------------------------------------------


def test_a_click_answers_with_the_vector_its_course_and_its_like(codes, state):
    x, y = place(state, 60, 50)
    pixel = state.click(x, y)
    vectors = codes.emb.decode().isel(y=60, x=50)
    np.testing.assert_array_equal(pixel.vector, vectors.isel(time=-1).values)
    assert (pixel.row, pixel.col, pixel.x, pixel.y) == (60, 50, x, y)

    course = state.course(pixel)
    first = vectors.isel(time=0).values
    for i in range(3):
        v = vectors.isel(time=i).values
        cosine = v @ first / np.linalg.norm(v) / np.linalg.norm(first)
        assert course.iloc[i] == pytest.approx(np.degrees(np.arccos(min(cosine, 1))), abs=0.02)

    similar = state.answer("similarity")
    assert float(similar.sel(x=x, y=y)) == pytest.approx(1, abs=1e-6)
    assert float(similar.max()) <= 1 + 1e-6
    assert np.isnan(similar.values[0, 0])


def test_what_is_clicked_is_the_pixel_that_is_shown(state):
    state.view(None, None, 20, 20)
    x, y = place(state, 61, 50)
    pixel = state.click(x, y)
    picture = state.picture()
    assert pixel.x in picture.x.values
    assert pixel.y in picture.y.values
    assert abs(pixel.x - x) <= 10 * state.window.cols.step / 2
    assert abs(pixel.y - y) <= 10 * state.window.rows.step / 2


def test_a_click_beside_the_window_reads_that_pixel(codes, state):
    left, _, _, top = state.bounds
    state.look((left, left + 300), (top - 300, top), 30, 30)
    pixel = state.click(*place(state, 90, 70))
    np.testing.assert_array_equal(pixel.vector, codes.emb.decode().isel(time=-1, y=90, x=70).values)


def test_clicks_on_nothing_say_so_and_change_nothing(state):
    before = state.click(*place(state, 60, 50))
    assert state.click(*place(state, 2, 2)) is None
    assert state.note == "There is no data at that pixel."
    assert state.click(state.bounds[0] - 50, state.centre[1]) is None
    assert state.note == "That is outside of the array."
    assert state.pixel is before


def test_a_course_skips_years_without_data(codes):
    vectors = codes.emb.decode().copy()
    vectors[0, :, 60, 50] = np.nan
    state = Explorer(vectors, size=(80, 96))
    course = state.course(state.click(*place(state, 60, 50)))
    assert np.isnan(course.iloc[0])
    assert course.iloc[1] == 0
    assert course.iloc[2] > 0.5


def test_the_query_stays_while_the_year_changes(state):
    pixel = state.click(*place(state, 60, 50))
    now = state.answer("similarity")
    state.go_to(0)
    assert state.period == "2018"
    earlier = state.answer("similarity")
    assert state.pixel is pixel
    assert float(earlier.sel(x=pixel.x, y=pixel.y)) < float(now.sel(x=pixel.x, y=pixel.y))


def test_change_is_that_of_the_array(codes, state):
    expected = codes.emb.change(2018, 2024)
    found = state.answer("change")
    np.testing.assert_allclose(
        found.transpose("y", "x").values, expected.transpose("y", "x").values, atol=1e-4
    )
    state.go_to(0)
    assert state.answer("change") is None


def test_threads_share_what_is_drawn_of_many_pixels(codes, state, monkeypatch):
    whole = Explorer(codes, model=state.model)
    label_truth(whole)
    maps = [whole.picture(), *(whole.answer(kind) for kind in ("similarity", "change", "classes"))]
    monkeypatch.setattr(explorer, "STRIP", 7 * codes.sizes["x"])
    for before, after in zip(
        maps, [whole.picture(), *(whole.answer(k) for k in ("similarity", "change", "classes"))], strict=True
    ):
        assert after.chunks is None
        assert after.attrs == before.attrs
        xr.testing.assert_allclose(before, after, rtol=1e-6, atol=1e-6)


def test_products_without_unit_length_and_with_scales_work():
    codes = gx.testing.synthetic("tessera", shape=(40, 40), years=[2020, 2021], decode=False)
    state = Explorer(codes, size=(20, 20))
    pixel = state.click(*state.centre)
    assert pixel.vector.shape == (128,)
    assert np.linalg.norm(pixel.vector) > 20
    assert float(state.answer("similarity").max()) == pytest.approx(1, abs=1e-5)


def test_labels_become_a_probe_and_a_map(codes, state):
    assert state.probe is None
    assert state.answer("classes") is None
    codes = label_truth(state)
    scene, probe = gx.testing.scene(), state.probe
    assert dict(zip(probe.legend.names, probe.legend.colours, strict=True)) == state.classes
    truth = scene.truth(state.grid, 2024).values
    found = state.answer("classes").transpose("y", "x").values
    table = np.array([0, *(scene.names.index(name) + 1 for name in probe.legend.names)])
    known = np.isin(truth, codes) & (found > 0)
    assert (table[found][known] == truth[known]).mean() > 0.95
    assert (found[:20, :20] == 0).all()  # the corner without data


def test_labels_come_back_as_points_that_fit_the_same_probe(codes, state):
    label_truth(state)
    labels = state.labels
    assert labels.crs.to_epsg() == 32632
    assert list(labels.columns) == ["label", "time", "geometry"]
    assert (labels["time"] == np.datetime64("2024-01-01")).all()
    again = codes.emb.fit_probe(labels, target="label", time="time", cv=0)
    for name, values in state.probe.parameters.items():
        np.testing.assert_allclose(again.parameters[name], values, rtol=1e-3, atol=1e-3)


def test_a_pixel_has_one_label_a_year_and_the_last_can_be_undone(state):
    state.add_class("a")
    state.add_class("b")
    x, y = place(state, 60, 50)
    state.label(x, y, "a")
    state.label(x, y, "b")
    assert state.counts() == {"a": 0, "b": 1}
    state.go_to(0)
    state.label(x, y, "a")
    assert state.counts() == {"a": 1, "b": 1}
    assert state.probe is not None
    state.undo()
    assert state.counts() == {"a": 0, "b": 1}
    assert state.probe is None
    state.undo()
    state.undo()
    assert state.labels.empty


def test_classes_need_names_of_their_own(state):
    state.add_class(" a ")
    for name in ("a", "", "  "):
        with pytest.raises(ValueError, match="name of its own"):
            state.add_class(name)
    with pytest.raises(ValueError, match="class='c' is not known; valid are 'a'"):
        state.label(*state.centre, "c")


def test_classes_are_renamed_recoloured_and_deleted(state):
    label_truth(state)
    first, second = state.classes
    before = state.counts()
    assert state.probe is not None
    state.rename_class(first, "mine")
    assert list(state.classes) == ["mine", second]
    assert state.counts() == {"mine": before[first], second: before[second]}
    state.recolour_class("mine", "#123456")
    assert "#123456" in state.probe.legend.colours
    with pytest.raises(ValueError, match="#rrggbb"):
        state.recolour_class("mine", "blue")
    with pytest.raises(ValueError, match="no class has"):
        state.rename_class("mine", second)
    state.remove_class(second)
    assert state.counts() == {"mine": before[first]}
    assert state.probe is None
