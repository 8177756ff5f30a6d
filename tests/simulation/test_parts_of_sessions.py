"""A session of which a run is answered in parts: each part is judged by what was answered of it, in this run."""

from __future__ import annotations

from datetime import date

import pytest

from .market import Security, at, instant
from .test_rows import MINUTES, names, reported, world
from .vendor import Faults
from .world import Step, World

_BAR = (9.0, 9.0, 9.0, 9.0, 700.0, 1.0, 9.0)

FRIDAY = date(2025, 1, 31)
"""Its last hour is in February, UTC: an update that asks for one page at a time is answered in two tasks."""

LATE = [at(FRIDAY, 10), at(FRIDAY, 11)]
"""Bars that Alpaca loads on Saturday."""


def over_the_edge(*days: date) -> World:
    """Return a world in which Friday was ingested in the evening, and has two bars since Saturday."""
    before = [date(2025, 1, day) for day in (13, 14, 15, 16, 17, 21, 22, 23, 24, 27, 28, 29, 30)]
    made = world("2025-02-01T01:30", Security("AAA", only=[at(day, 10) for day in (*before, *days)]))
    for stamp in LATE:
        made.market.change("AAA", stamp, at(date(2025, 2, 1), 12), _BAR)
    return made


@pytest.mark.parametrize("salt", range(1, 7))
def test_a_silent_part_removes_no_bar_that_another_task_of_the_run_has_stored(salt):
    made = over_the_edge(date(2025, 2, 3))
    made.market.change("AAA", at(FRIDAY, 19, 30), at(FRIDAY, 19, 30), _BAR)
    made.market.change("AAA", at(FRIDAY, 19, 30), at(date(2025, 2, 3), 9), None)
    made.take(Step("ingest", ("AAA",), "2025-01-10", None, salt=1))
    assert at(FRIDAY, 19, 30) in made.state.rows_of((MINUTES, "AAA"))

    assert reported(made.take(Step("update", salt=salt, hours=62.5, page_limit=1, workers=3))) == (0, {})
    assert [one for one in made.state.rows_of((MINUTES, "AAA")) if at(FRIDAY, 4) <= one < at(FRIDAY, 20)] == LATE


@pytest.mark.parametrize("salt", [4, 20, 26])
def test_a_part_that_failed_is_requested_again_though_the_rest_of_its_session_was_silent(salt):
    made = over_the_edge(*(date(2025, 2, day) for day in (3, 4, 5, 6)))
    made.take(Step("ingest", ("AAA",), "2025-01-10", None, salt=1))
    first = made.take(Step("update", salt=salt, hours=62.5, page_limit=1, workers=3, faults=Faults(page=0.5)))
    assert reported(first)[0] != 0
    made.take(Step("update", salt=50, hours=24))
    assert set(LATE) <= made.state.rows_of((MINUTES, "AAA")).keys()


def test_a_part_that_was_not_requested_stays_provisional_though_the_rest_of_its_session_was_silent():
    days = [date(2024, 6, day) for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 17, 18, 19, 20)]
    late = at(date(2024, 6, 14), 10, 30)
    made = world("2024-06-14T16:00", Security("AAA", only=[at(day, 10) for day in days]))
    made.market.change("AAA", late, at(date(2024, 6, 14), 18), _BAR)
    made.take(Step("ingest", ("AAA",), "2024-06-03", None, salt=1))
    made.take(Step("ingest", ("AAA",), "2024-06-14T12:00:00-04:00", "2024-06-14", salt=2, hours=71))
    assert late not in made.state.rows_of((MINUTES, "AAA"))
    made.take(Step("update", salt=3, hours=72))
    assert late in made.state.rows_of((MINUTES, "AAA"))


def test_a_session_that_a_killed_run_did_not_judge_is_missing_to_the_next_one():
    """Of adjusted series: what is not confirmed is not claimed, and was not requested again either."""
    dataset, lost = "equities_1min_split", date(2024, 6, 17)
    days = [date(2024, 6, day) for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 17, 18, 20, 21, 24, 25, 26)]

    def made() -> World:
        some = [
            Security(name, only=[at(day, 10, minute) for day in days for minute in range(40) if day != lost or number >= 4])
            for number, name in enumerate(names(24))
        ]
        one = world("2024-06-15T16:00", *some)
        for name in names(4):
            for minute in range(40):
                one.market.change(name, at(lost, 10, minute), at(date(2024, 6, 21), 22), _BAR)
        one.take(Step("ingest", names(24), "2024-06-03", None, adjustment="split", salt=1))
        return one

    whole = made()
    night = {"salt": 2, "hours": 71, "workers": 1}
    failed = (1, dict.fromkeys(names(4), "session_missing"))
    assert reported(whole.take(Step("update", **night, faults=Faults(page_bars=60)))) == failed

    broken = made()
    down = Faults(page_bars=60, down_at=whole.vendor.sent)  # at the comparison of the first bars
    assert broken.take(Step("update", **night, faults=down)).error is not None
    assert broken.state.claims_of((dataset, "S00")).unconfirmed
    assert reported(broken.take(Step("update", salt=3, hours=2, workers=1))) == failed
    for salt, hours in ((4, 72), (5, 24), (6, 96)):
        broken.take(Step("update", salt=salt, hours=hours, workers=1))
    assert lost in {instant(stamp).date() for stamp in broken.state.rows_of((dataset, "S00"))}
