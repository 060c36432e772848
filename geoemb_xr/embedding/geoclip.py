"""GeoCLIP's network, for weights that lie in the package ``geoclip``.

It is written here and not imported: the package compiles functions by a call that torch has deprecated, which torch
says to whoever asks for vectors; it brings transformers; and its constructor draws from torch's random numbers.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import require
from geoemb_xr.embedding.weights import read_weights

#: Coefficients of the Equal Earth projection (Šavrič, Patterson and Jenny 2018).
_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796


def location_encoder(path: Path) -> Any:
    """The location encoder: latitudes and longitudes ``(n, 2)`` in degrees to vectors ``(n, 512)``.

    Equal Earth projection, then random Fourier features and an MLP for each of three scales, and their sum (Vivanco
    Cepeda et al. 2023, arXiv:2309.16020).

    Parameters
    ----------
    path : Path
        Its weights, named as in the package.

    Raises
    ------
    SourceError
        If it holds no weights.
    """
    torch = require("torch", "torch")
    weights = read_weights(path)
    scales = sorted({name.partition(".")[0] for name in weights})

    class LocationEncoder(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """A network of fixed weights."""

        def __init__(self) -> None:
            super().__init__()
            for name, each in weights.items():
                self.register_buffer(name.replace(".", "_"), each)

        def forward(self, places: Any) -> Any:
            projected = _equal_earth(torch, places)
            return sum(self._of(scale, projected) for scale in scales)

        def _of(self, scale: str, places: Any) -> Any:
            angles = 2 * math.pi * places @ self.get_buffer(f"{scale}_capsule_0_b").T
            x = torch.cat((torch.cos(angles), torch.sin(angles)), dim=-1)
            for layer in ("capsule_1", "capsule_3", "capsule_5"):
                x = torch.relu(self._linear(f"{scale}_{layer}", x))
            return self._linear(f"{scale}_head_0", x)

        def _linear(self, layer: str, x: Any) -> Any:
            weight, bias = (self.get_buffer(f"{layer}_{name}") for name in ("weight", "bias"))
            return torch.nn.functional.linear(x, weight, bias)

    return LocationEncoder().eval()


def _equal_earth(torch: Any, places: Any) -> Any:
    """Latitudes and longitudes in degrees to x and y, scaled and computed as the package does."""
    latitude, longitude = torch.deg2rad(places).unbind(-1)
    root = torch.sqrt(torch.tensor(3.0))
    theta = torch.asin(root / 2 * torch.sin(latitude))
    slope = 3 * (9 * _A4 * theta**8 + 7 * _A3 * theta**6 + 3 * _A2 * theta**2 + _A1)
    x = 2 * root * longitude * torch.cos(theta) / slope
    y = _A4 * theta**9 + _A3 * theta**7 + _A2 * theta**3 + _A1 * theta
    return torch.stack((x, y), dim=-1) * 66.50336 / 180
