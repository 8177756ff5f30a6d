"""Say on which days an action may have taken effect: of a record without an ex-date, only its process date is known."""

from __future__ import annotations

from datetime import date, timedelta

from data_engine.market.corporate_action import Action

_BEFORE, _AFTER = timedelta(days=366), timedelta(days=31)
"""How long before its process date an ex-date may lie, and after it; `symbol_actions.process_days` asks by the same."""


def possible_ex_dates(action: Action) -> tuple[date, date]:
    """Return the first and the last day on which an action may have taken effect; mostly they are one day."""
    if action.ex_date is None and action.flaw is not None:
        return action.process_date - _BEFORE, action.process_date + _AFTER
    return action.day, action.day


def may_be_within(action: Action, after: date | None, until: date) -> bool:
    """Return whether an action may have taken effect after a day (if None, ever), and not after a later one."""
    first, last = possible_ex_dates(action)
    return first <= until and (after is None or last > after)
