"""Find series that begin late or end early, though the time before or after is covered.

A delisted or renamed symbol ends, and a new listing begins, so only some ends are suspicious: no known corporate action is near,
and the series traded nearly every day until its last bar, or traded a whole day on its first one. A new listing opens hours
after the exchange. Another dataset of the symbol that has bars there is evidence of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from data_engine.market.series import Feed, Series
from data_engine.market.time_range import new_york_date
from data_engine.market.wording import plural
from data_engine.verify.findings import Finding
from data_engine.verify.gaps import CHANCE, Presence
from data_engine.verify.known_actions import KnownActions
from data_engine.verify.series_check import CheckedSeries

FIRST_DAY = date(2016, 1, 4)
"""The first session of Alpaca's consolidated history."""

_AROUND = 20  # sessions that tell the habit

_FEW = 5  # with fewer sessions before the end, there is no habit

_SESSIONS = 6  # without a bar before the first

_OTHERS = 3  # sessions in which another dataset has bars

_FIRST_PLACES = 5  # of a session: a new listing has no bar there

_SHARE = 0.8  # of the usual bars of a session


@dataclass(frozen=True, slots=True)
class Life:
    """When a series has bars.

    Attributes:
        series: The series.
        days: The completely covered sessions, as ordinals.
        filled: The number of bars in each, in regular hours.
        early: Whether each has a bar in its first minutes.
        first: The New York day of the first bar.
        last: That of the last.
        known: The corporate actions.
    """

    series: Series
    days: Any
    filled: Any
    early: Any
    first: date
    last: date
    known: KnownActions


def life_of(checked: CheckedSeries, filled: Presence, known: KnownActions) -> Life | None:
    """Return when a series has bars; None if it has none, or files are damaged."""
    first, last = checked.stored.first, checked.stored.last
    if first is None or last is None or any(finding.is_inconsistency for finding in checked.findings):
        return None
    bits = np.unpackbits(filled.bits, axis=1) if filled.days.size else np.zeros((0, 8), np.uint8)
    return Life(
        checked.series,
        filled.days,
        bits.sum(axis=1),
        bits[:, :_FIRST_PLACES].any(axis=1),
        new_york_date(first),
        new_york_date(last),
        known,
    )


def ends(lives: Sequence[Life]) -> Iterator[Finding]:
    """Yield a finding per series that begins late or ends early.

    Args:
        lives: The series of all checked datasets.
    """
    others: dict[tuple[str, Feed], list[Life]] = {}
    for life in lives:
        others.setdefault((life.series.symbol, life.series.dataset.feed), []).append(life)
    for life in lives:
        beside = [other for other in others[life.series.symbol, life.series.dataset.feed] if other is not life]
        yield from _ends_early(life, beside)
        yield from _begins_late(life, beside)


def _ends_early(life: Life, beside: Sequence[Life]) -> Iterator[Finding]:
    after = life.days > life.last.toordinal()
    later = [other for other in beside if _count(life.days[after], upto=other.last) >= _OTHERS]
    around = life.filled[~after][-_AROUND:] > 0
    chance = np.count_nonzero(after) * np.log((np.count_nonzero(~around) + 0.5) / (around.size + 1)) if around.size else 0.0
    if not later and (around.size < _FEW or chance >= CHANCE or life.known.ends_near(life.last)):
        return
    days = [date.fromordinal(int(day)) for day in life.days[after]]
    reason = f"bars in {np.count_nonzero(around)} of the {around.size} sessions before, and no known action ends it"
    if later:
        reason = f"{_names(later)} has bars until {max(other.last for other in later)}"
    yield Finding(
        "series_ends_early",
        f"the last bar is of {life.last}, and the {plural(len(days), 'session')} to {days[-1]} are covered without; {reason}",
        life.series,
    )


def _begins_late(life: Life, beside: Sequence[Life]) -> Iterator[Finding]:
    begin = FIRST_DAY.toordinal() if life.series.dataset.feed is Feed.SIP else 0
    before = (life.days < life.first.toordinal()) & (life.days >= begin)
    earlier = [other for other in beside if _count(life.days[before], since=other.first) >= _OTHERS]
    if not earlier and (np.count_nonzero(before) < _SESSIONS or not _is_cut(life) or life.known.begins_near(life.first)):
        return
    days = [date.fromordinal(int(day)) for day in life.days[before]]
    reason = "its first session is a whole one, unlike that of a new listing, and no known action begins it"
    if earlier:
        reason = f"{_names(earlier)} has bars since {min(other.first for other in earlier)}"
    yield Finding(
        "series_begins_late",
        f"the first bar is of {life.first}, and {plural(len(days), 'session')} from {days[0]} on are covered without; {reason}",
        life.series,
    )


def _is_cut(life: Life) -> bool:
    """Tell whether the first session looks like one in the middle of a series."""
    if not life.series.dataset.timeframe.intraday or life.series.dataset.feed is not Feed.SIP:
        return False
    at = int(np.searchsorted(life.days, life.first.toordinal()))
    following = life.filled[at + 1 : at + 1 + _AROUND]
    if following.size < _AROUND or life.days[at] != life.first.toordinal():
        return False
    usual = float(np.median(following))
    return bool(life.early[at] and life.early[at + 1 : at + 1 + _AROUND].mean() > _SHARE and life.filled[at] >= _SHARE * usual)


def _count(days: Any, *, since: date | None = None, upto: date | None = None) -> int:
    """Count days from one on, or up to one."""
    if since is not None:
        return int(np.count_nonzero(days >= since.toordinal()))
    return int(np.count_nonzero(days <= upto.toordinal())) if upto is not None else int(days.size)


def _names(lives: Sequence[Life]) -> str:
    return ", ".join(sorted(life.series.dataset.name for life in lives))
