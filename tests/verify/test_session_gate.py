"""The gate before trading: how many of the series that traded lately hold a session."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import InputError
from data_engine.market.bars import VALUES, make_table, to_micros
from data_engine.market.corporate_action import decode
from data_engine.market.exchange_calendar import regular_hours, sessions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days, new_york_midnight
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Failure
from data_engine.store.local_files import LocalFiles
from data_engine.store.selection import DatasetFilter
from data_engine.verify.session_gate import SessionGate, last_session, latest_session_gate, session_gate
from running import here

MINUTES, DAYS, WEEKS = (Dataset(Timeframe.parse(text)) for text in ("1Min", "1Day", "1Week"))
BEFORE = list(sessions(date(2024, 6, 3), date(2024, 6, 18)))
DAY = date(2024, 6, 20)  # a Thursday; the 19th is a holiday
NOW = datetime(2024, 6, 21, 12, tzinfo=UTC)
ALL = DatasetFilter()


@pytest.fixture
def storage(tmp_path: Path) -> BarStore:
    return BarStore(LocalFiles(tmp_path))


def put(
    storage: BarStore,
    symbol: str,
    days: list[date],
    dataset: Dataset = MINUTES,
    *,
    covered: TimeRange | None = None,
    provisional: TimeRange | None = None,
    failure: Failure | None = None,
) -> None:
    """Store one bar on each day, and coverage."""
    starts = [regular_hours(day).start if dataset is MINUTES else new_york_midnight(day) for day in days]
    times = np.array([to_micros(start) for start in starts], np.int64)
    storage.add(Series(symbol, dataset), make_table(times, [np.full(times.size, 10.0) for _ in VALUES]))
    ranges = [tuple(span for span in (one,) if span) for one in (covered, provisional)]
    storage.coverage.update(
        Series(symbol, dataset),
        lambda known: replace(known, wanted=(*ranges[0], *ranges[1]), covered=ranges[0], provisional=ranges[1], failure=failure),
    )


def gate(storage: BarStore, day: date = DAY, names: list[str] | None = None) -> SessionGate:
    return session_gate(storage, ALL, day, names, now=NOW)


def told(storage: BarStore) -> tuple[int, dict[str, str]]:
    found = gate(storage)
    return found.expected, {one.series.symbol: one.reason for one in found.lacking}


UNTIL_THE_18TH = new_york_days(BEFORE[0], BEFORE[-1])
UNTIL_THE_20TH = new_york_days(BEFORE[0], DAY)
THE_20TH = new_york_days(DAY, DAY)


@pytest.mark.parametrize("dataset", [MINUTES, DAYS])
def test_a_series_with_a_bar_in_a_session_that_was_answered_holds_it(storage, dataset):
    put(storage, "FINAL", [*BEFORE, DAY], dataset, covered=UNTIL_THE_20TH)
    put(storage, "OPEN", [*BEFORE, DAY], dataset, covered=UNTIL_THE_18TH, provisional=THE_20TH)
    put(storage, "LATER", [*BEFORE, DAY, date(2024, 6, 21)], dataset, covered=new_york_days(BEFORE[0], date(2024, 6, 21)))
    put(storage, "STORED", [*BEFORE, DAY], dataset)

    assert told(storage) == (4, {})
    assert str(gate(storage)) == "Session 2024-06-20: held by 4 of 4 series that traded lately (100.0%)"


def test_what_was_not_answered_is_not_held(storage):
    until_noon = TimeRange(UNTIL_THE_18TH.start, regular_hours(DAY).start + timedelta(hours=2))
    put(storage, "HALF", [*BEFORE, DAY], covered=until_noon)
    put(storage, "NEVER", BEFORE, covered=UNTIL_THE_18TH)
    put(storage, "FAILED", BEFORE, covered=UNTIL_THE_18TH, failure=Failure("unavailable", "503", NOW))
    storage.coverage.update(Series("FAILED", MINUTES), lambda known: replace(known, wanted=(UNTIL_THE_20TH,)))
    put(storage, "STORED", BEFORE)

    expected = {"HALF": "not_fetched", "NEVER": "not_fetched", "FAILED": "failed", "STORED": "not_fetched"}
    assert told(storage) == (4, expected)


def test_emptiness_is_held_if_it_is_final_or_usual(storage):
    """An outage at Alpaca answers without bars: those that always trade are named, those that skip days are not."""
    put(storage, "FINAL", BEFORE, covered=UNTIL_THE_20TH)
    put(storage, "DAILY", BEFORE, covered=UNTIL_THE_18TH, provisional=THE_20TH)
    put(storage, "THIN", BEFORE[::2], covered=UNTIL_THE_18TH, provisional=THE_20TH)

    assert told(storage) == (3, {"DAILY": "empty"})


def test_series_that_did_not_trade_lately_do_not_count(storage):
    old = [date(2024, 5, 1), date(2024, 5, 2)]
    put(storage, "OLD", old, covered=new_york_days(old[0], old[-1]))
    put(storage, "LISTED-LATER", [date(2024, 6, 21)], covered=new_york_days(date(2024, 6, 21), date(2024, 6, 21)))
    put(storage, "BACK", [*old, date(2024, 6, 21)], covered=new_york_days(old[0], date(2024, 6, 21)))
    put(storage, "EMPTY", [], covered=UNTIL_THE_18TH)
    put(storage, "WEEKLY", [date(2024, 6, 10)], WEEKS, covered=UNTIL_THE_18TH)
    put(storage, "GONE", BEFORE, covered=UNTIL_THE_18TH)
    record = {"id": "1", "old_symbol": "GONE", "new_symbol": "NEW", "process_date": "2024-06-20"}
    ActionStore(storage.files).update("GONE", lambda known: replace(known, actions=(decode("name_change", record),)))

    assert told(storage) == (0, {})
    assert gate(storage).share == 0.0


def test_only_a_session_that_has_ended_can_be_checked(storage):
    for day in (date(2024, 6, 19), date(2024, 6, 22)):
        with pytest.raises(InputError, match=str(day)):
            gate(storage, day)
    with pytest.raises(InputError, match="2024-06-20"):
        gate(storage, date(2024, 6, 21))


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2024-06-20T23:59:59+00:00", date(2024, 6, 18)),
        ("2024-06-21T00:00:00+00:00", date(2024, 6, 20)),
        ("2024-06-23T12:00:00+00:00", date(2024, 6, 21)),
        ("2024-11-29T22:00:00+00:00", date(2024, 11, 29)),  # a half day, to 17:00
    ],
)
def test_the_last_session_has_ended(now, day):
    assert last_session(datetime.fromisoformat(now)) == day


EVENING = datetime(2024, 6, 21, 0, 45, tzinfo=UTC)  # 20:45 of the session in New York


def test_in_the_evening_the_daily_bar_of_the_session_is_not_expected_yet(storage):
    """It ends at midnight, so the nightly line is about the session before, or about minutes alone."""
    put(storage, "DAILY", BEFORE, DAYS, covered=UNTIL_THE_18TH)

    assert session_gate(storage, ALL, DAY, now=EVENING).expected == 0
    nightly = latest_session_gate(storage, ALL, now=EVENING)
    assert (nightly.day, nightly.expected, nightly.held) == (BEFORE[-1], 1, 1)
    put(storage, "MINUTES", [*BEFORE, DAY], covered=UNTIL_THE_18TH, provisional=TimeRange(THE_20TH.start, EVENING))
    nightly = latest_session_gate(storage, ALL, now=EVENING)
    assert (nightly.day, nightly.expected, nightly.held) == (DAY, 1, 1)


def test_the_minute_at_the_stroke_of_the_close_belongs_to_the_session(storage):
    at_eight = datetime(2024, 6, 21, tzinfo=UTC)
    put(storage, "CUT", [*BEFORE, DAY], covered=UNTIL_THE_18TH, provisional=TimeRange(THE_20TH.start, at_eight))

    assert told(storage) == (1, {"CUT": "not_fetched"})
    assert session_gate(storage, ALL, DAY, now=at_eight).lacking == (), "that minute has not ended"


# The command


@pytest.fixture
def base(storage: BarStore, tmp_path: Path) -> Path:
    for number in range(98):
        put(storage, f"S{number}", [*BEFORE, DAY], covered=UNTIL_THE_20TH)
    put(storage, "LATE", BEFORE, covered=UNTIL_THE_18TH)
    put(storage, "SHUT", BEFORE, covered=UNTIL_THE_18TH, provisional=THE_20TH)
    return tmp_path


@pytest.mark.parametrize(("options", "code"), [((), 1), (("--min-share", "0.98"), 0), (("--min-share", "1"), 1)])
def test_the_command_is_a_gate(base, options, code):
    ran = here("status", "--session", "2024-06-20", *options, "--base-path", base)

    assert ran.code == code
    assert ran.out.splitlines() == [
        "Session 2024-06-20: held by 98 of 100 series that traded lately (98.0%)",
        "  equities_1min, not fetched: LATE",
        "  equities_1min, empty: SHUT",
    ]


def test_the_command_says_so_in_json(base):
    ran = here("status", "--session", "2024-06-20", "--json", "--base-path", base)

    assert (ran.code, ran.json["passed"], ran.json["held"], ran.json["expected"], ran.json["share"]) == (1, False, 98, 100, 0.98)
    assert ran.json["lacking"] == [
        {"dataset": "equities_1min", "symbol": "LATE", "reason": "not_fetched"},
        {"dataset": "equities_1min", "symbol": "SHUT", "reason": "empty"},
    ]


def test_the_command_is_about_what_it_was_given(base):
    def code(*words: str) -> int:
        return here("status", *words, "--session", "2024-06-20", "--base-path", base).code

    assert code("S1", "S2") == 0
    assert code("S1", "LATE") == 1
    assert code("S1", "TYPO") == 2
    assert code("--timeframe", "1Day") == 1, "no series traded lately: nothing is held"
    assert here("status", "--session", "2024-06-19", "--base-path", base).code == 2
    assert here("status", "--session", "2024-06-20", "--min-share", "1.5", "--base-path", base).code == 2
