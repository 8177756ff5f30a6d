"""Held sessions asked for again, and held against what is stored: vendor drift, noted in a log and taken over only on request.

One symbol's failure is data, as in a run. Whatever differs is in the log before anything is taken over, and bars are taken over
as a refetch would: data first, coverage second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from data_engine.alpaca.client import AlpacaClient
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import ticker_change_of, until_ticker_change
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
from data_engine.ingest.drift import VANISHED, AuditPlan, Revision, compare, count_bars, log_key, logged
from data_engine.ingest.page_writer import PageWriter
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.task import may_split
from data_engine.market.bars import EMPTY, within
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, intersection, iso
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.selection import DatasetFilter, select_series

_TICK_SECONDS = 0.2


@dataclass(slots=True)
class AuditReport:
    """What came of asking again.

    Attributes:
        plan: what was asked.
        requests: sent.
        bars: stored ones that were compared.
        revisions: all that differs, by series and time.
        logged: how many lines of it were new to the log.
        logs: the files of the log that have lines of it.
        accepted: bars that were taken over.
        failed: code and message, by series that could not be compared.
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
        """0, also where something differs: the vendor's second thoughts are no failure. Else as of an ingestion."""
        codes = {failure.code for failure in self.failed.values()}
        if StoreBusy.code in codes:
            return StoreBusy.exit_code
        asked = {Series(symbol, task.dataset) for task in self.plan.tasks for symbol in task.symbols}
        if asked and codes == {SourceUnavailable.code} and asked == self.failed.keys():
            return SourceUnavailable.exit_code
        return 1 if codes else 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``audit --json`` prints."""
        return {
            "sessions": self.plan.sessions,
            "held_sessions": self.plan.held,
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
class _Looked:
    """What came of one task."""

    task: FetchTask
    pages: list[BarsPage] = field(default_factory=list)
    bars: int = 0
    revisions: list[Revision] = field(default_factory=list)
    failed: dict[Series, Failure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Auditable:
    """What an audit may draw from.

    Attributes:
        known: of each series.
        failed: the series of which that cannot be read, and why.
        asof: of those whose security has left the ticker, its last day there: as of today, the vendor answers for the next.
    """

    known: list[Coverage] = field(default_factory=list)
    failed: dict[Series, Failure] = field(default_factory=dict)
    asof: dict[Series, date] = field(default_factory=dict)

    def check(self, names: Sequence[str] | None) -> None:
        """Raise `InputError` if one of the names has no series here."""
        symbols = {one.series.symbol for one in self.known} | {series.symbol for series in self.failed}
        unknown = [name for name in names or () if name not in symbols]
        if unknown:
            raise InputError(
                f"cannot audit {', '.join(unknown)}: not stored, or only adjusted; name the series with --adjustment"
            )


def auditable(
    storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None, *, now: datetime, accept: bool = False
) -> Auditable:
    """Return what is known of the series that an audit may draw from.

    Adjusted series are among them only where *choice* names their adjustment: every corporate action changes all their prices.
    Of a series whose security has left the ticker, what comes after is another one's, and not among it.

    Raises:
        InputError: a symbol is in no chosen dataset; or *accept* is to take bars over into an adjusted series.
    """
    if accept and choice.adjustment is not None and not choice.adjustment.is_raw:
        raise InputError(
            "--accept is for raw bars: an adjusted series has one price base, and `ingest --refetch` replaces it whole"
        )
    found = Auditable()
    changes = ActionStore(storage.files).renames()
    for series in select_series(storage.coverage, choice, names):
        if not series.dataset.adjustment.is_raw and choice.adjustment is None:
            continue
        if series.symbol in changes.unreadable:
            found.failed[series] = Failure(DamagedFile.code, changes.unreadable[series.symbol])
            continue
        try:
            known = storage.coverage.read(series)
        except DamagedFile as error:
            found.failed[series] = Failure.of(error)
            continue
        left = ticker_change_of(series.symbol, changes.of(series.symbol), since=known.first_bar, begun=known.begun)
        found.known.append(replace(known, covered=until_ticker_change(known.covered, left)))
        if left is not None and left.instant <= now:
            found.asof[series] = left.last_day
    found.check(names)
    return found


class Audit:
    """Does what a plan says.

    Args:
        storage: of the bars; the caller holds it against other runs.
        client: asks.
        known: coverage of the series of the plan.
        now: when the audit began.
        workers: requests under way at once.
        accept: take over what the vendor now says. Bars that no longer come are kept.
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
        """Ask, compare, write the log, and take over what is to be.

        Args:
            plan: what to ask.
            failed: series that could not be drawn from; they are told with the others.

        Raises:
            CredentialsRefused: the keys were not accepted.
            ServiceDown: no usable answer for ten minutes.
            StoreError: the log or a file of bars cannot be written.
            Interrupted: Ctrl-C; what had been compared is in the log.
        """
        report = AuditReport(plan, failed=dict(failed or {}))
        before = self._client.requests
        self._client.resume()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="audit")
        try:
            for future in [pool.submit(self._look, task) for task in plan.tasks]:
                while not wait((future,), timeout=_TICK_SECONDS).done:
                    pass  # with a time-out: without one, Ctrl-C would wait on Windows
                self._conclude(report, future.result())
        except KeyboardInterrupt as caught:
            self._client.stop()
            if isinstance(caught, Interrupted):
                raise
            raise Interrupted("interrupted; what had been compared is in the log") from None
        except DataEngineError:
            self._client.stop()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            report.requests = self._client.requests - before
        return report

    def _look(self, task: FetchTask) -> _Looked:
        """Ask for one task, or for its halves where a part of it spoils the request, and compare."""
        try:
            return self._compared(task)
        except (CredentialsRefused, ServiceDown, Interrupted):
            self._client.stop()  # at once, before this thread can take another task
            raise
        except SourceError as error:
            return self._without(task, error)

    def _without(self, task: FetchTask, error: SourceError) -> _Looked:
        looked = _Looked(task)
        if isinstance(error, InvalidSymbol) and error.symbol in task.symbols:
            parts = [tuple(name for name in task.symbols if name != error.symbol)]
            looked.failed[Series(error.symbol, task.dataset)] = Failure.of(error)
        elif len(task.symbols) > 1 and may_split(error):
            middle = len(task.symbols) // 2
            parts = [task.symbols[:middle], task.symbols[middle:]]
        else:
            parts = []
            looked.failed = {Series(name, task.dataset): Failure.of(error) for name in task.symbols}
        for symbols in parts:
            if symbols:
                part = self._look(replace(task, symbols=symbols))
                looked.pages += part.pages
                looked.bars += part.bars
                looked.revisions += part.revisions
                looked.failed.update(part.failed)
        return looked

    def _compared(self, task: FetchTask) -> _Looked:
        request = self._client.request(task.symbols, task.dataset, task.range, now=self._now, asof=task.asof)
        looked = _Looked(task)
        if request is None:
            return looked
        pages = list(self._client.pages(request))
        until = min([request.span.end, *(page.until for page in pages if page.until is not None)])
        came: dict[str, list[pa.Table]] = {}
        for page in pages:
            for symbol, bars in page.bars():
                came.setdefault(symbol, []).append(bars)
        for symbol in task.symbols:
            series = Series(symbol, task.dataset)
            fetched = pa.concat_tables([EMPTY, *came.get(symbol, ())])
            try:
                for span in self._final(series, task.range, until):
                    stored = self._stored(series, span)
                    looked.bars += stored.num_rows
                    looked.revisions += compare(series, stored, within(fetched, span))
            except DamagedFile as error:
                looked.failed[series] = Failure.of(error)
        if self._accept and looked.revisions:
            looked.pages = pages
        return looked

    def _final(self, series: Series, asked: TimeRange, until: datetime) -> Iterator[TimeRange]:
        """Yield what is covered of what was answered."""
        for span in intersection((asked,), self._known[series].covered):
            answered = span.before(until)
            if answered is not None:
                yield answered

    def _stored(self, series: Series, span: TimeRange) -> pa.Table:
        pieces = [within(self._storage.read(series, period), span) for period in self._storage.periods(series, span)]
        return pa.concat_tables([EMPTY, *pieces])

    def _conclude(self, report: AuditReport, looked: _Looked) -> None:
        """Write the log, then take over what is to be."""
        report.bars += looked.bars
        report.revisions += looked.revisions
        report.failed.update(looked.failed)
        if not looked.revisions:
            return
        report.logged += self._log(looked.task.dataset, looked.revisions)
        key = log_key(looked.task.dataset)
        if key not in report.logs:
            report.logs.append(key)
        symbols = {one.series.symbol for one in looked.revisions if one.change != VANISHED}
        if self._accept and symbols:
            self._take_over(report, looked, symbols)

    def _log(self, dataset: Dataset, revisions: Sequence[Revision]) -> int:
        key, count = log_key(dataset), 0

        def append(content: bytes | None) -> bytes | None:
            nonlocal count
            try:
                made, count = logged(content, revisions, self._now)
            except ValueError as error:
                raise DamagedFile(f"{self._storage.files.location}/{key} is not what it should be: {error}") from error
            return made

        self._storage.files.update(key, append)
        return count

    def _take_over(self, report: AuditReport, looked: _Looked, symbols: set[str]) -> None:
        task = replace(looked.task, symbols=tuple(sorted(symbols)))
        writer = PageWriter(self._storage, task, now=self._now, refetch=True)
        for page in sorted(looked.pages, key=_first_symbol):
            runs = tuple(run for run in page.slices if run[0] in symbols)
            writer.take(replace(page, slices=runs))
        writer.complete()
        for written in writer.written.values():
            report.accepted += written.changes.written
        for symbol, error in writer.damaged.items():
            report.failed[Series(symbol, task.dataset)] = Failure.of(error)


def _first_symbol(page: BarsPage) -> str:
    """Return by what pages are in order: halves of a task that were asked one after the other are."""
    return page.slices[0][0] if page.slices else ""
