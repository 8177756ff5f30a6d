"""Say what an import did, and which commands to run next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from shlex import quote

from data_engine.ingest.file_import import ImportReport
from data_engine.ingest.fill_import import FillReport
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, new_york_date
from data_engine.market.wording import dataset_options, plural
from data_engine.store.bar_store import BarStore
from data_engine.universe.index_store import MetadataStore


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did, for people.

    Attributes:
        lines: The lines to print.
        commands: The commands to run next, among the lines.
    """

    lines: list[str]
    commands: list[str]


def summary(store: BarStore, report: ImportReport, *, base_path: str | None, dry_run: bool) -> ImportSummary:
    """Return what an import did, and which commands to run next.

    Args:
        store: The store that was imported into.
        report: The result of the import.
        base_path: The store as the commands must name it. If None, they find it in the settings.
        dry_run: Whether nothing was written.
    """
    commands = [] if dry_run or not report.by_series else list(_next(store, report, base_path))
    return ImportSummary([*_done(report, dry_run=dry_run), *_what_is_next(report, commands)], commands)


def fill_summary(report: FillReport, *, dry_run: bool) -> ImportSummary:
    """Return what an import into gaps did.

    Args:
        report: The result of the import.
        dry_run: Whether nothing was written.
    """
    lines = [f"{path}: {message}" for path, message in report.failed]
    for dataset, bars in sorted(_by_dataset(report).items(), key=lambda item: item[0].name):
        gaps = sum(len(ranges) for series, ranges in report.ranges.items() if series.dataset == dataset)
        if bars:
            lines.append(f"{dataset.name}: {plural(bars, 'bar')} of {report.source}, {plural(gaps, 'new gap')}")
    out = report.left_out
    lines.append(
        f"{plural(report.files, 'file')} read, {plural(report.bars, 'bar')}: {report.added:,} "
        f"{'would be added' if dry_run else 'added'}, {report.stored:,} already stored, {sum(out.values()):,} left out; "
        f"{len(report.failed)} failed"
    )
    lines += [f"  {count:,} left out: {_WHY[reason]}" for reason, count in out.items() if count]
    if report.has_nothing:
        lines.append("No bar lies in a gap that `data-engine verify` reports as missing at Alpaca; nothing was added")
    elif not dry_run:
        lines.append("To read them, pass fill=True to `load`")
    return ImportSummary(lines, [])


_WHY = {
    "at_alpaca": "Alpaca has a bar of the same time",
    "other_source": "another source has filled the gap; `data-engine remove SYMBOL --fill` removes its bars",
    "not_covered": "the range was not fetched from Alpaca, or its bars are not final yet",
    "no_gap": "`data-engine verify` reports no gap there",
}


def _done(report: ImportReport, *, dry_run: bool) -> Iterator[str]:
    for path, message in report.failed:
        yield f"{path}: {message}"
    if report.continued:
        yield f"Completed {plural(report.continued, 'month')} of an interrupted import first"
    for dataset, bars in sorted(_by_dataset(report).items(), key=lambda item: item[0].name):
        yield f"{dataset.name}: {plural(bars, 'bar')} of {plural(len(_symbols(report, dataset)), 'symbol')}"
    if report.lists:
        yield f"Lists: {', '.join(report.lists)}"
    if report.lists_kept:
        names = ", ".join(report.lists_kept)
        yield f"Lists that the store has, with other members or another past, and that were not changed: {names}"
    verb = "would be added" if dry_run else "added"
    yield (
        f"{report.files:,} files of {len(report.by_series):,} series read, {report.bars:,} bars: {report.added:,} {verb}, "
        f"{report.stored:,} already stored, {report.covered:,} left out of covered ranges; {len(report.failed)} failed"
    )
    if report.moved and not dry_run:
        yield f"{plural(report.moved, 'old file')} {'moved to metadata/legacy' if report.kept else 'removed'}"


def _what_is_next(report: ImportReport, commands: list[str]) -> Iterator[str]:
    if not commands:
        return
    sessions = sum(report.claimed.values())
    if sessions:
        yield f"{plural(sessions, 'session')} of symbols count as covered by your word. To fetch what came since, run:"
    else:
        yield "Imported bars are not covered. To fetch the same range from Alpaca, which covers it, run:"
    yield from (f"  {command}" for command in commands)


def _by_dataset(report: ImportReport) -> dict[Dataset, int]:
    made: dict[Dataset, int] = {}
    for series, bars in report.by_series.items():
        made[series.dataset] = made.get(series.dataset, 0) + bars
    return made


def _symbols(report: ImportReport, dataset: Dataset) -> list[str]:
    return [series.symbol for series in report.by_series if series.dataset == dataset]


def _next(store: BarStore, report: ImportReport, base_path: str | None) -> Iterator[str]:
    """Yield the commands that cover what was imported, one per dataset; with claims, the one that goes on from them."""
    where = "" if base_path is None else f" --base-path {quote(base_path)}"
    if any(report.claimed.values()):
        yield f"data-engine update{where}"
        return
    for dataset in sorted(_by_dataset(report), key=lambda one: one.name):
        spans = [_span(store, series) or span for series, span in report.spans.items() if series.dataset == dataset]
        if spans:
            first = new_york_date(min(span.start for span in spans))
            last = new_york_date(max(span.end for span in spans) - timedelta(microseconds=1))
            names = _names(store, _symbols(report, dataset))
            yield f"data-engine ingest {names} --start {first} --end {last}{dataset_options(dataset)}{where}"


def _span(store: BarStore, series: Series) -> TimeRange | None:
    """Return from the first to the last stored bar of a series: an interrupted import has brought a part of them before."""
    known = store.coverage.read(series)
    if known.first_bar is None or known.last_bar is None:
        return None
    return TimeRange(known.first_bar, known.last_bar + timedelta(microseconds=1))


def _names(store: BarStore, symbols: list[str]) -> str:
    """Return the symbols as words of a command: the index with exactly these members, else themselves."""
    lists = MetadataStore(files=store.files)
    wanted = set(symbols)
    for name in lists.names():
        if set(lists.members(name)) == wanted:
            return f"--index {name}"
    return " ".join(quote(symbol) for symbol in symbols)
