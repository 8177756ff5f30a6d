"""What a review found that a read or a judgement said and that was not so: each was shown before it was mended."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.cli import main
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.symbol_actions import SymbolActions
from data_engine.errors import StoreError
from data_engine.ingest.conflicting_bars import Accepted, accept_conflicts
from data_engine.ingest.import_claim import sessions_of
from data_engine.ingest.import_in_place import find_legacy, import_in_place
from data_engine.ingest.page_writer import PageWriter
from data_engine.ingest.recheck_writer import RecheckWriter
from data_engine.ingest.recheckable import recheckable
from data_engine.market.bars import to_micros
from data_engine.market.corporate_action import Action, decode
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import refresh_conflicts
from data_engine.store.coverage_file import key as coverage_key
from data_engine.store.partitions import Partition, Period
from data_engine.store.selection import DatasetFilter
from data_engine.verify.reach import reach_of
from data_engine.verify.repair import repair
from data_engine.verify.session_gate import session_gate
from data_engine.verify.status import series_status
from data_engine.verify.verify import verify
from fetched_pages import DAYS, LONG_AFTER, MINUTES, at, bars, between, held, known, page, task
from legacy import write

A = Series("A", MINUTES)

WEEK = between("2024-06-03T04:00", "2024-06-08T04:00")

TUESDAY, WEDNESDAY = "2024-06-04T15:00", "2024-06-05T15:00"


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "store")


def fetched(
    storage: ParquetStorage,
    now: str,
    *stamps: str,
    price: float = 1.0,
    span: TimeRange = WEEK,
    dataset: Dataset = MINUTES,
    symbol: str = "A",
    refetch: bool = False,
) -> None:
    writer = PageWriter(storage.bars, task(symbol, span=span, dataset=dataset), now=at(now), refetch=refetch)
    writer.take(page((symbol, bars(*stamps, price=price))) if stamps else page())
    writer.complete()


def rechecked(storage: ParquetStorage, now: str, *stamps: str, price: float = 1.0) -> None:
    writer = RecheckWriter(storage.bars, task("A", span=WEEK), now=at(now))
    writer.take(page(("A", bars(*stamps, price=price))))
    writer.complete()
    assert known(storage, "A").conflicting == 1


def renamed(storage: ParquetStorage) -> None:
    """Let FB have become META in 2022: who asks for FB of 2024 means the next owner of the ticker."""
    change = decode("name_change", {"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"})
    days = new_york_days(date(2022, 1, 1), date(2024, 6, 28))
    now = at("2024-07-01T16:00")
    ActionStore(storage.files).update("FB", lambda known: known.answered(days, known.to_fetch(days), [change], now=now)[0])


def old_file(storage: ParquetStorage, *stamps: str) -> None:
    """Put a file of the legacy pipeline into the store."""
    times = pd.DatetimeIndex([pd.Timestamp(stamp, tz="UTC") for stamp in stamps])
    names = ("open", "high", "low", "close", "volume", "trade_count", "vwap")
    frame = pd.DataFrame(dict.fromkeys(names, 9.0), index=range(len(times)))
    frame["symbol"], frame["timestamp"], frame["year"], frame["month"] = "A", times, times.year, times.month
    write(frame, Path(storage.files.location) / "equities_1min")


# ------------------------------------------------------------------------------------------ conflicts that are answered again


def test_a_bar_that_alpaca_has_again_is_not_removed_when_conflicts_are_accepted(storage):
    fetched(storage, "2024-07-01T16:00", TUESDAY, WEDNESDAY)
    rechecked(storage, "2024-07-02T16:00", TUESDAY)  # Alpaca has dropped Wednesday's
    fetched(storage, "2024-07-03T16:00", TUESDAY, WEDNESDAY, refetch=True)
    assert refresh_conflicts(storage.bars, A) == 0
    assert len(storage.load("A", "2024-06-03", "2024-06-07", conflicting="vendor", incomplete="ignore")) == 2
    accept_conflicts(storage.bars, [known(storage, "A")], Accepted())
    assert len(held(storage, "A")) == 2


def test_a_value_that_was_revised_again_is_not_put_back_when_conflicts_are_accepted(storage):
    fetched(storage, "2024-07-01T16:00", WEDNESDAY, price=1.0)
    rechecked(storage, "2024-07-02T16:00", WEDNESDAY, price=2.0)
    fetched(storage, "2024-07-03T16:00", WEDNESDAY, price=3.0, refetch=True)
    assert refresh_conflicts(storage.bars, A) == 0
    accept_conflicts(storage.bars, [known(storage, "A")], Accepted())
    assert list(held(storage, "A").values()) == [3.0]


def test_a_bar_that_was_revised_and_is_dropped_now_is_a_dropped_one(storage):
    fetched(storage, "2024-07-01T16:00", TUESDAY, WEDNESDAY, price=1.0)
    rechecked(storage, "2024-07-02T16:00", WEDNESDAY, price=1.0)
    fetched(storage, "2024-07-03T16:00", WEDNESDAY, refetch=True)
    assert len(storage.load("A", "2024-06-03", "2024-06-07", conflicting="vendor", incomplete="ignore")) == 1
    assert refresh_conflicts(storage.bars, A) == 1


# ------------------------------------------------------------------------------------------------------------ reused tickers


def test_a_reused_ticker_of_which_nothing_is_stored_is_lacking(storage):
    fetched(storage, "2024-07-01T16:00", WEDNESDAY)
    renamed(storage)
    with pytest.raises(StoreError):
        storage.load("FB", "2024-06-03", "2024-06-07", incomplete="raise")
    storage.bars.coverage.requested.add({Series("FB", MINUTES): (WEEK,)})
    with pytest.raises(StoreError):
        storage.load("FB", "2024-06-03", "2024-06-07", incomplete="raise")
    fetched(storage, "2024-07-01T16:00", span=between("2024-06-05T04:00", "2024-06-06T04:00"), symbol="FB")
    with pytest.raises(StoreError):
        storage.load("FB", "2024-06-03", "2024-06-07", incomplete="raise")


def test_the_emptiness_of_a_reused_ticker_is_fetched_again(storage):
    fetched(storage, "2024-07-01T16:00", symbol="FB")
    renamed(storage)
    found = recheckable(storage.bars, DatasetFilter(), None, now=LONG_AFTER)
    assert ([one.covered for one in found.known], found.asof) == ([(WEEK,)], {})


def test_a_next_owners_series_that_was_requested_from_before_the_change_lacks_what_is_missing_after_it(storage):
    """FB is requested since January 2022 and was begun in 2024: its first bar, of June 2024, says that it is the next owner's."""
    fetched(storage, "2024-07-01T16:00", TUESDAY, WEDNESDAY, symbol="FB")
    renamed(storage)
    wanted = between("2022-01-03T05:00", "2024-06-08T04:00")
    lacking = between("2024-06-06T04:00", "2024-06-08T04:00")
    covered = (TimeRange(wanted.start, lacking.start),)
    storage.bars.coverage.update(Series("FB", MINUTES), lambda one: replace(one, wanted=(wanted,), covered=covered))

    for start in ("2022-01-03", "2024-06-03"):
        with pytest.raises(StoreError, match="FB"):
            storage.load("FB", start, "2024-06-07", incomplete="raise")
    (status,) = series_status(storage.bars, DatasetFilter(), ["FB"], now=LONG_AFTER)
    assert (status.ended, status.missing) == (None, (lacking,))
    found = recheckable(storage.bars, DatasetFilter(), None, now=LONG_AFTER)
    assert ([one.covered for one in found.known], found.asof) == ([covered], {})


