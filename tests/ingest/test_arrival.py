"""What has come of one series."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime

import numpy as np

from data_engine.ingest.arrival import Arrival
from data_engine.market.bars import VALUES, make_table
from data_engine.store.partitions import Period


def test_what_has_come_keeps_no_page_in_memory():
    """Parts of arrays keep the whole array: twenty million bars of minutes took 1.7 GB."""
    arrival, since = Arrival(), datetime(2030, 1, 1, tzinfo=UTC)
    tracemalloc.start()
    try:
        for month in range(1, 13):
            start = int(datetime(2024, month, 1, tzinfo=UTC).timestamp()) * 1_000_000
            times = start + np.arange(20_000, dtype=np.int64) * 60_000_000
            arrival.add(Period(2024, month), make_table(times, [np.ones(20_000) for _ in VALUES]), since)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 3 * 20_000 * 8  # the timestamps of the current file, of twelve
    assert arrival.came_lately.size == 0
