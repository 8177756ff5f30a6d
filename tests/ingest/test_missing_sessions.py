"""A session that the vendor lacks for many series is not taken for empty: `session_missing`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from data_engine import IngestionReport
from data_engine.ingest.run import IngestionRun
from data_engine.sandbox import Replay, Sandbox
from running import Clock, asked, coverage, here, names_of, pipeline_of, rows, write_minutes

# Twelve sessions; the last but one is in question.
DAYS = [date(2024, 6, day) for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 17, 18)]
LOST = DAYS[-2]
SESSION = ["2024-06-17T08:00:00Z", "2024-06-18T00:01:00Z"]
EVENING = datetime(2024, 6, 18, 0, 45, tzinfo=UTC)  # 20:45 of that day
MORNING = datetime(2024, 6, 18, 14, 30, tzinfo=UTC)  # 10:30 of the next
NAMES = sorted(names_of(40))


def market(path: Path, names: Iterable[str], without: Iterable[str] = (), days: Iterable[date] = DAYS) -> Replay:
    """Return bars of some symbols; of some of them none in the session in question."""
    whole = write_minutes(path.with_name(f"all-{path.name}"), names, list(days), per_day=3)
    lacking = ", ".join(f"'{name}'" for name in without) or "''"
    duckdb.sql(
        f"COPY (SELECT * FROM '{whole}' WHERE NOT (symbol IN ({lacking}) AND timestamp::DATE = '{LOST}') ORDER BY ALL) "
        f"TO '{path}' (FORMAT parquet)"
    )
    return Replay(path)


def ingest(source: Replay, base: Path, now: datetime, names: list[str], timeframe: str = "1Min") -> IngestionReport:
    clock = Clock(now)
    with Sandbox(source, clock=clock) as server:
        return pipeline_of(server, base, clock).ingest_symbols(names, "2024-06-03", "2024-06-17", timeframe)


def is_in(known: list[list[str]], span: list[str]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in known)


def touches(known: list[list[str]], span: list[str]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in known)


def frame_of(name: str, instant: str) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([(name, pd.Timestamp(instant))], names=["symbol", "timestamp"])
    return pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "volume", "trade_count", "vwap"), 7.0), index)


def days_of(base: Path, name: str) -> set[date]:
    return {(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row[1])).date() for row in rows(base) if row[0] == name}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize("now", [EVENING, MORNING], ids=["in-the-evening", "after-the-hour"])
def test_a_session_that_more_than_one_in_twenty_lack_is_covered_for_none(base: Path, tmp_path: Path, now: datetime) -> None:
    names, lacking = NAMES[:25], NAMES[:2]
    report = ingest(market(tmp_path / "gap.parquet", names, lacking), base, now, names)

    assert report.exit_code == 1
    assert report["codes"] == dict.fromkeys(lacking, "session_missing")
    assert all("2024-06-17" in message and "2 of 25" in message for _, message in report["failed"])
    assert any("2024-06-17" in note for note in report["notes"])
    for name in names:
        known = coverage(base, name)
        assert not touches(known["covered"], SESSION)
        assert is_in(known["provisional"], SESSION)
        assert is_in(known["covered"], ["2024-06-03T08:00:00Z", "2024-06-15T00:01:00Z"])

    later = ingest(market(tmp_path / "whole.parquet", names), base, MORNING + timedelta(days=1), names)
    assert (later.exit_code, later.changes.added) == (0, 2 * 3)
    assert all(is_in(coverage(base, name)["covered"], SESSION) for name in names)
    assert len(rows(base)) == 25 * 11 * 3


@pytest.mark.parametrize("timeframe", ["1Hour", "1Day"])
def test_so_is_one_of_longer_bars(base: Path, tmp_path: Path, timeframe: str) -> None:
    names, dataset = NAMES[:20], f"equities_{timeframe.lower()}"
    report = ingest(market(tmp_path / "gap.parquet", names, names[:2]), base, MORNING, names, timeframe)

    assert report["codes"] == dict.fromkeys(names[:2], "session_missing")
    assert not any(touches(coverage(base, name, dataset)["covered"], SESSION) for name in names)
    later = ingest(market(tmp_path / "whole.parquet", names), base, MORNING, names, timeframe)
    assert (later.exit_code, later.changes.added) == (0, 2)
    assert all(coverage(base, name, dataset)["provisional"] == [] for name in names)


@pytest.mark.parametrize(
    ("count", "lacking", "days"),
    [
        pytest.param(40, 2, DAYS, id="one-in-twenty"),
        pytest.param(19, 19, DAYS, id="fewer-than-twenty"),
        pytest.param(40, 40, [*DAYS[:4], *DAYS[5:]], id="none-has-each-of-the-ten-sessions-before"),
    ],
)
def test_else_the_emptiness_is_final_and_not_asked_for_again(
    base: Path, tmp_path: Path, count: int, lacking: int, days: list[date]
) -> None:
    names = NAMES[:count]
    source = market(tmp_path / "gap.parquet", names, names[:lacking], days)
    report = ingest(source, base, MORNING, names)

    assert (report.exit_code, report["codes"]) == (0, {})
    assert all(is_in(coverage(base, name)["covered"], SESSION) for name in names)
    clock = Clock(MORNING)
    with Sandbox(source, clock=clock) as server:
        assert pipeline_of(server, base, clock).ingest_symbols(names, "2024-06-03", "2024-06-17").exit_code == 0
        assert asked(server) == []


def test_the_rest_of_a_session_without_bars_is_no_missing_session(base: Path, tmp_path: Path) -> None:
    """Seed 19300017: of the half hour that the first run had not asked for, nobody had a bar."""
    names, source = NAMES[:20], market(tmp_path / "whole.parquet", NAMES)
    clock = Clock(MORNING)
    with Sandbox(source, clock=clock) as server:
        pipeline = pipeline_of(server, base, clock)
        first = pipeline.ingest_symbols(names, "2024-06-03", "2024-06-17T19:30:00-04:00")
        rest = pipeline.ingest_symbols(names, "2024-06-03", "2024-06-17")

    assert (first.exit_code, first.changes.added) == (0, 20 * 11 * 3)
    assert (rest.exit_code, rest["codes"], rest.changes.added) == (0, {}, 0)
    assert all(is_in(coverage(base, name)["covered"], SESSION) for name in names)


def test_the_final_response_removes_what_was_provisional_of_a_part_of_a_session(base: Path, tmp_path: Path) -> None:
    """Seed 60000242: nobody decided about a bar in a part, since nothing can be said about the session."""
    source, name, clock = market(tmp_path / "gap.parquet", NAMES, NAMES[:1]), NAMES[0], Clock(EVENING)
    with Sandbox(source, clock=clock) as server:
        pipeline = pipeline_of(server, base, clock)
        before = pipeline.ingest_symbols([name], "2024-06-17T10:00:00-04:00", "2024-06-17")
        pipeline.storage.store(frame_of(name, "2024-06-17T15:47:00Z"))
        clock.now = MORNING
        final = pipeline.ingest_symbols([name], "2024-06-17T10:00:00-04:00", "2024-06-17")

    assert (before.changes.added, before["codes"]) == (0, {name: "no_data"})
    assert (final.changes.removed, final["codes"]) == (1, {name: "no_data"})
    assert rows(base) == []
    assert is_in(coverage(base, name)["covered"], ["2024-06-17T14:00:00Z", "2024-06-18T00:01:00Z"])


def test_a_run_that_dies_before_it_has_compared_its_series_leaves_the_session_to_the_next(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = NAMES[:20]

    class Killed(BaseException):
        pass

    def killed(_: IngestionRun) -> None:
        raise Killed

    source = market(tmp_path / "gap.parquet", names, names)
    with monkeypatch.context() as patch:
        patch.setattr(IngestionRun, "_judge_empty_sessions", killed)
        with pytest.raises(Killed):
            ingest(source, base, MORNING, names)
    assert not any(touches(coverage(base, name)["covered"], SESSION) for name in names)

    assert ingest(market(tmp_path / "whole.parquet", names), base, MORNING, names).changes.added == 20 * 3


def test_after_seven_days_the_emptiness_is_final(base: Path, tmp_path: Path) -> None:
    names = NAMES[:20]
    source = market(tmp_path / "gap.parquet", names, names)

    assert set(ingest(source, base, MORNING, names)["codes"].values()) == {"session_missing"}
    assert ingest(source, base, MORNING + timedelta(days=7), names).exit_code == 0
    assert all(is_in(coverage(base, name)["covered"], SESSION) for name in names)


@pytest.mark.parametrize(("lacking", "kept"), [(1, False), (2, True)], ids=["of-one-series", "of-too-many"])
def test_bars_that_a_session_had_in_the_evening_are_removed_only_if_the_session_is_not_missing(
    base: Path, tmp_path: Path, lacking: int, kept: bool
) -> None:
    names = NAMES[:20]
    assert ingest(market(tmp_path / "whole.parquet", names), base, EVENING, names).exit_code == 0
    report = ingest(market(tmp_path / "gap.parquet", names, names[:lacking]), base, MORNING, names)

    assert report.exit_code == (1 if kept else 0)
    assert (report.changes.removed, report.changes.vanished) == ((0, 6) if kept else (3, 0))
    assert [LOST in days_of(base, name) for name in names] == [kept] * lacking + [True] * (20 - lacking)
    assert here("verify", "--base-path", base).code == 0
