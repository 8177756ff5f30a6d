"""Many series are removed in a time that grows with their number."""

from __future__ import annotations

import pytest

from data_engine.market.dates import any_span
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.disk import Disk
from data_engine.store.local_files import LocalFiles
from data_engine.store.removal import remove_bars

SPAN = any_span("2024-01-01", "2024-06-28")
DATASET = Dataset(Timeframe(1, "Min"))


class Counting(Disk):
    """A disk that counts what is written to it, and does not wait for it."""

    def __init__(self) -> None:
        self.written = 0

    def write(self, handle: int, content: memoryview) -> int:
        self.written += len(content)
        return super().write(handle, content)

    def flush(self, handle: int) -> None:
        pass


@pytest.mark.parametrize("others", [0, 3])
def test_the_bytes_written_grow_with_the_number_of_series_and_not_with_its_square(tmp_path, others):
    """All are requested: a store has one file for that."""

    def work(number: int) -> float:
        disk = Counting()
        store = BarStore(LocalFiles(tmp_path / str(number), disk=disk))
        series = [Series(f"A{n}", DATASET) for n in range(number + others)]
        for one in series:
            store.coverage.update(one, lambda known: Coverage(known.series, wanted=(SPAN,)))
        store.coverage.requested.add(dict.fromkeys(series, (SPAN,)))
        disk.written = 0
        remove_bars(store, series[:number], SPAN)
        left = BarStore(LocalFiles(tmp_path / str(number)))
        left.coverage.requested.refresh()
        assert {one.symbol for one in left.coverage.series(DATASET)} == {one.symbol for one in series[number:]}
        return disk.written / number

    assert work(120) <= 1.2 * work(30)
