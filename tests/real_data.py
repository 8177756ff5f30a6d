"""The real bars that lie beside the project, where they do."""

from __future__ import annotations

from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT.parent / "shared" / "data"

BARS = """
    SELECT symbol, timestamp, open, high, low, close, volume::DOUBLE AS volume,
           greatest(1, floor(volume / 100))::DOUBLE AS trade_count, round((high + low + close) / 3, 4)::DOUBLE AS vwap
    FROM read_parquet('{path}')
"""
"""SQL for the bars of a file that lacks the last two columns; they are derived as the folder's README says."""


def real(name: str) -> Path:
    """Return a file below ``../shared/data``; skip the test where it is not."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"real bars are not here: {path}")
    return path


def bars_of(name: str) -> str:
    """Return SQL whose result is all bars of a file below ``../shared/data``."""
    return BARS.format(path=real(name))
