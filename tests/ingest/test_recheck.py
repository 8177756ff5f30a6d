"""``recheck``: what Alpaca thought better of is found within the nights that a dry run says, and never changes bars by itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine import ConflictWarning, ParquetStorage
from data_engine.errors import InputError, Interrupted, StoreError
from data_engine.ingest.bar_rate import market_rate
from data_engine.ingest.recheck import recheck
from data_engine.ingest.recheck_plan import emptiness, plan_recheck, requests_of
from data_engine.ingest.recheck_tasks import SHARED_GAP, UNSEEN, Suspect
from data_engine.market.exchange_calendar import count_sessions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days, new_york_midnight
from data_engine.sandbox import Replay, Sandbox
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period, periods
from data_engine.store.selection import DatasetFilter
from running import Clock, client_of, coverage, here, pipeline_of, rows, write_minutes
from second_thoughts import KINDS, World, play

MINUTES, DAILY = Dataset(Timeframe.parse("1Min")), Dataset(Timeframe.parse("1Day"))
DAYS = [date(2024, 5, day) for day in (28, 29, 30, 31)]
RANGE = ("2024-05-28", "2024-05-31")
EVERYTHING = DatasetFilter()

# --------------------------------------------------------------------------------------------------------------- worlds

MANY = int(os.environ.get("RECHECK_WORLDS", "0"))


@pytest.mark.parametrize("seed", range(6))
def test_what_a_vendor_thinks_better_of_is_found_within_the_nights_that_a_dry_run_says(seed: int, tmp_path: Path) -> None:
    thoughts = play(seed, tmp_path)

    assert {one.kind for one in thoughts} <= set(KINDS)
    assert len(thoughts) > 1


@pytest.mark.slow
@pytest.mark.skipif(not MANY, reason="set RECHECK_WORLDS=250 for about 1,000 changes")
def test_a_thousand_late_loads_revisions_and_withdrawals_are_found(tmp_path: Path) -> None:
    thoughts = [one for seed in range(1_000, 1_000 + MANY) for one in play(seed, tmp_path / str(seed))]

    assert {one.kind for one in thoughts} == set(KINDS)
    assert sum(one.suspect for one in thoughts) > len(thoughts) // 20


def test_an_interrupted_night_goes_on_where_it_stopped(tmp_path: Path) -> None:
    world = World("interrupted", tmp_path)
    world.limit = 20
    world.pipeline.settings = replace(world.pipeline.settings, requests_per_minute=20)
    before = world.plan()
    world.vendor.fail_at = 8

    with pytest.raises(Interrupted):
        recheck(world.pipeline, EVERYTHING, None, minutes=1, page_limit=world.vendor.page_bars)
    world.vendor.fail_at = None
    left = world.plan()

    seen = [one for one in left.tasks if one.seen >= world.clock.now]
    assert 0 < len(seen) < len(left.tasks)
    assert left.tasks[-len(seen) :] == tuple(seen)  # what was seen tonight is the last of the next nights
    assert {one.task for one in left.tasks[: -len(seen)]} < {one.task for one in before.tasks}


# ----------------------------------------------------------------------------------------------------------- arithmetic


@cache
def by_file(span: TimeRange, life: TimeRange, dataset: Dataset) -> dict[Period, int]:
    parts = {period: period.span.intersect(life) for period in periods(span, dataset)}
    return {period: count_sessions(part) for period, part in parts.items() if part is not None}


def stored(
    symbol: str, first: date, end: date, rate: float, dataset: Dataset = MINUTES, begin: date = date(2016, 1, 4)
) -> Coverage:
    """Return the coverage of a series that was asked for since *begin* and has *rate* bars a session since *first*."""
    span, life = (TimeRange(new_york_midnight(one), new_york_midnight(end)) for one in (begin, first))
    rows = {period: count for period, sessions in by_file(span, life, dataset).items() if (count := round(rate * sessions))}
    opens = life.start + timedelta(hours=9 if dataset.timeframe.intraday else 0)
    return Coverage(
        Series(symbol, dataset),
        wanted=(span,),
        covered=(span,),
        rows=rows,
        first_bar=opens,
        last_bar=life.end - timedelta(hours=8),
        begun=new_york_midnight(end),
    )


def market(names: int) -> Iterator[Coverage]:
    """Yield so many names of the market: three in four since 2016, the others first traded on days since then."""
    end = date(2026, 11, 27)
    since = date(2016, 1, 4)
    shares = [(500, market_rate(MINUTES.timeframe, 500))]
    shares += [(1_500, (2_000 * market_rate(MINUTES.timeframe, 2_000) - 500 * shares[0][1]) / 1_500)]
    shares += [(1_000, (3_000 * market_rate(MINUTES.timeframe, 3_000) - 2_000 * market_rate(MINUTES.timeframe, 2_000)) / 1_000)]
    rates = [rate for count, rate in shares for _ in range(count)]
    for number in range(names):
        first = since if number % 4 else since + timedelta(days=number * 31 % 131 * 30)
        yield stored(f"N{number:04d}", first, end, rates[number])


def test_3000_names_since_2016_are_seen_on_a_free_plan_within_130_nights_of_ten_minutes() -> None:
    known = list(market(3_000))
    now = datetime(2026, 11, 27, 21, tzinfo=UTC)
    outage = new_york_days(date(2018, 5, 2), date(2018, 5, 3))
    suspects = [Suspect(one.series, outage, SHARED_GAP) for one in known] + [one for series in known for one in emptiness(series)]

    plan = plan_recheck(known, suspects, now=now, budget=requests_of(10, None))

    bars = sum(one.bars for one in known)
    assert plan.budget == 2_000
    assert bars / 10_000 / 2_000 < plan.nights <= 130
    assert plan.suspects["shared_gap"] > 1
    assert plan.suspects["before_first_bar"] > 100
    assert plan.suspect_nights <= plan.nights // 10
    # Every covered instant of every series is in a task.
    asked: dict[str, list[TimeRange]] = {}
    for one in plan.tasks:
        for symbol in one.task.symbols if one.reason == UNSEEN else ():
            asked.setdefault(symbol, []).append(one.task.range)
    for one in known[::211]:
        spans = sorted(asked[one.series.symbol])
        assert (spans[0].start, spans[-1].end) == (one.covered[0].start, one.covered[-1].end)
        assert all(left.end == right.start for left, right in pairwise(spans))


def test_days_of_many_names_share_requests() -> None:
    known = [stored(f"N{number:03d}", date(2016, 1, 4), date(2026, 11, 27), 1.0, DAILY) for number in range(500)]

    plan = plan_recheck(known, (), now=datetime(2026, 11, 27, 21, tzinfo=UTC), budget=10)

    assert plan.requests <= 1.3 * sum(one.bars for one in known) / 10_000 + 1


@pytest.mark.parametrize(("minutes", "limit", "requests"), [(10, None, 2_000), (5, 10_000.0, 50_000), (0.001, 200, 1)])
def test_minutes_are_requests_at_the_limit_of_the_account(minutes: float, limit: float | None, requests: int) -> None:
    assert requests_of(minutes, limit) == requests


# ---------------------------------------------------------------------------------------------------- conflicting bars


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2024, 6, 20, 15, tzinfo=UTC))


@pytest.fixture
def base(tmp_path: Path, clock: Clock) -> Path:
    path = write_minutes(tmp_path / "bars.parquet", ["AAA", "BBB"], DAYS)
    with Sandbox(Replay(path), clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAA", "BBB"], *RANGE)
    return tmp_path / "store"


@pytest.fixture
def later(base: Path) -> Iterator[Sandbox]:
    """Alpaca as it is later: of AAA on the 28th, 14:05 is revised, 14:07 is gone and 15:09 is new. It says today's time."""
    frame = pd.read_parquet(base.parent / "bars.parquet")
    ours = frame["symbol"] == "AAA"
    at = {minute: frame.index[ours & (frame["timestamp"] == f"2024-05-28 14:{minute}:00+00:00")][0] for minute in ("05", "07")}
    frame.loc[at["05"], "close"] += 0.25
    new = frame.loc[[at["07"]]].assign(timestamp=pd.Timestamp("2024-05-28 15:09:00+00:00"))
    frame = pd.concat([frame.drop(index=at["07"]), new]).sort_values(["symbol", "timestamp"])
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), base.parent / "later.parquet")
    with Sandbox(Replay(base.parent / "later.parquet")) as server:
        yield server


