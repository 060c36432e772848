"""Random convolutional features: an encoder without training, as a baseline for others.

MOSAIKS (Rolf et al. 2021) encodes an image as the means of many random filters' responses. The mean over dates,
``embed(…, time="each").emb.aggregate("mean")``, is the temporal form: fourth in the Embed2Scale challenge.
"""

from __future__ import annotations

from typing import Any

from geoemb_xr.core.errors import require
from geoemb_xr.embedding.cards import Encoder

_SEED, _KERNEL, _BIAS = 1, 3, -1.0
#: Chips whose responses are in memory at once.
_AT_ONCE = 16


def make_rcf(encoder: Encoder) -> Any:
    """The filters for an encoder's bands, drawn from a seeded normal distribution."""
    torch = require("torch", "encoders")

    class RandomFeatures(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported inside
        """Means of the positive and the negative parts of the responses of random filters."""

        def __init__(self) -> None:
            super().__init__()
            draw = torch.Generator().manual_seed(_SEED)
            shape = (encoder.dims // 2, len(encoder.bands), _KERNEL, _KERNEL)
            self.register_buffer("filters", torch.randn(shape, generator=draw))
            self.register_buffer("bias", torch.full((encoder.dims // 2,), _BIAS))

        def forward(self, chips: Any) -> Any:
            # responses are 64 times the images: few at a time stay in the cache, all would be gigabytes
            return torch.cat([self._responses(some) for some in chips.split(_AT_ONCE)])

        def _responses(self, chips: Any) -> Any:
            found = torch.nn.functional.conv2d(chips, self.filters, self.bias)
            mean = found.mean((2, 3))
            above = found.relu_().mean((2, 3))
            return torch.cat(
                [above, above - mean], dim=1
            )  # a response is what it has above less what below zero

    return RandomFeatures()


ENCODERS = (
    Encoder(
        "rcf",
        dims=512,
        title="Random convolutional features",
        chip=32,
        patch=32,
        outputs=("chips",),
        inputs="any bands, scaled to about 0 to 1",
        weights=f"none: drawn with seed {_SEED}, kernel {_KERNEL}, bias {_BIAS:g}",
        licence="Apache-2.0",
        citation=(
            "Rolf, E. et al. (2021): A generalizable and accessible approach to machine learning with global "
            "satellite imagery. Nature Communications 12, 4392"
        ),
        doi="10.1038/s41467-021-24638-z",
        aliases=("mosaiks",),
        bfloat16=False,
        quirks=("No training: what a trained encoder does not beat, it has not learnt.",),
        make=make_rcf,
    ),
)
