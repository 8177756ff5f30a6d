"""Compute which emptiness of a series is tentative: a renamed symbol's earlier bars may yet fill it. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from data_engine.market.time_range import TimeRange, difference, new_york_date, new_york_midnight, union
from data_engine.store.dated_ranges import TENTATIVE, Tentative

if TYPE_CHECKING:
    from data_engine.store.coverage import Coverage


def tentative_after(before: Coverage, made: Coverage, final: TimeRange | None, now: datetime) -> tuple[Tentative, ...]:
    """Return the emptiness that is not final yet after a response of which *final* no longer changes.

    Emptiness before the session of the first bar counts once a response that came more than a week after that bar had none; of
    a series without any bar, once one came more than a week after the first response that had none. If the first bar comes where
    an earlier response had none, the rest of what that said is not believed either: it is asked for once more.
    """
    first, since = made.first_bar, made.first_bar or made.empty_since
    by_answer: dict[datetime, list[TimeRange]] = {}
    settled = (final,) if final else ()
    for one in made.tentative:
        # What the same run was answered, of other ranges, is as good as the response that brought the first bar. Bars of a user
        # say nothing of any response.
        same_run = final is not None and one.answered == now
        left = one.range.before(first) if same_run and first is not None else one.range
        by_answer.setdefault(one.answered, []).extend(difference((left,), settled) if left else ())
    if final is not None and since is not None and now - since <= TENTATIVE:
        # In its first session a series need not trade from the beginning on.
        part = final if first is None else final.before(new_york_midnight(new_york_date(first)))
        by_answer.setdefault(now, []).extend((part,) if part else ())
    if _answered_too_early(before, made):
        ranges = difference(before.covered, settled)
        limit = first if final is None else before.first_bar  # bars of a user tell of what is before them alone
        parts = (part if limit is None else part.before(limit) for part in ranges)
        by_answer.setdefault(before.empty_since or before.begun or now, []).extend(part for part in parts if part)
    made_of = [Tentative(part, answered) for answered, ranges in by_answer.items() for part in union(ranges)]
    return tuple(sorted(made_of, key=lambda one: one.range))


def _answered_too_early(before: Coverage, made: Coverage) -> bool:
    """Tell whether emptiness that was answered before the first bar came may have been answered before the vendor knew better."""
    first = made.first_bar
    if first is None or (before.first_bar is not None and before.first_bar <= first):
        return False
    soon = before.empty_since is not None and before.empty_since - first <= TENTATIVE
    return soon or any(first in span for span in before.covered)  # there, a response had no bar
