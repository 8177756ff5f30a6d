"""Fetch the bars of many symbols into the store, and keep them up to date: `IngestionPipeline` plans, runs and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from data_engine.alpaca.client import DELAY, AlpacaClient
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import ConfigError, DataEngineError, InputError
from data_engine.ingest.dispatcher import Dispatcher
from data_engine.ingest.outcome import IngestionReport
from data_engine.ingest.plan import IngestionPlan
from data_engine.ingest.progress import NoProgress, Progress
from data_engine.ingest.run import IngestionRun
from data_engine.ingest.run_log import RunLog, run_record
from data_engine.ingest.run_plan import RunPlan, plan_run
from data_engine.ingest.task import RunOptions
from data_engine.ingest.update_targets import targets_in
from data_engine.ingest.worker_pool import RUN_MARKERS, ThreadPool, WorkerPool, check_address
from data_engine.market.dates import DateLike, Span, parse_span
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, iso
from data_engine.market.wording import and_more
from data_engine.settings import Settings, check_threads, load_settings
from data_engine.store.run_lock import RUN_LOCK
from data_engine.store.selection import DatasetFilter
from data_engine.universe.index_names import check_index_name, index_name_of
from data_engine.universe.index_store import MetadataStore
from data_engine.universe.symbol_lists import SymbolLoader

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from data_engine.ingest.dask.dask_pool import DaskPool
    from data_engine.read.parquet_storage import ParquetStorage


class IngestionPipeline:
    """Fetch the missing bars of many symbols and store them.

    Args:
        max_workers: The number of threads. If None, ``api_threads`` of the settings.
        base_path: The directory or ``s3://`` URL of the store. If None, read from settings.
        feed: The feed. If None, the client's, else that of the settings (default ``sip``). ``delayed_sip`` truncates the end to
            16 minutes ago.
        adjustment: The adjustment. If None, ``raw``.
        client: The client to use. If None, one is made from the settings and the environment. Pipelines may share a client.
        storage: The storage to use. If None, a `ParquetStorage` at the base path.
        metadata: The lists of symbols to use. If None, a `MetadataStore` at the base path.
        progress: An object that receives progress events. If None, nothing is reported.
        settings: The settings to use. If None, read from the environment and ``settings.ini``.
        wait: The maximum number of seconds to wait for a store that another process has locked.
        now: A function that returns the current time.
        dask: The address of a Dask scheduler (``tcp://host:8786``), or ``local`` for one process per core. If None, threads of
            this process are used. Dask workers read their own credentials from the environment.

    Raises:
        ConfigError: If a setting or an argument cannot be used.
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
        dask: str | None = None,
    ) -> None:
        from data_engine.read.parquet_storage import ParquetStorage

        if dask is not None and client is not None:
            raise ConfigError("client and dask do not go together: the workers make clients of their own environment")

        settings = settings or load_settings(base_path=base_path, workers=max_workers)
        self.settings = settings
        self.workers = settings.api_threads if max_workers is None else check_threads(max_workers)
        self.feed = Feed.parse(feed if feed is not None else client.feed if client is not None else settings.feed)
        self.adjustment = Adjustment.parse(adjustment)
        self.storage = storage or ParquetStorage(settings.base_path)
        self.metadata = metadata or MetadataStore(files=self.storage.files)
        self.progress: Progress = progress or NoProgress()
        self.dask = None if dask is None else check_address(dask)
        self._client = client
        self._connected: DaskPool | None = None
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
        """Fetch the missing bars of *symbols* in a range, and store them. Covered ranges are not fetched again.

        Args:
            symbols: The symbols as Alpaca writes them (``BRK.B``); in any case, duplicates are removed.
            start_date: A New York calendar day, or an aware instant. If None, where these series start in the store.
            end_date: A day (included) or an aware instant (excluded). If None, now.
            timeframe: The timeframe of the bars, ``1Min`` to ``1Month``.
            index_name: A name under which to store the list, too.
            refetch: Whether to fetch covered ranges again, too.
            accept_removals: With *refetch*, whether to remove bars that Alpaca has dropped.
            force: Whether the list may drop more than 20 % of the index's members.
            asof: Not supported: the store cannot tell such bars apart. Use `AlpacaClient.fetch_bars`.
            currency: Not supported, except US dollars, for the same reason.

        Returns:
            The report, with one outcome per symbol in the order given.

        Raises:
            InputError: If an argument cannot be used; nothing was sent or written.
            CredentialsRefused: If Alpaca refused the keys.
            StoreError: If the store cannot be written.
            ServiceDown: If there was no usable response for ten minutes.
            Interrupted: If Ctrl-C was pressed; what had arrived is stored.
        """
        if asof is not None or (currency or "USD").upper() != "USD":
            raise InputError("asof and currency cannot be ingested: the store could not tell such bars apart; use fetch_bars")
        names = tuple(SymbolLoader.from_list(symbols))
        if index_name is not None:
            check_index_name(index_name)
        dataset = self._dataset(timeframe)
        self._span(names, dataset, start_date, end_date, self._now())  # what cannot be used is refused before anything else
        with self._locked() as hold:
            now = self._now()
            span = self._span(names, dataset, start_date, end_date, now)
            if index_name is not None:
                self.metadata.store(index_name, names, force=force)
            run_plan = self._plan({dataset: dict.fromkeys(names, (span.range,))}, now, refetch=refetch)
            options = self._options(now, refetch=refetch, accept_removals=accept_removals)
            command = "refetch" if refetch else "ingest"
            return self._run(hold, run_plan, options, self._notes_before(span, now), command, index_name)

    def ingest_from_csv(
        self,
        csv_path: Path | str,
        start_date: DateLike,
        end_date: DateLike | None = None,
        timeframe: object = "1Min",
        symbol_column: str | None = None,
        index_name: str | None = None,
        *,
        refetch: bool = False,
        force: bool = False,
    ) -> IngestionReport:
        """Fetch the missing bars of the symbols in a CSV file, store them, and store the list as an index.

        Args:
            csv_path: The path of the list.
            start_date: A New York calendar day, or an aware instant.
            end_date: A day (included) or an aware instant (excluded). If None, now.
            timeframe: The timeframe of the bars.
            symbol_column: The column with the symbols. If None, ``Symbol``, else ``Ticker``.
            index_name: The name of the list. If None, the file's name: ``sp500-2025.csv`` is ``sp500_2025``.
            refetch: Whether to fetch covered ranges again, too.
            force: Whether the list may drop more than 20 % of the index's members.
        """
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
        """Return what `ingest_symbols` would request. Nothing is sent or written, and no credentials are needed."""
        names = tuple(SymbolLoader.from_list(symbols))
        dataset = self._dataset(timeframe)
        now = self._now()
        span = self._span(names, dataset, start_date, end_date, now)
        run_plan = self._plan({dataset: dict.fromkeys(names, (span.range,))}, now, refetch=refetch)
        for note in run_plan.notes:
            self.progress.note(note)
        return run_plan.plans[0]

    def update(
        self,
        symbols: Iterable[str] | None = None,
        index_name: str | None = None,
        *,
        timeframe: object = None,
        feed: object = None,
        adjustment: object = None,
    ) -> IngestionReport:
        """Fetch missing ranges and new bars of stored series.

        Args:
            symbols: The symbols to update. If None, all stored ones.
            index_name: The index whose members to update; a new member starts where the index starts.
            timeframe: The timeframe to update. If None, all.
            feed: The feed to update. If None, all.
            adjustment: The adjustment to update. If None, all.

        Returns:
            The report, with one outcome per series.

        Raises:
            InputError: If a symbol is in no dataset; nothing was sent or written.
            DataEngineError: As `ingest_symbols`.
        """
        choice = DatasetFilter.parse(timeframe, feed, adjustment)
        names = None if symbols is None else SymbolLoader.from_list(symbols)
        known = self.storage.bars, self.metadata
        targets_in(*known, choice, names, index_name, now=self._now())  # unknown symbols are refused before anything else
        with self._locked() as hold:
            now = self._now()
            targets = targets_in(*known, choice, names, index_name, now=now)
            return self._run(hold, self._plan(targets, now, gaps_first=True), self._options(now), [], "update", index_name)

    def _dataset(self, timeframe: object) -> Dataset:
        return Dataset(Timeframe.parse(timeframe), self.adjustment, self.feed)

    def _span(self, names: Sequence[str], dataset: Dataset, start: DateLike | None, end: DateLike | None, now: datetime) -> Span:
        """Return the requested range; without a start, from where the earliest of these series was requested."""
        if start is None:
            known = [self.storage.bars.coverage.read(Series(symbol, dataset)) for symbol in names]
            starts = [coverage.wanted[0].start for coverage in known if coverage.wanted]
            if not starts:
                named = and_more(names, 5)
                raise InputError(
                    f"no start: {named} is not stored in {dataset.name}; pass --start (start_date), such as 2024-01-01"
                )
            start = min(starts)
        return parse_span(start, end, now=now)

    def _options(self, now: datetime, *, refetch: bool = False, accept_removals: bool = False) -> RunOptions:
        return RunOptions(now, self.feed is Feed.DELAYED_SIP, refetch, accept_removals)

    def _connect(self, address: str) -> DaskPool:
        from data_engine.ingest.dask.dask_pool import DaskPool

        return DaskPool(
            address,
            self.storage.bars,
            self._options(self._now()),
            workers=self.workers,
            data_url=self.settings.data_url,
            requests_per_minute=self.settings.requests_per_minute,
            note=self.progress.note,
        )

    @contextmanager
    def _locked(self) -> Iterator[ExitStack]:
        """Lock the store against other runs, and clean up behind killed ones. All that decides about a run is read inside.

        Yields what holds the lock: whoever takes it over (`pop_all`) releases it.
        """
        files = self.storage.files
        # Missing credentials, or a cluster that cannot take part, are bad input: nothing is written then.
        if self.dask is None:
            _ = self.client
        else:
            self._connected = self._connect(self.dask)

        def waiting() -> None:
            self.progress.note(f"Store {files.location} is locked by another process; waiting up to {self._wait:g} s")

        with ExitStack() as hold:
            hold.callback(self._disconnect)
            hold.enter_context(files.lock(RUN_LOCK, seconds=self._wait, waiting=waiting))
            files.remove_stale_drafts()
            for key in list(files.list(RUN_MARKERS)):
                files.delete(key)  # of a run that was killed: what its workers still do comes to nothing
            self.storage.bars.coverage.requested.refresh()
            yield hold

    def _pool_for(self, options: RunOptions) -> WorkerPool:
        """Return who does the tasks of a run with these options."""
        pool, self._connected = self._connected, None
        if pool is None:
            return ThreadPool(self.client, self.storage.bars, options, self.workers)
        pool.use(options)
        return pool

    def _disconnect(self) -> None:
        """Close a cluster that no run has taken over."""
        pool, self._connected = self._connected, None
        if pool is not None:
            pool.close()

    def _plan(
        self,
        targets: Mapping[Dataset, Mapping[str, tuple[TimeRange, ...]]],
        now: datetime,
        *,
        refetch: bool = False,
        gaps_first: bool = False,
    ) -> RunPlan:
        return plan_run(
            self.storage.bars.coverage,
            targets,
            now=now,
            workers=self.workers,
            refetch=refetch,
            gaps_first=gaps_first,
            changes=ActionStore(self.storage.files).renames(),
            files=self.storage.files,
        )

    def _notes_before(self, span: Span, now: datetime) -> list[str]:
        notes = []
        if span.future_end:
            notes.append(f"the end is in the future; bars up to now ({iso(now.replace(microsecond=0))}) were requested")
        if self.feed is Feed.DELAYED_SIP and span.range.end > now - DELAY:
            notes.append(f"delayed_sip: the end was truncated to 16 minutes ago ({iso((now - DELAY).replace(microsecond=0))})")
        return notes

    def _run(
        self,
        hold: ExitStack,
        run_plan: RunPlan,
        options: RunOptions,
        notes: list[str],
        command: str,
        index_name: str | None,
    ) -> IngestionReport:
        writing: Future[None] | None = None
        try:
            pool = self._pool_for(options)
            try:
                dispatcher = Dispatcher(pool, self.progress, workers=self.workers)
                run = IngestionRun(run_plan, dispatcher, self.storage.bars, notes, delay=DELAY, delayed=options.delayed)
                report = run.run()
            finally:
                writing = pool.close()
        except DataEngineError as error:
            if not isinstance(error, InputError):  # a wrong clock, whose run leaves nothing behind
                self._log(run_plan, command, index_name, error.report, error)
            raise
        else:
            self._log(run_plan, command, index_name, report)
            return report
        finally:
            if writing is not None:  # the last writer unlocks the store, after the exception has left here
                unlock = hold.pop_all().close
                writing.add_done_callback(lambda _: unlock())

    def _log(
        self,
        run_plan: RunPlan,
        command: str,
        index_name: str | None,
        report: IngestionReport | None,
        error: DataEngineError | None = None,
    ) -> None:
        """Add the run to the history of the store: after all else, since nothing depends on it."""
        from data_engine.version import __version__

        run = run_record(
            command, run_plan.plans, report, error, began=run_plan.now, index=index_name, by=f"data-engine {__version__}"
        )
        if not RunLog(self.storage.files).add(run) and error is None:
            self.progress.note("This run could not be added to the history of the store; its bars are not affected")
