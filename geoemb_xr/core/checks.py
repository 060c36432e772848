"""Kinds of numbers that arguments may be; True and False are none of them."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np


def is_number(value: object) -> bool:
    """Whether it is a number of Python or NumPy."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number of Python or NumPy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Whether it is a whole number of 1 or more.

    Examples
    --------
    >>> is_count(3), is_count(0), is_count(2.0), is_count(True)
    (True, False, False, False)
    """
    return is_whole(value) and value >= 1
