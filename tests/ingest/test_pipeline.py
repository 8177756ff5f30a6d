"""The main job through the library: what is asked, what is kept, what is final when, and what a failure means."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine import AlpacaClient, IngestionPipeline, IngestionReport, ParquetStorage
from data_engine.alpaca.retry import RetryPolicy
from data_engine.errors import ConfigError, CredentialsRefused, DataEngineError, Failure, Interrupted, ServiceDown
from data_engine.ingest.outcome import Outcome
from data_engine.ingest.progress import LogProgress, ProgressState, lines
from data_engine.market.series import Adjustment, Dataset, Series, Timeframe
from data_engine.sandbox import Faults, Replay, Sandbox, SimulatedMarket
from data_engine.sandbox.server import Record
from data_engine.store.bar_store import BarStore
from data_engine.store.local_files import LocalFiles
from hostile import Hostile, bar, http
from running import (
    COLUMNS,
    HASTY,
    KEY,
    SECRET,
    Clock,
    asked,
    client_of,
    content,
    count,
    coverage,
    here,
    names_of,
    pipeline_of,
    rows,
    write_minutes,
)

# A Wednesday in New York: 11:00:30 in the morning.
WEDNESDAY = datetime(2024, 6, 5, 15, 0, 30, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock(WEDNESDAY)


@pytest.fixture
def server(clock: Clock) -> Iterator[Sandbox]:
    """The simulated market; what time it is there, *clock* says."""
    with Sandbox(SimulatedMarket(), clock=clock) as sandbox:
        yield sandbox


def stamps(base: Path, dataset: str = "equities_1min") -> list[datetime]:
    return [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row[1]) for row in rows(base, dataset)]


# ------------------------------------------------------------------------------------------------------------ what is final


def test_a_bar_whose_minute_has_not_ended_is_not_stored(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-06-05")

    assert max(stamps(tmp_path)) == datetime(2024, 6, 5, 14, 59, tzinfo=UTC)


@pytest.mark.parametrize(("timeframe", "last"), [("5Min", (14, 55)), ("1Hour", (14, 0))])
def test_a_forming_bar_of_any_length_is_not_stored(
    server: Sandbox, clock: Clock, tmp_path: Path, timeframe: str, last: tuple[int, int]
) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-06-05", None, timeframe)

    assert max(stamps(tmp_path, f"equities_{timeframe.lower()}")) == datetime(2024, 6, 5, *last, tzinfo=UTC)


def test_the_day_that_still_trades_has_no_daily_bar_yet(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-05", "1Day")

    assert stamps(tmp_path, "equities_1day") == [datetime(2024, 6, day, 4, tzinfo=UTC) for day in (3, 4)]


def test_the_tail_is_stored_marked_provisional_and_asked_again(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    for _ in range(2):
        server.forget()
        pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-05")

    known = coverage(tmp_path, "AAPL")
    # Tuesday is final: it is 11:00 on Wednesday.
    assert known["covered"] == [["2024-06-03T04:00:00Z", "2024-06-05T04:00:00Z"]]
    # Nothing is claimed for the minute that is forming.
    assert known["provisional"] == [["2024-06-05T04:00:00Z", "2024-06-05T15:00:00Z"]]
    assert [start for _, start, _ in asked(server)] == ["2024-06-05T04:00:00Z"]


# The first bars are weeks old, so that only the tail is in question.
# New York is four hours behind UTC in June, five in November; 2024-07-03 and 2024-11-29 are half days.
FINALITY = {
    "minutes-in-the-evening": ("1Min", "2024-06-05", datetime(2024, 6, 6, 0, 45, tzinfo=UTC), False),
    "minutes-at-09:59-of-the-next": ("1Min", "2024-06-05", datetime(2024, 6, 6, 13, 59, 59, tzinfo=UTC), False),
    "minutes-at-10:00-of-the-next": ("1Min", "2024-06-05", datetime(2024, 6, 6, 14, tzinfo=UTC), True),
    "minutes-of-a-half-day": ("1Min", "2024-07-03", datetime(2024, 7, 5, 13, 59, 59, tzinfo=UTC), False),
    "minutes-of-a-half-day-on-friday": ("1Min", "2024-07-03", datetime(2024, 7, 5, 14, tzinfo=UTC), True),
    "minutes-in-winter": ("1Min", "2024-11-29", datetime(2024, 12, 2, 14, 59, 59, tzinfo=UTC), False),
    "minutes-in-winter-at-10:00": ("1Min", "2024-11-29", datetime(2024, 12, 2, 15, tzinfo=UTC), True),
    "hours-at-10:00-of-the-next": ("1Hour", "2024-06-05", datetime(2024, 6, 6, 14, tzinfo=UTC), True),
    "days-at-20:30": ("1Day", "2024-06-05", datetime(2024, 6, 6, 0, 30, tzinfo=UTC), False),
    "days-at-09:59-of-the-next": ("1Day", "2024-06-05", datetime(2024, 6, 6, 13, 59, 59, tzinfo=UTC), False),
    "days-at-10:00-of-the-next": ("1Day", "2024-06-05", datetime(2024, 6, 6, 14, tzinfo=UTC), True),
    "friday-on-sunday": ("1Day", "2024-06-07", datetime(2024, 6, 9, 18, tzinfo=UTC), False),
    "friday-on-monday-at-10:00": ("1Day", "2024-06-07", datetime(2024, 6, 10, 14, tzinfo=UTC), True),
    "the-day-before-a-holiday": ("1Day", "2024-07-03", datetime(2024, 7, 4, 18, tzinfo=UTC), False),
    "the-session-after-a-holiday": ("1Day", "2024-07-03", datetime(2024, 7, 5, 14, tzinfo=UTC), True),
}


@pytest.mark.parametrize(("timeframe", "day", "now", "final"), FINALITY.values(), ids=FINALITY)
def test_bars_are_asked_again_until_they_are_final(
    server: Sandbox, clock: Clock, tmp_path: Path, timeframe: str, day: str, now: datetime, final: bool
) -> None:
    clock.now = now
    begin = (date.fromisoformat(day) - timedelta(days=20)).isoformat()
    first = pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], begin, day, timeframe)
    held = count(tmp_path, f"equities_{timeframe.lower()}")
    server.forget()

    second = pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], begin, day, timeframe)

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert held > 0
    assert (len(server.requests) == 0) == final
    assert second["bars_written"] == 0


def test_a_provisional_bar_that_was_revised_is_replaced(clock: Clock, tmp_path: Path) -> None:
    before = Replay(write_minutes(tmp_path / "a.parquet", ["AAPL"], [WEDNESDAY.date()], per_day=30))
    after = Replay(write_minutes(tmp_path / "b.parquet", ["AAPL"], [WEDNESDAY.date()], per_day=60, shift=0.01))
    with Sandbox(before, clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAPL"], "2024-06-05")
    clock.now += timedelta(days=1)
    with Sandbox(after, clock=clock) as server:
        report = pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAPL"], "2024-06-05", "2024-06-05")

    assert (report.changes.added, report.changes.revised) == (30, 30)
    assert [row[2] for row in rows(tmp_path / "store")] == pytest.approx([100.01 + minute / 100 for minute in range(60)])


# ----------------------------------------------------------------------------------------------------------------- emptiness


def test_an_unknown_symbol_fails_and_is_asked_again_for_a_week_then_no_more(
    server: Sandbox, clock: Clock, tmp_path: Path
) -> None:
    sent = []
    for days in (0, 1, 6, 7, 8, 30):
        server.forget()
        clock.now = WEDNESDAY + timedelta(days=days, seconds=days > 7)
        report = pipeline_of(server, tmp_path, clock).ingest_symbols(["ZZZQ"], "2024-05-01", "2024-05-30")
        assert report["failed"] == [("ZZZQ", "No data available")]
        assert report["codes"] == {"ZZZQ": "no_data"}
        assert report.exit_code == 1
        sent.append(len(server.requests))

    assert sent == [1, 1, 1, 1, 1, 0], "final is what was answered more than a week after the first time"


def test_the_night_after_the_last_day_of_a_month_is_not_asked_alone(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["ZZZQ"], "2024-05-01", "2024-05-31")

    assert len(server.requests) == 1


def test_a_series_with_bars_that_got_none_new_succeeds(tmp_path: Path) -> None:
    source = Replay(write_minutes(tmp_path / "bars.parquet", ["AAPL"], [date(2024, 6, 3)]))
    with Sandbox(source) as server:
        pipeline_of(server, tmp_path / "store").ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")
        report = pipeline_of(server, tmp_path / "store").ingest_symbols(["AAPL"], "2024-06-04", "2024-06-07")

    assert report["successful"] == ["AAPL"]
    assert report["bars_written"] == 0
    assert coverage(tmp_path / "store", "AAPL")["covered"] == [["2024-06-03T04:00:00Z", "2024-06-08T04:00:00Z"]]


def test_emptiness_before_the_first_bar_is_relied_on_once_answered_a_week_after_that_bar(clock: Clock, tmp_path: Path) -> None:
    source = Replay(write_minutes(tmp_path / "bars.parquet", ["NEW"], [date(2024, 6, 3)]))
    earliest = []
    with Sandbox(source, clock=clock) as server:
        for days in (0, 1, 8, 9):
            server.forget()
            clock.now = WEDNESDAY + timedelta(days=days)
            pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["NEW"], "2024-05-01", "2024-06-03")
            earliest.append(min((start for _, start, _ in asked(server)), default=None))

    assert earliest == ["2024-05-01T04:00:00Z"] * 3 + [None]


@pytest.mark.parametrize(
    ("first", "last"), [("2024-06-08", "2024-06-09"), ("2024-07-04", "2024-07-04")], ids=["weekend", "holiday"]
)
def test_a_range_without_a_session_needs_no_request_and_is_no_failure(
    server: Sandbox, tmp_path: Path, first: str, last: str
) -> None:
    report = pipeline_of(server, tmp_path).ingest_symbols(["AAPL"], first, last)

    assert report.exit_code == 0
    assert server.requests == []


# --------------------------------------------------------------------------------------------------------- clocks that differ


def test_a_clock_that_is_ahead_leaves_no_request_in_an_adjusted_series_that_is_fetched_again(
    server: Sandbox, clock: Clock, tmp_path: Path
) -> None:
    """Before its first request such a series claims nothing any more, and its coverage has taken over what is requested."""
    pipeline_of(server, tmp_path, clock, adjustment="all").ingest_symbols(["AAPL"], "2024-05-01", "2024-05-31", "1Day")
    series = Series("AAPL", Dataset(Timeframe(1, "Day"), adjustment=Adjustment.parse("all")))
    before = BarStore(LocalFiles(tmp_path)).coverage.read(series).wanted
    late = pipeline_of(server, tmp_path, Clock(clock.now + timedelta(days=20)), adjustment="all")
    with pytest.raises(ConfigError, match="this machine's clock is ahead of Alpaca's"):
        late.ingest_symbols(["AAPL"], "2024-05-01", None, "1Day", refetch=True)

    left = BarStore(LocalFiles(tmp_path)).coverage
    left.requested.refresh()
    assert left.read(series).wanted == before


@pytest.mark.parametrize("ahead", [timedelta(minutes=3), timedelta(days=20)], ids=["three-minutes", "twenty-days"])
def test_a_clock_that_is_ahead_ends_the_run_before_anything_is_kept(
    server: Sandbox, clock: Clock, tmp_path: Path, ahead: timedelta
) -> None:
    """What has not happened yet would count as answered, empty and final."""
    with pytest.raises(ConfigError, match="this machine's clock is ahead of Alpaca's"):
        pipeline_of(server, tmp_path, Clock(clock.now + ahead)).ingest_symbols(["AAPL"], "2024-06-05")

    assert content(tmp_path) == {}
    assert not list(tmp_path.glob("metadata/coverage/**/*.json"))  # not even the wish, which reached into the future


@pytest.mark.parametrize(
    "apart", [timedelta(minutes=1), -timedelta(minutes=1), -timedelta(days=1)], ids=["fast", "slow", "behind"]
)
def test_a_clock_that_is_behind_or_nearly_right_is_no_reason_to_stop(
    server: Sandbox, clock: Clock, tmp_path: Path, apart: timedelta
) -> None:
    report = pipeline_of(server, tmp_path, Clock(clock.now + apart)).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    assert report["successful"] == ["AAPL"]


# ------------------------------------------------------------------------------------------------------ feeds and adjustments

DATASETS: dict[str, tuple[dict[str, Any], str, dict[str, str | None]]] = {
    "nothing-said": ({}, "equities_1min", {"feed": "sip", "adjustment": "raw"}),
    "sip": ({"feed": "sip"}, "equities_1min", {"feed": "sip"}),
    "delayed-sip-is-sip": ({"feed": "delayed_sip"}, "equities_1min", {"feed": "sip"}),
    "iex": ({"feed": "iex"}, "equities_1min_iex", {"feed": "iex"}),
    "the-accounts-own": ({"feed": "account"}, "equities_1min_account", {"feed": None}),
    "splits": ({"adjustment": "split"}, "equities_1min_split", {"adjustment": "split"}),
    "dividends": ({"adjustment": "dividend"}, "equities_1min_dividend", {"adjustment": "dividend"}),
    "two-events": ({"adjustment": "dividend,split"}, "equities_1min_split_dividend", {"adjustment": "split,dividend"}),
    "all-of-iex": ({"adjustment": "all", "feed": "iex"}, "equities_1min_all_iex", {"adjustment": "all", "feed": "iex"}),
}


@pytest.mark.parametrize(("options", "dataset", "sent"), DATASETS.values(), ids=DATASETS)
def test_feeds_and_adjustments_have_datasets_of_their_own(
    tmp_path: Path, options: dict[str, Any], dataset: str, sent: dict[str, str | None]
) -> None:
    source = Replay(write_minutes(tmp_path / "bars.parquet", ["AAPL"], [date(2024, 6, 3)]))
    with Sandbox(source) as server:
        report = pipeline_of(server, tmp_path / "store", **options).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")
        queries = [record.query for record in server.requests]

    assert report.exit_code == 0
    assert [path.name for path in (tmp_path / "store").glob("equities_*")] == [dataset]
    assert [{name: query.get(name) for name in sent} for query in queries] == [sent]
    assert count(tmp_path / "store", dataset) == 20


@pytest.mark.parametrize("feed", ["otc", "boats"])
def test_a_feed_without_bars_is_no_data(server: Sandbox, clock: Clock, tmp_path: Path, feed: str) -> None:
    report = pipeline_of(server, tmp_path, clock, feed=feed).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    assert report["codes"] == {"AAPL": "no_data"}
    assert coverage(tmp_path, "AAPL", f"equities_1min_{feed}")["feed"] == feed


@pytest.mark.parametrize(
    ("timeframe", "dataset", "key"),
    [
        ("5Min", "equities_5min", "year=2024/month=05/data.parquet"),
        ("1Hour", "equities_1hour", "year=2024/month=05/data.parquet"),
        ("1Day", "equities_1day", "year=2024/data.parquet"),
        ("1Week", "equities_1week", "year=2024/data.parquet"),
        ("1Month", "equities_1month", "year=2024/data.parquet"),
    ],
)
def test_timeframes_have_datasets_of_their_own(
    server: Sandbox, clock: Clock, tmp_path: Path, timeframe: str, dataset: str, key: str
) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-31", timeframe)

    assert list(content(tmp_path)) == [f"{dataset}/symbol=AAPL/{key}"]


def test_delayed_sip_ends_sixteen_minutes_ago_and_says_so(clock: Clock, tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket(), clock=clock, plan="free") as server:
        report = pipeline_of(server, tmp_path, clock, feed="delayed_sip").ingest_symbols(["AAPL"], "2024-06-05")

        assert {record.status for record in server.requests} == {200}
    assert report.exit_code == 0
    assert max(stamps(tmp_path)) < WEDNESDAY - timedelta(minutes=16)
    assert any("16 minutes ago" in note for note in report["notes"])


def test_the_free_plans_refusal_clamps_the_end_once_and_says_so(clock: Clock, tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket(), clock=clock, plan="free") as server:
        client = client_of(server, clock)
        names = names_of(5)
        first = pipeline_of(server, tmp_path, clock, workers=1, client=client).ingest_symbols(names, "2024-06-05")
        again = pipeline_of(server, tmp_path, clock, workers=1, client=client).ingest_symbols(names, "2024-06-05")

        assert server.counts[403] == 1
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert any("15 minutes" in note for note in first["notes"])
    assert max(stamps(tmp_path)) < WEDNESDAY - timedelta(minutes=15)


# -------------------------------------------------------------------------------------------------------- when things fail


def test_a_service_that_is_down_ends_the_run_with_six_and_every_symbol_named(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket(), faults=Faults(always=503)) as server:
        report = pipeline_of(server, tmp_path).ingest_symbols(["AAPL", "MSFT", "NVDA"], "2024-06-03", "2024-06-03")

        # Shared, then alone; each time as often as the policy says and no more.
        assert len(server.requests) <= HASTY.tries * 5
    assert report.exit_code == 6
    assert report["codes"] == dict.fromkeys(["AAPL", "MSFT", "NVDA"], "unavailable")
    assert count(tmp_path) == 0
    assert all("503" in message for _, message in report["failed"])


@pytest.mark.parametrize("fault", [500, "reset"], ids=str)
def test_a_service_that_stays_down_too_long_stops_the_whole_run(tmp_path: Path, fault: int | str) -> None:
    impatient = RetryPolicy(tries=1000, base=0.001, cap=0.005, give_up_after=0.05)
    with Sandbox(SimulatedMarket(), faults=Faults(always=fault)) as server:
        client = AlpacaClient(KEY, SECRET, base_url=server.url, policy=impatient)
        with pytest.raises(ServiceDown) as caught:
            IngestionPipeline(3, tmp_path, client=client).ingest_symbols(names_of(40), "2024-01-02", "2024-03-28")

    assert caught.value.exit_code == 6
    assert caught.value.report is not None
    assert caught.value.report["successful"] == []


def test_a_server_that_fails_for_one_symbol_fails_that_symbol_alone(tmp_path: Path) -> None:
    names = names_of(24)
    with Sandbox(SimulatedMarket(), faults=Faults(fail_symbols=[names[7]])) as server:
        report = pipeline_of(server, tmp_path / "one").ingest_symbols(names, "2024-06-03", "2024-06-03")
        server.faults = Faults()
        healthy = [name for name in names if name != names[7]]
        pipeline_of(server, tmp_path / "other").ingest_symbols(healthy, "2024-06-03", "2024-06-03")

    assert report.exit_code == 1
    assert report["successful"] == healthy
    assert report["codes"] == {names[7]: "unavailable"}
    assert content(tmp_path / "one") == content(tmp_path / "other")
    assert coverage(tmp_path / "one", names[7])["covered"] == []
    assert coverage(tmp_path / "one", names[7])["failure"]["code"] == "unavailable"


def test_a_bar_that_starts_where_none_can_fails_its_symbol_and_is_not_stored(tmp_path: Path) -> None:
    """It was stored, quarantined by `verify --repair`, and fetched again, for ever."""
    daily = write_days(tmp_path / "days.parquet", {"GOOD": 4, "LATE": 5, "MORE": 4})
    with Sandbox(Replay(daily, timeframe="1Day")) as server:
        report = pipeline_of(server, tmp_path / "store").ingest_symbols(
            ["GOOD", "LATE", "MORE"], "2024-06-03", "2024-06-07", "1Day"
        )
        again = pipeline_of(server, tmp_path / "store").update()

    assert (report.exit_code, report["successful"], report["codes"]) == (1, ["GOOD", "MORE"], {"LATE": "bad_answer"})
    assert "2024-06-03T05:00:00" in dict(report["failed"])["LATE"]
    assert again["codes"] == {"LATE": "bad_answer"}
    assert {row[0] for row in rows(tmp_path / "store", "equities_1day")} == {"GOOD", "MORE"}
    assert coverage(tmp_path / "store", "LATE", "equities_1day")["covered"] == []
    assert here("verify", "--base-path", tmp_path / "store").code == 0


def write_days(path: Path, hours: dict[str, int]) -> Path:
    """Write a file of five daily bars per symbol that start at an hour of UTC; four o'clock is midnight in New York."""
    stamps = [
        (name, datetime(2024, 6, day, hour, tzinfo=UTC), *[10.0] * 4, 1000.0)
        for name, hour in hours.items()
        for day in range(3, 8)
    ]
    names = ("symbol", "timestamp", "open", "high", "low", "close", "volume")
    kinds = (pa.string(), pa.timestamp("us", tz="UTC"), *[pa.float64()] * 5)
    columns = zip(*stamps, strict=True)
    pq.write_table(pa.table({n: pa.array(c, k) for n, c, k in zip(names, columns, kinds, strict=True)}), path)
    return path


