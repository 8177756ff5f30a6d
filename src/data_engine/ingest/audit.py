"""Fetch final sessions again, compare them with what is stored, log the revisions, and store them on request.

The failure of one symbol is data, as in a run. Revisions are in the log before any of them is stored, and they are stored as by a
refetch: data first, coverage second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from data_engine.alpaca.client import AlpacaClient
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import TickerChanges, ticker_change_of, until_ticker_change
from data_engine.errors import (
    CredentialsRefused,
    DamagedFile,
    DataEngineError,
    Failure,
    InputError,
    Interrupted,
    InvalidSymbol,
    ServiceDown,
    SourceError,
    SourceUnavailable,
    StoreBusy,
)
from data_engine.ingest.drift import VANISHED, AuditPlan, Revision, compare, count_bars, revision_log, with_revisions
from data_engine.ingest.page_writer import PageWriter
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.task import may_split
from data_engine.market.bars import EMPTY, within
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Series
from data_engine.market.symbol import asof_day
from data_engine.market.time_range import TimeRange, intersection, iso
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.legacy_files import refuse_foreign
from data_engine.store.selection import DatasetFilter, select_series

_TICK_SECONDS = 0.2


@dataclass(slots=True)
class AuditReport:
    """The result of an audit.

    Attributes:
        plan: The plan that was carried out.
        requests: The number of requests sent.
        bars: The number of stored bars that were compared.
        revisions: All revisions, by series and time.
        logged: The number of revisions that were new to the log.
        logs: The keys of the logs that have them.
        accepted: The number of bars that were stored.
        failed: The failures of series that could not be compared.
    """

    plan: AuditPlan
    requests: int = 0
    bars: int = 0
    revisions: list[Revision] = field(default_factory=list)
    logged: int = 0
    logs: list[str] = field(default_factory=list)
    accepted: int = 0
    failed: dict[Series, Failure] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if every series was compared, with revisions or without; else as for an ingestion."""
        codes = {failure.code for failure in self.failed.values()}
        if StoreBusy.code in codes:
            return StoreBusy.exit_code
        planned = {Series(symbol, task.dataset) for task in self.plan.tasks for symbol in task.symbols}
        if planned and codes == {SourceUnavailable.code} and planned == self.failed.keys():
            return SourceUnavailable.exit_code
        return 1 if codes else 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``audit --json`` prints."""
        return {
            "sessions": self.plan.sessions,
            "held_sessions": self.plan.available,
            "series": self.plan.series,
            "seed": self.plan.seed,
            "requests": self.requests,
            "bars": self.bars,
            **count_bars(self.revisions),
            "logged": self.logged,
            "logs": self.logs,
            "accepted": self.accepted,
            "differences": [
                {
                    "dataset": one.series.dataset.name,
                    "symbol": one.series.symbol,
                    "timestamp": iso(one.timestamp),
                    "change": one.change,
                    "field": one.field,
                    "old": one.old,
                    "new": one.new,
                }
                for one in self.revisions
            ],
            "failed": [
                {"symbol": series.symbol, "dataset": series.dataset.name, "code": failure.code, "message": failure.message}
                for series, failure in self.failed.items()
            ],
        }


@dataclass(slots=True)
class _Comparison:
    """The result of one task; *pages* only if its bars are to be stored."""

    task: FetchTask
    pages: list[BarsPage] = field(default_factory=list)
    bars: int = 0
    revisions: list[Revision] = field(default_factory=list)
    failed: dict[Series, Failure] = field(default_factory=dict)

    def split(self, task: FetchTask, error: SourceError) -> list[FetchTask]:
        """Return the parts of a task that failed to fetch separately; symbols that cannot be fetched at all fail."""
        symbols = task.symbols
        if isinstance(error, InvalidSymbol) and error.symbol in symbols:
            self.failed[Series(error.symbol, task.dataset)] = Failure.of(error)
            parts = [tuple(name for name in symbols if name != error.symbol)]
        elif len(symbols) > 1 and may_split(error):
            middle = len(symbols) // 2
            parts = [symbols[:middle], symbols[middle:]]
        else:
            self.failed.update((Series(name, task.dataset), Failure.of(error)) for name in symbols)
            parts = []
        return [replace(task, symbols=part) for part in parts if part]


@dataclass(frozen=True, slots=True)
class Auditable:
    """The series that an audit draws from.

    Attributes:
        known: Their coverage.
        failed: The failures of series whose coverage or ticker changes cannot be read.
        asof: For each series whose security has left the ticker, its last day there: as of today, Alpaca responds for the
            security that has the ticker now.
    """

    known: list[Coverage] = field(default_factory=list)
    failed: dict[Series, Failure] = field(default_factory=dict)
    asof: dict[Series, date] = field(default_factory=dict)

    def add(self, series: Series, coverage: CoverageStore, changes: TickerChanges, now: datetime) -> None:
        """Add a series, up to the day on which its security left the ticker."""
        if (problem := changes.problem_of(series.symbol)) is not None:
            self.failed[series] = Failure(DamagedFile.code, problem)
            return
        try:
            known = coverage.read(series)
        except DamagedFile as error:
            self.failed[series] = Failure.of(error)
            return
        left = ticker_change_of(series.symbol, changes.of, since=known.first_bar, begun=known.begun)
        self.known.append(replace(known, covered=until_ticker_change(known.covered, left)))
        asof = asof_day(series.symbol) or (left.last_day if left is not None and left.instant <= now else None)
        if asof is not None:
            self.asof[series] = asof

    def check(self, names: Sequence[str] | None) -> None:
        """Raise `InputError` if one of the names has no series here."""
        symbols = {one.series.symbol for one in self.known} | {series.symbol for series in self.failed}
        unknown = [name for name in names or () if name not in symbols]
        if unknown:
            raise InputError(
                f"cannot audit {', '.join(unknown)}: not stored, or only adjusted; pass --adjustment to select an adjusted series"
            )


def auditable(
    storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None, *, now: datetime, accept: bool = False
) -> Auditable:
    """Return the series that an audit may draw from.

    Adjusted series only if *choice* names their adjustment: every corporate action changes all their prices.

    Args:
        storage: The store of the bars.
        choice: The datasets to select from.
        names: The symbols to select. If None, all.
        now: The instant when the audit begins.
        accept: Whether the audit stores Alpaca's values.

    Raises:
        InputError: If a symbol is in no selected dataset, or *accept* is for an adjusted series.
        ForeignFiles: If *accept* is for a series whose folder has files of the legacy pipeline.
    """
    if accept and choice.adjustment is not None and not choice.adjustment.is_raw:
        raise InputError(
            f"cannot use --accept with --adjustment {choice.adjustment}: an adjusted series has one adjustment basis; "
            "run `data-engine ingest --refetch` to replace it"
        )
    found = Auditable()
    changes = ActionStore(storage.files).ticker_changes()
    for series in select_series(storage.coverage, choice, names):
        if series.dataset.adjustment.is_raw or choice.adjustment is not None:
            if accept:
                refuse_foreign(storage.files, series)
            found.add(series, storage.coverage, changes, now)
    found.check(names)
    return found


class Audit:
    """Carries out an `AuditPlan`.

    Args:
        storage: The store of the bars; the caller has locked it against other runs.
        client: The client that fetches.
        known: The coverage of the series of the plan.
        now: The instant when the audit began.
        workers: The number of concurrent requests.
        accept: Whether to store Alpaca's values. Bars that vanished are kept.
    """

    def __init__(
        self,
        storage: BarStore,
        client: AlpacaClient,
        known: Sequence[Coverage],
        *,
        now: datetime,
        workers: int,
        accept: bool = False,
    ) -> None:
        self._storage = storage
        self._client = client
        self._known = {one.series: one for one in known}
        self._now = now
        self._workers = workers
        self._accept = accept

    def run(self, plan: AuditPlan, failed: Mapping[Series, Failure] | None = None) -> AuditReport:
        """Fetch, compare, write the log, and store the revisions if they are accepted.

        Args:
            plan: The plan to carry out.
            failed: The failures of series that could not be drawn from, for the report.

        Raises:
            CredentialsRefused: If the keys are refused.
            ServiceDown: If no request got a usable response for ten minutes.
            StoreError: If the log or a bar file cannot be written.
            Interrupted: If Ctrl-C was pressed; what had been compared is in the log.
        """
        report = AuditReport(plan, failed=dict(failed or {}))
        self._client = self._client.begin()
        before = self._client.requests
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="audit")
        try:
            for future in [pool.submit(self._compare, task) for task in plan.tasks]:
                while not wait((future,), timeout=_TICK_SECONDS).done:
                    pass  # with a time-out: without one, Ctrl-C would wait on Windows
                self._record(report, future.result())
        except (KeyboardInterrupt, DataEngineError) as error:
            self._client.stop()
            if isinstance(error, DataEngineError):
                raise
            raise Interrupted("interrupted; what had been compared is in the log") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            report.requests = self._client.requests - before
        return report

    def _compare(self, task: FetchTask) -> _Comparison:
        """Fetch a task, in parts if one of its symbols spoils the request, and compare."""
        comparison = _Comparison(task)
        parts = [task]
        while parts:
            part = parts.pop()
            try:
                self._compare_part(part, comparison)
            except (CredentialsRefused, ServiceDown, Interrupted):
                self._client.stop()  # at once, before this thread can take another task
                raise
            except SourceError as error:
                parts += reversed(comparison.split(part, error))
        return comparison

    def _compare_part(self, task: FetchTask, comparison: _Comparison) -> None:
        request = self._client.request(task.symbols, task.dataset, task.range, now=self._now, asof=task.asof)
        if request is None:
            return
        pages = list(self._client.pages(request))
        until = min([request.span.end, *(page.until for page in pages if page.until is not None)])
        answered = task.range.before(until)
        fetched: dict[str, list[pa.Table]] = {}
        for symbol, bars in (bars_of_symbol for page in pages for bars_of_symbol in page.bars()):
            fetched.setdefault(symbol, []).append(bars)
        for symbol in task.symbols:
            table = pa.concat_tables([EMPTY, *fetched.get(symbol, ())])
            self._compare_series(Series(symbol, task.dataset), answered, table, comparison)
        if self._accept and comparison.revisions:
            comparison.pages += pages

    def _compare_series(self, series: Series, answered: TimeRange | None, fetched: pa.Table, comparison: _Comparison) -> None:
        try:
            for span in intersection((answered,) if answered else (), self._known[series].covered):
                stored = self._storage.read_range(series, span)
                comparison.bars += stored.num_rows
                comparison.revisions += compare(series, stored, within(fetched, span))
        except DamagedFile as error:
            comparison.failed[series] = Failure.of(error)

    def _record(self, report: AuditReport, comparison: _Comparison) -> None:
        """Write the log, then store the revisions if they are accepted."""
        report.bars += comparison.bars
        report.revisions += comparison.revisions
        report.failed.update(comparison.failed)
        if not comparison.revisions:
            return
        log = revision_log(self._storage.files, comparison.task.dataset)
        before = len(log.read())
        report.logged += len(log.update(lambda rows: with_revisions(rows, comparison.revisions, self._now))) - before
        if log.key not in report.logs:
            report.logs.append(log.key)
        symbols = {one.series.symbol for one in comparison.revisions if one.change != VANISHED}
        if self._accept and symbols:
            self._store(report, comparison, symbols)

    def _store(self, report: AuditReport, comparison: _Comparison, symbols: set[str]) -> None:
        task = replace(comparison.task, symbols=tuple(sorted(symbols)))
        writer = PageWriter(self._storage, task, now=self._now, refetch=True)
        for page in sorted(comparison.pages, key=_first_symbol):
            writer.take(replace(page, slices=tuple(part for part in page.slices if part[0] in symbols)))
        writer.complete()
        report.accepted += sum(written.written for written in writer.changes.values())
        report.failed.update((Series(symbol, task.dataset), Failure.of(error)) for symbol, error in writer.damaged.items())


def _first_symbol(page: BarsPage) -> str:
    """Return what pages are sorted by: the halves of a task were fetched one after the other."""
    return page.slices[0][0] if page.slices else ""
