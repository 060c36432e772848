"""A view of the synthetic scene, and labels in it."""

import numpy as np

import geoemb_xr as gx

YEARS = [2018, 2020, 2024]


def place(state, row, col):
    """Coordinates of a pixel's centre."""
    x, y = state.array.x.values[col], state.array.y.values[row]
    return float(x), float(y)


def label_truth(state, n=4):
    """Label some pixels of the two commonest classes as the scene has them; the codes of those."""
    scene = gx.testing.scene()
    truth = scene.truth(state.grid, 2024).values
    codes = np.argsort(np.bincount(truth[40:].ravel()))[-2:]
    for code in codes:
        name = scene.names[code - 1]
        state.add_class(name)
        rows, cols = np.nonzero(truth[40:] == code)
        for i in np.linspace(0, len(rows) - 1, n).astype(int):
            state.label(*place(state, rows[i] + 40, cols[i]), name)
    return codes