def closes(base: Path, **options: Any) -> dict[str, float]:
    frame = ParquetStorage(base).load("AAA", "2024-05-28", "2024-05-28", **options)
    return {f"{stamp:%H:%M}": value for (_, stamp), value in frame["close"].items()}


def test_new_bars_are_stored_and_revised_and_dropped_ones_are_conflicting_until_they_are_accepted(
    base: Path, later: Sandbox
) -> None:
    before = {row[:2]: row for row in rows(base)}
    ran = here("recheck", "--json", "--base-path", base, url=later.url)

    shown = ran.json
    assert (ran.code, shown["revised"], shown["appeared"], shown["vanished"], shown["conflicting"]) == (0, 1, 1, 1, 2)
    assert (shown["bars_written"], shown["nights"], shown["failed"]) == (1, 1, [])
    after = {row[:2]: row for row in rows(base)}
    assert {key: after[key] for key in before} == before
    assert len(after) - len(before) == 1
    found = {(one["timestamp"], one["change"]): one for one in shown["differences"]}
    assert found["2024-05-28T14:05:00Z", "revised"]["old"]["close"] == 100.175
    assert found["2024-05-28T14:05:00Z", "revised"]["new"]["close"] == 100.425

    with pytest.warns(ConflictWarning, match="recheck AAA --accept"):
        assert (closes(base)["14:05"], "14:07" in closes(base, incomplete="ignore")) == (100.175, True)
    theirs = closes(base, conflicting="vendor")
    assert (theirs["14:05"], "14:07" in theirs, "15:09" in theirs) == (100.425, False, True)
    with pytest.raises(StoreError, match="AAA"):
        closes(base, conflicting="raise")
    with pytest.raises(InputError, match="'mine'"):
        closes(base, conflicting="mine")

    storage = ParquetStorage(base)
    with pytest.warns(ConflictWarning):
        assert storage.load("AAA", *RANGE).attrs["data_engine"]["conflicting"] == 2
    assert storage.load("AAA", "2024-05-29", "2024-05-31").attrs["data_engine"]["conflicting"] == 0
    assert storage.load_arrow("AAA", *RANGE, conflicting="vendor").num_rows == 80
    assert storage.load("AAA", "2024-05-28", "2024-05-28", conflicting="vendor", columns="volume", resample="5Min").size == 5

    status = here("status", "--json", "--base-path", base).json
    assert {one["symbol"]: one["conflicting"] for one in status["series"]} == {"AAA": 2, "BBB": 0}
    assert status["recheck"]["nights"] == 0
    assert re.search(r"\b2 bars conflict", here("status", "--base-path", base).out)

    again = here("recheck", "--accept", "--json", "--base-path", base, url=later.url).json
    assert (again["requests"], again["accepted"], again["removed"], again["conflicting"]) == (0, 1, 1, 0)
    assert (closes(base)["14:05"], "14:07" in closes(base)) == (100.425, False)
    assert not list(base.rglob("metadata/conflicts/**/*.json"))
    checked = here("verify", "--json", "--base-path", base)
    assert (checked.code, checked.json["inconsistencies"]) == (0, [])