@pytest.mark.parametrize("kind", ["500", "502", "reset", "cut_gzip", "short"])
def test_faults_now_and_then_change_nothing(tmp_path: Path, kind: str) -> None:
    names = names_of(6)
    with Sandbox(SimulatedMarket()) as server:
        pipeline_of(server, tmp_path / "calm").ingest_symbols(names, "2024-06-03", "2024-06-14")
        server.faults = Faults({kind: 0.25}, seed=2, retry_after=0)
        client = AlpacaClient(KEY, SECRET, base_url=server.url, policy=RetryPolicy(tries=12, base=0.001, cap=0.01))
        report = IngestionPipeline(3, tmp_path / "wild", client=client).ingest_symbols(names, "2024-06-03", "2024-06-14")

    assert report["successful"] == names
    assert content(tmp_path / "wild") == content(tmp_path / "calm")


def test_empty_pages_in_a_row_are_not_the_end_and_no_failure(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket(), faults=Faults({"empty": 1.0})) as server:

        def enough(record: Record) -> None:
            if record.number == 3:
                server.faults = Faults()

        server._on_request = enough
        report = pipeline_of(server, tmp_path).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    assert report["successful"] == ["AAPL"]
    assert [record.rows for record in server.requests][:3] == [0, 0, 0]
    assert len(server.requests) == 4


