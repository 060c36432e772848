"""Decode AlphaEarth codes to float32, against aef-loader; the limit is a copy of the float32 result."""

from __future__ import annotations

import numpy as np
import xarray as xr
from harness import compare, options, peak_memory, table

from geoemb_xr.core.codecs import decode_signed_square


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run it; returns our time over that of the copy and over that of the peer."""
    from aef_loader import dequantize_aef

    given = options(__doc__, argv)
    side = 64 if given.small else 1024
    rng = np.random.default_rng(0)
    codes = rng.integers(-128, 128, (64, side, side), dtype=np.int8)
    wrapped = xr.DataArray(codes, dims=("band", "y", "x"))
    result = decode_signed_square(codes, None, 0)
    valid = ~np.isnan(result)
    np.testing.assert_allclose(result[valid], dequantize_aef(wrapped).values[valid], rtol=0, atol=1.2e-7)
    timings = compare(
        {
            "geoemb_xr decode": lambda: decode_signed_square(codes, None, 0),
            "aef-loader dequantize_aef": lambda: dequantize_aef(wrapped),
            "limit: copy of the float32 result": result.copy,
        },
        repeat=given.repeat,
    )
    ours, peer, limit = timings.values()
    megapixels = side * side / 1e6
    table(
        f"Decode 64 × {side}² codes",
        ("what", "Mpx/s", "× our time"),
        [(name, megapixels / each, each / ours) for name, each in timings.items()],
    )
    with peak_memory() as peak:
        decode_signed_square(codes, None, 0)
    print(f"peak memory above the codes: {peak.extra / result.nbytes:.2f} × the result")
    return {"of the copy": ours / limit, "of the peer": ours / peer}


if __name__ == "__main__":
    main()
