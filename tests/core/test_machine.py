"""What is free here, and in a container."""

import sys
import types

import dask
import pytest

from geoemb_xr.core import machine


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "max", "memory.current": "5", "memory.stat": "inactive_file 1"}, None),
        ({"memory.max": "100", "memory.current": "50", "memory.stat": "anon 40\ninactive_file 8"}, 58),
        (
            {
                "memory/memory.limit_in_bytes": "100",
                "memory/memory.usage_in_bytes": "120",
                "memory/memory.stat": "total_inactive_file 5",
            },
            0,
        ),
        ({}, None),
    ],
)
def test_a_container_has_as_much_as_it_is_allowed(tmp_path, files, free):
    """As Docker's documentation has it: what is cached of files can be freed."""
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert machine._free_in_container(str(tmp_path)) == free


def test_this_machine_says_what_is_free():
    free = machine.free_memory()
    assert free is None or 0 < free < 1 << 50


def test_a_task_knows_the_limit_of_its_worker():
    distributed = pytest.importorskip("distributed")
    assert machine.worker_memory() is None
    with (
        # this whole process takes more than the limit, and its worker would pause for ever
        dask.config.set({"distributed.worker.memory.pause": False, "distributed.worker.memory.spill": False}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, memory_limit="700MB", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert client.submit(machine.worker_memory).result() == 700_000_000


def test_a_worker_is_not_asked_for_while_its_package_is_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", types.ModuleType("distributed"))
    assert machine.worker_memory() is None