def test_update_names_what_conflicts_and_rechecks_in_the_same_run(base: Path, later: Sandbox) -> None:
    words = ("update", "--no-actions", "--base-path", base)
    ran = here(*words, "--recheck", "5", "--json", url=later.url)

    assert (ran.code, ran.json["recheck"]["conflicting"], ran.json["recheck"]["requests_per_night"]) == (0, 2, 1_000)
    later_on = here(*words, "--json", url=later.url).json
    assert later_on["conflicting"] == {"AAA": 2}
    assert "AAA (2)" in here(*words, "--quiet", url=later.url).out


def test_a_refetch_settles_what_it_overwrites_and_store_and_remove_do_too(base: Path, later: Sandbox) -> None:
    here("recheck", "--base-path", base, url=later.url)
    storage = ParquetStorage(base)

    here("ingest", "AAA", "--start", RANGE[0], "--end", RANGE[1], "--refetch", "--no-actions", "--base-path", base, url=later.url)
    assert coverage(base, "AAA")["conflicting"] == 1  # the revised bar is stored; the dropped one is kept
    here("remove", "AAA", "--start", "2024-05-28", "--end", "2024-05-28", "--base-path", base)
    assert "conflicting" not in coverage(base, "AAA")
    assert closes(base, incomplete="ignore") == {}

    assert here("recheck", "--json", "--base-path", base, url=later.url).json["conflicting"] == 0
    assert storage.load("BBB", *RANGE, conflicting="raise").shape[0] == 80


