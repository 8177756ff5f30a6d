"""The main job: bring the bars of many symbols into the store. `IngestionPipeline` walks the plan.

One task's failure is data: the symbol fails, the others go on. The run's failure is an exception: refused credentials, a
full disk, a service that is down, Ctrl-C. It carries the report of what was done until then as ``error.report``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from data_engine.alpaca import DELAY, AlpacaClient
from data_engine.coverage import Coverage
from data_engine.errors import (
    BadAnswer,
    CredentialsRefused,
    DamagedFile,
    DataEngineError,
    InputError,
    Interrupted,
    InvalidSymbol,
    RequestRefused,
    ServiceDown,
    SourceError,
    SourceUnavailable,
    StoreError,
    UriTooLong,
)
from data_engine.planning import FetchTask, IngestionPlan, Wish, plan_ingestion
from data_engine.progress import Progress, Silent, Standing
from data_engine.ranges import TimeRange, iso
from data_engine.report import NO_DATA, IngestionReport, Outcome
from data_engine.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.sessions import can_hold_bars
from data_engine.settings import Settings, load_settings
from data_engine.spans import DateLike, Span, parse_span
from data_engine.symbols import SymbolLoader, suggestion

if TYPE_CHECKING:
    from pathlib import Path

    from data_engine.metadata import MetadataStore
    from data_engine.storage import ParquetStorage

_STOP_SECONDS = 4.0  # after Ctrl-C, for what is in flight to be stored
_TICK_SECONDS = 0.2
_HEADROOM = 64 << 20  # bytes that are left free on the disk


@dataclass(slots=True)
class _Run:
    """What a run knows while it goes on. Changed under *lock*."""

    plan: IngestionPlan
    now: datetime
    started: float
    requests_before: int
    refetch: bool = False
    accept_removals: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    left: dict[str, int] = field(default_factory=dict)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    known: dict[str, Coverage] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    added: int = 0
    revised: int = 0
    vanished: int = 0
    pages: int = 0
    bars: int = 0


class IngestionPipeline:
    """Fetches what is missing and keeps it, many symbols at a time.

    Args:
        max_workers: threads; None takes ``api_threads`` of the settings.
        base_path: of the store; None takes it from the settings.
        feed: None takes it from the settings, else the consolidated tape; ``delayed_sip`` clamps the end to 16 minutes ago.
        adjustment: None is raw.
        client: in place of one made from the settings and the environment. It may be shared between pipelines.
        storage: in place of a `ParquetStorage` at the base path.
        metadata: in place of a `MetadataStore` at the base path.
        progress: told what happens; None is silence.
        settings: in place of those found in the environment and ``settings.ini``.
        wait: seconds to wait for another process that is writing to the store.
        now: the clock.

    Raises:
        ConfigError: a setting or an argument cannot be used.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        base_path: Path | str | None = None,
        *,
        feed: object = None,
        adjustment: object = None,
        client: AlpacaClient | None = None,
        storage: ParquetStorage | None = None,
        metadata: MetadataStore | None = None,
        progress: Progress | None = None,
        settings: Settings | None = None,
        wait: float = 600.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        from data_engine.metadata import MetadataStore
        from data_engine.storage import ParquetStorage

        settings = settings or load_settings(base_path=base_path, workers=max_workers)
        self.settings = settings
        self.workers = max_workers if max_workers is not None else settings.api_threads
        self.feed = Feed.parse(feed if feed is not None else client.feed if client is not None else settings.feed)
        self.adjustment = Adjustment.parse(adjustment)
        self.storage = storage or ParquetStorage(settings.base_path)
        self.metadata = metadata or MetadataStore(files=self.storage.files)
        self.progress: Progress = progress or Silent()
        self._client = client
        self._wait = wait
        self._now = now

    @property
    def client(self) -> AlpacaClient:
        """The client, made at first use: a plan needs no credentials."""
        if self._client is None:
            self._client = AlpacaClient(
                feed=self.feed,
                base_url=self.settings.data_url,
                requests_per_minute=self.settings.requests_per_minute,
                connections=self.workers,
            )
        return self._client

    # ------------------------------------------------------------------------------------------------------- the main job

    def ingest_symbols(
        self,
        symbols: Iterable[str],
        start_date: DateLike | None,
        end_date: DateLike | None = None,
        timeframe: object = "1Min",
        index_name: str | None = None,
        *,
        refetch: bool = False,
        accept_removals: bool = False,
        force: bool = False,
        asof: object = None,
        currency: str | None = None,
    ) -> IngestionReport:
        """Bring the bars of *symbols* in a range into the store. What is there already is not asked for again.

        Args:
            symbols: as Alpaca writes them (``BRK.B``); any case, duplicates are folded.
            start_date: a New York calendar day, or an aware instant; None is where these series start in the store.
            end_date: a day (included) or an aware instant (excluded); None is now.
            timeframe: of the bars.
            index_name: store the list under this name, too.
            refetch: ask for everything in the range again, held or not.
            accept_removals: with *refetch*, take out bars that the vendor no longer has.
            force: let the list drop more than 20 % of the index's members.
            asof: refused, unless None: the store could not tell such bars apart.
            currency: refused, unless US dollars, for the same reason.

        Raises:
            InputError: an argument cannot be used; nothing was sent or written.
            CredentialsRefused: the keys were not accepted.
            StoreError: the store cannot be written.
            ServiceDown: no usable answer for ten minutes.
            Interrupted: Ctrl-C; what had arrived is stored.
        """
        if asof is not None or (currency or "USD").upper() != "USD":
            raise InputError("asof and currency cannot be ingested: the store could not tell such bars apart; use fetch_bars")
        names = tuple(SymbolLoader.from_list([symbols] if isinstance(symbols, str) else list(symbols)))
        dataset = self._dataset(timeframe)
        now = self._now()
        span = self._span(names, dataset, start_date, end_date, now)
        client = self.client  # before anything is written: missing credentials are bad input
        with ExitStack() as stack:
            stack.enter_context(self._hold())
            if index_name is not None:
                self.metadata.store(index_name, names, force=force)
            run = self._prepare(names, dataset, span, now, refetch=refetch)
            run.accept_removals = accept_removals
            run.requests_before = client.requests
            return self._walk(run, notes=self._said_before(span, now))

    def ingest_from_csv(
        self,
        csv_path: Path | str,
        start_date: DateLike,
        end_date: DateLike | None = None,
        timeframe: object = "1Min",
        symbol_column: str = "Symbol",
        index_name: str | None = None,
        *,
        refetch: bool = False,
        force: bool = False,
    ) -> IngestionReport:
        """Bring the bars of the symbols in a CSV file into the store, and the list with them.

        Args:
            csv_path: of the list.
            start_date: as `ingest_symbols`.
            end_date: as `ingest_symbols`.
            timeframe: as `ingest_symbols`.
            symbol_column: the column that holds the symbols.
            index_name: of the list; None makes it from the file's name: ``sp500-2025.csv`` is ``sp500_2025``.
            refetch: as `ingest_symbols`.
            force: as `ingest_symbols`.
        """
        from data_engine.metadata import index_name_of

        symbols = SymbolLoader.from_csv(csv_path, symbol_column=symbol_column)
        name = index_name if index_name is not None else index_name_of(csv_path)
        return self.ingest_symbols(symbols, start_date, end_date, timeframe, name, refetch=refetch, force=force)

    def plan(
        self,
        symbols: Iterable[str],
        start_date: DateLike | None,
        end_date: DateLike | None = None,
        timeframe: object = "1Min",
        *,
        refetch: bool = False,
    ) -> IngestionPlan:
        """Return what `ingest_symbols` would ask for. Nothing is sent or written, and no credentials are needed."""
        names = tuple(SymbolLoader.from_list(list(symbols)))
        dataset = self._dataset(timeframe)
        now = self._now()
        span = self._span(names, dataset, start_date, end_date, now)
        return self._prepare(names, dataset, span, now, refetch=refetch).plan

    # ----------------------------------------------------------------------------------------------------------- the walk

    def _dataset(self, timeframe: object) -> Dataset:
        return Dataset(Timeframe.parse(timeframe), self.adjustment, self.feed)

    def _span(self, names: Sequence[str], dataset: Dataset, start: DateLike | None, end: DateLike | None, now: datetime) -> Span:
        """Return the range that was asked for; without a start, from where the earliest of these series was asked for."""
        if start is None:
            known = [self.storage.coverage.read(Series(symbol, dataset)) for symbol in names]
            starts = [coverage.wanted[0].start for coverage in known if coverage.wanted]
            if not starts:
                raise InputError(f"none of these symbols is in {dataset.name} yet: say from when on, with --start (start_date)")
            start = min(starts)
        return parse_span(start, end, now=now)

    def _hold(self) -> ExitStack:
        """Hold the store against other runs, and clean up behind killed ones."""
        stack = ExitStack()
        location = self.storage.files.location

        def waiting() -> None:
            self.progress.note(f"Another process is writing to {location}; waiting up to {self._wait:g} s for it to finish")

        stack.enter_context(self.storage.files.hold("run", seconds=self._wait, waiting=waiting))
        self.storage.files.clean()
        return stack

    def _prepare(self, names: Sequence[str], dataset: Dataset, span: Span, now: datetime, *, refetch: bool) -> _Run:
        failed: dict[str, tuple[str, str]] = {}
        known: dict[str, Coverage] = {}
        wishes = []
        for symbol in names:
            series = Series(symbol, dataset)
            try:
                known[symbol] = self.storage.coverage.read(series)
            except DamagedFile as error:
                failed[symbol] = (error.code, str(error))
                known[symbol] = Coverage(series)
            else:
                wishes.append(Wish(symbol, (span.range,), known[symbol], again=refetch))
        if wishes:
            plan = plan_ingestion(wishes, dataset, now=now, workers=self.workers)
        else:
            plan = IngestionPlan(dataset, (), span.range, ())
        plan = replace(plan, symbols=tuple(names))
        return _Run(plan, now, time.monotonic(), 0, refetch=refetch, left=dict(plan.outstanding), failed=failed, known=known)

    def _said_before(self, span: Span, now: datetime) -> list[str]:
        notes = []
        if span.future_end:
            notes.append(f"the end lies in the future; bars up to now ({iso(now.replace(microsecond=0))}) were asked for")
        if self.feed is Feed.DELAYED_SIP:
            end = iso((now - DELAY).replace(microsecond=0))
            if span.range.end > now - DELAY:
                notes.append(f"delayed_sip: the end was clamped to 16 minutes ago ({end})")
        return notes

    def _walk(self, run: _Run, notes: list[str]) -> IngestionReport:
        plan = run.plan
        for note in notes:
            self.progress.note(note[0].upper() + note[1:])
        free = self.storage.files.free_bytes()
        if free is not None and plan.disk_bytes + _HEADROOM > free and plan.tasks:
            raise StoreError(
                f"{self.storage.files.location}: about {plan.disk_bytes / 1e9:,.1f} GB of bars are to come, but only "
                f"{free / 1e9:,.1f} GB are free; free some space, or choose a shorter range or another --base-path"
            )
        for symbol in plan.outstanding:
            # Remembered before the first request: whatever happens, `update` knows what is still owed.
            run.known[symbol] = self.storage.coverage.update(Series(symbol, plan.dataset), lambda known: known.wanting(plan.span))
        error: DataEngineError | None = None
        try:
            if plan.tasks:
                self._work(run)
        except DataEngineError as caught:
            error = caught
        except KeyboardInterrupt:
            error = Interrupted("interrupted; what had arrived is stored, and the same command goes on from here")
        finally:
            self.progress.ended()
        if self.client.recent_refused:
            end = iso((run.now - DELAY).replace(microsecond=0))
            notes.append(f"the plan does not permit the latest 15 minutes of SIP data; the end was clamped to about {end}")
        report = self._report(run, notes, error)
        if error is not None:
            error.report = report
            raise error
        return report

    def _work(self, run: _Run) -> None:
        """Run the tasks of the plan in order, a bounded number at a time."""
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="ingest")
        tasks = iter(run.plan.tasks)
        running: set[Future[None]] = set()
        self.client.resume()
        try:
            while True:
                while len(running) < 2 * self.workers and (task := next(tasks, None)) is not None:
                    running.add(pool.submit(self._fetch, run, task))
                if not running:
                    return
                # With a time-out: without one, Ctrl-C would wait on Windows, and the display would stand still.
                done, running = wait(running, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                self.progress.moved(self._standing(run))
        except BaseException:
            self.client.stop()
            for future in running:
                future.cancel()
            wait(running, timeout=_STOP_SECONDS)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, run: _Run, task: FetchTask) -> None:
        """Do one task, and whatever it falls into when a part of it fails."""
        from data_engine.chain import unfinished

        stack = [task]
        while stack:
            part = stack.pop()
            with run.lock:
                good = tuple(symbol for symbol in part.symbols if symbol not in run.failed)
            if good:
                left, error = self._chain(run, replace(part, symbols=good))
                stack += self._after(run, list(unfinished(part, left)), error) if left else []
        with run.lock:
            for symbol in task.symbols:
                run.left[symbol] -= 1

    def _chain(self, run: _Run, task: FetchTask) -> tuple[dict[str, TimeRange], SourceError | None]:
        """Fetch one chain of pages and keep its bars; return what is left to ask, and why."""
        from data_engine.chain import ChainWriter

        writer = ChainWriter(self.storage, task, now=run.now, refetch=run.refetch, accept_removals=run.accept_removals)
        left: dict[str, TimeRange] = {}
        trouble: SourceError | None = None
        known: dict[str, Coverage] = {}
        try:
            request = self.client.request(task.symbols, task.dataset, task.range, delayed=self._delayed, now=run.now)
            if request is None:
                return {}, None
            for page in self.client.pages(request):
                bars = writer.take(page)
                with run.lock:
                    run.pages += 1
                    run.bars += bars
            known = writer.complete()
        except (CredentialsRefused, ServiceDown, Interrupted):
            writer.break_off()
            raise
        except SourceError as error:
            left, trouble = writer.break_off(), error
        finally:
            with run.lock:
                run.known.update(known)
                for symbol, written in writer.written.items():
                    run.written[symbol] = run.written.get(symbol, 0) + written.added + written.revised
                    run.added += written.added
                    run.revised += written.revised
                    run.vanished += written.vanished
                for symbol, damage in writer.damaged.items():
                    run.failed[symbol] = (damage.code, str(damage))
        return left, trouble

    @property
    def _delayed(self) -> bool:
        return self.feed is Feed.DELAYED_SIP

    def _after(self, run: _Run, rest: list[FetchTask], error: SourceError | None) -> list[FetchTask]:
        """Return how to go on with what a broken chain has left: one symbol's fault must not be its neighbours'."""
        assert error is not None  # noqa: S101 - a chain leaves nothing over without a reason
        if isinstance(error, InvalidSymbol):
            self._fail(run, error.symbol, error)
            return rest
        parts: list[FetchTask] = []
        for task in rest:
            if len(task.symbols) > 1 and isinstance(error, (UriTooLong, SourceUnavailable, BadAnswer, RequestRefused)):
                middle = len(task.symbols) // 2
                parts += [
                    replace(task, symbols=half, estimate=task.estimate / 2)
                    for half in (task.symbols[:middle], task.symbols[middle:])
                ]
            elif len(rest) > 1:
                parts.append(task)  # the one that broke off in the middle, now alone
            else:
                self._fail(run, task.symbols[0], error)
        return parts

    def _fail(self, run: _Run, symbol: str, error: DataEngineError) -> None:
        message = str(error)
        meant = suggestion(symbol)
        if meant is not None:
            message += f"; did you mean {meant}?"
        with run.lock:
            run.failed[symbol] = (error.code, message)

    # --------------------------------------------------------------------------------------------------------- what came of it

    def _standing(self, run: _Run) -> Standing:
        with run.lock:
            failed = len(run.failed)
            waiting = sum(1 for symbol, tasks in run.left.items() if tasks and symbol not in run.failed)
            total = len(run.plan.symbols)
            seconds = time.monotonic() - run.started
            requests = self.client.requests - run.requests_before
            return Standing(
                total,
                total - failed - waiting,
                failed,
                run.pages,
                run.plan.requests,
                run.bars,
                seconds,
                60 * requests / max(seconds, 1.0),
                self.client.pace.allowed,
            )

    def _report(self, run: _Run, notes: list[str], error: DataEngineError | None) -> IngestionReport:
        outcomes = []
        for symbol in run.plan.symbols:
            code, message = self._verdict(run, symbol, error)
            known = run.known[symbol]
            outcomes.append(Outcome(symbol, code, message, known.bars, run.written.get(symbol, 0)))
            if code is not None and symbol in run.plan.outstanding and code != "damaged_file":
                self._remember(run, symbol, code, message or "")
        codes = {outcome.code for outcome in outcomes}
        return IngestionReport(
            tuple(outcomes),
            requests=self.client.requests - run.requests_before,
            pages=run.pages,
            seconds=time.monotonic() - run.started,
            added=run.added,
            revised=run.revised,
            vanished=run.vanished,
            notes=tuple(notes),
            interrupted=isinstance(error, Interrupted),
            unreachable=run.pages == 0 and codes == {"unavailable"},
        )

    def _verdict(self, run: _Run, symbol: str, error: DataEngineError | None) -> tuple[str | None, str | None]:
        if symbol in run.failed:
            return run.failed[symbol]
        if run.left.get(symbol):
            if error is None or isinstance(error, Interrupted):
                return "interrupted", "not finished: the run was interrupted"
            return error.code, f"not finished: {error}"
        if not run.known[symbol].bars and can_hold_bars(run.plan.span, run.plan.dataset):
            meant = suggestion(symbol)
            return "no_data", NO_DATA + (f"; did you mean {meant}?" if meant else "")
        return None, None

    def _remember(self, run: _Run, symbol: str, code: str, message: str) -> None:
        try:
            self.storage.coverage.update(
                Series(symbol, run.plan.dataset), lambda known: known.failed(code, message, run.now.replace(microsecond=0))
            )
        except StoreError:
            return  # the report says it; what is on disk claims nothing more than before
