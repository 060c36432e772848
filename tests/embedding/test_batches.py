"""Batches, memory and precision of a network: none of them changes a vector."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from mixing import MIXING, Mixing, assert_close, scene, torch

import geoemb_xr as gx
from geoemb_xr.embedding import batches, encoding


def test_batches_change_nothing_and_half_precision_little():
    images = scene()
    expected = gx.embed(images, MIXING).values
    assert_close(gx.embed(images, MIXING, batch_size=1).values, expected)
    half = gx.embed(images, MIXING, precision="bfloat16").values
    assert half.dtype == np.float32
    lengths = np.linalg.norm(half, axis=0) * np.linalg.norm(expected, axis=0)
    assert ((half * expected).sum(0) / lengths).min() > 0.999
    assert not np.array_equal(half, expected)
    with pytest.raises(ValueError, match="precision='float16' is not known"):
        gx.embed(images, MIXING, precision="float16")


def test_products_are_exact_while_any_block_is_at_work_and_as_before_after():
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [each.allow_tf32 for each in switches]
    first, second = batches._full_precision(), batches._full_precision()
    switches[1].allow_tf32 = True
    with first:
        second.__enter__()
        assert not any(each.allow_tf32 for each in switches)
    assert not any(each.allow_tf32 for each in switches)  # the second is still at work
    second.__exit__(None, None, None)
    assert [each.allow_tf32 for each in switches] == [before[0], True]
    switches[1].allow_tf32 = before[1]


class Greedy(Mixing):
    """A network that has no memory for more than three chips."""

    seen: ClassVar[list[int]] = []

    def forward(self, x):
        if len(x) > 3:
            raise torch.cuda.OutOfMemoryError
        Greedy.seen.append(len(x))
        return super().forward(x)


def test_out_of_memory_halves_the_batch_and_goes_on():
    images = scene((128, 128))
    expected = gx.embed(images, MIXING).values
    torch.manual_seed(3)
    greedy = replace(MIXING, make=Greedy(4, 6, 8))
    Greedy.seen.clear()
    assert_close(gx.embed(images, greedy, batch_size=8).values, expected)
    assert max(Greedy.seen) == 2
    assert sum(Greedy.seen) > 8


def test_chips_on_a_gpu_are_gathered_as_they_are_cut_on_a_processor():
    window = torch.arange(2 * 3 * 20 * 30.0).reshape(2, 3, 20, 30)
    starts = np.array([[0, 0], [3, 17], [12, 22], [12, 1]])
    cut = encoding._cut(window, starts, 8)
    assert torch.equal(encoding._cut_by_gather(window, starts, 8), cut)
    assert torch.equal(cut[1], window[..., 3:11, 17:25])


def test_batches_grow_with_the_memory_that_is_free_and_shrink_with_what_a_chip_takes(monkeypatch):
    monkeypatch.setattr(batches, "_free", lambda device: 80 << 30)
    large = batches.size((4, 224, 224), "cuda:0")
    monkeypatch.setattr(batches, "_free", lambda device: 2 << 30)
    small = batches.size((4, 224, 224), "cuda:0")
    assert large > 10 * small > 10
    assert batches.size((4, 224, 224), "cpu") >= 1
    assert batches.size((4, 4096, 4096), "cuda:0") == 1
    assert batches.size((12, 4, 224, 224), "cpu") == 1


def test_a_network_works_in_half_the_precision_as_a_whole_where_its_card_says_so():
    images = scene()
    expected = gx.embed(images, MIXING).values
    safe = replace(MIXING, bfloat16=True)
    half = gx.embed(images, safe, precision="bfloat16").values
    lengths = np.linalg.norm(half, axis=0) * np.linalg.norm(expected, axis=0)
    assert half.dtype == np.float32
    assert 0.999 < ((half * expected).sum(0) / lengths).min() < 1
    assert next(batches.network(safe, "cpu", "bfloat16").parameters()).dtype == torch.bfloat16
    assert next(batches.network(safe, "cpu").parameters()).dtype == torch.float32
    assert_close(gx.embed(images, safe).values, expected)  # on a processor only where it is asked for
