"""Check a store: every selected series, the gaps between bars, and the files beside the series. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import StoreError
from data_engine.market.corporate_action import Action
from data_engine.market.exchange_calendar import regular_hours, session_starts, sessions
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import ticker_of
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_date
from data_engine.market.wording import and_more
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.selection import DatasetFilter
from data_engine.verify.action_records import all_findings
from data_engine.verify.file_catalog import FileCatalog
from data_engine.verify.fill_check import superseded_fills
from data_engine.verify.findings import Finding
from data_engine.verify.gaps import KINDS, Gap, Presence, find_gaps, missing_ranges, presence
from data_engine.verify.history_check import history_findings
from data_engine.verify.index_check import index_findings
from data_engine.verify.known_actions import KnownActions
from data_engine.verify.missing_minutes import missing_minutes
from data_engine.verify.series_check import CheckedSeries, StoredBars, check_series
from data_engine.verify.series_life import Life, ends, life_of
from data_engine.verify.unrecognized_files import damaged_requests, unrecognized_files
from data_engine.verify.whole_datasets import of_whole_dataset

_READERS = 4

_SHOWN = 3


@dataclass(slots=True)
class VerificationReport:
    """The result of a check of a store.

    Attributes:
        series: The number of series checked.
        findings: Inconsistencies and warnings: those of series by dataset and symbol, then those of the store.
        gaps: The number of gaps by kind (see `data_engine.verify.gaps`); for quiet ones, the number of absent bars.
    """

    series: int = 0
    findings: list[Finding] = field(default_factory=list)
    gaps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    @property
    def inconsistencies(self) -> list[Finding]:
        """The findings that are inconsistencies."""
        return [finding for finding in self.findings if finding.is_inconsistency]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that are warnings."""
        return [finding for finding in self.findings if not finding.is_inconsistency]

    def count(self, gaps: Iterable[Gap]) -> None:
        """Add gaps to the numbers by kind."""
        for gap in gaps:
            self.gaps[gap.kind] += 1


def verify(
    storage: BarStore,
    choice: DatasetFilter,
    names: Sequence[str] | None = None,
    *,
    now: datetime,
    quick: bool = False,
    history: StoreHistory | None = None,
) -> VerificationReport:
    """Check the selected series and, if no symbols are given, the files beside them.

    Args:
        storage: The store.
        choice: The datasets.
        names: The symbols. If None, all.
        now: The current time; bars and coverage beyond what is final by then are inconsistent.
        quick: Whether to read only file metadata; bars and gaps are not checked then.
        history: The history of the store, if it was read already.
    """
    report = VerificationReport()
    by_dataset: dict[Dataset, list[Series]] = {}
    for series in known_series(storage, choice, names):
        by_dataset.setdefault(series.dataset, []).append(series)
    lives: list[Life] = []
    every: list[CheckedSeries] = []
    for dataset, of_dataset in by_dataset.items():
        checked = _check_all(storage, dataset, of_dataset, now, quick)
        _add_dataset(report, dataset, checked, now)
        lives += [one.life for one in checked if one.life]
        every += [one.result for one in checked]
    found = list(ends(lives))
    for dataset, of_dataset in by_dataset.items():
        of_ends = [finding for finding in found if finding.series and finding.series.dataset == dataset]
        report.findings += of_whole_dataset(dataset, of_ends, len(of_dataset))
    actions = ActionStore(storage.files)
    report.findings += all_findings(actions, every, actions.ticker_changes().until(now), new_york_date(now))
    report.findings += damaged_requests(storage.files)
    if names is None:
        report.findings += unrecognized_files(storage)
        history = history or StoreHistory(storage.files)
        report.findings += index_findings(storage.files, history)
        report.findings += history_findings(storage.files, report.findings, quick=quick, history=history)
    return report


def known_series(storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None) -> Iterator[Series]:
    """Yield the series that have coverage or files or are requested, by dataset and symbol.

    What is requested is read from the store when this begins; `verify` reports what of it cannot be read.
    """
    with suppress(StoreError):
        storage.coverage.requested.refresh()
    selected = None if names is None else set(names)
    found = {dataset: {series.symbol for series in storage.coverage.series(dataset)} for dataset in storage.coverage.datasets()}
    for name in storage.files.folders(""):
        with suppress(ValueError):
            found.setdefault(Dataset.from_name(name), set())
    for dataset in sorted((one for one in found if one in choice), key=lambda one: one.name):
        others = (symbol for symbol in storage.symbols(dataset) if symbol not in found[dataset])
        with_files = {symbol for symbol in others if any(True for _ in storage.partitions(dataset, symbol))}
        for symbol in sorted(found[dataset] | with_files):
            if selected is None or symbol in selected:
                yield Series(symbol, dataset)


@dataclass(frozen=True, slots=True)
class _Checked:
    """One checked series.

    Attributes:
        result: The result of the check.
        filled: The presence of its bars. If None, it is unknown.
        life: When it has bars. If None, that is unknown.
    """

    result: CheckedSeries
    filled: Presence | None = None
    life: Life | None = None


