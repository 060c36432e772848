"""Weights from files: tensors by name, without running any code from the file."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoemb_xr.core.errors import SourceError, require

if TYPE_CHECKING:
    from geoemb_xr.embedding.cards import Encoder


#: Endings of files of weights alone.
WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors")


def read_weights(path: Path) -> dict[str, Any]:
    """Tensors of a file of torch (``.pt``, ``.pth``, ``.ckpt``) or of safetensors, by name.

    Raises
    ------
    SourceError
        If it is neither, or holds anything but weights.
    """
    torch = require("torch", "encoders")
    try:
        if path.suffix == ".safetensors":
            return dict(require("safetensors.torch", "encoders").load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first = str(error).partition("\n")[0]
        raise SourceError(
            f"{path} cannot be read as weights alone, and nothing else in it is run: {first}"
        ) from error
    for inner in ("state_dict", "model", "teacher"):  # where those who train keep the weights of the network
        found = found[inner] if isinstance(found, dict) and isinstance(found.get(inner), dict) else found
    found = flat(found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise SourceError(f"{path} does not hold weights by name, but {type(found).__name__}")
    return found


def flat(weights: dict[str, Any]) -> dict[str, Any]:
    """Weights by name, where parts of a network are dicts of their own."""
    parts = {k: v for k, v in weights.items() if isinstance(v, dict)}
    own = {k: v for k, v in weights.items() if k not in parts}
    return own | {f"{k}.{name}": v for k, part in parts.items() for name, v in part.items()}


@contextmanager
def fetching(encoder: Encoder) -> Iterator[None]:
    """Explain what to do if weights must come from a hub that cannot be reached.

    Raises
    ------
    SourceError
        In place of what hubs and urllib raise.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise SourceError(
            f"the weights of {encoder.name} ({encoder.weights}) could not be fetched: {error}. Fetch them where "
            f"there is a connection, then gx.encoder({encoder.name!r}, weights=path)"
        ) from error


def fill(network: Any, weights: dict[str, Any], path: Path, whose: str) -> Any:
    """Fill a network with its weights; raise unless the names match exactly.

    Raises
    ------
    SourceError
        If a weight is missing, of another shape, or left over.
    """
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise SourceError(f"{path} does not hold the weights of {whose}: {error}") from error
    return network
