"""Compute which emptiness of a series is tentative: a renamed symbol's earlier bars may yet fill it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight, union
from data_engine.store.dated_ranges import TENTATIVE, Tentative, without

if TYPE_CHECKING:
    from data_engine.store.coverage import Coverage


def tentative_after(before: Coverage, made: Coverage, final: TimeRange | None, now: datetime) -> tuple[Tentative, ...]:
    """Return the emptiness that is not final yet after a response of which *final* no longer changes.

    Emptiness before the session of the first bar counts once a response that came more than a week after that bar had none; of
    a series without any bar, once one came more than a week after the first response that had none. If the first bar comes where
    an earlier response had none, the rest of what that said is not believed either: it is asked for once more.
    """
    first, since = made.first_bar, made.first_bar or made.empty_since
    settled = (final,) if final else ()
    parts: list[Tentative] = []
    for one in made.tentative:
        # What the same run was answered, of other ranges, is as good as the response that brought the first bar. Bars of a user
        # say nothing of any response.
        same_run = final is not None and one.answered == now
        left = one.range.before(first) if same_run and first is not None else one.range
        parts += without((replace(one, range=left),), *settled) if left else ()
    if final is not None and since is not None and now - since <= TENTATIVE:
        # In its first session a series need not trade from the beginning on.
        part = final if first is None else final.before(new_york_midnight(new_york_date(first)))
        parts += [Tentative(part, now)] if part else []
    parts += without(_doubted(before, made, first if final is None else before.first_bar, since=now), *settled)
    return _joined(parts)


def counted_tentative(before: Coverage, made: Coverage) -> tuple[Tentative, ...]:
    """Return the emptiness that is not final after files were counted of which another bar than before is the first.

    If that is an earlier one, an answer came too early that had none. If it is a later one, or if there is none any more, nothing
    tells which answers came more than a week after it, unless all did: the emptiness before it is asked for once more.
    """
    if before.first_bar is not None and (made.first_bar is None or made.first_bar > before.first_bar):
        doubts = _before_later(before, made)
    else:
        doubts = _doubted(before, made, before.first_bar, since=made.first_bar)
    known = (one.range for one in made.tentative)
    return _joined((*made.tentative, *without(doubts, *known))) if doubts else made.tentative


def _before_later(before: Coverage, made: Coverage) -> list[Tentative]:
    """Return the emptiness before a first bar that was not the first one, or all if no bar is left."""
    first = made.first_bar
    if first is not None and before.begun is not None and before.begun - first > TENTATIVE:
        return []
    until = None if first is None else new_york_midnight(new_york_date(first))
    parts = (part if until is None else part.before(until) for part in made.covered)
    return [Tentative(part, before.begun or before.first_bar) for part in parts if part]  # type: ignore[arg-type]


def _doubted(before: Coverage, made: Coverage, limit: datetime | None, *, since: datetime | None) -> list[Tentative]:
    """Return what was answered before the vendor knew of the first bar, as far as it lies before *limit*.

    Args:
        before: The coverage before that bar.
        made: The coverage with it.
        limit: The bar that was known before; of bars of a user, who tell of what is before them alone, the first one.
        since: When that was answered, if nothing tells.
    """
    answered = before.empty_since or before.begun or since
    if answered is None or not _answered_too_early(before, made):
        return []
    parts = (part if limit is None else part.before(limit) for part in before.covered)
    return [Tentative(part, answered) for part in parts if part]


def _joined(parts: Iterable[Tentative]) -> tuple[Tentative, ...]:
    """Return the same emptiness in order, what one response said in as few ranges as possible."""
    by_answer: dict[datetime, list[TimeRange]] = {}
    for one in parts:
        by_answer.setdefault(one.answered, []).append(one.range)
    made = [Tentative(part, answered) for answered, ranges in by_answer.items() for part in union(ranges)]
    return tuple(sorted(made, key=lambda one: one.range))


def _answered_too_early(before: Coverage, made: Coverage) -> bool:
    """Tell whether emptiness that was answered before the first bar came may have been answered before the vendor knew better."""
    first = made.first_bar
    if first is None or (before.first_bar is not None and before.first_bar <= first):
        return False
    soon = before.empty_since is not None and before.empty_since - first <= TENTATIVE
    return soon or any(first in span for span in before.covered)  # there, a response had no bar
