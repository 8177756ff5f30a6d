"""Compare the sessions of a series of minutes with each other.

A session can repeat another, be flat, have another volume, lack all bars outside regular hours, or begin at another time of day.
Each rule needs much evidence, since a false alarm costs more than a missed oddity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.series import Dataset, Feed, Series
from data_engine.market.time_range import TimeRange, iso, new_york_date, union
from data_engine.market.wording import and_more, plural
from data_engine.verify.findings import Finding
from data_engine.verify.session_profile import MINUTE, NO_ONSET, SessionProfile

CHANCE = float(np.log(1e-9))
"""The logarithm of the probability below which something is surprising."""

SIZE = float(np.log(20.0))
"""The least change of the usual dollars per trade. Real sessions differ by a factor of 2."""

VOLUME = float(np.log(200.0))
"""The least change of the usual volume of a minute, where trades are not counted. Real sessions differ by a factor of 25."""

_BARS = 20  # in regular hours: of a session with fewer, nothing is compared

_REPEATED = 30  # bars of a session that is a copy

_AROUND = 10  # sessions

_SIDE = 5  # sessions on either side of a step

_APART = 31 * 86_400_000_000  # microseconds: sessions farther apart are not compared

_EXACT = 1e-12  # relative: sums of the same numbers

_MOSTLY_FLAT = 0.5

_STILL = 0.25  # of the bars around repeat the price before: a flat stretch is no surprise

_WITHOUT = 0.2  # of the bars of a session have no volume

_MANY = 20  # bars outside regular hours: where every session around has as many, one without any is surprising

_FULL = 0.8  # of the regular minutes: a symbol that trades in as many trades outside regular hours, too

_REGULAR = 390

_ORDERED = 200  # minutes of a session whose order and density can be judged

_DISORDER = 1.8  # times the usual moves between bars, relative to those within bars

_DENSE = 0.98  # of the minutes have a bar in three quarters of the sessions around

_SPARSE = 0.88  # of that share

_VOTES = 8  # sessions

_MOST, _FEW = 0.45, 0.10  # shares of votes

_SHOWN = 3


def compare_sessions(series: Series, profile: SessionProfile, covered: Sequence[TimeRange]) -> Iterator[Finding]:
    """Yield the findings about the sessions of a series.

    Args:
        series: The series.
        profile: What is measured of its sessions.
        covered: The covered ranges; only in completely covered sessions can bars be missing.
    """
    rules = {
        "session_repeated": _repeated(profile),
        "price_frozen": _frozen(profile),
        "bars_disordered": _disordered(profile),
        "session_sparse": _sparse(profile),
        "volume_unusual": _volumes(profile),
        "extended_hours_missing": _outside_missing(series.dataset, profile, _inside(profile, covered)),
        "timestamps_shifted": _shifted(profile),
    }
    for code, found in rules.items():
        texts = list(found)
        if texts:
            yield Finding(code, and_more(texts, _SHOWN, separator="; "), series)


def _repeated(profile: SessionProfile) -> Iterator[str]:
    """Yield the sessions with the same prices, minute by minute, as an earlier one."""
    rows = np.flatnonzero((profile.regular >= _REPEATED) & (profile.flat < _MOSTLY_FLAT * profile.regular))
    order = rows[np.lexsort((rows, profile.prices[rows]))]
    counts = profile.regular[order]
    same = np.diff(counts) == 0
    for sums in (profile.prices[order], profile.products[order]):
        same &= np.abs(np.diff(sums)) <= _EXACT * np.abs(sums[1:])
    for at in np.flatnonzero(same).tolist():
        first, again = (_day(midnight) for midnight in profile.midnights[order[at : at + 2]])
        yield f"{again} has the {counts[at]} regular bars of {first}, price by price"


def _frozen(profile: SessionProfile) -> Iterator[str]:
    """Yield the stretches at one price that the habit of the sessions around does not explain."""
    for still in profile.still:
        row = int(np.searchsorted(profile.midnights, still.midnight))
        low, high = max(row - _AROUND, 0), row + _AROUND + 1
        flat = int(profile.flat[low:high].sum()) - (still.count - 1)
        bars = int(profile.regular[low:high].sum()) - still.count
        share = (flat + 0.5) / (bars + 1)
        if share < _STILL and still.count * np.log(share) < CHANCE:
            yield (
                f"{still.count} regular bars from {iso(from_micros(still.first))} on have one price, {still.price:g}; "
                f"of the bars around, {share:.0%} repeat the price before"
            )


def _disordered(profile: SessionProfile) -> Iterator[str]:
    """Yield the sessions in which bars do not open where the one before closed, unlike the sessions around."""
    rows = np.flatnonzero(profile.regular >= _ORDERED)
    values = profile.disorder[rows]
    odd = np.zeros(rows.size, bool)
    for at in np.flatnonzero(values > 1).tolist():
        around = _around(values, profile.midnights[rows], at)
        odd[at] = around.size >= _SIDE and values[at] > _DISORDER * np.median(around)
    if odd.any():
        worst = float(values[odd].max())
        yield (
            f"{_days(profile.midnights[rows], odd)}: prices move {worst:.2g} times as far between bars as within, usually "
            f"{np.median(values[~odd]) if not odd.all() else 0.0:.2g} times"
        )


def sparse_sessions(profile: SessionProfile) -> Any:
    """Return for each session whether minutes are absent here and there, though the sessions around have nearly all."""
    rows = np.flatnonzero(profile.places >= _ORDERED)
    midnights = profile.midnights[rows]
    share = profile.regular[rows] / profile.places[rows]
    odd = np.zeros(profile.midnights.size, bool)
    for at in np.flatnonzero(share < _SPARSE).tolist():
        around = _around(share, midnights, at)
        usual = float(np.quantile(around, 0.25)) if around.size >= _SIDE else 0.0
        odd[rows[at]] = usual >= _DENSE and share[at] < _SPARSE * usual
    return odd


def _sparse(profile: SessionProfile) -> Iterator[str]:
    """Yield the sessions of `sparse_sessions`."""
    odd, enough = sparse_sessions(profile), profile.places >= _ORDERED
    if odd.any():
        least = (profile.regular[odd] / profile.places[odd]).min()
        usual = np.median(profile.regular[enough] / profile.places[enough])
        yield f"{_days(profile.midnights, odd)}: {least:.0%} of the regular minutes have a bar, usually {usual:.0%}"


def _around(values: Any, midnights: Int64s, at: int) -> Any:
    """Return the values of the sessions right before and after one."""
    before, after = _sides(midnights, at, _AROUND)
    return np.concatenate([values[before], values[after]])


def _volumes(profile: SessionProfile) -> Iterator[str]:
    """Yield the sessions without volume, and those whose volume is of another order than before and after."""
    enough = profile.regular >= _BARS
    without = enough & (profile.without > _WITHOUT * profile.regular)
    if without.any():
        share = profile.without[without].sum() / profile.regular[without].sum()
        yield f"{_days(profile.midnights, without)}: {share:.0%} of the bars have no volume"
    rows = np.flatnonzero(enough & ~without)
    limit, what = (SIZE, "dollars per trade") if profile.counted else (VOLUME, "volume of a bar")
    yield from odd_levels(profile.midnights[rows], profile.size[rows], limit, what)


def odd_levels(midnights: Int64s, values: Any, limit: float, what: str) -> Iterator[str]:
    """Yield the days whose value is of another order than those before and those after, and the steps to another level.

    Args:
        midnights: The days, in microseconds since 1970, ascending.
        values: A logarithm per day.
        limit: The least difference of the logarithms.
        what: The name of the value.
    """
    odd = np.zeros(midnights.size, bool)
    factor = 1.0
    usual = values.copy()
    for at in np.flatnonzero(np.abs(values - np.median(values)) > limit / 2).tolist() if values.size else ():
        sides = [float(np.median(values[side])) for side in _sides(midnights, at, _AROUND) if side.stop - side.start >= _SIDE]
        if sides and min(abs(values[at] - side) for side in sides) > limit:
            odd[at] = True
            usual[at] = sides[0]
            factor = float(np.exp(values[at] - sides[0]))
    if odd.any():
        yield f"{_days(midnights, odd)} with {factor:.3g} times the usual {what}"
    for at, change in _steps(midnights, usual, limit):
        yield f"from {_day(midnights[at])} on, {np.exp(change):.3g} times the {what} before"


def _sides(midnights: Int64s, at: int, most: int) -> tuple[slice, slice]:
    """Return the sessions right before and right after one, none of them a month away."""
    low = max(int(np.searchsorted(midnights, midnights[at] - _APART)), at - most)
    high = min(int(np.searchsorted(midnights, midnights[at] + _APART, side="right")), at + 1 + most)
    return slice(low, at), slice(at + 1, high)


def _steps(midnights: Int64s, values: Any, limit: float) -> Iterator[tuple[int, float]]:
    """Yield the places where the level of some values changes by more than a limit, and by how much."""
    if values.size < 2 * _SIDE or np.ptp(values) <= limit:
        return
    windows = np.median(np.lib.stride_tricks.sliding_window_view(values, _SIDE), axis=1)
    changes = windows[_SIDE:] - windows[:-_SIDE]  # of the five from `at + _SIDE` on, against the five before
    near = midnights[2 * _SIDE - 1 :] - midnights[: 1 - 2 * _SIDE] <= _APART
    wanted = np.flatnonzero((np.abs(changes) > limit) & near)
    for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1) if wanted.size else ():
        # Where several places see one step, it is where the values themselves differ most.
        at = run[np.abs(values[run + _SIDE] - values[run + _SIDE - 1]).argmax()]
        yield int(at + _SIDE), float(changes[at])


def _outside_missing(dataset: Dataset, profile: SessionProfile, inside: Any) -> Iterator[str]:
    """Yield the stretches of sessions without any bar before the open, or from the close on."""
    if dataset.feed not in (Feed.SIP, Feed.IEX):
        return
    rows = np.flatnonzero(inside & (profile.regular >= _BARS))
    minutes = dataset.timeframe.length.total_seconds() / 60
    full = rows.size >= _SIDE and float(np.median(profile.regular[rows])) * minutes >= _FULL * _REGULAR
    for counts, where in ((profile.before[rows], "before the open"), (profile.after[rows], "from the close on")):
        if not counts.any():
            if full and dataset.feed is Feed.SIP:
                share = float(np.median(profile.regular[rows])) * minutes / _REGULAR
                yield f"no bar {where} in {plural(rows.size, 'session')}, though {share:.0%} of regular minutes have one"
            continue
        for first, last in _runs(counts == 0):
            # A new listing opens hours after the exchange on its first day.
            listed = rows[0] == 0 and (first, last) == (0, 1)
            if not listed and _is_surprising(counts, first, last):
                days = np.zeros(profile.midnights.size, bool)
                days[rows[first:last]] = True
                yield f"no bar {where} on {_days(profile.midnights, days)}, unlike the sessions around"


def _is_surprising(counts: Int64s, first: int, last: int) -> bool:
    """Tell whether it is surprising that a run of sessions has no bar."""
    around = np.concatenate([counts[max(first - _AROUND, 0) : first], counts[last : last + _AROUND]])
    others = np.concatenate([counts[:first], counts[last:]])
    if around.size < _AROUND:
        return False
    chance = (last - first) * np.log((np.count_nonzero(others == 0) + 0.5) / (others.size + 1))
    return bool(around.min() >= _MANY or chance < CHANCE)


def _shifted(profile: SessionProfile) -> Iterator[str]:
    """Yield the months in which the day seems to begin at another minute than the open."""
    months = profile.midnights.astype("datetime64[us]").astype("datetime64[M]")
    found: dict[int, list[str]] = {}
    for month in np.unique(months):
        for offset in _onset(profile.onset[months == month]):
            found.setdefault(offset, []).append(str(month))
    if not found:
        found = {offset: ["all sessions"] for offset in _onset(profile.onset)}
    for offset, where in found.items():
        way = "after" if offset > 0 else "before"
        reason = "timestamps may be the end of each bar" if offset == 1 else "timestamps may be of another clock"
        yield f"{and_more(where, _SHOWN)}: the day begins {plural(abs(offset), 'minute')} {way} the open by its volume; {reason}"


def _onset(onsets: Int64s) -> list[int]:
    """Return the minute at which most of some sessions begin, if that is not the open."""
    votes = onsets[onsets != NO_ONSET]
    if votes.size < _VOTES:
        return []
    values, counts = np.unique(votes, return_counts=True)
    most = int(values[counts.argmax()])
    if most == 0 or counts.max() < _MOST * onsets.size or np.count_nonzero(votes == 0) > _FEW * onsets.size:
        return []
    return [most]


def _inside(profile: SessionProfile, covered: Sequence[TimeRange]) -> Any:
    """Tell which sessions are completely covered."""
    inside = np.zeros(profile.midnights.size, bool)
    for span in union(covered):
        inside |= (profile.midnights >= to_micros(span.start)) & (profile.midnights + 24 * 60 * MINUTE <= to_micros(span.end))
    return inside


def _runs(mask: Any) -> Iterator[tuple[int, int]]:
    """Yield the first and the one after the last position of each stretch that is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.view(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _day(midnight: int) -> str:
    return new_york_date(from_micros(midnight)).isoformat()


def _days(midnights: Int64s, mask: Any) -> str:
    """Return some sessions as text: the day, or the first and the last and how many."""
    rows = np.flatnonzero(mask)
    if rows.size == 1:
        return _day(midnights[rows[0]])
    return f"{_day(midnights[rows[0]])} .. {_day(midnights[rows[-1]])} ({plural(rows.size, 'session')})"
