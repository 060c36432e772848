"""Cards of encoders: the table of them, and cards that contradict themselves."""

import pickle
from dataclasses import replace

import pytest
from mixing import MIXING

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError


def test_the_table_has_a_row_an_encoder_and_cards_are_values():
    table = gx.encoders()
    assert table.index.is_unique
    for name in table.index:
        card = gx.encoder(name)
        assert pickle.loads(pickle.dumps(card)) == card
        assert hash(card) == hash(pickle.loads(pickle.dumps(card)))
        assert card.product.dims == card.dims
        assert card.name in card._repr_html_()


def test_a_card_for_chips_of_another_size_sees_as_far_as_they_reach():
    card = gx.encoder("ssl4eo-vits16-dino")
    small = card.with_chip(64)
    assert (small.chip, small.margin, small.context_m) == (64, 16, 320.0)
    assert small.with_chip(224).context_m == card.context_m
    assert gx.encoder("rcf").with_chip(64).context_m is None


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"name": "Big"}, "lower case"),
        ({"dims": 0}, "dims of an encoder"),
        ({"margin": 3}, "multiple of the patch"),
        ({"chip": 30}, "whole patches"),
        ({"mean": (1.0, 2.0)}, "mean has 2 values for 4 bands"),
        ({"units": ("dn",)}, "units has 1 values"),
        ({"units": "reflectence"}, "Did you mean 'reflectance'"),
        ({"outputs": ()}, "needs outputs"),
        ({"pooling": "max"}, "pooling='max'"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(facts, message):
    with pytest.raises(ValueError, match=message):
        replace(MIXING, **facts)


def test_a_folder_of_weights_is_its_one_file(tmp_path):
    with pytest.raises(
        SourceError, match=r"is a folder, and its files of weights are none: give the path of one"
    ):
        gx.encoder("presto", weights=tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    assert gx.encoder("presto", weights=tmp_path).weights == str(tmp_path / "model.safetensors")
    (tmp_path / "model.pt").touch()
    with pytest.raises(
        SourceError, match=r"weights are model\.pt, model\.safetensors: give the path of one file"
    ):
        gx.encoder("presto", weights=tmp_path)
