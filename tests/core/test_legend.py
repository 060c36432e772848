"""Names, codes and colours of class maps."""

import numpy as np
import pytest
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.legend import Legend, encode_classes, expected_colour, is_class_map, legend_of


def test_attributes_survive_the_round_trip():
    legend = Legend.of_names(["dry grass", "water", "x"], values=[40, 11, 300])
    array = xr.DataArray(np.zeros((2, 2), legend.dtype), dims=("y", "x"), attrs=legend.attrs())
    assert legend.dtype == np.uint16
    assert is_class_map(array)
    assert legend_of(array) == legend
    assert array.attrs["flag_meanings"] == "dry_grass water x"


def test_cf_attributes_of_others_are_read():
    array = xr.DataArray(
        np.zeros((2, 2), "u1"),
        dims=("y", "x"),
        attrs={"flag_values": [0, 1, 5], "flag_meanings": "none sea land"},
    )
    assert legend_of(array).values == (1, 5)
    assert legend_of(array).names == ("sea", "land")
    with pytest.raises(EmbeddingError, match="not a class map"):
        legend_of(xr.DataArray(np.zeros(2)))


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        (["b", "a", "b"], [2, 1, 2], ("a", "b")),
        ([True, False], [2, 1], ("False", "True")),
        ([40, 11, 40], [40, 11, 40], ("11", "40")),
        ([0, 1], [1, 2], ("0", "1")),  # 0 means no data, so these are renumbered
        ([1, 70000], [1, 2], ("1", "70000")),
    ],
)
def test_the_users_codes_are_kept_where_they_can_be(labels, codes, names):
    encoded, legend = encode_classes(labels)
    assert encoded.tolist() == codes
    assert legend.names == names


def test_colours_are_expected_distinct_and_the_users_win():
    legend = Legend.of_names(["water", "forest", "river", "unknown"], colours={"forest": "#000000"})
    assert legend.colours[0] == "#3d7ea6"
    assert legend.colours[1] == "#000000"
    assert len(set(legend.colours)) == 4
    many = Legend.of_names([str(i) for i in range(60)])
    assert len(set(many.colours)) == 60
    assert many.rgba().shape == (61, 4)
    assert many.rgba()[0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("values", "says"),
    [((0, 1), "1 to 65534"), ((1, 1), "each value once"), ((1,), "as many values as names")],
)
def test_malformed_legends_are_refused(values, says):
    with pytest.raises(ValueError, match=says):
        Legend(values, ("a", "b"), ("#000000", "#ffffff"))


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("Open water", "water"),
        ("WATER_BODIES water", "water"),
        ("lakes", "water"),
        ("OpenWater", "water"),
        ("deciduous forests", "forest"),
        ("tree_cover", "forest"),
        ("Grasslands", "grass"),
        ("built-up", "built"),
        ("seasonal crops", "crop"),
        ("croplands", "crop"),
        ("snow/ice", "snow"),
        *[(name, None) for name in ("rice", "price", "nonsense", "scrap", "outcity", "spring")],
        *[
            (name, None)
            for name in ("deforestation", "non-forest", "NonForest", "nonforest", "not water", "forest loss")
        ],
        *[
            (name, None)
            for name in ("ice-free", "no crops", "without trees", "former wetland", "treeless", "")
        ],
    ],
)
def test_a_colour_is_expected_of_whole_words_and_not_of_their_opposites(name, like):
    assert expected_colour(name) == (None if like is None else expected_colour(like))
    assert like is None or expected_colour(like) is not None


def test_a_colour_that_none_can_draw_is_refused():
    with pytest.raises(ValueError, match="colours are written as '#rrggbb'; got 'red'"):
        Legend((1,), ("a",), ("red",))


def test_codes_without_their_names_are_no_class_map():
    array = xr.DataArray(np.array([1, 2], "u1"), dims="x", attrs={"flag_values": [1, 2]})
    assert not is_class_map(array)
    assert is_class_map(array.assign_attrs(flag_meanings="oats rye"))


@pytest.mark.parametrize("values", ["1b, 5b", "1 5", [1, 5], [1.0, 5.0], np.array([1, 5], "i1"), "1UB 5UB"])
def test_flags_are_read_in_any_writing(values):
    array = xr.DataArray(np.zeros((2, 2), "u1"), attrs={"flag_values": values, "flag_meanings": "sea land"})
    assert legend_of(array).values == (1, 5)


@pytest.mark.parametrize("values", [[1], "one two", "1.5 2"])
def test_flags_that_do_not_fit_their_meanings_are_refused(values):
    array = xr.DataArray(np.zeros((2, 2), "u1"), attrs={"flag_values": values, "flag_meanings": "sea land"})
    with pytest.raises(EmbeddingError, match="as many whole numbers in 'flag_values' as names"):
        legend_of(array)