# ---------------------------------------------------------------------------------------------- imports of other bars


@pytest.mark.parametrize("stamp", ["2024-06-04T15:30", "2024-06-06T15:30"], ids=["between-bars", "in-an-empty-session"])
def test_an_import_in_place_leaves_what_alpaca_has_answered(storage, stamp):
    fetched(storage, "2024-07-01T16:00", TUESDAY, WEDNESDAY)
    old_file(storage, stamp, WEDNESDAY)
    report = import_in_place(storage.bars, find_legacy(storage.bars), now=LONG_AFTER, claim=False, drop_originals=True)
    assert (report.added, report.covered, report.bars, report.failed) == (0, 1, 2, [])
    assert len(storage.load("A", "2024-06-03", "2024-06-07", source="vendor", incomplete="raise", final=True)) == 2
    assert any("metadata/legacy" in key for key in storage.files.list("metadata"))  # not dropped: the store does not have it


def test_an_evening_claims_no_day(storage):
    """A naive date is midnight UTC: 19:00 in New York on the day before."""
    evening = [at(f"2024-02-01T00:{minute:02d}") for minute in range(0, 59, 7)]
    times = np.array([to_micros(stamp) for stamp in (*evening, at("2024-02-01T15:00"), at("2024-02-02T15:00"))], np.int64)
    claims = sessions_of(A, times, LONG_AFTER)
    assert [one.start for one in claims] == [at("2024-02-01T00:00"), at("2024-02-01T05:00"), at("2024-02-02T05:00")]


