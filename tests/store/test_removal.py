"""Removals: how long many series take, and what is left if one fails."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.errors import DamagedFile, StoreError
from data_engine.market.bars import VALUES
from data_engine.market.dates import any_span
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import FOLDER, Conflict, conflict_file, live_conflicts, refresh_conflicts
from data_engine.store.coverage import Coverage
from data_engine.store.disk import Disk
from data_engine.store.local_files import LocalFiles
from data_engine.store.partitions import Partition, Period
from data_engine.store.removal import remove_bars

SPAN = any_span("2024-01-01", "2024-06-28")
DATASET = Dataset(Timeframe(1, "Min"))
STAMP = datetime(2024, 3, 4, 5, tzinfo=UTC)
A, B = (Series(symbol, Dataset(Timeframe(1, "Day"))) for symbol in "AB")


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


@pytest.fixture
def two(tmp_path) -> BarStore:
    """Return a store with a bar of A and one of B, that of B revised by Alpaca since, and an interrupted backfill of both."""
    storage = ParquetStorage(tmp_path / "store")
    index = pd.MultiIndex.from_tuples([(symbol, pd.Timestamp(STAMP)) for symbol in "AB"], names=["symbol", "timestamp"])
    storage.store(pd.DataFrame({name: [10.0, 10.0] for name in VALUES}, index=index), "1Day")
    revised = Conflict(STAMP, (11.0,) * len(VALUES), datetime(2024, 6, 1, tzinfo=UTC))
    conflict_file(storage.files, B).update(lambda _: (revised,))
    refresh_conflicts(storage.bars, B)
    storage.bars.coverage.requested.add(dict.fromkeys((A, B), (SPAN,)))
    return storage.bars


def test_a_removal_that_fails_at_one_series_leaves_the_others_as_they_were(two):
    path = two.files.path(Partition(A, Period.of(STAMP, A.dataset)).key)
    path.write_bytes(b"PAR1 damaged")
    with pytest.raises(DamagedFile):
        remove_bars(two, [A, B], SPAN)
    left = BarStore(LocalFiles(two.files.location))
    left.coverage.requested.refresh()
    assert left.count(B, Period.of(STAMP, A.dataset)) == 1
    assert len(live_conflicts(left, B)) == 1
    assert left.coverage.read(B).wanted == (SPAN,)


def test_a_removal_whose_conflicting_bars_cannot_be_read_removes_nothing(two):
    file = two.files.path(f"{FOLDER}/equities_1day/symbol=B.json")
    file.write_text("damaged")
    with pytest.raises(DamagedFile):
        remove_bars(two, [A, B], SPAN)
    assert two.count(A, Period.of(STAMP, A.dataset)) == 1


def test_what_is_requested_stays_until_the_coverage_has_it(two, monkeypatch):
    """A disk that is full between the two leaves bars whose range nobody would look at again."""

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(two.coverage, "update", full)
    with pytest.raises(StoreError):
        two.remove(B, SPAN)
    two.coverage.requested.refresh()
    assert two.coverage.requested.of(B) == (SPAN,)