def _check_all(storage: BarStore, dataset: Dataset, series: Sequence[Series], now: datetime, quick: bool) -> list[_Checked]:
    """Check the series of one dataset."""
    catalog = FileCatalog(storage, dataset)
    store = ActionStore(storage.files)

    def check(one: Series) -> _Checked:
        actions = _actions_of(store, one)
        checked = check_series(storage, one, now=now, quick=quick, catalog=catalog, actions=actions)
        if checked.coverage is None or quick:
            return _Checked(checked)
        filled = presence_of(checked, checked.coverage.covered)
        checked.trades.clear()
        checked.times.clear()  # the presence needs one bit per minute, the timestamps 64
        checked.findings.extend(superseded_fills(storage, checked.coverage) if dataset.fill else missing_minutes(filled))
        life = None if dataset.fill else life_of(checked, filled, KnownActions(actions, dataset.adjustment))
        return _Checked(checked, filled, life)

    if quick and storage.files.folder is not None:
        return [_slim(check(one)) for one in series]  # four threads would take twice the time: a footer is little but Python
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda one: _slim(check(one)), series))


def presence_of(checked: CheckedSeries, ranges: Iterable[TimeRange]) -> Presence:
    """Return which bars a checked series has in some ranges; bars of a damaged or missing file are no gap of the market's."""
    findings = (finding for finding in checked.findings if finding.is_inconsistency)
    damaged = [finding.period.span for finding in findings if finding.period is not None]
    return presence(checked.series, checked.times, difference(ranges, damaged), checked.trades)


def _slim(checked: _Checked) -> _Checked:
    """Return the same without what is known of each file, which nothing after the check of a series looks at."""
    one = checked.result
    coverage = one.coverage and replace(one.coverage, rows={}, files={})
    stored = StoredBars({}, one.stored.first, one.stored.last)
    return replace(checked, result=replace(one, coverage=coverage, stored=stored))


def _actions_of(actions: ActionStore, series: Series) -> Sequence[Action]:
    """Return the corporate actions of the symbol of a series that count."""
    try:
        return actions.read(ticker_of(series.symbol)).counted
    except StoreError:
        return ()  # `unrecognized_files` reports it


def _add_dataset(report: VerificationReport, dataset: Dataset, checked: Sequence[_Checked], now: datetime) -> None:
    """Add the findings and gaps of one dataset to a report."""
    surprising, quiet = find_gaps(dataset, [one.filled for one in checked if one.filled])
    report.series += len(checked)
    report.gaps["quiet"] += sum(quiet.values())
    report.count(surprising)
    single: dict[Series, list[Gap]] = {}
    for gap in surprising:
        if gap.kind == "single_symbol":
            single.setdefault(gap.series, []).append(gap)
    found: list[Finding] = []
    for one in (each.result for each in checked):
        found += one.findings
        if one.series in single:
            text = f"{_listed(single[one.series])} without bars, unlike other symbols: a trading halt, or bars missing at Alpaca"
            found.append(Finding("gap", text, one.series))
        if one.coverage is not None:
            missing = missing_ranges(one.coverage, now)
            report.count(missing)
            found += _missing_findings(one.coverage, missing)
    report.findings += of_whole_dataset(dataset, found, len(checked))
    report.findings += _shared_findings(dataset, [gap for gap in surprising if gap.kind == "shared"])


def _missing_findings(coverage: Coverage, missing: Sequence[Gap]) -> list[Finding]:
    """Return a finding if ranges of a series are requested and missing."""
    requested = [gap for gap in missing if gap.kind != "no_session" and intersection((gap.span,), coverage.wanted)]
    if not requested:
        return []
    failure = f" (last run: {coverage.failure.message})" if coverage.failure else ""
    return [Finding("range_missing", f"requested but missing: {_listed(requested)}{failure}", coverage.series)]


def _shared_findings(dataset: Dataset, shared: Sequence[Gap]) -> Iterator[Finding]:
    """Yield one finding per range that symbols lack together; whole sessions in a row are one."""
    by_range: dict[TimeRange, list[Gap]] = {}
    for gap in shared:
        by_range.setdefault(gap.span, []).append(gap)
    joined: list[tuple[TimeRange, list[Gap]]] = []
    for span, of_range in sorted(by_range.items()):
        if joined and _continues(joined[-1][0], span, dataset) and _symbols(joined[-1][1]) == _symbols(of_range):
            joined[-1] = (TimeRange(joined[-1][0].start, span.end), joined[-1][1])
        else:
            joined.append((span, of_range))
    for span, of_range in joined:
        lacking, usual = of_range[0].lacking + 1, of_range[0].others + 1
        symbols = and_more((gap.series.symbol for gap in of_range), _SHOWN)
        text = (
            f"{dataset.name}: {span} has no bar for {lacking} of the {usual} symbols that usually trade then ({symbols}): "
            "bars missing at Alpaca, or a halt of the whole market"
        )
        yield Finding("gap", text)


def _continues(span: TimeRange, later: TimeRange, dataset: Dataset) -> bool:
    """Tell whether there are no regular hours, or no bar of a day or longer, between two ranges."""
    first, last = new_york_date(span.end), new_york_date(later.start)
    if dataset.timeframe.intraday:
        return not any(regular_hours(day).intersect(TimeRange(span.end, later.start)) for day in sessions(first, last))
    return not any(span.end <= start < later.start for start in session_starts(TimeRange(span.end, later.end)))


def _symbols(gaps: Sequence[Gap]) -> list[str]:
    return [gap.series.symbol for gap in gaps]


def _listed(gaps: Sequence[Gap]) -> str:
    return and_more((f"{gap.span}" + (f" ({gap.places} bars)" if gap.places > 1 else "") for gap in gaps), _SHOWN)
