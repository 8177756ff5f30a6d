"""Repair a store: quarantine damaged files and reduce the coverage to what the files prove.

A repair sends no request. Quarantined ranges stay requested, so that `update` fetches them again. Unusual bars are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import reduce

from data_engine.errors import DamagedFile, StoreError
from data_engine.market.finality import final_before
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_date, new_york_days, union
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import conflicting_symbols, refresh_conflicts
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_file import key as coverage_key
from data_engine.store.dated_ranges import Tentative
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition
from data_engine.store.tentative import counted_tentative
from data_engine.verify.findings import Finding
from data_engine.verify.series_check import StoredBars, check_series
from data_engine.verify.unrecognized_files import QUARANTINE

QUARANTINED = ("bars_damaged", "bars_in_future", "bars_off_grid", "file_changed", "file_damaged", "file_swapped")
"""The findings whose bar file is quarantined."""

_BESIDE = ("requested_damaged", "unrecognized_bars")
"""The findings whose file is of no series, and quarantined."""

_UNCOVERED = (*QUARANTINED, "file_missing", "rows_differ")


def repair(storage: BarStore, findings: Sequence[Finding], *, now: datetime) -> list[Finding]:
    """Repair what can be repaired, and return the inconsistencies that are left.

    Args:
        storage: The store; the caller holds its lock.
        findings: The findings of a `verify` of the same store.
        now: The time of that `verify`.
    """
    if any(finding.code == "temporary_files_left" for finding in findings):
        storage.files.remove_stale_drafts()
    left = [finding for finding in findings if finding.is_inconsistency and not finding.repairable]
    beside = [finding for finding in findings if finding.code in _BESIDE]
    left += [finding for finding in beside if not _quarantine(storage.files, finding.key)]
    with suppress(StoreError):  # one of those that are left
        storage.coverage.requested.refresh()
    by_series: dict[Series, list[Finding]] = {}
    for finding in findings:
        if finding.series is not None and finding.repairable:
            by_series.setdefault(finding.series, []).append(finding)
    for series, of_series in by_series.items():
        repair_series(storage, series, of_series, now=now)
    return left


def repair_series(storage: BarStore, series: Series, findings: Sequence[Finding], *, now: datetime) -> None:
    """Repair the coverage of one series.

    Args:
        storage: The store; the caller holds its lock.
        series: The series.
        findings: The findings of `check_series`.
        now: The current time; ranges that are final by then may stay covered.
    """
    codes = {finding.code for finding in findings}
    spans = [finding.period.span for finding in findings if finding.code in _UNCOVERED and finding.period is not None]
    if "coverage_damaged" in codes:
        _quarantine(storage.files, coverage_key(series))
    else:
        # Coverage first: if this process is killed, no quarantined bar is still covered.
        storage.coverage.update(series, lambda known: _uncovered(known, spans, now))
    for finding in findings:
        if finding.code in QUARANTINED and finding.period is not None:
            _quarantine(storage.files, Partition(series, finding.period).key)

    def rebuilt(known: Coverage) -> Coverage:
        # The check runs inside the update: a concurrent `store` counts its bars after it, never before.
        stored = check_series(storage, series, now=now).stored
        return _rebuilt(storage.coverage.without_old_marks(known), stored, codes, spans, now)

    storage.coverage.update(series, rebuilt)
    if series.symbol in conflicting_symbols(storage.files, series.dataset):
        with suppress(DamagedFile):  # the file of conflicts may be damaged, which its own finding says
            refresh_conflicts(storage, series)


def _rebuilt(known: Coverage, stored: StoredBars, codes: set[str], spans: Sequence[TimeRange], now: datetime) -> Coverage:
    """Return a coverage that counts the stored bars, and covers nothing that is not final."""
    requested = known.wanted
    damaged = "coverage_damaged" in codes
    if damaged:
        requested = union((*requested, *_before(spans, now)))
    if known.series.dataset.fill:
        requested = ()  # nothing of it is requested from Alpaca; without its coverage, the source of its bars is unknown
    elif stored.first and stored.last and (damaged or ("not_in_coverage" in codes and not requested)):
        # The requested ranges were lost with the coverage: request all days between the first and the last bar again.
        requested = union((*requested, new_york_days(new_york_date(stored.first), new_york_date(stored.last))))
    covered = _before(known.covered, final_before(known.series.dataset, now))
    storing = {one.period for one in known.storing}  # by somebody who may still be at work, and counts them then
    kept = replace(known, covered=covered, imported=intersection(known.imported, covered), tentative=_tentative(known, covered))
    made = replace(
        kept,
        wanted=requested,
        changing=frozenset(),
        provisional=difference(_before(known.provisional, now), known.covered),
        rows=stored.rows,
        files={period: mark for period, mark in stored.files.items() if period not in storing},
        first_bar=stored.first,
        last_bar=stored.last,
        empty_since=None if stored.first else known.empty_since,
    )
    return replace(made, tentative=counted_tentative(kept, made))


def _uncovered(known: Coverage, spans: Sequence[TimeRange], now: datetime) -> Coverage:
    """Return a coverage that neither claims nor counts *spans*; what it claimed or counted of them is requested."""
    counted = {period.span for period in known.rows}
    claims = (*known.covered, *known.provisional, *(one.range for one in known.unconfirmed))
    lost = [*intersection(spans, claims), *(span for span in spans if span in counted)]
    return replace(
        reduce(Coverage.unclaimed, spans, known),
        wanted=() if known.series.dataset.fill else union((*known.wanted, *_before(lost, now))),
        rows={period: count for period, count in known.rows.items() if period.span not in spans},
        files={period: fingerprint for period, fingerprint in known.files.items() if period.span not in spans},
    )


def _tentative(known: Coverage, covered: Sequence[TimeRange]) -> tuple[Tentative, ...]:
    """Return the tentative emptiness that is left if only *covered* stays covered."""
    return tuple(Tentative(part, one.answered) for one in known.tentative for part in intersection((one.range,), covered))


def _before(ranges: Sequence[TimeRange], limit: datetime) -> tuple[TimeRange, ...]:
    return tuple(part for span in ranges if (part := span.before(limit)))


def _quarantine(files: FileStore, key: str) -> bool:
    """Move a file where no reader sees it, or remove it if it is empty, and return whether that succeeded."""
    try:
        data = files.get(key)
        if data:
            taken = set(files.list(QUARANTINE))
            number = next(number for number in range(1, len(taken) + 2) if f"{QUARANTINE}/{key}.{number}" not in taken)
            files.update(f"{QUARANTINE}/{key}.{number}", lambda _: data)
        # Remove only what was copied: another process may have stored bars since.
        files.update(key, lambda now: b"" if now == data else None)
    except StoreError:
        return False
    return True
