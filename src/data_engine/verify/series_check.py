"""Check one series: read its files, and compare them with its coverage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import DamagedFile, StoreError
from data_engine.market.bars import EMPTY, Int64s, within
from data_engine.market.corporate_action import Action
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.finality import final_before
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, difference, intersection, iso
from data_engine.market.wording import and_more
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_file import key
from data_engine.store.file_count import FileCount, Fingerprint
from data_engine.store.partitions import Partition, Period
from data_engine.verify.daily_reconciliation import SessionSums
from data_engine.verify.day_habits import compare_days
from data_engine.verify.file_bars import FileBars
from data_engine.verify.file_catalog import FileCatalog
from data_engine.verify.file_check import CheckedFile, check_file, check_footer
from data_engine.verify.file_comparison import FileComparison, is_counted
from data_engine.verify.findings import Finding
from data_engine.verify.known_actions import KnownActions
from data_engine.verify.price_checks import PriceChecks
from data_engine.verify.session_checks import describe_days, outside_sessions
from data_engine.verify.session_habits import compare_sessions, sparse_sessions
from data_engine.verify.session_profile import SessionProfile, joined, measure

_TRIES = 3

_SHOWN = 3

_MINUTES, _DAYS = Timeframe.parse("1Min"), Timeframe.parse("1Day")


@dataclass(frozen=True, slots=True)
class StoredBars:
    """What the undamaged files of a series hold.

    Attributes:
        rows: The bars in each file.
        first: The timestamp of the first bar. If None, there is no bar.
        last: The timestamp of the last bar. If None, there is no bar.
        files: The fingerprint of each file; of a quick check, those that it needed.
    """

    rows: dict[Period, int]
    first: datetime | None
    last: datetime | None
    files: dict[Period, Fingerprint] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, files: Mapping[Period, CheckedFile]) -> StoredBars:
        """Return what some files hold together."""
        return cls(
            {period: file.rows for period, file in files.items()},
            min((file.first for file in files.values() if file.first), default=None),
            max((file.last for file in files.values() if file.last), default=None),
            {period: file.fingerprint for period, file in files.items() if file.fingerprint},
        )


@dataclass(frozen=True, slots=True)
class CheckedSeries:
    """The result of a check of one series.

    Attributes:
        series: The series.
        coverage: Its coverage. If None, that cannot be read.
        stored: What its undamaged files hold.
        findings: The inconsistencies and warnings.
        times: The timestamps of its bars, one array per file; empty for a quick check.
        trades: For bars of a day or longer, their numbers of trades, one array per file.
        sparse: The midnights in New York of its sparse sessions (`sparse_sessions`), microseconds since 1970.
    """

    series: Series
    coverage: Coverage | None
    stored: StoredBars
    findings: list[Finding]
    times: list[Int64s]
    trades: list[Any] = field(default_factory=list)
    sparse: Int64s = field(default_factory=lambda: np.empty(0, np.int64))


def check_series(
    storage: BarStore,
    series: Series,
    *,
    now: datetime,
    quick: bool = False,
    catalog: FileCatalog | None = None,
    actions: Collection[Action] = (),
) -> CheckedSeries:
    """Check the files of a series and compare them with its coverage. Nothing is changed.

    Args:
        storage: The store.
        series: The series.
        now: The current time; bars and coverage beyond what is final by then are inconsistent.
        quick: Whether to read only file metadata; bars are not checked then.
        catalog: The files of the dataset, to recognize the content of another file.
        actions: The stored corporate actions of the symbol.
    """
    check = partial(_check_once, storage, series, now, quick, catalog, actions)
    checked = check()
    for _ in range(_TRIES):
        if not any(finding.is_inconsistency for finding in checked.findings):
            break
        # A run may have written between the reads of the coverage and of the files: check again.
        with suppress(StoreError):
            storage.coverage.requested.refresh()
        before, checked = checked, check()
        if (checked.coverage, checked.findings) == (before.coverage, before.findings):
            break
    return checked


def remaining(coverage: Coverage) -> tuple[TimeRange, ...]:
    """Return the requested ranges where a killed or running `ingest` may have stored bars that are not yet counted."""
    ranges = difference(coverage.wanted, coverage.trusted)
    return tuple(span for span in ranges if can_hold_bars(span, coverage.series.dataset))


def _check_once(
    storage: BarStore, series: Series, now: datetime, quick: bool, catalog: FileCatalog | None, actions: Collection[Action]
) -> CheckedSeries:
    findings: list[Finding] = []
    coverage = _read_coverage(storage, series, findings)
    if coverage is not None and coverage.updated is not None:
        now = max(now, coverage.updated)  # a clock that is behind must not take the newest bars for those of the future
    reconcile = series.dataset.timeframe == _MINUTES and not quick
    known = KnownActions(actions, series.dataset.adjustment)
    prices = PriceChecks(series.dataset, known, None if coverage is None else _continuous(coverage))
    sums = SessionSums(coverage.covered if reconcile and coverage is not None else ())

    profiles: list[SessionProfile] = []
    days: list[FileBars] = []

    def add(table: pa.Table) -> None:
        bars = FileBars.of(table, series.dataset)
        prices.add(bars)
        sums.add(bars)
        if series.dataset.fill:
            return  # its sessions are parts, far from each other: they say nothing of each other
        if series.dataset.timeframe.intraday:
            profiles.append(measure(bars))
        elif series.dataset.timeframe == _DAYS:
            days.append(bars)

    files = _check_files(storage, series, now, coverage) if quick else _read_files(storage, series, now, add)
    wrong = {period: file.finding for period, file in files.items() if file.finding}
    if coverage is not None:
        comparison = FileComparison(storage.files, coverage, remaining(coverage), catalog)
        wrong = comparison.inconsistencies(files)
        findings += comparison.warnings
    good = {period: file for period, file in files.items() if period not in wrong}
    stored = StoredBars.of(good)
    findings += [wrong[period] for period in sorted(wrong)]
    if coverage is not None:
        findings += _coverage_findings(coverage, stored, now, all_good=not wrong)
        findings += _uncounted(coverage, good, wrong, storage.files.location)
    times = [file.times for file in good.values() if file.times is not None]
    trades = [file.trades for file in good.values() if file.trades is not None]
    findings += prices.findings(series)
    sparse = np.empty(0, np.int64)
    if profiles:
        profile = joined(profiles)
        findings += compare_sessions(series, profile, () if coverage is None else coverage.covered)
        sparse = profile.midnights[sparse_sessions(profile)]
    if days:
        findings += compare_days(series, days)
    findings += _outside_sessions(series, times)
    if reconcile:
        findings += _differences_from_days(storage, series, sums)
    return CheckedSeries(series, coverage, stored, findings, times, trades, sparse)


def _continuous(coverage: Coverage) -> tuple[TimeRange, ...]:
    """Return the ranges in which one bar of a series follows the other."""
    return (*coverage.covered, *coverage.provisional, *(one.range for one in coverage.filled))


def _read_coverage(storage: BarStore, series: Series, findings: list[Finding]) -> Coverage | None:
    """Return the coverage of a series; if it cannot be read, None, and a finding more."""
    try:
        return storage.coverage.read(series)
    except StoreError as error:
        code = "coverage_damaged" if isinstance(error, DamagedFile) else "file_unreadable"
        findings.append(Finding(code, str(error), series, key=key(series)))
        return None


def _read_files(storage: BarStore, series: Series, now: datetime, add: Callable[[pa.Table], None]) -> dict[Period, CheckedFile]:
    """Check every file of a series by its content, in order of time.

    Args:
        storage: The store.
        series: The series.
        now: The current time.
        add: A function that takes the bars of each undamaged file.
    """
    partitions = sorted(storage.partitions(series.dataset, series.symbol), key=lambda one: one.period)
    checked = ((one.period, check_file(storage.files, one, now, add)) for one in partitions)
    return {period: file for period, file in checked if file is not None}


def _check_files(storage: BarStore, series: Series, now: datetime, coverage: Coverage | None) -> dict[Period, CheckedFile]:
    """Check every file of a series by its metadata, in order of time: of the first and the last, which bars they end with.

    Args:
        storage: The store.
        series: The series.
        now: The current time.
        coverage: What is counted of the files.
    """
    partitions = sorted(storage.partitions(series.dataset, series.symbol), key=lambda one: one.period)
    ends = {partitions[0].period, partitions[-1].period} if partitions else set()
    files = {}
    for partition in partitions:
        counted = None if coverage is None or partition.period in ends else _counted(coverage, partition.period)
        file = check_footer(storage.files, partition, now, counted)
        if file is not None:
            files[partition.period] = file
    return files


def _counted(coverage: Coverage, period: Period) -> FileCount:
    return FileCount(coverage.rows.get(period, 0), fingerprint=coverage.fingerprint(period))


def _coverage_findings(coverage: Coverage, stored: StoredBars, now: datetime, *, all_good: bool) -> list[Finding]:
    """Return the inconsistencies within a coverage, and of its first and last bar.

    Args:
        coverage: The coverage.
        stored: What the files hold.
        now: The current time.
        all_good: Whether every file is as counted; else the first or last bar may be in one that is not.
    """
    series, found = coverage.series, []
    finding = partial(Finding, series=series, key=key(series))
    both = intersection(coverage.covered, coverage.provisional)
    if both:
        found.append(finding("coverage_damaged", f"the coverage of {series} has {both[0]} both as final and as provisional"))
    limits = ((coverage.covered, final_before(series.dataset, now)), (coverage.provisional, now))
    beyond = [part for ranges, limit in limits for span in ranges if (part := span.after(limit))]
    if beyond:
        text = f"the coverage of {series} includes {beyond[-1]}, which cannot be final at {iso(now.replace(microsecond=0))}"
        found.append(finding("coverage_not_final", text))
    for name, counted, actual in (("first", coverage.first_bar, stored.first), ("last", coverage.last_bar, stored.last)):
        if all_good and counted != actual and _is_false_end(coverage, stored, counted, actual, first=name == "first"):
            says, holds = ("none" if time is None else iso(time) for time in (counted, actual))
            text = f"the coverage of {series} has {says} as its {name} bar; the files have {holds}"
            found.append(finding("bar_range_differs", text))
    return found


def _is_false_end(
    coverage: Coverage, stored: StoredBars, counted: datetime | None, actual: datetime | None, *, first: bool
) -> bool:
    """Tell whether a first or last bar that differs is an inconsistency: in a covered range, or in a counted file."""
    dataset = coverage.series.dataset
    if any(time is not None and Period.of(time, dataset) in coverage.uncounted for time in (counted, actual)):
        return False
    if counted is not None and (actual is None or (counted < actual if first else counted > actual)):
        covered = any(counted in span for span in (*coverage.covered, *coverage.provisional))
        return covered or Period.of(counted, dataset) in coverage.rows or not stored.rows
    if actual is None:
        return False
    period = Period.of(actual, dataset)
    return coverage.rows.get(period) == stored.rows.get(period)


def _uncounted(
    coverage: Coverage, files: Mapping[Period, CheckedFile], wrong: Collection[Period], location: str
) -> list[Finding]:
    """Return a finding for the files that differ from the coverage, as a killed run leaves them: bars are stored first.

    Args:
        coverage: The coverage.
        files: The undamaged files.
        wrong: The files with an inconsistency.
        location: The location of the store.
    """
    series = coverage.series
    uncounted = sorted(coverage.uncounted - {*wrong})
    uncounted += [period for period, file in files.items() if period not in coverage.uncounted and not is_counted(coverage, file)]
    if not uncounted:
        return []
    keys = [Partition(series, period).key for period in uncounted]
    paths = and_more((f"{location}/{path}" for path in keys), 1, "files")
    coverage_lost = "" if coverage.rows else ", or its coverage was lost"
    text = f"the coverage does not count {paths} as they are; a run was killed or is active{coverage_lost}"
    return [Finding("not_in_coverage", text, series, key=keys[0])]


def _outside_sessions(series: Series, times: Sequence[Int64s]) -> list[Finding]:
    stray = [outside for part in times if (outside := outside_sessions(part, series.dataset)).size]
    if not stray:
        return []
    count = sum(part.size for part in stray)
    days = "; ".join(describe_days(part, series.dataset.timeframe) for part in stray[:_SHOWN])
    return [Finding("bars_outside_sessions", f"{count:,} bars outside every session of the exchange: {days}", series)]


def _differences_from_days(storage: BarStore, series: Series, sums: SessionSums) -> list[Finding]:
    """Return a finding if minutes differ from stored daily bars by more than is usual."""
    daily = Series(series.symbol, Dataset(_DAYS, series.dataset.adjustment, series.dataset.feed))
    tables = [EMPTY]
    try:
        covered = storage.coverage.read(daily).covered
        for partition in storage.partitions(daily.dataset, daily.symbol):
            days = storage.read(daily, partition.period)
            tables += [within(days, shared) for span in covered if (shared := span.intersect(partition.period.span))]
    except StoreError:
        return []  # the check of the daily series reports it
    differences = sums.compare(pa.concat_tables(tables))
    if not differences:
        return []
    count = len({difference.day for difference in differences})
    shown = and_more(differences, _SHOWN, separator="; ")
    text = f"minutes and daily bars differ in {count} of {sums.sessions} sessions: {shown}"
    return [Finding("minutes_differ_from_days", text, series)]
