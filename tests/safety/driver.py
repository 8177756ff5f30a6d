"""One ingestion in a process of its own, which may kill itself at a chosen point.

Run as a program it loads everything, then forks once for every job it reads from stdin: a fork costs 10 ms, an interpreter
with pyarrow in it half a second. No thread is ever started before the fork.

A job is a line of JSON; `RunPlan` says what can be in it. The answer is a line of JSON: ``code`` (what the command line would end
with; 99 and a traceback for a fault of ours), ``killed``, and what the report says.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock  # noqa: F401 - loaded before the fork
import isal.isal_zlib  # noqa: F401
import pandas as pd
import pyarrow.csv
import pyarrow.parquet  # noqa: F401
import urllib3  # noqa: F401

from data_engine.alpaca.bars_protocol import BarsRequest
from data_engine.alpaca.client import AlpacaClient
from data_engine.alpaca.retry import RetryPolicy
from data_engine.alpaca.transport import HttpTransport
from data_engine.errors import DataEngineError
from data_engine.ingest.pipeline import IngestionPipeline
from data_engine.market.exchange_calendar import is_session
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.settings import Settings, load_settings
from data_engine.store.disk import Disk
from data_engine.store.file_store import Change
from data_engine.store.local_drafts import LocalDrafts
from data_engine.store.local_files import LocalFiles
from data_engine.store.local_group import LocalGroups
from data_engine.store.local_locks import LocalLocks
from data_engine.store.local_names import LocalNames
from data_engine.store.s3 import s3_files as object_files
from data_engine.store.s3.s3_files import S3Files

POINTS = (
    "before draft",
    "torn draft",
    "after draft",
    "before fsync",
    "after fsync",
    "before move",
    "moved",  # the new name is there, the folder is not flushed
    "named",  # the folder is flushed, those above it are not
    "after move",
    "before bars",
    "after bars",
    "before coverage",
    "after coverage",
    "before removal",
    "after removal",
    "before unlink",
    "after unlink",
    "lock held",
    "lock released",
    "after mkdir",
    "before request",
    "after request",
)


@dataclass(frozen=True)
class Job:
    """What a child is to do.

    Attributes:
        base: of the store.
        url: of the server.
        now: the clock of the run, ISO.
        symbols: whose bars.
        start: of the range.
        end: of the range; None is now.
        action: ``ingest``, ``update``, ``remove`` or ``store`` (the frame in *frame*, a pickle).
        adjustment: of the bars.
        refetch: and accept removals.
        index: name of the list.
        workers: threads.
        limit: bars per page.
        wait: seconds, for another run.
        point: where to die, one of `POINTS`; None: nowhere.
        nth: at which time that the point is reached, from 1.
        after: seconds after which to die, wherever that is.
        tries: of a request.
        give_up_after: seconds.
        read_seconds: of silence.
        uid: who to become.
        open_file_store: the most that may be open.
        frame: path of a pickled frame.
        lease: seconds that a hold on a bucket lasts.
    """

    base: str
    url: str
    now: str
    symbols: tuple[str, ...] = ()
    start: str = ""
    end: str | None = None
    action: str = "ingest"
    adjustment: str | None = None
    refetch: bool = False
    index: str | None = None
    workers: int = 4
    limit: int = 100
    wait: float = 60.0
    point: str | None = None
    nth: int = 1
    after: float | None = None
    tries: int = 6
    give_up_after: float = 600.0
    read_seconds: float = 30.0
    uid: int | None = None
    open_file_store: int | None = None
    frame: str = ""
    lease: float | None = None

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


@dataclass
class Reached:
    """Counts the points that a run passes, and ends the process at the chosen one."""

    point: str | None
    nth: int
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, point: str) -> None:
        if self.due(point):
            die()

    def due(self, point: str) -> bool:
        with self.lock:
            self.counts[point] += 1
            return point == self.point and self.counts[point] == self.nth


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, before: Callable[..., None], after: Callable[..., None]) -> None:
    """Do something before and after every call of a function of *owner*."""
    inner = getattr(owner, name)

    def call(*args: Any, **named: Any) -> Any:
        before(*args)
        result = inner(*args, **named)
        after(*args)
        return result

    setattr(owner, name, call)


def install(reached: Reached) -> None:
    """Put the kill points into the functions that touch the disk."""

    def at(point: str) -> Callable[..., None]:
        return lambda *_: reached(point)

    def torn(_drafts: object, draft: str, content: bytes) -> None:
        reached("before draft")
        if reached.due("torn draft"):
            Path(draft).parent.mkdir(parents=True, exist_ok=True)
            Path(draft).write_bytes(content[: len(content) // 2])
            die()

    def kind(_files: object, key: str, *_: object) -> str:
        return "coverage" if key.startswith("metadata/coverage/") else "bars"

    def kinds(_groups: object, changes: Mapping[str, Change], *_: object) -> str:
        return kind(_groups, next(iter(changes), ""))

    around(LocalDrafts, "write", torn, at("after draft"))
    around(LocalDrafts, "move", at("before move"), at("after move"))
    around(LocalNames, "flush_name", at("moved"), lambda *_: None)
    around(LocalNames, "flush_together", at("moved"), at("named"))
    around(LocalNames, "flush_way", at("named"), lambda *_: None)
    around(Disk, "flush", at("before fsync"), at("after fsync"))
    around(Disk, "flush_system", at("before fsync"), at("after fsync"))
    for place in (LocalFiles, S3Files):
        around(place, "update", lambda *a: reached(f"before {kind(*a)}"), lambda *a: reached(f"after {kind(*a)}"))
    around(LocalGroups, "update", lambda *a: reached(f"before {kinds(*a)}"), lambda *a: reached(f"after {kinds(*a)}"))
    around(LocalFiles, "_unlink", at("before removal"), at("after removal"))
    around(Disk, "unlink", at("before unlink"), at("after unlink"))
    around(Disk, "make_folder", lambda *_: None, at("after mkdir"))
    around(HttpTransport, "get", at("before request"), at("after request"))
    inner = LocalLocks.named

    @contextmanager
    def locked(*args: Any, **named: Any) -> Iterator[None]:
        with inner(*args, **named):
            reached("lock held")
            yield
        reached("lock released")

    LocalLocks.named = locked  # type: ignore[method-assign]


class SmallPages(AlpacaClient):
    """A client that asks for few bars a page, so that a small market has many pages."""

    limit = 100

    def request(self, *args: Any, **named: Any) -> BarsRequest | None:
        made = super().request(*args, **named)
        return None if made is None else replace(made, limit=self.limit)


def client_of(job: Job) -> SmallPages:
    keys = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
    client = SmallPages(
        "key",
        "secret",
        base_url=job.url,
        policy=RetryPolicy(tries=job.tries, base=0.001, cap=0.01, give_up_after=job.give_up_after),
        transport=HttpTransport(job.url, keys, connections=job.workers, read_seconds=job.read_seconds),
        now=lambda: datetime.fromisoformat(job.now),
    )
    client.limit = job.limit
    return client


def settings_of(job: Job) -> Settings:
    return load_settings(base_path=job.base, workers=job.workers)


def pipeline_of(job: Job, **named: Any) -> IngestionPipeline:
    return IngestionPipeline(
        settings=settings_of(job),
        adjustment=job.adjustment,
        client=client_of(job),
        wait=job.wait,
        now=lambda: datetime.fromisoformat(job.now),
        actions=False,
        **{"progress": False, **named},
    )


def work(job: Job) -> dict[str, Any]:
    """Do the job, and return what came of it."""
    if job.action == "store":
        written = ParquetStorage(job.base).store(pd.read_pickle(job.frame))
        return {"code": 0, "rows": written.rows}
    if job.action == "remove":
        storage = ParquetStorage(job.base)
        span = TimeRange(datetime.fromisoformat(job.start), datetime.fromisoformat(job.end or job.now))
        with storage.files.lock("run", seconds=job.wait):
            storage.files.remove_stale_drafts()
            for symbol in job.symbols:
                storage.bars.remove(Series(symbol, Dataset.from_name("equities_1min")), span)
        return {"code": 0}
    try:
        pipeline = pipeline_of(job)
        if job.action == "update":
            report = pipeline.update()
        else:
            report = pipeline.ingest_symbols(
                job.symbols,
                job.start,
                job.end,
                index_name=job.index,
                refetch=job.refetch,
                accept_removals=job.refetch,
            )
        return {"code": report.exit_code, **report.to_json()}
    except DataEngineError as error:
        told = {} if error.report is None else error.report.to_json()
        return {"code": error.exit_code, **told, "error": str(error), "kind": type(error).__name__}


def child(job: Job, answer: int) -> None:
    """Be the forked process: never returns."""
    result: dict[str, Any] = {}
    try:
        if job.open_file_store is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, (job.open_file_store, job.open_file_store))
        if job.uid is not None:
            os.setgroups([])
            os.setgid(job.uid)
            os.setuid(job.uid)
        if job.lease is not None:
            object_files.LEASE_SECONDS = job.lease
        reached = Reached(job.point, job.nth)
        install(reached)
        if job.after is not None:
            threading.Thread(target=lambda: (time.sleep(job.after or 0), die()), daemon=True).start()
        try:
            result = work(job)
        except BaseException:  # noqa: BLE001 - reported, and the test fails
            result = {"code": 99, "trace": traceback.format_exc()}
        result["points"] = dict(reached.counts)
        result["modules"] = sorted(sys.modules)
        result["threads_left"] = [thread.name for thread in threading.enumerate() if thread.name.startswith("ingest")]
    finally:
        with contextlib.suppress(OSError):
            data = json.dumps(result, default=str).encode()
            while data:
                data = data[os.write(answer, data) :]
        os._exit(0)


def serve() -> None:
    """Fork once for every line of stdin."""
    is_session(datetime(2024, 6, 3).date())  # the calendar takes a quarter of a second
    "localhost".encode("idna")  # who has become somebody else may not load it from root's folders
    print(json.dumps({"ready": True, "threads": threading.active_count()}), flush=True)
    for line in sys.stdin:
        fields = json.loads(line)
        job = Job(**{**fields, "symbols": tuple(fields["symbols"])})
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            child(job, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as stream:
            said = stream.read()
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        told = json.loads(said) if said and not killed else {}
        load(told.pop("modules", ()))
        print(json.dumps({**told, "killed": killed}), flush=True)


def load(names: Iterable[str]) -> None:
    """Load what a child has loaded while it worked: the next one may become a user who can read nothing of the checkout."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


if __name__ == "__main__":
    serve()
