"""Small worlds for breaks that neither the seeds nor the rows had found: each fails with the mutant that it names."""

from __future__ import annotations

from datetime import date

import pytest

from .market import Action, Security, midnight
from .state import State
from .test_rows import DAYS, MINUTES, at, names, reported, world
from .vendor import Faults
from .world import Step


@pytest.mark.parametrize("lands_at", range(2, 6))
def test_an_action_that_lands_between_tasks_of_one_page_each_leaves_one_basis(lands_at: int) -> None:
    """Mutant `tasks-are-one-base`: the seams between tasks, where no task has a seam between pages."""
    security = Security("AAA", (3, 5), actions=[Action("split", date(2024, 6, 10), 0.25, midnight(date(2024, 6, 10)))])
    made = world("2024-06-10T15:00", security)
    step = Step("ingest", ("AAA",), "2024-02-01", None, adjustment="all", page_limit=300, workers=1, salt=lands_at)
    step.faults = Faults(lands_at=lands_at, page_bars=10_000)
    happened = made.take(step)

    assert len({ask.span for ask in happened.asks}) > 2


def test_what_a_clock_that_is_ahead_asked_for_is_not_remembered() -> None:
    """Mutants `refused-clock-is-remembered` and `clock-not-checked`."""
    made = world("2024-06-05T18:00", Security("AAA"))
    happened = made.take(Step("ingest", ("AAA",), "2024-06-03", None, skew=240, salt=1))

    assert getattr(happened.error, "code", "") == "clock_ahead"
    assert made.state == State()


def test_a_symbol_that_was_finished_before_a_chain_broke_off_is_complete() -> None:
    """Mutant `break-fails-the-finished`: wherever the chain breaks off, and some symbols are finished by then."""
    finished = 0
    for outage_at in range(2, 12):
        made = world("2024-06-10T15:00", *(Security(name, (5, 5)) for name in names(3)))
        step = Step("ingest", names(3), "2024-06-03", "2024-06-04", workers=1, salt=outage_at)
        step.faults = Faults(outage_at=outage_at, page_bars=9)
        _, codes = reported(made.take(step))
        for symbol in names(3):
            whole = len(made.state.rows_of((MINUTES, symbol))) == 10
            finished += whole and len(codes) > 0
            assert (symbol not in codes) == whole, codes

    assert finished


def test_the_last_days_of_a_member_are_asked_for_after_it_has_left() -> None:
    """Mutant `former-days-not-asked`: those between the last update and the day on which it left."""
    made = world("2024-06-04T00:45", Security("AAA"), Security("BBB"))
    made.take(Step("ingest", ("AAA", "BBB"), "2024-05-27", None, "1Day", index="ours", salt=1))
    made.take(Step("ingest", ("AAA",), "2024-05-27", None, "1Day", index="ours", salt=2, hours=24 * 3))
    made.take(Step("update", index="ours", salt=3, hours=24 * 2))

    assert at(date(2024, 6, 5), 0) in made.state.rows_of((DAYS, "BBB"))
