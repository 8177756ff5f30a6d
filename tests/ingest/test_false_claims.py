"""What a review found to be claimed and not so: each was shown before it was mended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from data_engine import ParquetStorage
from data_engine.alpaca.client import _check_sequence
from data_engine.errors import FileInUse
from data_engine.ingest import series_files
from data_engine.ingest.conflicting_bars import Accepted, accept_conflicts
from data_engine.ingest.import_claim import sessions_of, with_claims
from data_engine.ingest.page_writer import PageWriter
from data_engine.ingest.task import RunOptions, TaskResult, run_task
from data_engine.market.bar_frame import to_frame
from data_engine.market.bars import timestamps_us
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange
from data_engine.store.conflicts import Conflict, conflict_file
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Partition
from data_engine.store.selection import DatasetFilter
from data_engine.verify.repair import repair
from data_engine.verify.verify import verify
from fetched_pages import JUNE, LONG_AFTER, MAY, MINUTES, SPAN, SPLIT, at, bars, between, held, known, page, task

A = Series("A", MINUTES)

OCTOBER, NOVEMBER_1 = between("2024-10-01T04:00", "2024-11-01T04:00"), between("2024-11-01T04:00", "2024-11-02T04:00")


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "store")


def answered(storage: ParquetStorage, span: TimeRange, now: str, *stamps: str, dataset: Dataset = MINUTES) -> Coverage:
    """Return what is known of A after a response with some bars, by a clock of that time."""
    storage.bars.coverage._now = lambda: at(now)
    writer = PageWriter(storage.bars, task("A", span=span, dataset=dataset), now=at(now))
    writer.take(page(("A", bars(*stamps))) if stamps else page())
    writer.complete()
    return known(storage, "A", dataset)


def repaired(storage: ParquetStorage) -> Coverage:
    repair(storage.bars, verify(storage.bars, DatasetFilter(), None, now=LONG_AFTER).findings, now=LONG_AFTER)
    return known(storage, "A")


def codes(storage: ParquetStorage) -> list[str]:
    return [one.code for one in verify(storage.bars, DatasetFilter(), None, now=LONG_AFTER).findings if one.is_inconsistency]


# --------------------------------------------------------------------------------------- a first bar that is the first no more


def test_emptiness_is_not_final_after_the_first_bar_was_removed(storage):
    answered(storage, between("2024-10-01T04:00", "2024-11-02T04:00"), "2024-11-05T16:00", "2024-11-01T15:00")
    assert answered(storage, OCTOBER, "2024-11-09T16:00").missing([OCTOBER]) == ()
    storage.bars.remove(A, NOVEMBER_1)
    made = answered(storage, between("2024-11-02T04:00", "2024-11-11T23:00"), "2024-11-11T23:00", "2024-11-11T15:00")
    assert made.missing([OCTOBER]) == (OCTOBER,)


def test_emptiness_is_not_final_after_alpaca_dropped_the_first_bar(storage):
    answered(storage, NOVEMBER_1, "2024-11-01T23:00", "2024-11-01T15:00")
    assert answered(storage, OCTOBER, "2024-11-09T16:00").missing([OCTOBER]) == ()
    made = answered(storage, between("2024-11-01T04:00", "2024-11-11T23:00"), "2024-11-11T23:00", "2024-11-11T15:00")
    assert made.first_bar == at("2024-11-11T15:00")
    assert made.missing([OCTOBER]) == (OCTOBER,)


def test_emptiness_is_not_final_after_alpaca_dropped_the_only_bar(storage):
    answered(storage, NOVEMBER_1, "2024-11-01T23:00", "2024-11-01T15:00")
    after = between("2024-11-04T05:00", "2024-11-09T05:00")
    assert answered(storage, after, "2024-11-18T16:00").missing([after]) == ()
    made = answered(storage, NOVEMBER_1, "2024-11-18T23:00")
    assert (made.first_bar, made.missing([after])) == (None, (after,))


def test_emptiness_is_not_final_after_the_removal_of_the_first_bar_was_accepted(storage):
    answered(storage, NOVEMBER_1, "2024-11-05T16:00", "2024-11-01T15:00")
    answered(storage, OCTOBER, "2024-11-09T16:00")
    conflict_file(storage.files, A).update(lambda _: (Conflict(at("2024-11-01T15:00"), None, at("2024-11-09T16:00")),))
    storage.bars.coverage.update(A, lambda known: replace(known, conflicting=1))
    accept_conflicts(storage.bars, [known(storage, "A")], Accepted())
    made = answered(storage, between("2024-11-02T04:00", "2024-11-11T23:00"), "2024-11-11T23:00", "2024-11-11T15:00")
    assert made.missing([OCTOBER]) == (OCTOBER,)


def test_what_was_accepted_before_a_file_failed_is_told(storage, monkeypatch):
    """One of two files is taken over, the other one is in use: the report said that nothing was."""
    answered(storage, between("2024-10-01T04:00", "2024-11-02T04:00"), "2024-11-09T16:00", "2024-10-01T15:00", "2024-11-01T15:00")
    conflicts = tuple(Conflict(at(when), None, at("2024-11-09T16:00")) for when in ("2024-10-01T15:00", "2024-11-01T15:00"))
    conflict_file(storage.files, A).update(lambda _: conflicts)
    storage.bars.coverage.update(A, lambda known: replace(known, conflicting=2))
    update = type(storage.files).update

    def failing(files, key, change):
        if key.endswith("month=11/data.parquet"):
            raise FileInUse("it is open in another program")
        return update(files, key, change)

    monkeypatch.setattr(type(storage.files), "update", failing)
    accepted = Accepted()
    accept_conflicts(storage.bars, [known(storage, "A")], accepted)

    assert accepted.total.removed == 1
    assert accepted.failed[A].code == "file_in_use"
    assert storage.bars.coverage.read(A).conflicting == 2  # until both are judged again


# --------------------------------------------------------------------------------------------------------- pages out of order


class Pages:
    """A source that sends the same pages whatever part of its symbols is requested, checked as the client checks them."""

    server_time = LONG_AFTER

    def __init__(self, *chain: tuple[str, str]) -> None:
        self._chain = chain

    def request(self, symbols: tuple[str, ...], dataset: Dataset, span: TimeRange, **_: object) -> tuple[str, ...]:
        return symbols

    def pages(self, symbols: tuple[str, ...]) -> Iterator[BarsPage]:
        last: dict[str, int] = {}
        for symbol, stamps in self._chain:
            one = page((symbol, bars(*stamps.split()))) if symbol in symbols else page()
            _check_sequence(one, last, symbols)  # type: ignore[arg-type]
            yield one


def fetched(storage: ParquetStorage, symbols: str, *chain: tuple[str, str]) -> TaskResult:
    return run_task(task(*symbols), Pages(*chain), storage.bars, RunOptions(LONG_AFTER), {})  # type: ignore[arg-type]


def test_nothing_is_claimed_up_to_a_bar_before_which_another_came_later(storage):
    made = fetched(storage, "A", ("A", "2024-06-03T14:00 2024-07-10T14:00"), ("A", "2024-06-20T14:00"))
    assert [failure.code for failure in made.failed.values()] == ["bad_answer"]
    assert (known(storage, "A").covered, len(held(storage, "A"))) == ((), 2)


def test_a_symbol_that_comes_back_earlier_was_not_finished(storage):
    made = fetched(storage, "AB", ("A", "2024-06-20T14:00"), ("B", "2024-06-05T14:00"), ("A", "2024-06-10T14:00"))
    assert {series.symbol: failure.code for series, failure in made.failed.items()} == {"A": "bad_answer"}
    assert [known(storage, symbol).covered for symbol in "AB"] == [(), (SPAN,)]


def test_bars_that_were_removed_before_a_page_out_of_order_are_claimed_by_nobody(storage, monkeypatch):
    """Of a refetch that accepts removals: June 5 was taken out when July came, and came then."""
    answered(storage, SPAN, "2025-01-01", "2024-06-05T14:00", "2024-06-28T14:00", "2024-07-01T14:00")
    monkeypatch.setattr(series_files, "MANY_FILES", 0)
    monkeypatch.setattr(series_files, "GROUP_BARS", 1)
    options = RunOptions(LONG_AFTER, refetch=True, accept_removals=True)
    source = Pages(("A", "2024-06-28T14:00 2024-07-01T14:00"), ("A", "2024-06-05T14:00"))
    made = run_task(task("A"), source, storage.bars, options, {})  # type: ignore[arg-type]
    assert [failure.code for failure in made.failed.values()] == ["bad_answer"]
    assert (known(storage, "A").covered, len(held(storage, "A"))) == ((), 2)


# -------------------------------------------------------------------------------------------------------------------- repairs


def imported(storage: ParquetStorage, table: pa.Table) -> None:
    storage.bars.add(A, table)
    claims = sessions_of(A, timestamps_us(table), LONG_AFTER)
    storage.bars.coverage.update(A, lambda known: with_claims(known, sessions=claims))


def test_what_a_repair_takes_out_of_an_import_is_not_claimed_by_the_next_import(storage):
    imported(storage, bars("2024-05-02T14:00", "2024-05-03T14:00", "2024-06-04T14:00"))
    storage.files.path(Partition(A, MAY).key).write_bytes(b"rubbish")
    repaired(storage)
    imported(storage, bars("2024-07-02T14:00"))
    days = between("2024-05-02T04:00", "2024-05-04T04:00")
    assert known(storage, "A").missing([days]) == (days,)


def test_what_a_repair_takes_out_of_an_adjusted_series_is_not_confirmed_later(storage):
    may = between("2024-05-01T04:00", "2024-06-01T00:00")
    answered(storage, between("2024-06-03T04:00", "2024-07-01T00:00"), "2025-01-01", "2024-06-05T14:00", dataset=SPLIT)
    made = answered(storage, may, "2025-01-01", "2024-05-06T14:00", dataset=SPLIT)
    assert [one.range for one in made.unconfirmed] == [may]
    storage.files.path(Partition(Series("A", SPLIT), MAY).key).write_bytes(b"rubbish")
    repaired(storage)
    made = known(storage, "A", SPLIT)
    assert made.missing([may]) == made.confirmed(LONG_AFTER).missing([may]) == (may,)


def test_a_repair_leaves_the_mark_of_somebody_who_is_storing_bars(storage):
    answered(storage, between("2024-05-02T04:00", "2024-06-29T04:00"), "2024-12-01", "2024-05-06T14:00", "2024-06-06T14:00")
    storage.files.path(Partition(A, MAY).key).write_bytes(b"rubbish")
    storage.bars.coverage.begin_storing(A, [JUNE])
    repaired(storage)
    storage.bars.write(A, JUNE, bars("2024-06-07T14:00"))  # and is killed before it counts
    assert (known(storage, "A").uncounted, codes(storage)) == ({JUNE}, [])


# ----------------------------------------------------------------------------------------- removals, and files that are gone


def test_bars_stored_while_a_removal_forgets_their_series_are_known(storage, monkeypatch):
    storage.store(to_frame([("A", bars("2024-06-03T14:00"))]))
    other, forget = ParquetStorage(storage.files.location), storage.bars.coverage.forget

    def late(series: Series) -> bool:
        other.store(to_frame([("A", bars("2024-06-05T14:00", "2024-06-05T14:01"))]))
        return forget(series)

    monkeypatch.setattr(storage.bars.coverage, "forget", late)
    storage.bars.remove(A, between("2024-01-01T00:00", "2024-06-04T00:00"))
    assert known(storage, "A").rows == {JUNE: 2}


def test_the_mark_of_somebody_who_is_storing_bars_outlasts_a_removal(storage):
    storage.store(to_frame([("A", bars("2024-06-03T14:00"))]))
    storage.bars.coverage.begin_storing(A, [JUNE])
    storage.bars.remove(A, between("2024-01-01T00:00", "2024-06-04T00:00"))
    assert known(storage, "A").uncounted == {JUNE}


@pytest.mark.parametrize("count", ["recount", "store"])
def test_of_a_counted_file_that_is_gone_nothing_is_claimed_whoever_counts_it(storage, count):
    """A mark hides it from the search for lost files; without its rows, it would never have been missed."""
    answered(storage, SPAN, "2025-01-01", "2024-06-03T14:00", "2024-07-10T14:00")
    storage.bars.coverage.begin_storing(A, [JUNE])
    storage.files.path(Partition(A, JUNE).key).unlink()
    if count == "recount":
        storage.bars.recount(A)
    else:
        storage.store(to_frame([("A", bars("2024-07-11T14:00"))]))
    june = TimeRange(SPAN.start, JUNE.span.end)
    assert known(storage, "A").missing([june]) == (june,)
    assert codes(storage) == []
