"""Give a run the store, locked against other runs, and the workers that do its tasks: `RunAccess`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from data_engine.ingest.bar_source import check_source, record_source
from data_engine.ingest.housekeeping import tidy
from data_engine.ingest.task import RunOptions
from data_engine.ingest.worker_pool import ThreadPool, WorkerPool
from data_engine.market.series import Feed
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from data_engine.ingest.dask.dask_pool import DaskPool
    from data_engine.ingest.pipeline import IngestionPipeline


class RunAccess:
    """Locks the store of a pipeline for one run after the other, and makes their workers.

    Args:
        pipeline: The pipeline, whose client, store and settings are used.
        url: The address that the bars come from. If None, it is that of a client that the caller made, and is not judged.
        wait: The maximum number of seconds to wait for a store that another process has locked.
    """

    def __init__(self, pipeline: IngestionPipeline, *, url: str | None, wait: float) -> None:
        self._pipeline = pipeline
        self._url = url
        self._wait = wait
        self._connected: DaskPool | None = None

    @contextmanager
    def locked(self) -> Iterator[ExitStack]:
        """Lock the store against other runs, and clean up behind killed ones. All that decides about a run is read inside.

        Yields what holds the lock: whoever takes it over (`pop_all`) releases it.

        Raises:
            ConfigError: If there are no credentials, or the bars of the store are of another source.
            StoreBusy: If another process has the lock, and does not release it in time.
            StoreError: If the store cannot be written.
        """
        pipeline, files = self._pipeline, self._pipeline.storage.files
        check_source(files, self._url)
        # Missing credentials, or a cluster that cannot take part, are bad input: nothing is written then.
        if pipeline.dask is None:
            _ = pipeline.client
        else:
            self._connected = self._connect(pipeline.dask)

        def waiting() -> None:
            pipeline.progress.note(f"Store {files.location} is locked by another process; waiting up to {self._wait:g} s")

        with ExitStack() as hold:
            hold.callback(self._disconnect)
            hold.enter_context(files.lock(RUN_LOCK, seconds=self._wait, waiting=waiting))
            tidy(files, pipeline.clock(), pipeline.progress.note, bases=pipeline.settings.history_bases)
            if note := record_source(files, self._url):
                pipeline.progress.note(note)
            pipeline.storage.bars.coverage.requested.refresh()
            yield hold

    def pool_for(self, options: RunOptions) -> WorkerPool:
        """Return who does the tasks of a run with these options."""
        pool, self._connected = self._connected, None
        if pool is None:
            return ThreadPool(self._pipeline.client, self._pipeline.storage.bars, options, self._pipeline.workers)
        pool.use(options)
        return pool

    def _connect(self, address: str) -> DaskPool:
        from data_engine.ingest.dask.dask_pool import DaskPool

        pipeline = self._pipeline
        return DaskPool(
            address,
            pipeline.storage.bars,
            RunOptions(pipeline.clock(), pipeline.feed is Feed.DELAYED_SIP),
            workers=pipeline.workers,
            data_url=pipeline.settings.data_url,
            requests_per_minute=pipeline.settings.requests_per_minute,
            note=pipeline.progress.note,
        )

    def _disconnect(self) -> None:
        """Close a cluster that no run has taken over."""
        pool, self._connected = self._connected, None
        if pool is not None:
            pool.close()