# --------------------------------------------------------------------------------------------------------- sessions, and final


def test_a_session_of_bars_of_two_hours_begins_with_its_first_bar(storage):
    dataset = Dataset(Timeframe.parse("2Hour"))
    days, hours = range(8, 13), (8, 10, 12, 14, 16, 18, 20, 22)  # 8:00 UTC is 3:00 in New York, and its bar ends at 5:00
    stamps = [f"2024-01-{day:02d}T{hour:02d}:00" for day in days for hour in hours]
    fetched(storage, "2024-07-01T16:00", *stamps, span=between("2024-01-08T05:00", "2024-01-13T05:00"), dataset=dataset)
    assert storage.sessions("A", "2024-01-08", "2024-01-12", timeframe="2Hour")["bars"].tolist() == [8] * 5


def test_a_session_is_final_when_its_first_bar_of_two_hours_is_answered(tmp_path):
    storage = ParquetStorage(tmp_path / "store")
    dataset = Dataset(Timeframe.parse("2Hour"))
    fetched(
        storage, "2024-07-01T16:00", "2024-01-08T10:00", span=between("2024-01-08T09:00", "2024-01-09T05:00"), dataset=dataset
    )
    assert storage.sessions("A", "2024-01-08", "2024-01-08", timeframe="2Hour")["state"].tolist() == ["missing"]


def test_bars_that_nobody_claims_are_not_final_before_those_of_an_answer_are(storage):
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    old, new = now - timedelta(days=20), now - timedelta(minutes=30)
    storage.bars.add(A, bars(old, new))
    assert len(storage.load("A", now - timedelta(days=30), incomplete="ignore")) == 2
    final = storage.load("A", now - timedelta(days=30), final=True, incomplete="ignore")
    assert final.index.get_level_values("timestamp").tolist() == [pd.Timestamp(old)]


# ------------------------------------------------------------------------------------------ what a killed process leaves