def test_refused_keys_are_an_exception_that_carries_the_report(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket(), keys={"other": "pair"}) as server, pytest.raises(CredentialsRefused) as caught:
        pipeline_of(server, tmp_path).ingest_symbols(["AAPL", "MSFT"], "2024-06-03", "2024-06-03")

    assert caught.value.exit_code == 3
    assert caught.value.report is not None
    assert caught.value.report["codes"] == dict.fromkeys(["AAPL", "MSFT"], "credentials_refused")


def test_keys_refused_in_the_middle_keep_what_had_come(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:

        def revoke(record: Record) -> None:
            if record.number == 3:
                server.faults = Faults(always=401)

        server._on_request = revoke
        with pytest.raises(CredentialsRefused):
            pipeline_of(server, tmp_path, workers=1).ingest_symbols(["AAPL"], "2024-01-02", "2024-06-28")
        held = count(tmp_path)
        server.faults, server._on_request = Faults(), None
        before = server.counts["rows"]
        report = pipeline_of(server, tmp_path, workers=1).ingest_symbols(["AAPL"], "2024-01-02", "2024-06-28")

    assert held == 30_000
    # What was stored is not asked for again.
    assert server.counts["rows"] - before == report["bars_written"] == count(tmp_path) - held


def test_a_stopped_run_keeps_what_arrived_and_the_next_goes_on(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        client = client_of(server)
        server._on_request = lambda record: client.stop() if record.number == 4 else None
        with pytest.raises(Interrupted) as caught:
            pipeline_of(server, tmp_path / "cut", workers=2, client=client).ingest_symbols(
                names_of(8), "2024-06-03", "2024-06-28"
            )
        server._on_request = None
        assert caught.value.exit_code == 130
        assert caught.value.report is not None
        assert caught.value.report["failed"]
        assert count(tmp_path / "cut") > 0

        pipeline_of(server, tmp_path / "cut").ingest_symbols(names_of(8), "2024-06-03", "2024-06-28")
        pipeline_of(server, tmp_path / "whole").ingest_symbols(names_of(8), "2024-06-03", "2024-06-28")

    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_damaged_coverage_file_fails_its_series_alone(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-06-03", "2024-06-03")
    (tmp_path / "metadata" / "coverage" / "equities_1min" / "symbol=AAPL.json").write_text('{"format": 99}')

    report = pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-06-03", "2024-06-04")

    assert report["successful"] == ["MSFT"]
    assert report["codes"] == {"AAPL": "damaged_file"}
    assert "symbol=AAPL.json" in report["failed"][0][1]


def test_a_damaged_bar_file_fails_its_series_alone_and_stays_as_it_is(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-06-03", "2024-06-03")
    broken = tmp_path / "equities_1min" / "symbol=AAPL" / "year=2024" / "month=06" / "data.parquet"
    broken.write_bytes(b"PAR1 not at all")

    report = pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-06-03", "2024-06-04")

    assert report["successful"] == ["MSFT"]
    assert report["codes"] == {"AAPL": "damaged_file"}
    assert broken.read_bytes() == b"PAR1 not at all"


# ----------------------------------------------------------------------------------------------------------------- refetching


def test_a_refetch_revises_and_adds_and_removes_only_when_told(tmp_path: Path) -> None:
    day = [date(2024, 6, 3)]
    first = Replay(write_minutes(tmp_path / "a.parquet", ["AAPL"], day, per_day=30))
    later = Replay(write_minutes(tmp_path / "b.parquet", ["AAPL"], day, per_day=20, shift=1.0))
    words = (["AAPL"], "2024-06-03", "2024-06-03")
    with Sandbox(first) as server:
        pipeline_of(server, tmp_path / "store").ingest_symbols(*words)
    with Sandbox(later) as server:
        again = pipeline_of(server, tmp_path / "store").ingest_symbols(*words)
        refetched = pipeline_of(server, tmp_path / "store").ingest_symbols(*words, refetch=True)
        kept = rows(tmp_path / "store")
        removed = pipeline_of(server, tmp_path / "store").ingest_symbols(*words, refetch=True, accept_removals=True)

    assert (again.requests, again["bars_written"]) == (0, 0)
    assert (refetched.changes.revised, refetched.changes.added, refetched.changes.vanished) == (20, 0, 10)
    assert [round(row[2], 2) for row in kept] == [round((101.0 if m < 20 else 100.0) + m / 100, 2) for m in range(30)]
    assert removed.exit_code == 0
    assert len(rows(tmp_path / "store")) == 20


# --------------------------------------------------------------------------------------------------------------- the report


def test_outcomes_are_in_the_order_given_folded_and_upper_case(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    report = pipeline_of(server, tmp_path, clock).ingest_symbols(
        ["nvda", "AAPL", "ZZZQ", "NVDA", "msft"], "2024-06-03", "2024-06-03"
    )

    assert report["successful"] == ["NVDA", "AAPL", "MSFT"]
    assert [outcome.symbol for outcome in report.outcomes] == ["NVDA", "AAPL", "ZZZQ", "MSFT"]


def test_the_report_counts_what_happened(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    report = pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-06-03", "2024-06-03")

    assert report["requests"] == len(server.requests)
    assert report["bars_written"] == server.counts["rows"] == count(tmp_path)
    assert sum(report["bars"].values()) == count(tmp_path)
    assert report["elapsed_seconds"] >= 0
    assert len(report) == len(list(report)) == len(dict(report))


def test_the_summary_is_the_references_with_every_failed_symbol() -> None:
    outcomes = [Outcome(f"S{number}") for number in range(495)]
    outcomes += [Outcome(name, Failure("rate_limited", "API rate limit exceeded")) for name in ("GOOGL", "AMZN", "T", "F", "X")]
    report = IngestionReport(tuple(outcomes), requests=3, seconds=22 * 60 + 45)

    said = [line for line in report.summary().splitlines() if not line.startswith("  Bars: ")]

    assert said == [
        "Total ingestion time: 22m 45s",
        "",
        "Ingestion Summary:",
        "  Successful: 495/500",
        "  Failed: 5/500",
        "",
        "Failed symbols:",
        *(f"  - {name}: API rate limit exceeded" for name in ("GOOGL", "AMZN", "T", "F", "X")),
    ]


def test_the_progress_is_in_the_references_form_and_one_line_of_our_own() -> None:
    standing = ProgressState(500, 120, 5, 12_400, 54_000, 124_000_000, 330.0, 198.4, 200.0)

    # The rest: 54,000 - 12,400 pages at the limit of 200 a minute are 208 minutes, whatever the burst before.
    assert lines(standing).splitlines() == [
        "Progress: 125/500 (25.0%)",
        "  Successful: 120 | Failed: 5 | Remaining: 375",
        "  Elapsed: 5m 30s | Est. remaining: 3h 28m 00s",
        "  Pages: 12,400 of about 54,000 | 198/min of 200",
    ]


FORM = re.compile(
    r"Progress: (\d+)/8 \(\d+\.\d%\)\n"
    r"  Successful: \d+ \| Failed: \d+ \| Remaining: \d+\n"
    r"  Elapsed: [\dhms. ]+ \| Est\. remaining: ([\dhms. ]+|unknown)\n"
    r"  Pages: [\d,]+ of about [\d,]+ \| \d+/min( of \d+)?"
)


def test_a_run_reports_its_progress_in_that_form(tmp_path: Path) -> None:
    said: list[str] = []
    with Sandbox(SimulatedMarket(), latency=0.02) as server:
        progress = LogProgress(said.append, every=0.0)
        pipeline_of(server, tmp_path, progress=progress).ingest_symbols(names_of(8), "2024-06-03", "2024-06-14")

    shown = [FORM.fullmatch(text) for text in said]
    assert shown
    assert all(shown), said
    counts = [int(match[1]) for match in shown if match]
    assert counts == sorted(counts)
    assert counts[-1] == 8


def test_lines_come_at_most_once_in_a_while() -> None:
    now = [0.0]
    said: list[str] = []
    progress = LogProgress(said.append, every=5.0, clock=lambda: now[0])
    for second in range(61):
        now[0] = float(second)
        progress.update(ProgressState(1, 0, 0, 0, 1, 0, float(second), 0.0, None))

    assert len(said) == 12


# ------------------------------------------------------------------------------------------------------------------- the pace


def test_a_limit_that_is_stated_is_kept_to(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket(), rate=6000, burst=100) as server:
        report = pipeline_of(server, tmp_path, workers=8).ingest_symbols(names_of(30), "2024-05-01", "2024-06-28")

        assert report.exit_code == 0
        assert server.counts[429] <= 0.01 * len(server.requests) + 1


def test_the_users_own_bound_is_kept_to(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        client = client_of(server, requests_per_minute=1200)
        pipeline_of(server, tmp_path, workers=8, client=client).ingest_symbols(names_of(30), "2024-05-01", "2024-06-28")
        times = sorted(record.started for record in server.requests)

    # 20 a second, and a second's worth at once.
    assert len(times) > 45
    assert len(times) - 20 <= 20 * (times[-1] - times[0]) + 2


def test_errors_of_ours_have_one_root() -> None:
    assert all(issubclass(kind, DataEngineError) for kind in (CredentialsRefused, Interrupted, ServiceDown))


def test_columns_are_the_contracts() -> None:
    assert COLUMNS == ("open", "high", "low", "close", "volume", "trade_count", "vwap")


# ------------------------------------------------------------------------------------------------------------ odd responses


def test_stored_bars_that_the_first_response_lacks_are_kept_counted_and_named(clock: Clock, tmp_path: Path) -> None:
    """A list on another clock: every second minute, half a day later."""
    storage = ParquetStorage(tmp_path / "store")
    stamps = [datetime(2024, 6, 3, 14, minute, tzinfo=UTC) for minute in range(0, 40, 2)]
    frame = pd.DataFrame(dict.fromkeys(COLUMNS, 10.0), index=pd.MultiIndex.from_product([["BBB"], stamps]))
    frame.index.names = ["symbol", "timestamp"]
    storage.store(frame, timeframe="1Min")
    source = Replay(write_minutes(tmp_path / "a.parquet", ["AAA", "BBB"], [date(2024, 6, 3)], per_day=20))
    with Sandbox(source, clock=clock) as server:
        report = pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAA", "BBB"], "2024-06-03", "2024-06-03")
        again = pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAA"], "2024-06-03", "2024-06-03", refetch=True)

    assert (report.exit_code, report["bars_vanished"], report["vanished"]) == (0, 10, {"BBB": 10})
    assert all("BBB (10)" in text for text in (report.summary(), report.line()))
    assert report.to_json()["vanished"] == {"BBB": 10}
    assert count(tmp_path / "store") == 20 + 20 + 10
    assert (again["vanished"], "not in Alpaca" in again.summary()) == ({}, False)


def test_fields_that_are_not_known_are_named_once_a_run(clock: Clock, tmp_path: Path) -> None:
    bars = [{**bar(f"2024-06-03T14:{minute:02d}:00Z"), "vw2": 1.5, "tape": "C"} for minute in range(4)]
    pages = [{"bars": {"AAPL": bars[:2]}, "next_page_token": "more"}, {"bars": {"AAPL": bars[2:]}, "next_page_token": None}]
    at = [("Date", format_datetime(clock(), usegmt=True))]
    with Hostile(*(http(body=json.dumps(one).encode(), headers=at) for one in pages)) as server:
        client = AlpacaClient(KEY, SECRET, base_url=server.url, policy=HASTY, now=clock)
        pipeline = IngestionPipeline(2, tmp_path / "store", client=client, now=clock, actions=False)
        report = pipeline.ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    assert (report.exit_code, count(tmp_path / "store"), len(server.requests)) == (0, 4, 2)
    assert [note for note in report["notes"] if "tape" in note and "vw2" in note] == report["notes"]
    assert len(report["notes"]) == 1
    assert report.line().count("vw2") == 1
