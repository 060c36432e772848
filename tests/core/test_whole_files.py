"""Files that are written whole or not at all."""

import os
import stat

import pytest

from geoemb_xr.core.errors import MissingFileError
from geoemb_xr.core.whole_files import replacing


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "probe.npz"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as file:
        file.writelines(_interrupted())
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"probe.npz": b"old"}
    with replacing(target) as file:
        file.write(b"new")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"probe.npz": b"new"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of groups and others")
def test_a_colleague_may_read_what_any_new_file_lets_her_read(tmp_path):
    plain, target = tmp_path / "plain", tmp_path / "probe.npz"
    plain.touch()
    with replacing(target):
        pass
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode) != 0o600


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"no such folder to write to: .*results$"):
        replacing(tmp_path / "results" / "a.csv").__enter__()


def _interrupted():
    yield b"new"
    raise KeyboardInterrupt


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "probes.npz").mkdir()
    with pytest.raises(FileExistsError, match=r"probes\.npz is a folder; give the file in it a name"):
        replacing(tmp_path / "probes.npz").__enter__()
    assert [each.name for each in tmp_path.iterdir()] == ["probes.npz"]
