"""What a call asks for and the store does not hold: named once, whether or not anybody had asked for it to be ingested."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pytest

from data_engine import IncompleteWarning, ParquetStorage
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import InputError, StoreError
from data_engine.market.corporate_action import decode
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days, union
from data_engine.read import open_query
from data_engine.store.coverage import Coverage
from data_engine.store.dated_ranges import Tentative
from data_engine.store.partitions import Partition, Period
from data_engine.universe.index_store import MetadataStore
from real_data import bars_of

NEW_YORK = ZoneInfo("America/New_York")
MINUTES, DAYS = (Dataset(Timeframe.parse(name)) for name in ("1Min", "1Day"))
NOW = datetime(2024, 6, 28, 20, tzinfo=UTC)
VALUES = ("open", "high", "low", "close", "volume", "trade_count", "vwap")


class Clock:
    """Stands for `datetime` in the one module that asks for the time."""

    now_ = NOW

    @classmethod
    def now(cls, zone: object) -> datetime:
        return cls.now_


@pytest.fixture(autouse=True)
def june(monkeypatch) -> None:
    """It is 16:00 in New York, on Friday 2024-06-28."""
    monkeypatch.setattr(open_query, "datetime", Clock)


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "store")


def span(first: str, last: str) -> TimeRange:
    return new_york_days(date.fromisoformat(first), date.fromisoformat(last))


def put(storage: ParquetStorage, symbol: str, first: str, last: str, timeframe: str = "1Min", **more: Any) -> None:
    """Store two bars of each session, at 09:30 and 12:00 (or the daily bar)."""
    clocks = ("09:30", "12:00") if timeframe == "1Min" else ("00:00",)
    days = sessions(date.fromisoformat(first), date.fromisoformat(last))
    stamps = pd.DatetimeIndex([pd.Timestamp(f"{day} {clock}", tz=NEW_YORK) for day in days for clock in clocks])
    index = pd.MultiIndex.from_arrays([[symbol] * len(stamps), stamps.tz_convert("UTC")], names=["symbol", "timestamp"])
    storage.store(pd.DataFrame(1.0, index=index, columns=list(VALUES)), timeframe=timeframe, **more)


def cover(storage: ParquetStorage, symbol: str, *covered: TimeRange, dataset: Dataset = MINUTES, **more: Any) -> None:
    """Claim ranges that were requested."""
    provisional = more.pop("provisional", ())

    def change(known: Coverage) -> Coverage:
        return replace(known, wanted=union((*covered, *provisional)), covered=covered, provisional=provisional, **more)

    storage.bars.coverage.update(Series(symbol, dataset), change)


def ingested(storage: ParquetStorage, symbol: str, first: str, last: str, timeframe: str = "1Min") -> None:
    put(storage, symbol, first, last, timeframe)
    cover(storage, symbol, span(first, last), dataset=Dataset(Timeframe.parse(timeframe)))


def said(storage: ParquetStorage, *arguments: Any, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        storage.load(*arguments, **options)
    assert {one.category for one in caught} <= {IncompleteWarning}
    return [str(one.message) for one in caught]


# ------------------------------------------------------------------------------------------------ what was never requested


@pytest.fixture
def quarter(storage) -> ParquetStorage:
    """AAPL and MSFT, minutes of April to June 2024, ingested until yesterday."""
    for symbol in ("AAPL", "MSFT"):
        ingested(storage, symbol, "2024-04-01", "2024-06-27")
    return storage


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        pytest.param(
            (["AAPL", "APPL"], "2024-04-01", "2024-06-27"),
            {},
            ["APPL", "never ingested", "`data-engine ingest APPL --start 2024-04-01 --end 2024-06-27`"],
            id="a-misspelt-symbol-beside-a-good-one",
        ),
        pytest.param(
            ("AAPL", "2019-06-28", "2024-06-27"),
            {},
            ["AAPL in equities_1min", "2019-06-28T04:00:00Z .. 2024-04-01T04:00:00Z", "--start 2019-06-28 --end 2024-03-31"],
            id="five-years-where-three-months-are-held",
        ),
        pytest.param(
            ("AAPL", "2024-06-03", "2024-06-07"),
            {"feed": "iex"},
            ["AAPL in equities_1min_iex", "2024-06-03T04:00:00Z .. 2024-06-08T04:00:00Z", "--feed iex"],
            id="a-feed-that-was-never-brought",
        ),
        pytest.param(
            (["AAPL", "MSFT"], "2024-06-03"),
            {"timeframe": "1Hour"},
            ["2 of 2 symbols in equities_1hour", "`data-engine ingest AAPL MSFT --start 2024-06-03 --timeframe 1Hour`"],
            id="a-timeframe-that-was-never-brought",
        ),
        pytest.param(
            ("AAPL", "2024-06-03", "2024-06-07"),
            {"timeframe": "1Day"},
            ["AAPL in equities_1day", "timeframe='1Min', resample='1Day'"],
            id="days-where-minutes-are-held",
        ),
        pytest.param(
            ("AAPL", "2024-06-03", "2024-06-28"),
            {},
            ["2024-06-28T04:00:00Z .. 2024-06-28T20:00:00Z"],
            id="today-if-it-is-asked-for",
        ),
        pytest.param(
            ("AAPL", "2024-03-28", "2024-04-02"),
            {"session": "regular"},
            ["2024-03-28T13:30:00Z .. 2024-03-28T20:00:00Z"],
            id="hours-of-a-session-alone",
        ),
    ],
)
def test_what_the_call_asks_for_and_the_store_lacks_is_named_once(quarter, arguments, options, named):
    (text,) = said(quarter, *arguments, **options)

    assert [word for word in named if word not in text] == []
    with pytest.raises(StoreError) as caught:
        quarter.load(*arguments, **options, incomplete="raise")
    assert str(caught.value) == text
    assert said(quarter, *arguments, **options, incomplete="ignore") == []


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param("2024-04-01", "2024-06-27", id="what-is-covered"),
        pytest.param("2024-03-30", "2024-04-01", id="a-weekend-before"),
        pytest.param("2024-03-29", "2024-04-01", id="good-friday-before"),
        pytest.param("2024-06-03", None, id="without-an-end-what-the-dataset-has"),
    ],
)
def test_what_lacks_nothing_raises_nothing(quarter, start, end):
    assert len(quarter.load(["AAPL", "MSFT"], start, end, incomplete="raise")) > 0


def test_many_symbols_are_counted_and_some_are_named(quarter):
    names = [f"X{number:02d}" for number in range(60)]
    (text,) = said(quarter, [*names, "AAPL"], "2024-06-03", "2024-06-07")

    assert text.startswith("60 of 61 symbols in equities_1min are missing bars: X00 ")
    assert "and 57 more" in text
    assert len(text) < 500


def test_what_was_requested_is_completed_by_update(storage):
    for symbol in ("A", "B", "C"):
        cover(storage, symbol, span("2024-06-03", "2024-06-04"))
        storage.bars.coverage.update(Series(symbol, MINUTES), lambda known: known.wanting(span("2024-06-03", "2024-06-07")))
    (text,) = said(storage, ["A", "B", "C"], "2024-06-03", "2024-06-07")

    assert "`data-engine update A B C`" in text


def test_a_symbol_that_stops_earlier_than_the_others_is_named_without_an_end(quarter):
    ingested(quarter, "GONE", "2024-04-01", "2024-05-31")
    (text,) = said(quarter, ["AAPL", "GONE"], "2024-05-01")

    assert "GONE in equities_1min is missing 2024-06-01T04:00:00Z .. 2024-06-28T04:00:00Z" in text
    assert said(quarter, ["AAPL"], "2024-05-01") == []


def test_after_its_security_has_left_the_ticker_a_symbol_lacks_nothing(quarter):
    ingested(quarter, "GONE", "2024-04-01", "2024-05-31")
    renamed = decode("name_change", {"old_symbol": "GONE", "new_symbol": "HERE", "process_date": "2024-06-03"})
    days = span("2024-01-01", "2024-06-28")
    ActionStore(quarter.files).update("GONE", lambda known: known.answered(days, known.to_fetch(days), [renamed], now=NOW)[0])

    assert said(quarter, ["AAPL", "GONE"], "2024-05-01") == []
    assert len(quarter.load("GONE", "2024-05-01", "2024-06-27", incomplete="raise")) == 2 * 22


def test_a_session_that_has_begun_is_not_missing_for_its_rest(storage):
    """Both were brought today, half an hour apart; neither is behind."""
    put(storage, "A", "2024-06-27", "2024-06-28")
    put(storage, "B", "2024-06-27", "2024-06-28")
    for symbol, hour in (("A", 17), ("B", 18)):
        part = TimeRange(datetime(2024, 6, 27, 4, tzinfo=UTC), datetime(2024, 6, 28, hour, tzinfo=UTC))
        cover(storage, symbol, provisional=(part,))

    assert len(storage.load(["A", "B"], "2024-06-27", incomplete="raise")) == 8


def test_members_are_named_by_the_days_of_their_membership(quarter, tmp_path):
    (tmp_path / "changes.csv").write_text("date,action,symbol\n2024-05-01,removed,GONE\n")
    (tmp_path / "first.csv").write_text("symbol\nAAPL\nGONE\n")
    MetadataStore(files=quarter.files).import_history(
        "two", str(tmp_path / "changes.csv"), members=str(tmp_path / "first.csv"), as_of="2024-04-01", force=True
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quarter.load(index="two", start="2024-04-15")
    (text,) = [str(one.message) for one in caught]

    assert text.startswith("1 of the 2 members of two ")
    assert "GONE@2024-04-30 2024-04-15T04:00:00Z .. 2024-05-01T04:00:00Z" in text


# ------------------------------------------------------------------------------------------------------------- unverified


def test_what_was_only_stored_is_no_warning_and_no_proof(storage):
    """A hole of weeks in a file that a user brought is no news; that it is whole is not known either."""
    put(storage, "A", "2024-04-01", "2024-04-12")
    put(storage, "A", "2024-06-03", "2024-06-07")

    assert said(storage, "A", "2024-04-01", "2024-06-07") == []
    with pytest.raises(StoreError, match=r"2024-04-01T04:00:00Z \.\. 2024-06-08T04:00:00Z .stored without coverage"):
        storage.load("A", "2024-04-01", "2024-06-07", incomplete="raise")
    (text,) = said(storage, "A", "2024-03-28", "2024-06-10")
    assert "2024-03-28T04:00:00Z .. 2024-04-01T04:00:00Z, 2024-06-08T04:00:00Z .. 2024-06-11T04:00:00Z" in text


def test_a_month_that_was_stored_beside_ingested_ones_is_unverified(storage):
    put(storage, "A", "2024-02-01", "2024-02-29")
    put(storage, "A", "2024-04-01", "2024-04-30")
    cover(storage, "A", span("2024-04-01", "2024-04-30"))

    assert said(storage, "A", "2024-02-01", "2024-02-29") == []
    (text,) = said(storage, "A", "2024-02-01", "2024-04-30")
    assert "2024-03-01T05:00:00Z .. 2024-04-01T04:00:00Z" in text
    with pytest.raises(StoreError, match="stored without coverage"):
        storage.load("A", "2024-02-01", "2024-02-29", incomplete="raise")


# ------------------------------------------------------------------------------------------------------------------ final


@pytest.fixture
def with_a_tail(storage) -> ParquetStorage:
    put(storage, "A", "2024-06-24", "2024-06-28")
    cover(storage, "A", span("2024-06-24", "2024-06-26"), provisional=(TimeRange(span("2024-06-27", "2024-06-27").start, NOW),))
    return storage


def test_final_leaves_provisional_bars_out(with_a_tail):
    every, final = (with_a_tail.load("A", "2024-06-24", final=choice, incomplete="raise") for choice in (False, True))
    first = pd.Timestamp("2024-06-27", tz=NEW_YORK)

    assert len(every) == 10
    pd.testing.assert_frame_equal(final, every[every.index.get_level_values("timestamp") < first])
    for form in ("load_arrow", "load_polars"):
        assert len(getattr(with_a_tail, form)("A", "2024-06-24", final=True)) == 6
    assert sum(piece.num_rows for _, piece in with_a_tail.batches("A", "2024-06-24", final=True)) == 6
    with duckdb.connect() as connection:
        relation = with_a_tail.relation("A", "2024-06-24", final=True, connection=connection)
        assert relation.count("*").fetchall() == [(6,)]
    with pytest.raises(InputError, match="final='yes'"):
        with_a_tail.load("A", "2024-06-24", final="yes")


@pytest.mark.parametrize(("resample", "bars"), [("1Day", 3), ("15Min", 6)])
def test_no_computed_bar_is_made_of_provisional_minutes(with_a_tail, resample, bars):
    def change(known: Coverage) -> Coverage:
        """The tail begins within the last quarter of the morning of the 27th."""
        return replace(
            known,
            covered=(TimeRange(span("2024-06-24", "2024-06-24").start, datetime(2024, 6, 27, 13, 29, tzinfo=UTC)),),
            provisional=(TimeRange(datetime(2024, 6, 27, 13, 29, tzinfo=UTC), NOW),),
        )

    with_a_tail.bars.coverage.update(Series("A", MINUTES), change)
    assert len(with_a_tail.load("A", "2024-06-24", resample=resample, final=True)) == bars


# --------------------------------------------------------------------------------------------------------------- sessions


def test_sessions_say_the_state_of_each_day(storage):
    put(storage, "A", "2024-06-03", "2024-06-07")
    put(storage, "A", "2024-06-17", "2024-06-28")
    cover(
        storage, "A", span("2024-06-03", "2024-06-05"), span("2024-06-17", "2024-06-26"),
        provisional=(TimeRange(span("2024-06-27", "2024-06-27").start, NOW),),
    )  # fmt: skip
    put(storage, "B", "2024-06-04", "2024-06-06")
    storage.bars.coverage.update(Series("A", MINUTES), lambda known: known)
    found = storage.sessions(["B", "A"], "2024-06-01", "2024-06-28").set_index(["symbol", "session"])

    a = dict(found.loc["A", "state"].items())
    days = list(sessions(date(2024, 6, 3), date(2024, 6, 28)))
    expected = {
        pd.Timestamp(day): "final" if day.day <= 5 or 17 <= day.day <= 26 else "provisional" if day.day >= 27 else "missing"
        for day in days
    }
    assert a == expected
    assert found.loc["A", "bars"].tolist() == [2 if day.day <= 7 or day.day >= 17 else 0 for day in days]
    assert found.loc["A", "answered"].notna().tolist() == [state != "missing" for state in expected.values()]
    b = found.loc["B", "state"].tolist()
    assert b == ["unverified" if 4 <= day.day <= 6 else "missing" for day in days]
    assert found["state"].value_counts().to_dict() == {"missing": 7 + 16, "final": 10, "unverified": 3, "provisional": 2}


def test_of_days_and_weeks_each_session_has_a_row(storage):
    ingested(storage, "A", "2024-06-03", "2024-06-07", "1Day")
    found = storage.sessions("A", "2024-06-03", "2024-06-10", timeframe="1Day")

    assert found["state"].tolist() == ["final"] * 5 + ["missing"]
    assert found["bars"].tolist() == [1] * 5 + [0]
    assert storage.sessions("A", "2024-06-08", "2024-06-09", timeframe="1Day").empty
    assert list(storage.sessions("A", "2024-06-03", timeframe="1Week")["state"].unique()) == ["missing"]


def test_a_session_before_tentative_emptiness_says_when_it_was_answered(storage):
    answered = datetime(2024, 6, 6, 12, tzinfo=UTC)
    put(storage, "A", "2024-06-05", "2024-06-05")
    cover(storage, "A", span("2024-06-03", "2024-06-05"), tentative=(Tentative(span("2024-06-03", "2024-06-04"), answered),))
    found = storage.sessions("A", "2024-06-03", "2024-06-05")

    assert found["answered"].tolist()[:2] == [pd.Timestamp(answered)] * 2


EIGHT = "minute/polygon_sip_ext_8sym_20240603_20240816.parquet"


@pytest.fixture(scope="module")
def eight(tmp_path_factory) -> ParquetStorage:
    """Real minutes of eight symbols in eleven weeks, of which AAPL's 2024-07-10 has lost all but 30 of its bars."""
    storage = ParquetStorage(tmp_path_factory.mktemp("eight") / "store")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        bars = connection.sql(bars_of(EIGHT)).to_arrow_table().to_pandas()
    gutted = (bars["symbol"] == "AAPL") & (bars["timestamp"].dt.strftime("%Y-%m-%d") == "2024-07-10")
    bars = bars[~gutted | (gutted.cumsum() <= 30)]
    storage.store(bars.set_index(["symbol", "timestamp"]))
    for symbol in bars["symbol"].unique():
        cover(storage, symbol, span("2024-06-03", "2024-08-16"))
    return storage


