"""Fetch the bars of many symbols into the store, and keep them up to date: `IngestionPipeline` plans, runs and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from data_engine.alpaca.client import DELAY, AlpacaClient
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import ConfigError, DataEngineError, InputError
from data_engine.ingest.actions_before import ActionsBefore, refresh_actions
from data_engine.ingest.dispatcher import Dispatcher
from data_engine.ingest.outcome import IngestionReport
from data_engine.ingest.plan import IngestionPlan
from data_engine.ingest.progress import Progress
from data_engine.ingest.request import check_asof, check_currency, notes_before, ranges_since, requested_span
from data_engine.ingest.run import IngestionRun
from data_engine.ingest.run_access import RunAccess
from data_engine.ingest.run_log import RunLog, actor_of, run_record
from data_engine.ingest.run_plan import RunPlan, plan_run
from data_engine.ingest.series_files import long_group
from data_engine.ingest.stderr_progress import StderrProgress, progress_of
from data_engine.ingest.task import RunOptions
from data_engine.ingest.update_targets import Targets, check_targets, targets_in, unrequested_notes
from data_engine.ingest.worker_pool import check_address
from data_engine.market.dates import DateLike, Span, parse_day
from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe
from data_engine.market.symbol import at_day
from data_engine.settings import Settings, check_threads, load_settings
from data_engine.store.coverage_store import CoverageSnapshot
from data_engine.store.legacy_files import refuse_legacy_store
from data_engine.store.selection import DatasetFilter
from data_engine.store.waiting import check_wait
from data_engine.universe.delisted import Delisted
from data_engine.universe.index_names import check_index_name, derived_name
from data_engine.universe.index_store import MetadataStore
from data_engine.universe.symbol_lists import SymbolLoader

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

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
        progress: An object that receives progress events. If None, stderr shows them and the summary. If False, nothing does.
        settings: The settings to use. If None, read from the environment and ``settings.ini``.
        wait: The maximum number of seconds to wait for a store that another process has locked.
        now: A function that returns the current time.
        dask: The address of a Dask scheduler (``tcp://host:8786``), or ``local`` for one process per core. If None, threads of
            this process are used. Dask workers read their own credentials from the environment.
        actions: Whether a run first fetches the corporate actions of its symbols, at most once a day.

    Attributes:
        access: What locks the store for a run, and makes the workers; for the modules that carry out runs of their own.

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
        progress: Progress | bool | None = None,
        settings: Settings | None = None,
        wait: float = 600.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        dask: str | None = None,
        actions: bool = True,
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
        self.progress: Progress = progress_of(progress)
        self.dask = None if dask is None else check_address(dask)
        self.actions, self.clock = actions, now
        self._client = client
        url = self.settings.data_url if client is None else None  # a client that is passed in is its maker's choice
        self.access = RunAccess(self, url=url, wait=check_wait(wait))

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
        derived: bool = False,
        asof: date | str | None = None,
        currency: str | None = None,
        since: Mapping[str, datetime] | None = None,
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
            derived: Whether *index_name* was derived from that of a file, so that it changes no index that was stored by name.
            asof: The last day of former owners of the tickers: ``S`` with ``2020-04-01`` is ``S@2020-04-01``. If None, today.
            currency: Not supported, except US dollars: the store cannot tell such bars apart. Use `AlpacaClient.fetch_bars`.
            since: Instants before which nothing of a symbol is requested (`data_engine.ingest.index_members`).

        Returns:
            The report, with one outcome per symbol in the order given.

        Raises:
            InputError: If an argument cannot be used; nothing was sent or written.
            CredentialsRefused: If Alpaca refused the keys.
            StoreError: If the store cannot be written.
            ServiceDown: If there was no usable response for ten minutes.
            Interrupted: If Ctrl-C was pressed; what had arrived is stored.
        """
        check_currency(currency)
        day = None if asof is None else parse_day(asof, "asof")
        names = tuple(at_day(name, day) for name in SymbolLoader.from_list(symbols))
        if index_name is not None:
            check_index_name(index_name)
        dataset = self._dataset(timeframe)
        # What cannot be used is refused before anything else.
        check_asof(day, self._span(names, dataset, start_date, end_date, self.clock()))
        with self.access.locked() as hold:
            now = self.clock()
            span = self._span(names, dataset, start_date, end_date, now)
            notes = notes_before(span, self.feed, now, DELAY)
            if index_name is not None and self.metadata.store(index_name, names, force=force, derived=derived).kept:
                notes.append(f"index {index_name} was stored by name with other members and is not changed; pass --index NAME")
            targets: dict[Dataset, Targets] = {dataset: ranges_since(names, span.range, since or {})}
            before = self.fetch_actions(targets, now)
            before.notes.extend(notes)
            run_plan = self._plan(targets, now, refetch=refetch)
            command = "refetch" if refetch else "ingest"
            options = self._options(now, command, refetch=refetch, accept_removals=accept_removals)
            return self._run(hold, run_plan, options, before, command, index_name)

    def ingest_from_csv(
        self,
        csv_path: Path | str,
        start_date: DateLike,
        end_date: DateLike | None = None,
        timeframe: object = "1Min",
        index_name: str | None = None,
        *,
        symbol_column: str | None = None,
        refetch: bool = False,
        force: bool = False,
    ) -> IngestionReport:
        """Fetch the missing bars of the symbols in a CSV file, store them, and store the list as an index.

        Args:
            csv_path: The path of the list.
            start_date: A New York calendar day, or an aware instant.
            end_date: A day (included) or an aware instant (excluded). If None, now.
            timeframe: The timeframe of the bars.
            index_name: The name of the list. If None, that of the file, ``sp500_2025`` for ``sp500-2025.csv``; an index that was
                stored by name is not changed then.
            symbol_column: The column with the symbols. If None, ``Symbol``, else ``Ticker``.
            refetch: Whether to fetch covered ranges again, too.
            force: Whether the list may drop more than 20 % of the index's members.
        """
        symbols = SymbolLoader.from_csv(csv_path, symbol_column=symbol_column)
        derived = index_name is None
        name = derived_name(csv_path) if index_name is None else index_name
        return self.ingest_symbols(symbols, start_date, end_date, timeframe, name, refetch=refetch, force=force, derived=derived)

    def plan(
        self,
        symbols: Iterable[str],
        start_date: DateLike | None,
        end_date: DateLike | None = None,
        timeframe: object = "1Min",
        *,
        refetch: bool = False,
        since: Mapping[str, datetime] | None = None,
    ) -> IngestionPlan:
        """Return what `ingest_symbols` would request. Nothing is sent or written, and no credentials are needed."""
        names = tuple(SymbolLoader.from_list(symbols))
        dataset, now = self._dataset(timeframe), self.clock()
        span = self._span(names, dataset, start_date, end_date, now)
        run_plan = self._plan({dataset: ranges_since(names, span.range, since or {})}, now, refetch=refetch)
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
        check_targets(*known, choice, names, index_name, now=self.clock())  # unknown symbols are refused before anything else
        with self.access.locked() as hold:
            now, coverage = self.clock(), CoverageSnapshot(self.storage.bars.coverage)
            delisted = Delisted(self.storage.files)
            targets = targets_in(*known, choice, names, index_name, now=now, coverage=coverage, delisted=delisted)
            before = self.fetch_actions(targets, now, coverage=coverage if names is None else None, delisted=delisted)
            before.notes.extend(unrequested_notes(coverage, choice, targets) if names is None and index_name is None else ())
            run_plan = self._plan(targets, now, gaps_first=True, coverage=coverage)
            return self._run(hold, run_plan, self._options(now, "update"), before, "update", index_name)

    def fetch_actions(
        self,
        targets: Mapping[Dataset, Targets],
        now: datetime,
        *,
        coverage: CoverageSnapshot | None = None,
        delisted: Delisted | None = None,
    ) -> ActionsBefore:
        """Fetch the corporate actions of a run's symbols if it is time; return what failed.

        Args:
            targets: The requested ranges of the run, by dataset and symbol.
            now: The current instant.
            coverage: The coverage of the store, by which actions of ended series are fetched weekly. If None, they are daily.
            delisted: Tells which series are of delisted securities. If None, none are.

        Raises:
            DataEngineError: As `refresh_actions`.
        """
        if not self.actions:
            return ActionsBefore()
        store, known = ActionStore(self.storage.files), None if coverage is None else coverage.read
        return refresh_actions(store, lambda: self.client, targets, now, self.progress.note, known, delisted)

    def _dataset(self, timeframe: object) -> Dataset:
        return Dataset(Timeframe.parse(timeframe), self.adjustment, self.feed)

    def _span(self, names: Sequence[str], dataset: Dataset, start: DateLike | None, end: DateLike | None, now: datetime) -> Span:
        refuse_legacy_store(self.storage.files)
        return requested_span(self.storage.bars.coverage, names, dataset, start, end, now)

    def _options(self, now: datetime, command: str, *, refetch: bool = False, accept_removals: bool = False) -> RunOptions:
        return RunOptions(
            now,
            self.feed is Feed.DELAYED_SIP,
            refetch,
            accept_removals,
            actor=actor_of(command, now),
            group_bars=long_group(self.workers),
        )

    def _plan(
        self,
        targets: Mapping[Dataset, Targets],
        now: datetime,
        *,
        refetch: bool = False,
        gaps_first: bool = False,
        coverage: CoverageSnapshot | None = None,
    ) -> RunPlan:
        return plan_run(
            coverage or CoverageSnapshot(self.storage.bars.coverage),
            targets,
            now=now,
            workers=self.workers,
            refetch=refetch,
            gaps_first=gaps_first,
            changes=ActionStore(self.storage.files).ticker_changes(),
            files=self.storage.files,
        )

    def _run(
        self, hold: ExitStack, run_plan: RunPlan, options: RunOptions, before: ActionsBefore, command: str, index_name: str | None
    ) -> IngestionReport:
        writing: Future[None] | None = None
        try:
            pool = self.access.pool_for(options)
            try:
                dispatcher = Dispatcher(pool, self.progress, workers=self.workers)
                bars = self.storage.bars.acting(options.actor)
                run = IngestionRun(run_plan, dispatcher, bars, before.notes, delay=DELAY, delayed=options.delayed)
                report = run.run(before.refused)
            finally:
                writing = pool.close()
        except DataEngineError as error:
            if not isinstance(error, InputError):  # a wrong clock, whose run leaves nothing behind
                self._log(run_plan, command, index_name, error.report, error)
            raise
        else:
            self._log(run_plan, command, index_name, report)
            if isinstance(self.progress, StderrProgress):
                self.progress.finish(report.summary())
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
        from data_engine.version import written_by

        run = run_record(command, run_plan.plans, report, error, began=run_plan.now, index=index_name, by=written_by())
        if not RunLog(self.storage.files).add(run) and error is None:
            self.progress.note("This run could not be added to the history of the store; its bars are not affected")
