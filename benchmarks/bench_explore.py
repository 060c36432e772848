"""What a click in the app costs, on 2048² pixels of 64 int8 codes and four years: it must answer within 300 ms.

A click chooses the pixel, computes what is similar to it over all that is shown, its course over the years, and
puts the pictures into Bokeh's sources; with labels it also refits the probe and redraws the classes. What the
browser then takes to draw is not in it. Two screens are measured: the usual one, which shows every n-th pixel of
the array, and one that shows all of them. The limit is to copy, on one core, the codes that the map is made of.
"""

from __future__ import annotations

import argparse
from typing import Any

import harness
import numpy as np

import geoemb_xr as gx
from geoemb_xr.display.app import Display
from geoemb_xr.display.explorer import Explorer


def make_codes(side: int) -> Any:
    """A scene of four years, repeated to the size."""
    tile = gx.testing.synthetic("alphaearth", shape=(128, 128), years=[2018, 2020, 2022, 2024], decode=False)
    times = -(-side // 128)
    data = np.tile(tile.values, (1, 1, times, times))[..., :side, :side]
    grid = gx.testing.geobox((side, side))
    return gx.wrap(data, "alphaearth", geobox=grid, time=tile.time.values, version="synthetic")


def clicks(display: Display, seed: int) -> Any:
    """A function that clicks at another place each time."""
    left, bottom, right, top = display.state.bounds
    rng = np.random.default_rng(seed)
    return lambda: display.tap(rng.uniform(left, right), rng.uniform(bottom, top))


def labelling(display: Display) -> Display:
    """With labels of two classes, and the widgets set to label more."""
    x, y = display.state.centre
    for i, name in enumerate(("a", "b")):
        display.widgets["name"].value = name
        display.widgets["add"].clicks += 1
        for j in range(10):
            display.state.label(x + 10 * i, y + 10 * j, name)
    display.widgets["answer"].value = "classes"
    return display


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the table; medians in seconds by name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest size, to see that it runs")
    parser.add_argument("--repeat", type=int, default=11)
    given = parser.parse_args(argv)
    side = 128 if given.small else 2048
    codes = make_codes(side)
    calls, shown = {}, {}
    for name, size in {"usual screen": (400, 400), "all pixels": (side, side)}.items():
        look, label = (Display(Explorer(codes, size=size, memory=1), size) for _ in range(2))
        rows, cols = look.state.window
        calls |= {f"{name}, look": clicks(look, 0), f"{name}, label": clicks(labelling(label), 1)}
        shown |= dict.fromkeys((f"{name}, look", f"{name}, label"), rows.cells * cols.cells)
    seconds = harness.compare(calls, repeat=given.repeat, warm=2)
    limit = {name: harness.memcpy_seconds(n * 64, threads=1) for name, n in shown.items()}
    table = [
        [name, f"{shown[name]:,}", 1000 * s, f"{s / 0.3:.2f} ×", f"{s / limit[name]:.1f} ×"]
        for name, s in seconds.items()
    ]
    harness.table(
        f"A click on {side}² pixels",
        ["click", "pixels shown", "ms", "of 300 ms", "of a copy of the codes"],
        table,
    )
    return seconds


if __name__ == "__main__":
    main()
