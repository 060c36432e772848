"""Weights from files: tensors by name, and nothing that a file could run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import SourceError, require


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
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise SourceError(f"{path} does not hold weights by name, but {type(found).__name__}")
    return found


def fill(network: Any, weights: dict[str, Any], path: Path, whose: str) -> Any:
    """A network with its weights in it: all of them, and no others.

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
