"""What the files say against what is claimed: contradictions, series by series, and their repair.

Nothing here asks the vendor. A repair makes the store's claims true again by claiming less: what cannot be proven from the
files is no longer covered, stays wanted, and `update` brings it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from data_engine.bars import instant, problems, stamps
from data_engine.coverage import Coverage
from data_engine.errors import DamagedFile
from data_engine.partitions import Partition, Period
from data_engine.ranges import difference, new_york_date, new_york_days, union
from data_engine.series import Dataset, Series
from data_engine.storage import ParquetStorage
from data_engine.wishes import Choice


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction.

    Attributes:
        series: whose.
        code: stable word: ``coverage_damaged``, ``file_damaged``, ``file_missing``, ``rows_differ`` or ``bars_damaged``.
        message: for people, with the path.
        period: of the file, where it is about one.
        remedy: what `repair` does about it.
    """

    series: Series
    code: str
    message: str
    period: Period | None
    remedy: str


@dataclass(frozen=True, slots=True)
class Held:
    """What a series' files really hold.

    Attributes:
        rows: bars by file, of those that can be read.
        first: the earliest bar.
        last: the latest.
    """

    rows: dict[Period, int]
    first: datetime | None
    last: datetime | None


def verify(storage: ParquetStorage, choice: Choice, names: Sequence[str] | None = None) -> Iterator[tuple[Series, list[Finding]]]:
    """Yield every chosen series, by dataset and symbol, with what is wrong with it. Every bar of it is read."""
    for series in known_series(storage, choice, names):
        yield series, examine(storage, series)[1]


def known_series(storage: ParquetStorage, choice: Choice, names: Sequence[str] | None) -> Iterator[Series]:
    """Yield the series that have coverage or files, by dataset and symbol."""
    found = {dataset: {series.symbol for series in storage.coverage.series(dataset)} for dataset in storage.coverage.datasets()}
    for name in storage.files.folders(""):
        with suppress(ValueError):
            found.setdefault(Dataset.from_name(name), set())
    for dataset in sorted(found, key=lambda one: one.name):
        if dataset in choice:
            for symbol in sorted(found[dataset] | set(storage.symbols(dataset))):
                if names is None or symbol in names:
                    yield Series(symbol, dataset)


def examine(storage: ParquetStorage, series: Series) -> tuple[Held, list[Finding]]:
    """Return what a series' files hold, and where that contradicts its coverage."""
    findings: list[Finding] = []
    known: Coverage | None = None
    try:
        known = storage.coverage.read(series)
    except DamagedFile as error:
        findings.append(
            Finding(series, "coverage_damaged", str(error), None, "rebuilt from the files; its ranges are asked again")
        )
    rows: dict[Period, int] = {}
    first: datetime | None = None
    last: datetime | None = None
    for partition in storage.partitions(series.dataset, series.symbol):
        trouble, table = _look(storage, partition)
        if trouble is not None:
            findings.append(trouble)
            continue
        rows[partition.period] = len(table)
        if len(table):
            first = min(first or instant(table[0]), instant(table[0]))
            last = max(last or instant(table[-1]), instant(table[-1]))
    broken = {finding.period for finding in findings}
    for period, count in sorted(known.rows.items()) if known is not None else ():
        path = f"{storage.files.location}/{Partition(series, period).key}"
        if period not in rows and period not in broken:
            text = f"{path} is not there; the coverage counts {count:,} bars in it"
            findings.append(Finding(series, "file_missing", text, period, "no longer covered; asked again"))
        elif period in rows and rows[period] < count:  # more is no false claim: a run that was killed had not counted them yet
            text = f"{path} holds {rows[period]:,} bars; the coverage counts {count:,}"
            findings.append(Finding(series, "rows_differ", text, period, "counted anew; no longer covered; asked again"))
    return Held(rows, first, last), findings


def _look(storage: ParquetStorage, partition: Partition) -> tuple[Finding | None, Sequence[int]]:
    """Return what is wrong with one file, or its timestamps."""
    series, period = partition.series, partition.period
    remedy = "taken out; no longer covered; asked again"
    try:
        table = storage.read(series, period)
    except DamagedFile as error:
        return Finding(series, "file_damaged", str(error), period, remedy), ()
    times = stamps(table).tolist()
    trouble = problems(table)
    if trouble is None and times and not (instant(times[0]) in period.span and instant(times[-1]) in period.span):
        trouble = "it holds bars of another period"
    if trouble is None and not times:
        trouble = "it holds no bar"
    if trouble is not None:
        text = f"{storage.files.location}/{partition.key}: {trouble}"
        return Finding(series, "bars_damaged", text, period, remedy), ()
    return None, times


def repair(storage: ParquetStorage, series: Series, findings: Sequence[Finding]) -> None:
    """Make the claims of a series true again: damaged files go, and what they or the coverage claimed is no longer covered.

    Args:
        storage: of the series; the caller holds it against other runs.
        series: which.
        findings: of `examine`.
    """
    for finding in findings:
        if finding.code in ("file_damaged", "bars_damaged") and finding.period is not None:
            storage.files.delete(Partition(series, finding.period).key)
    held, _ = examine(storage, series)
    periods = {finding.period.span for finding in findings if finding.period is not None}
    if any(finding.code == "coverage_damaged" for finding in findings):
        storage.coverage.remove(series)
        # What was wanted is lost with the file. The days from the first bar to the last are wanted again, and asked again.
        if held.first and held.last:
            periods.add(new_york_days(new_york_date(held.first), new_york_date(held.last)))

    def mend(known: Coverage) -> Coverage:
        return replace(
            known,
            wanted=union((*known.wanted, *periods)),
            covered=difference(known.covered, periods),
            provisional=difference(known.provisional, periods),
            rows=held.rows,
            first_bar=held.first,
            last_bar=held.last,
        )

    storage.coverage.update(series, mend)
