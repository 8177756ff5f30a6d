"""Compute a digest of a store's bars, to compare stores.

It depends on rows, not on files: stores written by other versions of data-engine, in other pieces, or with another Parquet
library have the same digest if and only if they contain the same bars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from data_engine.market.bars import VALUES, numbers, timestamps_us
from data_engine.market.series import Series

_SIZE = 16  # bytes: enough that equal digests mean equal bars


def series_digest(tables: Iterable[pa.Table]) -> str:
    """Return the digest of a series' bars.

    Args:
        tables: The bars by `BAR_SCHEMA`, in order of time, in any pieces.
    """
    hasher = blake2b(digest_size=_SIZE)
    for table in tables:
        # Row by row, so that the digest does not depend on where one file ends and the next begins.
        rows = np.empty((table.num_rows, 1 + len(VALUES)), dtype="<i8")
        rows[:, 0] = timestamps_us(table)
        for at, name in enumerate(VALUES, start=1):
            rows[:, at] = (numbers(table.column(name)) + 0.0).view("<i8")  # -0.0 is 0.0
        hasher.update(rows.tobytes())
    return hasher.hexdigest()


def store_digest(digests: Mapping[Series, str]) -> str:
    """Return the digest of many series, from names and digests in order of dataset and symbol. Empty series do not count."""
    empty = series_digest(())
    lines = sorted(f"{series.dataset.name} {series.symbol} {digest}\n" for series, digest in digests.items() if digest != empty)
    return blake2b("".join(lines).encode(), digest_size=_SIZE).hexdigest()
