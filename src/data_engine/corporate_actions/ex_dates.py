"""Say on which days an action may have taken effect: of a record without an ex-date, only its process date is known."""

from __future__ import annotations

from datetime import date, timedelta

from data_engine.market.corporate_action import Action

EARLY, LATE = timedelta(days=31), timedelta(days=366)
"""How long before its ex-date the process date of an action may lie, and after it."""


def possible_ex_dates(action: Action) -> tuple[date, date]:
    """Return the first and the last day on which an action may have taken effect; mostly they are one day."""
    if action.ex_date is None and action.flaw is not None:
        return action.process_date - LATE, action.process_date + EARLY
    return action.day, action.day


def may_be_within(action: Action, after: date | None, until: date) -> bool:
    """Return whether an action may have taken effect after a day (if None, ever), and not after a later one."""
    first, last = possible_ex_dates(action)
    return first <= until and (after is None or last > after)