def test_of_real_sessions_only_the_gutted_one_is_suspect(eight, monkeypatch):
    monkeypatch.setattr(Clock, "now_", datetime(2024, 9, 3, tzinfo=UTC))
    symbols = eight.bars.symbols(MINUTES)
    found = eight.sessions(symbols, "2024-06-03", "2024-08-16")

    suspect = found[found["state"] == "suspect"]
    assert suspect[["symbol", "bars"]].values.tolist() == [["AAPL", 30]]
    assert suspect["session"].dt.strftime("%Y-%m-%d").tolist() == ["2024-07-10"]
    assert len(found) == 8 * len(list(sessions(date(2024, 6, 3), date(2024, 8, 16))))
    with duckdb.connect() as connection:
        files = f"{eight.files.location}/equities_1min/**/*.parquet"
        ((counted,),) = connection.execute(f"SELECT count(*) FROM read_parquet('{files}')").fetchall()
    assert found["bars"].sum() <= counted < found["bars"].sum() + 60  # a few bars start at the very close
    attrs = eight.load(symbols, "2024-06-03", "2024-08-16").attrs["data_engine"]
    assert attrs["sessions"] == {"final": len(found) - 1, "provisional": 0, "missing": 0, "suspect": 1, "unverified": 0}


# -------------------------------------------------------------------------------------------------------------- the frame


