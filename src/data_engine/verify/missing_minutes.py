"""Find minutes of the day that a series lacks session after session, such as every 09:30, though the minutes around have bars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from data_engine.market.exchange_calendar import is_half_day, regular_hours
from data_engine.market.series import Series
from data_engine.market.time_range import NEW_YORK
from data_engine.market.wording import and_more
from data_engine.verify.findings import Finding
from data_engine.verify.gaps import CHANCE, Presence

_AROUND = 5  # places before and after whose bars tell the habit

_SESSIONS = 8  # of a month with fewer, nothing is judged

_LEAST = 0.5  # of the places around must have bars

_MOST = 0.25  # of the expected bars may be present

_WHOLE_DAY, _HALF_DAY = 390, 210  # regular minutes

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class LackingMinute:
    """A minute of the day that a series lacks in nearly all sessions of a month.

    Attributes:
        place: The number of the bar in the session, from 0.
        days: The sessions of the month without it.
        text: The month and the evidence.
    """

    place: int
    days: tuple[date, ...]
    text: str


def missing_minutes(one: Presence) -> Iterator[Finding]:
    """Yield a finding if a series lacks minutes of the day in nearly all sessions of a month."""
    found: dict[int, list[str]] = {}
    for lacking in lacking_minutes(one):
        found.setdefault(lacking.place, []).append(lacking.text)
    if found:
        step = int(one.series.dataset.timeframe.length.total_seconds()) // 60
        yield Finding("minutes_missing", _text(one.series, found, step), one.series)


def lacking_minutes(one: Presence) -> Iterator[LackingMinute]:
    """Yield the minutes of the day that a series lacks in nearly all sessions of a month, by month and minute."""
    timeframe = one.series.dataset.timeframe
    step = int(timeframe.length.total_seconds()) // 60
    if not timeframe.intraday or step > _AROUND or not one.days.size:
        return
    filled = np.unpackbits(one.bits, axis=1)
    alive = filled.any(axis=1)
    days = [date.fromordinal(day) for day in one.days[alive].tolist()]
    filled = filled[alive]
    counts = np.array([(_HALF_DAY if is_half_day(day) else _WHOLE_DAY) // step for day in days])
    room = np.arange(filled.shape[1]) < counts[:, None]
    starts = [
        row for row, day in enumerate(days) if not row or (day.year, day.month) != (days[row - 1].year, days[row - 1].month)
    ]
    if not starts:
        return
    have, possible = (np.add.reduceat(each, starts, axis=0, dtype=np.int64) for each in (filled & room, room))
    for number, place, text in _lacking(have, possible):
        of_month = range(starts[number], starts[number + 1] if number + 1 < len(starts) else len(days))
        absent = tuple(days[row] for row in of_month if room[row, place] and not filled[row, place])
        yield LackingMinute(place, absent, f"{days[starts[number]]:%Y-%m}: {text}")


def _lacking(have: Any, possible: Any) -> Iterator[tuple[int, int, str]]:
    """Yield the months and places that nearly all sessions lack, with the evidence.

    Args:
        have: The number of bars, by month and place.
        possible: The number of sessions with that place.
    """
    share = (_around(have) + 0.5) / (_around(possible) + 1)
    suspects = (possible >= _SESSIONS) & (share >= _LEAST) & (have <= _MOST * share * possible)
    for number, place in zip(*(each.tolist() for each in np.nonzero(suspects)), strict=True):
        count, present, usual = int(possible[number, place]), int(have[number, place]), float(share[number, place])
        # The probability of so few bars is at most exp(-n D), with the divergence D of the two shares.
        rate = present / count
        divergence = (rate * np.log(rate / usual) if present else 0.0) + (1 - rate) * np.log((1 - rate) / (1 - usual))
        if -count * divergence < CHANCE:
            yield number, place, f"{present} of {count} sessions have it, and {usual:.0%} of the minutes around"


def _around(counts: Any) -> Any:
    """Return for each place the sum over the places before and after it."""
    width = counts.shape[1]
    sums = np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0)))
    places = np.arange(width)
    return sums[:, np.minimum(places + _AROUND + 1, width)] - sums[:, np.maximum(places - _AROUND, 0)] - counts


def _text(series: Series, found: dict[int, list[str]], step: int) -> str:
    """Return the places as New York time, and the evidence of the first."""
    day = date(2024, 6, 3)
    opened: datetime = series.dataset.timeframe.floor(regular_hours(day).start).astimezone(NEW_YORK)
    names = [f"{opened + timedelta(minutes=place * step):%H:%M}" for place in sorted(found)]
    evidence = and_more(found[min(found)], _SHOWN, "months", separator="; ")
    return f"the bar of {and_more(names, _SHOWN)} (New York) is missing session after session; {evidence}"
