"""Plan which stored bars of adjusted series are fetched again to find out whether all of a series has one price base.

Every split or dividend changes all prices before it. So if the first bars of a series, and the first bars of each range that came
in several responses, come again as they are stored, no action was worked in since they came, and what came after them is of the
same base. That is looked at when a run has fetched all, and of other series once a week: the vendor may work an action in late,
whose date lies before the session that each update compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from data_engine.ingest.bar_rate import bars_per_session, sessions_in
from data_engine.ingest.plan import FetchTask, IngestionPlan, fits_one_request
from data_engine.market.bars import from_micros, timestamps_us
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage

WEEKLY = timedelta(days=7)
"""How often the first bars of an adjusted series are compared."""

_COMPARED_BARS = 20  # of days and longer


@dataclass(frozen=True, slots=True)
class BasisCheck:
    """The first stored bars of one range of a series.

    Attributes:
        series: The series, of an adjusted dataset.
        range: Where they are.
        bars_per_session: How many bars a session of the series brings.
        asof: The day whose owner of the symbol is meant; None is today.
    """

    series: Series
    range: TimeRange
    bars_per_session: float
    asof: date | None = None


def basis_checks(
    storage: BarStore, known: Coverage, before: Coverage, now: datetime, asof: date | None = None
) -> list[BasisCheck]:
    """Return the bars of a series that are to be compared: none if all is confirmed, and was looked at within a week.

    Bars that were claimed when the run began are older than all that it fetched: if they are as they were, so is what came
    after them in time. Of what lies before them, or was left by an earlier run, each range has to be looked at.

    Args:
        storage: The store.
        known: The coverage of the series as it is now.
        before: The coverage when the run began; without claims if it has fetched all of them again.
        now: The instant when the run began.
        asof: The day whose owner of the symbol is meant; None is today.

    Raises:
        DamagedFile: If a file cannot be read.
    """
    if known.series.dataset.adjustment.is_raw or not known.rows:
        return []
    if not known.unconfirmed and known.basis_checked is not None and now - known.basis_checked < WEEKLY:
        return []
    first = _first_bars(storage, known.series, tuple(sorted((*known.covered, *known.provisional))))
    older = first is not None and before.rows and _claims(before, first.start)
    pieces = [one for one in known.unconfirmed if not (first and older and one.answered == now and one.range > first)]
    found = [first, *(_first_bars(storage, known.series, (one.range,)) for one in pieces)]
    rate = bars_per_session(known)
    return [BasisCheck(known.series, span, rate, asof) for span in dict.fromkeys(found) if span is not None]


def has_nothing_to_compare(storage: BarStore, known: Coverage) -> bool:
    """Tell whether no bar is stored in what is unconfirmed of a series: emptiness is of any price base.

    Raises:
        DamagedFile: If a file cannot be read.
    """
    return _first_bars(storage, known.series, tuple(one.range for one in known.unconfirmed)) is None


def _claims(known: Coverage, instant: datetime) -> bool:
    return any(span.start <= instant < span.end for span in (*known.covered, *known.provisional))


def _first_bars(storage: BarStore, series: Series, ranges: Sequence[TimeRange]) -> TimeRange | None:
    """Return where the first stored bars inside some ranges are; None if there are none."""
    for span in ranges:
        for period in storage.periods(series, span):
            times = timestamps_us(storage.read(series, period, ["timestamp"], within=span))
            if times.size:
                return _window(from_micros(int(times[0])), series.dataset.timeframe).intersect(span)
    return None


def _window(first: datetime, timeframe: Timeframe) -> TimeRange:
    """Return a range from about a bar on that holds some bars, and is the same for many symbols."""
    if timeframe.unit == "Min":
        start = first.replace(minute=0)
        return TimeRange(start, start + timedelta(hours=1))
    if timeframe.unit == "Hour":
        return new_york_days(new_york_date(first), new_york_date(first))
    start = end = timeframe.floor(first)
    for _ in range(_COMPARED_BARS):
        end = timeframe.next(end)
    return TimeRange(start, end)


def check_plan(checks: Iterable[BasisCheck], dataset: Dataset, *, page_limit: int = 10_000) -> IngestionPlan:
    """Return the requests for some checks of one dataset: those near each other share one where a page can carry both."""
    tasks: list[FetchTask] = []
    for check in sorted(checks, key=lambda one: (str(one.asof), one.range, one.series.symbol)):
        joined = _joined(tasks[-1], check, page_limit) if tasks else None
        if joined is None:
            tasks.append(_task(check))
        else:
            tasks[-1] = joined
    outstanding = Counter(symbol for task in tasks for symbol in task.symbols)
    spans = [task.range for task in tasks]
    whole = TimeRange(min(span.start for span in spans), max(span.end for span in spans))
    return IngestionPlan(dataset, tuple(outstanding), whole, tuple(tasks), outstanding, page_limit=page_limit)


def _task(check: BasisCheck) -> FetchTask:
    symbol, estimate = check.series.symbol, sessions_in(check.range) * check.bars_per_session
    own: Mapping[str, TimeRange] = {symbol: check.range}
    return FetchTask((symbol,), check.range, check.series.dataset, estimate, None, check.asof, own, compare_only=True)


def _joined(task: FetchTask, check: BasisCheck, page_limit: int) -> FetchTask | None:
    """Return one task for both, or None if two are as good."""
    symbol = check.series.symbol
    if symbol in task.own_overlaps or check.asof != task.asof or not fits_one_request(task.symbols):
        return None
    union = TimeRange(min(task.range.start, check.range.start), max(task.range.end, check.range.end))
    before = sessions_in(task.range) or 1.0
    estimate = sessions_in(union) * (task.estimate / before + check.bars_per_session)
    if union != task.range and estimate > page_limit:
        return None
    symbols = tuple(sorted((*task.symbols, symbol)))
    own = {**task.own_overlaps, symbol: check.range}
    return replace(task, symbols=symbols, range=union, estimate=estimate, own_overlaps=own)