def test_the_metadata_of_a_frame_are_small_and_tell_what_it_is(quarter):
    names = [f"X{number:03d}" for number in range(500)]
    attrs = quarter.load(["AAPL", *names], "2024-06-24", "2024-06-28", incomplete="ignore").attrs["data_engine"]

    assert len(json.dumps(attrs)) < 1000
    assert attrs["sessions"] == {"final": 4, "provisional": 0, "missing": 2501, "suspect": 0, "unverified": 0}
    assert (attrs["timeframe"], attrs["loaded"]) == ("1Min", "2024-06-28T20:00:00Z")


def test_the_digest_of_the_files_changes_with_one_of_them(quarter):
    def files() -> str:
        return str(quarter.load("AAPL", "2024-05-01", "2024-06-27").attrs["data_engine"]["files"])

    before = files()
    assert before.startswith("2 ")
    assert files() == before
    put(quarter, "AAPL", "2024-04-01", "2024-04-01", feed=None)
    assert files() == before  # April is not read
    bars = quarter.load("AAPL", "2024-06-03", "2024-06-03") * 2
    quarter.store(bars, timeframe="1Min")
    assert files() != before


def test_a_coverage_that_cannot_be_read_is_an_error_unless_it_is_to_be_ignored(quarter):
    key = "metadata/coverage/equities_1min/symbol=AAPL.json"
    Path(quarter.files.location, key).write_bytes(b"{")

    with pytest.raises(StoreError, match=re.escape(key)):
        quarter.load("AAPL", "2024-06-03", "2024-06-07")
    assert len(quarter.load("AAPL", "2024-06-03", "2024-06-07", incomplete="ignore")) == 10


