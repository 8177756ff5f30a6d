"""Tell which values a format with fewer digits keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_DECIMALS = 9
"""The decimals that are looked at. A value with more was computed, not quoted."""


def decimals_of(values: Any, most: int = MOST_DECIMALS) -> int:
    """Return the smallest number of decimals, at most *most* + 1, with which all values can be written exactly."""
    for digits in range(most + 1):
        if np.array_equal(np.round(values, digits), values):
            return digits
    return most + 1


def lost_with_decimals(values: Any, digits: int) -> Any:
    """Return which values have more decimals than *digits*."""
    return np.round(values, digits) != values


def lost_in_float32(values: Any) -> Any:
    """Return which values a 32-bit float changes: those it no longer tells from their neighbors of as many decimals."""
    narrow = values.astype(np.float32).astype(np.float64)
    lost = narrow != values
    for digits in range(MOST_DECIMALS + 1):
        if not lost.any():
            break
        lost &= (np.round(values, digits) != values) | (np.round(narrow, digits) != values)
    return lost