def test_a_refetch_that_is_killed_before_it_writes_leaves_the_conflict(storage, monkeypatch):
    fetched(storage, "2024-07-01T16:00", WEDNESDAY, price=1.0)
    rechecked(storage, "2024-07-02T16:00", WEDNESDAY, price=2.0)
    monkeypatch.setattr(BarStore, "edit_many", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fetched(storage, "2024-07-03T16:00", WEDNESDAY, price=3.0, refetch=True)
    monkeypatch.undo()
    vendor = storage.load("A", "2024-06-03", "2024-06-07", conflicting="vendor", incomplete="ignore")
    assert (list(held(storage, "A").values()), vendor["close"].tolist()) == ([1.0], [3.0])


def test_a_repaired_coverage_knows_the_conflicting_bars(storage):
    fetched(storage, "2024-07-01T16:00", WEDNESDAY, price=1.0)
    rechecked(storage, "2024-07-02T16:00", WEDNESDAY, price=2.0)
    storage.files.path(coverage_key(A)).write_bytes(b"{")
    repair(storage.bars, verify(storage.bars, DatasetFilter(), None, now=LONG_AFTER).findings, now=LONG_AFTER)
    assert known(storage, "A").conflicting == 1


def test_conflicts_are_forgotten_with_the_series(storage):
    fetched(storage, "2024-07-01T16:00", WEDNESDAY, price=1.0)
    rechecked(storage, "2024-07-02T16:00", WEDNESDAY, price=2.0)
    storage.bars.coverage.update(A, lambda known: replace(known, conflicting=0))  # as an older version left it
    fetched(storage, "2024-07-03T16:00", WEDNESDAY, price=3.0, refetch=True)
    assert refresh_conflicts(storage.bars, A) == 0


def test_bars_of_a_killed_store_are_adjusted_by_what_came_after_them(storage):
    fetched(storage, "2024-07-01T16:00", TUESDAY, price=100.0)
    facts = {"id": "x", "symbol": "A", "new_rate": 10, "old_rate": 1, "process_date": "2024-03-15", "ex_date": "2024-03-15"}
    days, now = new_york_days(date(2023, 1, 1), date(2026, 11, 27)), at("2026-11-27T16:00")
    actions = [decode("forward_split", facts)]
    ActionStore(storage.files).update("A", lambda known: known.answered(days, known.to_fetch(days), actions, now=now)[0])
    storage.bars.coverage.begin_storing(A, [Period(2024, 1)])
    storage.bars.write(A, Period(2024, 1), bars("2024-01-10T15:00", price=1000.0))  # and is killed before it counts
    frame = storage.load("A", "2024-01-01", "2024-06-30", adjustment="split", prices="computed", incomplete="ignore")
    assert frame["close"].tolist() == [100.0, 100.0]


def test_status_misses_a_file_that_is_gone(storage):
    span = between("2024-05-01T04:00", "2024-08-01T04:00")
    fetched(storage, "2024-09-02T16:00", "2024-05-06T15:00", "2024-06-06T15:00", "2024-07-08T15:00", span=span)
    june = Period(2024, 6)
    storage.files.path(Partition(A, june).key).unlink()
    (found,) = series_status(storage.bars, DatasetFilter(), now=LONG_AFTER)
    assert (found.state, found.missing) == ("incomplete", (june.span,))


def test_a_bar_that_somebody_stores_does_not_hide_that_a_series_is_behind(storage):
    whole = between("2024-06-03T04:00", "2024-06-06T04:00")
    for symbol, end, stamps in (("A", "2024-06-04T04:00", ()), ("B", "2024-06-06T04:00", (WEDNESDAY,))):
        span = between("2024-06-03T04:00", end)
        fetched(storage, "2024-06-20T16:00", "2024-06-03T15:00", *stamps, span=span, symbol=symbol)
        storage.bars.coverage.requested.add({Series(symbol, MINUTES): (whole,)})
    storage.bars.add(A, bars(WEDNESDAY))
    (found,) = reach_of(storage.bars, DatasetFilter(), now=at("2024-06-20T16:00"))
    assert found.behind == ("A",)


def test_a_payout_is_not_measured_by_the_price_of_a_later_owner_of_the_ticker(storage):
    """META was FB when it paid; today FB is a fund, whose whole history is stored under FB."""
    week = ["2020-06-01", "2020-06-02", "2020-06-03", "2020-06-10", "2020-06-11"]
    for part, stamps in (("2020-06-01 2020-06-04", week[:3]), ("2020-06-10 2020-06-12", week[3:])):
        first, last = part.split()
        span = between(f"{first}T04:00", f"{last}T04:00")
        fetched(
            storage, "2024-07-01T16:00", *(f"{day}T04:00" for day in stamps), price=200.0, span=span, dataset=DAYS, symbol="META"
        )
    left = decode("name_change", {"id": "1", "old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"})
    taken = decode("name_change", {"id": "2", "old_symbol": "XYZ", "new_symbol": "FB", "process_date": "2024-03-01"})
    facts = {"id": "3", "symbol": "FB", "rate": 1.0, "special": False, "ex_date": "2020-06-10", "process_date": "2020-06-20"}
    days, now = new_york_days(date(2019, 1, 1), date(2026, 11, 27)), at("2026-11-27T16:00")
    for symbol, actions in {"META": [left], "FB": [left, taken, decode("cash_dividend", facts)], "XYZ": [taken]}.items():
        change = partial(_answered, days, actions, now)
        ActionStore(storage.files).update(symbol, change)
    fund = [f"2020-06-{day:02d}T04:00" for day in (1, 2, 3, 4, 5, 8, 9, 10, 11)]
    fetched(
        storage,
        "2024-07-01T16:00",
        *fund,
        price=5.0,
        span=between("2020-06-01T04:00", "2020-06-12T04:00"),
        dataset=DAYS,
        symbol="FB",
    )
    with pytest.raises(StoreError) as caught:
        storage.load("META", "2020-06-01", "2020-06-12", timeframe="1Day", adjustment="all", incomplete="ignore")
    assert "ingest META" in str(caught.value)


def _answered(days: TimeRange, actions: list[Action], now: datetime, known: SymbolActions) -> SymbolActions:
    return known.answered(days, known.to_fetch(days), actions, now=now)[0]


def test_sessions_of_a_file_that_is_gone_are_missing(storage):
    span = between("2024-05-01T04:00", "2024-08-01T04:00")
    fetched(storage, "2024-09-02T16:00", "2024-05-06T15:00", "2024-06-06T15:00", "2024-07-08T15:00", span=span)
    storage.files.path(Partition(A, Period(2024, 6)).key).unlink()
    states = storage.sessions("A", "2024-06-03", "2024-07-05").set_index("session")["state"]
    assert set(states[:"2024-06-28"]) == {"missing"}
    assert set(states["2024-07-01":]) == {"final"}
    frame = storage.load("A", "2024-06-03", "2024-07-05", incomplete="ignore")
    assert frame.attrs["data_engine"]["sessions"] == {"final": 4, "provisional": 0, "missing": 19, "suspect": 0, "unverified": 0}


def _without_june(storage: ParquetStorage) -> None:
    span = between("2024-05-01T04:00", "2024-08-01T04:00")
    fetched(storage, "2024-09-02T16:00", "2024-05-06T15:00", *TEN, "2024-07-08T15:00", span=span)
    storage.bars.coverage.requested.add({A: (span,)})
    storage.files.path(Partition(A, Period(2024, 6)).key).unlink()


TEN = tuple(f"2024-06-{day:02d}T15:00" for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 14))