def test_a_lost_file_and_a_missing_range_are_one_warning(quarter):
    quarter.files.delete(Partition(Series("AAPL", MINUTES), Period(2024, 5)).key)
    (text,) = said(quarter, ["AAPL", "NONE"], "2024-05-01", "2024-06-07")

    assert "`data-engine ingest NONE" in text
    assert "44 stored bars" in text
    assert "`data-engine verify AAPL --repair`" in text


def test_states_are_those_of_brute_force():
    """Random coverage, session by session, instant by instant of every quarter of an hour."""
    from data_engine.market.session_states import STATES, sessions_of, states

    rng = np.random.default_rng(7)
    first, last = date(2024, 6, 3), date(2024, 6, 28)
    begin = span("2024-06-03", "2024-06-03").start
    found = sessions_of(MINUTES, first, last, NOW + timedelta(days=9))

    def some() -> tuple[TimeRange, ...]:
        edges = sorted(begin + timedelta(minutes=15 * int(at)) for at in rng.choice(26 * 96, 8, replace=False))
        return union(TimeRange(*pair) for pair in zip(edges[::2], edges[1::2], strict=True))

    for _ in range(50):
        covered, provisional, unverified = some(), some(), some()
        made = states(found, covered, provisional, unverified)
        for day, state in zip(found.days, made.tolist(), strict=True):
            opens = datetime(day.year, day.month, day.day, 4, tzinfo=NEW_YORK)
            quarters = [opens + timedelta(minutes=15 * number) for number in range(65)]  # the minute at 20:00, too

            def all_in(*kinds: tuple[TimeRange, ...], quarters: list[datetime] = quarters) -> bool:
                return all(any(one.start <= at < one.end for kind in kinds for one in kind) for at in quarters)

            expected = (
                "final" if all_in(covered)
                else "provisional" if all_in(covered, provisional)
                else "unverified" if all_in(covered, provisional, unverified)
                else "missing"
            )  # fmt: skip
            assert STATES[state] == expected
