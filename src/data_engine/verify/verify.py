"""A whole store, looked at: every chosen series, what lies beside them, and the holes, classified by evidence.

Nothing is changed here, and nothing is asked of the vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import DamagedFile, StoreError
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import difference, intersection
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Fingerprint
from data_engine.store.partitions import Partition
from data_engine.store.selection import DatasetFilter
from data_engine.verify.findings import Finding, contradictions, warnings
from data_engine.verify.foreign_files import foreign_files
from data_engine.verify.gaps import KINDS, Hole, Presence, gaps, presence, unheld
from data_engine.verify.series_check import Examined, check_series

_READERS = 4

_SHOWN = 3


@dataclass(slots=True)
class VerificationReport:
    """What came of looking at a store.

    Attributes:
        series: how many were looked at.
        findings: contradictions and warnings; those of series by dataset and symbol, then those of the store.
        holes: by kind (see `data_engine.verify.gaps`): how many; of the thin ones, how many empty places for bars.
    """

    series: int = 0
    findings: list[Finding] = field(default_factory=list)
    holes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    @property
    def contradictions(self) -> list[Finding]:
        """What cannot be true."""
        return contradictions(self.findings)

    @property
    def warnings(self) -> list[Finding]:
        """What may be true, and should be known."""
        return warnings(self.findings)


def verify(
    storage: BarStore,
    choice: DatasetFilter,
    names: Sequence[str] | None = None,
    *,
    now: datetime,
    quick: bool = False,
) -> VerificationReport:
    """Look at every chosen series; without a choice of symbols, at what lies beside them, too.

    Args:
        storage: of the bars.
        choice: of datasets.
        names: of symbols; None is all.
        now: bars and claims that lie beyond what is final by then cannot be true.
        quick: read the ends of the files alone: rows, columns, first and last stamp. No bar is judged, and no hole.
    """
    verdict = VerificationReport()
    actions = ActionStore(storage.files)
    by_dataset: dict[Dataset, list[Series]] = {}
    for series in known_series(storage, choice, names):
        by_dataset.setdefault(series.dataset, []).append(series)
    for dataset, ours in by_dataset.items():
        catalogue = lru_cache(maxsize=1)(lambda dataset=dataset: _catalogue(storage, dataset))

        def look(
            series: Series, catalogue: Callable[[], Mapping[Fingerprint, Sequence[Partition]]] = catalogue
        ) -> tuple[Examined, Presence | None]:
            made = check_series(storage, series, now=now, quick=quick, catalogue=catalogue, ex_dates=_ex_dates(actions, series))
            if made.known is None or quick:
                return made, None
            # What a damaged or lost file held is no gap of the market's.
            known_bad = [
                finding.period.span for finding in made.findings if finding.is_contradiction and finding.period is not None
            ]
            filled = presence(series, made.times, difference(made.known.covered, known_bad))
            made.times.clear()  # one bit a minute is kept of them
            return made, filled

        with ThreadPoolExecutor(_READERS) as pool:
            looked = list(pool.map(look, ours))
        _conclude(verdict, dataset, [made for made, _ in looked], [filled for _, filled in looked if filled], now)
    if names is None:
        verdict.findings += foreign_files(storage)
    return verdict


def known_series(storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None) -> Iterator[Series]:
    """Yield the series that have coverage or files, by dataset and symbol."""
    found = {dataset: {series.symbol for series in storage.coverage.series(dataset)} for dataset in storage.coverage.datasets()}
    for name in storage.files.folders(""):
        with suppress(ValueError):
            found.setdefault(Dataset.from_name(name), set())
    for dataset in sorted(found, key=lambda one: one.name):
        if dataset in choice:
            held = {symbol for symbol in storage.symbols(dataset) if _has_files(storage, dataset, symbol)}
            for symbol in sorted(found[dataset] | held):
                if names is None or symbol in names:
                    yield Series(symbol, dataset)


def _ex_dates(actions: ActionStore, series: Series) -> Collection[date]:
    """Return the days on which a corporate action that is known explains a jump of a series' price."""
    try:
        return {action.day for action in actions.read(series.symbol).actions if action.event is not None}
    except StoreError:
        return ()  # said where what lies beside the series is looked at


def _has_files(storage: BarStore, dataset: Dataset, symbol: str) -> bool:
    return next(storage.partitions(dataset, symbol), None) is not None


def _catalogue(storage: BarStore, dataset: Dataset) -> dict[Fingerprint, list[Partition]]:
    """Return which files of a dataset were counted with which content."""
    found: dict[Fingerprint, list[Partition]] = {}
    for series in storage.coverage.series(dataset):
        try:
            known = storage.coverage.read(series)
        except (DamagedFile, StoreError):
            continue  # said where its series is looked at
        for period, mark in known.files.items():
            found.setdefault(mark, []).append(Partition(series, period))
    return found


def _conclude(
    verdict: VerificationReport, dataset: Dataset, looked: Sequence[Examined], filled: Sequence[Presence], now: datetime
) -> None:
    """Add the findings of one dataset: those of each series, and what only all of them together can tell."""
    surprising, thin = gaps(dataset, filled)
    by_series: dict[Series, list[Hole]] = {}
    for hole in surprising:
        by_series.setdefault(hole.series, []).append(hole)
        verdict.holes[hole.kind] += 1
    verdict.holes["thin"] += sum(thin.values())
    verdict.series += len(looked)
    for made in looked:
        verdict.findings += made.findings
        lone = [hole for hole in by_series.get(made.series, ()) if hole.kind == "lone"]
        if lone:
            text = f"{_listed(lone)} without a bar, where other symbols have some, or none can be asked: a halt, or the vendor"
            verdict.findings.append(Finding("hole", text, made.series))
        if made.known is not None:
            owed = unheld(made.known, now)
            for hole in owed:
                verdict.holes[hole.kind] += 1
            wanted = [one for one in owed if one.kind != "not_a_session" and intersection((one.span,), made.known.wanted)]
            if wanted:
                failure = made.known.failure
                why = f" (the last run: {failure.message})" if failure else ""
                verdict.findings.append(Finding("not_held", f"wanted and not held: {_listed(wanted)}{why}", made.series))
    verdict.findings += _of_vendor(dataset, [hole for hole in surprising if hole.kind == "vendor"])


def _of_vendor(dataset: Dataset, holes: Sequence[Hole]) -> Iterator[Finding]:
    """Yield one finding for each range that the market lacks, however many symbols that is."""
    by_range: dict[object, list[Hole]] = {}
    for hole in holes:
        by_range.setdefault(hole.span, []).append(hole)
    for span, ours in by_range.items():
        lacking, usual = ours[0].lacking + 1, ours[0].others + 1
        text = (
            f"{dataset.name}: {span} has no bar for {lacking} of the {usual} symbols that usually trade then "
            f"({', '.join(hole.series.symbol for hole in ours[:_SHOWN])}{' ...' if len(ours) > _SHOWN else ''}): "
            "the vendor lacks it, or the whole market stood still"
        )
        yield Finding("hole", text)


def _listed(holes: Sequence[Hole]) -> str:
    spans = [f"{hole.span}" + (f" ({hole.places} bars)" if hole.places > 1 else "") for hole in holes[:_SHOWN]]
    return ", ".join(spans) + (f" and {len(holes) - _SHOWN} more" if len(holes) > _SHOWN else "")