def test_a_recheck_that_is_killed_between_bars_and_coverage_is_repeated(
    base: Path, later: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_engine.ingest.recheck_writer import RecheckWriter

    def killed(self: RecheckWriter, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RecheckWriter, "_note_conflicts", killed)
        assert here("recheck", "--base-path", base, url=later.url).code == 130
    assert "seen" not in coverage(base, "AAA")
    checked = here("verify", "--json", "--base-path", base)
    assert (checked.code, checked.json["inconsistencies"]) == (0, [])

    ran = here("recheck", "--json", "--base-path", base, url=later.url).json
    assert (ran["appeared"], ran["conflicting"], len(coverage(base, "AAA")["seen"])) == (0, 2, 1)


def test_what_was_found_again_keeps_the_time_when_it_was_first_seen(base: Path, later: Sandbox) -> None:
    path = base / "metadata/conflicts/equities_1min/symbol=AAA.json"
    here("recheck", "--base-path", base, url=later.url)
    first = json.loads(path.read_text())["bars"]

    later_client = client_of(later)
    pipeline = pipeline_of(later, base, client=later_client)
    pipeline.clock = lambda: datetime.now(UTC) + timedelta(seconds=90)
    recheck(pipeline, EVERYTHING, None, minutes=1)

    assert json.loads(path.read_text())["bars"] == first


def test_a_dry_run_sends_and_writes_nothing_and_says_the_nights(base: Path, later: Sandbox) -> None:
    before = sorted((path.relative_to(base), path.stat().st_mtime_ns) for path in base.rglob("*.json"))
    ran = here("recheck", "--dry-run", "--json", "--minutes", "3", "--base-path", base, env={})

    assert (ran.code, ran.json["nights"], ran.json["requests_per_night"], later.requests) == (0, 1, 600, [])
    assert sorted((path.relative_to(base), path.stat().st_mtime_ns) for path in base.rglob("*.json")) == before
    assert re.search(r"within 1 night\b", here("recheck", "--dry-run", "--base-path", base, env={}).out)


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("ZZZ",), 2, "ZZZ"),
        (("--minutes", "0"), 2, "--minutes"),
        (("--minutes", "nan"), 2, "nan"),
        (("--adjustment", "split"), 2, "split"),
        (("--base-path", "nowhere"), 4, "nowhere"),
    ],
)
def test_arguments_that_cannot_be_used(base: Path, later: Sandbox, words: tuple[str, ...], code: int, named: str) -> None:
    where = () if "--base-path" in words else ("--base-path", base)
    ran = here("recheck", *words, *where, url=later.url)

    assert (ran.code, named in ran.err, ran.out, later.requests) == (code, True, "", [])
