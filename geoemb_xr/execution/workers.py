"""Workers of a dask cluster that offer something, such as a GPU: asked for, and checked before anything waits.

dask keeps a task for a resource that no worker offers waiting for ever, and its own optimisation of arrays forgets
what a layer asked for. So what ``predict`` is told is checked at once, written on its layer, and read from there by
the writers, which hand it to the scheduler with the tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from geoemb_xr.core.errors import EmbeddingError

Resources = Mapping[str, float]


@contextmanager
def asked_for(resources: Resources | None) -> Iterator[None]:
    """Layers that are made inside ask for workers with these resources.

    Raises
    ------
    EmbeddingError
        If no cluster is connected, or none of its workers offers them.
    """
    import dask

    if resources is None:
        yield
        return
    check_offered(resources)
    with dask.annotate(resources=dict(resources)):
        yield


def asked_by(graph: Any) -> dict[str, float]:
    """The most of each resource that a layer of a graph asks for.

    Parameters
    ----------
    graph : HighLevelGraph
        Not optimised yet.
    """
    most: dict[str, float] = {}
    for layer in graph.layers.values():
        for name, amount in ((layer.annotations or {}).get("resources") or {}).items():
            most[name] = max(amount, most.get(name, 0))
    return most


def check_offered(resources: Any) -> None:
    """Raise unless a worker of the connected cluster offers all of some resources.

    Raises
    ------
    EmbeddingError
        If no cluster is connected, or none of its workers offers them.
    """
    if not isinstance(resources, Mapping) or not all(isinstance(n, int | float) for n in resources.values()):
        raise EmbeddingError(f"resources are names and amounts, such as {{'GPU': 1}}; got {resources!r}")
    client = _client()
    if client is None:
        raise EmbeddingError(
            f"resources={dict(resources)} asks for workers of a dask cluster, and none is connected: make a "
            "distributed.Client first, or leave resources out"
        )
    offers = [info["resources"] for info in client.scheduler_info(n_workers=-1)["workers"].values()]
    if not any(all(offer.get(name, 0) >= n for name, n in resources.items()) for offer in offers):
        option = " ".join(f"{name}={n:g}" for name, n in resources.items())
        some = [offer for offer in offers if offer]
        raise EmbeddingError(
            f"no worker offers {dict(resources)}, so the work would wait for ever; of {len(offers)} workers "
            f"{len(some)} offer something: {some[:4]}. Start some with `dask worker --resources '{option}'`"
        )


def _client() -> Any:
    """The connected client, if there is one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.default_client()
    except ValueError:  # as it says that there is none
        return None
