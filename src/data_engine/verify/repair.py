"""The repair: a store's claims made true again, by claiming less. Nothing here asks the vendor.

What cannot be believed is set aside, out of the way of every reader, and no longer covered; it stays wanted, and `update` brings
it back. Bars that merely look odd are left alone: the vendor sent them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from data_engine.errors import StoreError
from data_engine.market.exchange_calendar import final_before
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_date, new_york_days, union
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition
from data_engine.verify.findings import Finding
from data_engine.verify.foreign_files import SET_ASIDE
from data_engine.verify.series_check import check_series

TAKEN_OUT = ("bars_damaged", "bars_in_future", "bars_off_grid", "file_changed", "file_damaged", "file_swapped")
"""The codes of files of a series that are set aside."""

_UNCLAIMED = (*TAKEN_OUT, "file_missing", "rows_differ")


def repair(storage: BarStore, findings: Sequence[Finding], *, now: datetime) -> list[Finding]:
    """Repair what can be repaired; return what a person must see to.

    Args:
        storage: of the findings; the caller holds it against other runs.
        findings: of a look at the same store.
        now: of that look.
    """
    if any(finding.code == "drafts_left" for finding in findings):
        storage.files.remove_stale_drafts()
    left = [finding for finding in findings if finding.is_contradiction and not finding.repairable]
    foreign = [finding for finding in findings if finding.code == "foreign_bars"]
    left += [finding for finding in foreign if not _set_aside(storage.files, finding.key)]
    by_series: dict[Series, list[Finding]] = {}
    for finding in findings:
        if finding.series is not None and finding.repairable and (finding.is_contradiction or finding.code == "not_counted"):
            by_series.setdefault(finding.series, []).append(finding)
    for series, ours in by_series.items():
        repair_series(storage, series, ours, now=now)
    return left


def repair_series(storage: BarStore, series: Series, findings: Sequence[Finding], *, now: datetime) -> None:
    """Make the claims of a series true again.

    Args:
        storage: of the series; the caller holds it against other runs.
        series: which.
        findings: of `check_series`.
        now: what is final by then may stay covered.
    """
    codes = {finding.code for finding in findings}
    spans = [finding.period.span for finding in findings if finding.code in _UNCLAIMED and finding.period is not None]
    if "coverage_damaged" in codes:
        for finding in findings:
            if finding.code == "coverage_damaged":
                _set_aside(storage.files, finding.key)
    else:
        # The claim goes first: what is set aside must not be promised, whoever is killed here.
        storage.coverage.update(series, lambda known: _unclaimed(known, spans, now))
    for finding in findings:
        if finding.code in TAKEN_OUT and finding.period is not None:
            _set_aside(storage.files, Partition(series, finding.period).key)
    lost = bool(codes & {"coverage_damaged", "not_counted"})
    limit = final_before(series.dataset, now)

    def mended(known: Coverage) -> Coverage:
        # Looked at in here: whoever stores bars meanwhile counts them after this, and not before.
        held = check_series(storage, series, now=now).held
        wanted = known.wanted
        if "coverage_damaged" in codes:
            wanted = union((*wanted, *(past for span in spans if (past := span.before(now)))))
        if lost and held.first and held.last and (not wanted or "coverage_damaged" in codes):
            # What was wanted went with the coverage: the days from the first bar to the last are wanted, and asked again.
            wanted = union((*wanted, new_york_days(new_york_date(held.first), new_york_date(held.last))))
        return replace(
            known,
            wanted=wanted,
            covered=tuple(piece for part in known.covered if (piece := part.before(limit))),
            provisional=difference([piece for part in known.provisional if (piece := part.before(now))], known.covered),
            rows=held.rows,
            files=held.files,
            first_bar=held.first,
            last_bar=held.last,
        )

    storage.coverage.update(series, mended)


def _unclaimed(known: Coverage, spans: Sequence[TimeRange], now: datetime) -> Coverage:
    """Return the same without a claim on some files, or a count of them; what was claimed or counted of them is wanted."""
    counted = [span for span in spans if any(period.span == span for period in known.rows)]
    wishes = [*intersection(spans, (*known.covered, *known.provisional)), *counted]
    return replace(
        known,
        wanted=union((*known.wanted, *(past for wish in wishes if (past := wish.before(now))))),
        covered=difference(known.covered, spans),
        provisional=difference(known.provisional, spans),
        rows={period: count for period, count in known.rows.items() if period.span not in spans},
        files={period: mark for period, mark in known.files.items() if period.span not in spans},
    )


def _set_aside(files: FileStore, key: str) -> bool:
    """Move a file out of every reader's way; an empty one is removed. Return whether it could be done."""
    try:
        data = files.get(key)
        if data:
            taken = set(files.list(SET_ASIDE))
            name = next(name for number in range(1, 1 + len(taken) + 1) if (name := f"{SET_ASIDE}/{key}.{number}") not in taken)
            files.update(name, lambda _: data)
        # Only what was copied goes: somebody may have stored bars there since.
        files.update(key, lambda now: b"" if now == data else None)
    except StoreError:
        return False
    return True