@pytest.mark.parametrize(
    ("options", "code"), [((), 1), (("--start", "2024-06-03", "--end", "2024-06-05"), 1), (("--start", "2024-07-01"), 0)]
)
def test_a_strict_query_over_a_file_that_is_gone_fails(storage, capsys, options, code):
    _without_june(storage)
    words = ["query", "SELECT count(*) FROM bars_1min", "--strict", "--base-path", str(storage.files.folder), *options]
    assert main(words) == code
    told = "bars_1min misses requested ranges or counted files of 1 symbol (A); run `data-engine verify --repair`"
    assert (told in capsys.readouterr().err) == bool(code)


def test_a_session_in_a_file_that_is_gone_is_not_held(storage):
    _without_june(storage)
    gate = session_gate(storage.bars, DatasetFilter(), date(2024, 6, 17), now=at("2024-09-02T16:00"))
    assert [(one.series, one.reason) for one in gate.lacking] == [(A, "damaged")]


def test_an_export_from_the_first_bar_on_names_what_the_raw_series_lacks(storage, tmp_path, capsys):
    span = between("2024-06-03T04:00", "2024-06-08T04:00")
    fetched(storage, "2024-09-02T16:00", "2024-06-03T04:00", span=span, dataset=DAYS)
    storage.bars.coverage.requested.add({Series("A", DAYS): (between("2024-06-03T04:00", "2024-07-01T04:00"),)})
    now = datetime.now(UTC)
    days = new_york_days(date(2024, 1, 1), now.date())
    ActionStore(storage.files).update("A", partial(_answered, days, [], now))
    words = ["export", "--to", "qlib", "--timeframe", "1Day", "--adjustment", "split", "--strict", "--lossy"]
    assert main([*words, "--base-path", str(storage.files.folder), str(tmp_path / "out")]) == 1
    assert "equities_1day misses requested ranges of 1 symbol (A)" in capsys.readouterr().err


def test_an_export_names_a_symbol_that_only_another_dataset_has(storage, tmp_path, capsys):
    fetched(storage, "2024-09-02T16:00", TUESDAY)
    fetched(storage, "2024-09-02T16:00", "2024-06-04T04:00", dataset=DAYS, symbol="B")
    words = ["export", "--to", "qlib", "--symbols", "A,B", "--strict", "--lossy", "--base-path", str(storage.files.folder)]
    assert main([*words, str(tmp_path / "out")]) == 1
    assert "equities_1min has no bars of B" in capsys.readouterr().err


@pytest.mark.parametrize(("length", "whole"), [("1Day", "2024-06-05T00:00-04:00"), ("15Min", "2024-06-05T10:00-04:00")])
def test_a_computed_bar_that_lacks_its_last_minutes_is_not_returned_as_whole(storage, length, whole):
    """The minutes end at 10:07; without an end, the call ends where they do, and its last bar does not."""
    stamps = [
        *pd.date_range("2024-06-04 13:30", "2024-06-04 19:59", freq="min"),
        *pd.date_range("2024-06-05 13:30", "2024-06-05 14:06", freq="min"),
    ]
    span = between("2024-06-04T04:00", "2024-06-05T14:07")
    fetched(storage, "2024-06-20T16:00", *(f"{stamp:%Y-%m-%dT%H:%M}" for stamp in stamps), span=span)

    with pytest.raises(StoreError, match=r"missing 2024-06-05T14:07:00Z .* lack minutes"):
        storage.load("A", "2024-06-04", resample=length, incomplete="raise")
    assert len(storage.load("A", "2024-06-04", incomplete="raise")) == len(stamps)
    frame = storage.load("A", "2024-06-04", whole, resample=length, incomplete="raise")
    assert frame["volume"].sum() == sum(stamp.tz_localize("UTC") < pd.Timestamp(whole) for stamp in stamps)
