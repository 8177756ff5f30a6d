"""Import bars of another source into the gaps of Alpaca's bars: a dataset of their own has them, and no other bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import DataEngineError, InputError
from data_engine.ingest.file_import import ImportReport, bars_by_series
from data_engine.ingest.import_sources import SourceFile
from data_engine.market.bars import Int64s, take, timestamps_us, to_micros
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, intersection, iso, union
from data_engine.store.bar_store import BarStore, split_by_period
from data_engine.store.coverage import Coverage
from data_engine.store.file_count import Fingerprint
from data_engine.store.filled import Filled, joined, outside
from data_engine.store.legacy_files import refuse_foreign
from data_engine.store.live_fills import fill_of, live_fills
from data_engine.store.partitions import Partition, Period, periods
from data_engine.verify.vendor_gaps import vendor_gaps

REASONS = ("at_alpaca", "not_covered", "no_gap", "other_source")
"""Why a bar is left out: Alpaca has it, Alpaca was not asked there or its response is not final, `verify` reports no gap there,
or another source has filled the gap."""


@dataclass(slots=True)
class FillReport(ImportReport):
    """The result of an import into gaps, or of a dry run; its series are those of fill bars.

    Attributes:
        source: The name of the source.
        left_out: The number of bars that were left out, by reason (`REASONS`).
        ranges: The gaps that the bars were put into, by series.
    """

    source: str = ""
    left_out: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    ranges: dict[Series, tuple[TimeRange, ...]] = field(default_factory=dict)

    @property
    def has_nothing(self) -> bool:
        """Whether no bar of the files fills a gap, now or before."""
        return not self.added and not self.stored


@dataclass(frozen=True, slots=True)
class Gaps:
    """What is known of the gaps of one series.

    Attributes:
        vendor: The gaps that `verify` reports, disjoint.
        answered: Where Alpaca responded completely and finally.
        bars: The timestamps of Alpaca's bars near the bars to import; microseconds since 1970.
        live: The filled ranges in which Alpaca has no bar.
        void: The filled ranges in which it has one by now.
        filled: The timestamps of the fill bars there.
    """

    vendor: tuple[TimeRange, ...]
    answered: tuple[TimeRange, ...]
    bars: Int64s
    live: tuple[Filled, ...]
    void: tuple[Filled, ...]
    filled: Int64s


@dataclass(frozen=True, slots=True)
class FillPlan:
    """What an import of one series does.

    Attributes:
        bars: The bars to add.
        ranges: The gaps that they begin to fill.
        withdrawn: These, and the filled ranges beside them that no longer count; other fill bars that lie there are removed.
        stored: The number of bars that are there already.
        left_out: The number of bars that are left out, by reason.
    """

    bars: pa.Table
    ranges: tuple[TimeRange, ...]
    withdrawn: tuple[TimeRange, ...]
    stored: int
    left_out: Mapping[str, int]


def import_fill(
    storage: BarStore,
    sources: Sequence[SourceFile],
    *,
    source: str,
    now: datetime,
    timeframe: object = None,
    dry_run: bool = False,
) -> FillReport:
    """Add those bars of files that lie in a gap that `verify` reports as missing at Alpaca.

    Bars that the same source has put into a gap keep their values. A range counts as filled once its bars are on disk.

    Args:
        storage: The store to add to; the caller has locked it against other runs.
        sources: The files that `find_sources` returned, by series.
        source: The name of the source (`check_source`).
        now: The instant before which all bars start.
        timeframe: The timeframe of all bars. If None, as their timestamps and the names of the datasets say.
        dry_run: Whether to read everything and write nothing.

    Raises:
        InputError: If the files are the store's own.
        ForeignFiles: If the legacy pipeline wrote the folder of the store.
    """
    report = FillReport(source=source)
    for series, table in bars_by_series(storage, sources, report, now=now, timeframe=timeframe):
        report.bars += table.num_rows
        try:
            _fill_series(storage, series, table, report, now, dry_run)
        except DataEngineError as error:
            report.failed.append((str(series), str(error)))
    return report


def _fill_series(storage: BarStore, series: Series, table: pa.Table, report: FillReport, now: datetime, dry_run: bool) -> None:
    if not series.dataset.adjustment.is_raw:
        raise InputError(f"cannot fill {series}: bars of another source are raw; import raw bars")
    target = fill_of(series)
    refuse_foreign(storage.files, target)
    plan = plan_fill(table, _gaps_of(storage, series, table, now), report.source)
    if plan.bars.num_rows and not dry_run:
        _apply(storage, target, plan, report.source)
    report.added += plan.bars.num_rows
    report.stored += plan.stored
    report.by_series[target] = plan.bars.num_rows
    report.ranges[target] = plan.ranges
    for reason, count in plan.left_out.items():
        report.left_out[reason] += count


def _gaps_of(storage: BarStore, series: Series, table: pa.Table, now: datetime) -> Gaps:
    """Read what `plan_fill` needs to know."""
    known, target = storage.coverage.read(series), fill_of(series)
    answered = difference(known.covered, known.imported)
    filled = storage.coverage.read(target)
    live = live_fills(storage, series, filled)
    return Gaps(
        vendor_gaps(storage, series, now=now) if answered else (),
        answered,
        _timestamps(storage, series, table),
        live,
        tuple(one for one in filled.filled if one not in live),
        _timestamps(storage, target, table),
    )


def _timestamps(storage: BarStore, series: Series, table: pa.Table) -> Int64s:
    """Return the timestamps of the stored bars of a series in the files of some bars."""
    parts = [storage.read(series, period, ["timestamp"]) for period, _ in split_by_period(table, series.dataset)]
    return np.concatenate([np.empty(0, np.int64), *map(timestamps_us, parts)])


def plan_fill(table: pa.Table, gaps: Gaps, source: str) -> FillPlan:
    """Return which bars of a table fill gaps, and why the others do not.

    Args:
        table: Bars of one series, sorted, one per timestamp.
        gaps: What is known of the gaps of the series.
        source: The source of the bars.
    """
    times = timestamps_us(table)
    theirs = [one.range for one in gaps.live if one.source != source]
    ours = [one.range for one in gaps.live if one.source == source]
    free = [part for gap in gaps.vendor for part in difference((gap,), (*theirs, *ours))]
    again = _inside(times, ours)
    stored = again & np.isin(times, gaps.filled)
    new = (again & ~stored) | _inside(times, free)
    rest = ~(new | stored)
    reasons = {
        "at_alpaca": np.isin(times, gaps.bars),
        "other_source": _inside(times, theirs),
        "not_covered": ~_inside(times, gaps.answered),
        "no_gap": np.ones(times.size, bool),
    }
    left_out = {}
    for reason, which in reasons.items():
        left_out[reason] = int(np.count_nonzero(rest & which))
        rest &= ~which
    begun = tuple(part for part in free if _inside(times, (part,)).any())
    void = (one.range for one in gaps.void if intersection((one.range,), begun))
    return FillPlan(take(table, new), begun, union((*begun, *void)), int(np.count_nonzero(stored)), left_out)


def _apply(storage: BarStore, target: Series, plan: FillPlan, source: str) -> None:
    """Write the bars, then the ranges: killed in between, the bars are in no range, and no call returns them."""
    near = sorted({period for part in plan.withdrawn for period in periods(part, target.dataset)})
    touched = [period for period in near if storage.files.size(Partition(target, period).key) is not None]
    if touched:
        # What is there is of a killed import, or of a range that Alpaca has bars in: it must not pass for bars of this source.
        storage.coverage.update(target, partial(_withdrawn, ranges=plan.withdrawn, touched=touched))
        for period in touched:
            storage.settle(target, period, timestamps_us(plan.bars), period.span, plan.withdrawn)
    storage.add(target, plan.bars)
    marks = _fingerprints(storage, target, plan.bars)

    def filled(known: Coverage) -> Coverage:
        # Who stores bars leaves `changing` to whoever holds the store.
        counted = known.counted(storage.count_files(known, touched))
        return replace(counted, filled=joined(known.filled, plan.ranges, source), files={**counted.files, **marks})

    storage.coverage.update(target, filled)


def _fingerprints(storage: BarStore, target: Series, bars: pa.Table) -> dict[Period, Fingerprint]:
    """Return the fingerprints of the files of some bars, to which nothing else can have written: the caller holds the store."""
    keys = {period: Partition(target, period).key for period, _ in split_by_period(bars, target.dataset)}
    return {period: Fingerprint.of(data) for period, key in keys.items() if (data := storage.files.get(key)) is not None}


def _withdrawn(known: Coverage, ranges: Sequence[TimeRange], touched: Iterable[Period]) -> Coverage:
    return replace(known.with_changing(touched), filled=outside(known.filled, ranges))


def _inside(times: Int64s, ranges: Iterable[TimeRange]) -> Any:
    """Return which timestamps lie inside one of some ranges."""
    inside = np.zeros(times.size, bool)
    for one in ranges:
        inside |= (times >= to_micros(one.start)) & (times < to_micros(one.end))
    return inside


def to_json(report: FillReport) -> Mapping[str, Any]:
    """Return the fields that ``import --fill --json`` prints."""
    return {
        "source": report.source,
        "files": report.files,
        "bars": report.bars,
        "added": report.added,
        "held": report.stored,
        "left_out": report.left_out,
        "series": [
            {
                "dataset": series.dataset.name,
                "symbol": series.symbol,
                "added": count,
                "ranges": [[iso(one.start), iso(one.end)] for one in report.ranges[series]],
            }
            for series, count in report.by_series.items()
        ],
        "failed": [{"file": path, "message": message} for path, message in report.failed],
    }
