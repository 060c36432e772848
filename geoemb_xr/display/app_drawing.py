"""Drawing helpers of the app: packed pixels, colours stretched over limits, unobtrusive axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

#: Read on a white and on a dark page alike.
FAINT = "#808080"


def packed(rgba: np.ndarray) -> np.ndarray:
    """RGBA ``(…, 4)`` of uint8 as one uint32 per pixel, as Bokeh takes it."""
    return np.asarray(np.ascontiguousarray(rgba).view(np.uint32)[..., 0])


def coloured(values: np.ndarray, palette: Sequence[str], limits: tuple[float, float]) -> np.ndarray:
    """Packed RGBA of values stretched over limits; transparent where they are missing."""
    colours = [(*bytes.fromhex(colour[1:7]), 255) for colour in palette]
    table = packed(np.array([*colours, (0, 0, 0, 0)], np.uint8))
    low, high = limits
    scaled = np.subtract(values, low, dtype=np.float32)
    scaled *= len(colours) / (high - low)
    np.clip(scaled, 0, len(colours) - 1, out=scaled)
    np.copyto(scaled, len(colours), where=np.isnan(values))
    return np.asarray(table[scaled.astype(np.uint16)])


def style(figure: Any) -> None:
    """Style unobtrusive axes, for a page of any colour."""
    figure.toolbar.logo = None
    figure.border_fill_color = None
    for axis in figure.axis:
        axis.axis_line_color = axis.major_tick_line_color = "#bbbbbb"
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = FAINT
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "9px"
        axis.axis_label_text_font_style = "normal"


def decimal_year(time: Any) -> float:
    """Return the year of a time, with the day as its fraction."""
    stamp = pd.Timestamp(time)
    return float(stamp.year + (stamp.day_of_year - 1) / 366)


def year_ticks(x: list[float]) -> list[int]:
    """Return the years of an axis, at most ten of them."""
    years = sorted({int(v) for v in x})
    return years[:: -(-len(years) // 10)] if years else []
