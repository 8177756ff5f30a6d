"""Which final sessions an audit fetches again, what differs, and the log of it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import DamagedFile
from data_engine.ingest.drift import (
    HEADER,
    AuditPlan,
    Revision,
    compare,
    count_bars,
    final_sessions,
    plan_audit,
    revision_log,
    with_revisions,
)
from data_engine.market.bars import VALUES, make_table, to_micros
from data_engine.market.series import Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days
from data_engine.store.coverage import Coverage
from data_engine.store.local_files import LocalFiles

MINUTES, DAYS, WEEKS = (Dataset(Timeframe.parse(name)) for name in ("1Min", "1Day", "1Week"))
# 16 sessions, from a Monday to a Tuesday; 19 June was a holiday. The clocks stood still.
JUNE = new_york_days(date(2024, 6, 3), date(2024, 6, 25))
SESSIONS = [day.date() for day in pd.bdate_range("2024-06-03", "2024-06-25") if day.date() != date(2024, 6, 19)]
SEEN = datetime(2024, 7, 1, 12, 30, tzinfo=UTC)


def stored(symbol: str, dataset: Dataset = MINUTES, *, covered: tuple[TimeRange, ...] = (JUNE,), bars: int = 6240) -> Coverage:
    first, last = covered[0].start + timedelta(hours=10), covered[-1].end - timedelta(hours=8)
    if not dataset.timeframe.intraday:
        first, last = covered[0].start, covered[-1].end - timedelta(days=1)
    return Coverage(Series(symbol, dataset), covered=covered, first_bar=first, last_bar=last, rows={})


def days(known: Coverage) -> list[date]:
    return [new_york_date(datetime.fromtimestamp(start / 1e6, UTC)) for start in final_sessions(known).tolist()]


def requested(plan: AuditPlan) -> Counter[tuple[str, date]]:
    """Return symbol and session of all that a plan requests."""
    return Counter(
        (symbol, day)
        for task in plan.tasks
        for symbol in task.symbols
        for day in SESSIONS
        if task.range.start <= new_york_days(day, day).start < task.range.end
    )


# ---------------------------------------------------------------------------------------------------------- final sessions


def test_the_sessions_of_a_series_are_those_covered_whole():
    assert days(stored("A")) == SESSIONS


def test_a_session_covered_to_the_end_of_its_hours_is_whole_and_one_minute_less_is_not():
    eight = JUNE.end - timedelta(hours=4)

    assert days(stored("A", covered=(TimeRange(JUNE.start, eight),)))[-1] == SESSIONS[-1]
    assert days(stored("A", covered=(TimeRange(JUNE.start, eight - timedelta(minutes=1)),)))[-1] == SESSIONS[-2]


def test_feeds_with_hours_of_their_own_need_the_whole_day():
    boats = Dataset(Timeframe.parse("1Min"), feed=Feed.BOATS)
    eight = JUNE.end - timedelta(hours=4)

    assert days(stored("A", boats, covered=(TimeRange(JUNE.start, eight),)))[-1] == SESSIONS[-2]


def test_what_lies_before_the_first_bar_or_after_the_last_is_not_drawn():
    made = Coverage(
        Series("A", MINUTES),
        covered=(JUNE,),
        first_bar=datetime(2024, 6, 5, 14, tzinfo=UTC),
        last_bar=datetime(2024, 6, 7, 14, tzinfo=UTC),
    )

    assert days(made) == [date(2024, 6, 5), date(2024, 6, 6), date(2024, 6, 7)]
    assert days(Coverage(Series("A", MINUTES), covered=(JUNE,))) == []


def test_bars_of_days_and_weeks_are_sessions_of_their_own():
    assert days(stored("A", DAYS)) == SESSIONS
    assert days(stored("A", WEEKS)) == [date(2024, 6, day) for day in (3, 10, 17, 24)]


# ------------------------------------------------------------------------------------------------------------------ drawing


@given(st.integers(1, 120), st.integers(0, 50), st.integers(1, 12))
def test_a_sample_is_of_the_size_requested_and_requests_nothing_twice_or_beyond(sample, seed, symbols):
    known = [stored(f"S{number:02}") for number in range(symbols)]

    plan = plan_audit(known, sample, seed=seed)

    total = symbols * len(SESSIONS)
    assert (plan.sessions, plan.available) == (min(sample, total), total)
    found = requested(plan)
    assert (len(found), set(found.values())) == (plan.sessions, {1})
    assert plan.series == len({symbol for symbol, _ in found})
    assert all(list(task.symbols) == sorted(task.symbols) for task in plan.tasks)


def test_the_same_seed_draws_the_same_and_another_one_others():
    known = [stored(f"S{number}") for number in range(8)]

    assert plan_audit(known, 10, seed=1) == plan_audit(list(reversed(known)), 10, seed=1)
    assert plan_audit(known, 10, seed=1) != plan_audit(known, 10, seed=2)


def test_a_sample_is_spread_over_sessions_and_series_and_shares_requests():
    known = [stored(f"S{number:03}") for number in range(100)]

    plan = plan_audit(known, 100, seed=5)

    by_day = Counter(day for _, day in requested(plan))
    # Ten symbols of each of ten sessions: ten requests in place of a hundred.
    assert (len(plan.tasks), set(by_day.values())) == (10, {10})
    assert plan.series >= 90


def test_over_many_seeds_every_session_of_every_series_is_drawn_about_as_often():
    known = [stored(f"S{number}") for number in range(4)]
    counts = Counter(unit for seed in range(800) for unit in requested(plan_audit(known, 4, seed=seed)))

    assert len(counts) == 64
    # 3,200 draws over 64 places: 50 each, and hardly one in a thousand beyond 4.5 standard deviations.
    assert max(abs(count - 50) for count in counts.values()) < 4.5 * 50**0.5


def test_all_sessions_are_requested_a_page_at_a_time():
    plan = plan_audit([stored("A"), stored("B")], 1000, seed=1)

    # 960 minutes a session is what nothing is known of; half of them trade: 2 x 480 x 10 fit on a page.
    assert sum(requested(plan).values()) == 32
    assert max(task.estimate for task in plan.tasks) <= 10_000
    assert len(plan.tasks) == -(-sum(task.estimate for task in plan.tasks) // 10_000)


def test_a_gap_in_the_sample_is_not_requested():
    covered = tuple(new_york_days(date(2024, 6, day), date(2024, 6, day)) for day in (3, 4, 6))

    plan = plan_audit([stored("A", DAYS, covered=covered)], 10, seed=1)

    assert [str(task.range)[:10] + str(task.range)[24:34] for task in plan.tasks] == [
        "2024-06-032024-06-05",
        "2024-06-062024-06-07",
    ]


def test_datasets_are_not_mixed():
    plan = plan_audit([stored("A"), stored("A", DAYS)], 100, seed=1)

    assert {task.dataset for task in plan.tasks} == {MINUTES, DAYS}
    assert plan.sessions == 32


def test_of_nothing_nothing_is_drawn():
    assert plan_audit([], 10, seed=1) == AuditPlan((), 0, 0, 0, 1)


# -------------------------------------------------------------------------------------------------------------- comparing


def table(rows: dict[int, float]):
    times = np.array([to_micros(SEEN) + 60_000_000 * minute for minute in sorted(rows)], np.int64)
    prices = np.array([rows[minute] for minute in sorted(rows)], float)
    return make_table(times, [prices, prices + 1, prices - 1, prices, np.full(len(rows), 100.0), np.ones(len(rows)), prices])


bars = st.dictionaries(st.integers(0, 30), st.sampled_from([10.0, 11.0]), max_size=20)


@given(bars, bars)
def test_differences_are_those_that_two_dictionaries_have(old, new):
    series = Series("A", MINUTES)
    expected = []
    for minute in sorted(old.keys() | new.keys()):
        timestamp = SEEN + timedelta(minutes=minute)
        was, now = old.get(minute), new.get(minute)
        change = "appeared" if was is None else "vanished" if now is None else "revised"
        for field in VALUES:
            step = {"high": 1, "low": -1}.get(field, 0)
            fixed = {"volume": 100.0, "trade_count": 1.0}.get(field)
            before, after = (None if price is None else fixed or price + step for price in (was, now))
            if before != after:
                expected.append(Revision(series, timestamp, change, field, before, after))

    assert compare(series, table(old), table(new)) == expected
    counts = Counter({one.timestamp: one.change for one in expected}.values())
    assert count_bars(expected) == {kind: counts[kind] for kind in ("revised", "appeared", "vanished")}


# ------------------------------------------------------------------------------------------------------------------ the log


def revision(old: float | None = 1.5, new: float | None = 0.1, symbol: str = "BRK.B", field: str = "close") -> Revision:
    change = "appeared" if old is None else "vanished" if new is None else "revised"
    return Revision(Series(symbol, MINUTES), SEEN, change, field, old, new)


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path)


def log(files: LocalFiles, revisions: list[Revision], seen: datetime = SEEN) -> int:
    """Add revisions to the log of a store; return how many were new."""
    document = revision_log(files, MINUTES)
    before = len(document.read())
    return len(document.update(lambda rows: with_revisions(rows, revisions, seen))) - before


def content_of(files: LocalFiles) -> bytes:
    return files.get("metadata/revisions/equities_1min.csv") or b""


def test_the_log_is_a_table_that_any_tool_reads(files):
    count = log(files, [revision(), revision(None, 2.0), revision(3.0, None)])

    assert count == 3
    assert content_of(files) == (
        b"seen,symbol,timestamp,change,field,old,new\n"
        b"2024-07-01T12:30:00Z,BRK.B,2024-07-01T12:30:00Z,revised,close,1.5,0.1\n"
        b"2024-07-01T12:30:00Z,BRK.B,2024-07-01T12:30:00Z,appeared,close,,2.0\n"
        b"2024-07-01T12:30:00Z,BRK.B,2024-07-01T12:30:00Z,vanished,close,3.0,\n"
    )


def test_what_the_log_has_is_not_written_again_and_never_changed(files):
    log(files, [revision()])
    first = content_of(files)

    assert log(files, [revision()], SEEN + timedelta(days=1)) == 0
    assert content_of(files) == first
    assert log(files, [revision(), revision(symbol="A"), revision(field="open")]) == 2
    assert content_of(files).startswith(first)


def test_a_value_that_goes_back_and_forth_is_logged_each_time(files):
    for old, new in ((1.0, 2.0), (2.0, 1.0), (1.0, 2.0)):
        assert log(files, [revision(old, new)]) == 1


def test_numbers_come_back_exactly(files):
    log(files, [revision(0.1 + 0.2, 1e-9)])

    assert [float(cell) for cell in content_of(files).decode().splitlines()[1].split(",")[-2:]] == [0.1 + 0.2, 1e-9]


def test_a_last_line_without_its_end_gets_one(files):
    log(files, [revision()])
    first = content_of(files).rstrip(b"\n")
    files.update("metadata/revisions/equities_1min.csv", lambda _: first)

    log(files, [revision(symbol="A")])

    assert len(content_of(files).splitlines()) == 3


@pytest.mark.parametrize(
    "content", [b"\n", b"a,b\n", ",".join(HEADER).encode() + b"\nx,A,2024-07-01T12:30:00Z,revised,close,1,2\n"]
)
def test_a_damaged_log_is_named_and_left_as_it_is(files, tmp_path, content):
    path = tmp_path / "metadata/revisions/equities_1min.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    with pytest.raises(DamagedFile, match=r"line \d.*metadata/revisions/equities_1min\.csv"):
        log(files, [revision()])
    assert path.read_bytes() == content
