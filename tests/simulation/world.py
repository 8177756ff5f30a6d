"""One world: its securities, clock, files and vendor, and the steps that are taken in it."""

from __future__ import annotations

import random
import re
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote
from uuid import UUID

import pyarrow as pa

from data_engine.alpaca import http_client
from data_engine.errors import DataEngineError, InputError, StoreBusy, StoreError
from data_engine.ingest import dispatcher, plan, worker_pool
from data_engine.ingest.pipeline import IngestionPipeline
from data_engine.ingest.recheck import audit, recheck
from data_engine.market.bars import Changes, make_table
from data_engine.market.finality import final_before
from data_engine.market.series import Timeframe
from data_engine.market.time_range import new_york_date
from data_engine.read import open_query
from data_engine.read.frame_warnings import ConflictWarning
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.settings import Settings
from data_engine.store import coverage_store, requested
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.history import head
from data_engine.store.partitions import encode_symbol
from data_engine.store.removal import plan_removal
from data_engine.store.s3 import capabilities, lease, s3_files, s3_group, s3_history
from data_engine.store.selection import DatasetFilter
from data_engine.store.waiting import StoreBusyWarning
from data_engine.universe.index_store import MetadataStore
from data_engine.verify import verify as verification
from data_engine.verify.repair import repair
from data_engine.verify.status import SeriesStatus, series_status
from data_engine.verify.verify import verify

from .bucket import Buckets
from .disk import Disks
from .files import Files
from .history import Memory
from .market import DAY, Market, Security, Values, at, floor, instant, micros, next_bar
from .memory import inconsistencies_alone, remembered
from .oracle import Happened, Oracle, Violation, dataset_of, is_raw, outside_repeat, reopened, with_sessions
from .scheduler import Deadlock, Executor, Inline, Killed, Process, Scheduler, clock_of, exits, threads, wait_for
from .state import Key, Misplaced, Rows, Spans, State, common, inside, joined, minus, read_state, shown
from .vendor import Faults, Vendor
from .wire import WireVendor

SETTINGS = Settings(Path("/simulated"), "the simulation", 4, None, None, "http://127.0.0.1:9", None)


@dataclass(repr=False)
class Step:
    """One thing that is done.

    Attributes:
        kind: ``ingest``, ``update``, ``remove``, ``store``, ``recheck``, ``audit``, ``repair``, ``load`` or ``clock``.
        symbols: Of the command; None is all.
        start: A day or an instant.
        end: A day, an instant, or None.
        timeframe: Of the bars.
        adjustment: Of the bars.
        index: The name of an index.
        refetch: Whether covered ranges are asked for again.
        accept: Whether removals are accepted; of ``recheck`` and ``audit``, whether Alpaca's values of conflicting bars are.
        minutes: Of ``recheck``.
        repeat: Whether the command is repeated at the same instant.
        hours: By how much the clock moves first.
        skew: By how many hours the machine's clock is ahead of the vendor's.
        kill_at: The seam at which the process is killed.
        kill_before: The change of a file before which the process is killed.
        interrupt_at: The seam of the main thread at which Ctrl-C is pressed.
        power: Whether the power fails when the process is killed.
        full_at: The write at which the disk is full.
        fails: The share of the calls of the disk, or of the requests to the bucket, that fail.
        suspend_at: The seam at which the machine of the process is suspended.
        suspend_for: For how many seconds.
        faults: Of the vendor.
        workers: How many.
        page_limit: The bars that the plan expects on a page.
        salt: Of all that is random in the step.
        beside: What another process does at the same time; its own ``beside`` is what a third one does.
    """

    kind: str
    symbols: tuple[str, ...] | None = None
    start: str | None = None
    end: str | None = None
    timeframe: str = "1Min"
    adjustment: str = "raw"
    index: str | None = None
    refetch: bool = False
    accept: bool = False
    minutes: float = 1.0
    repeat: bool = False
    hours: float = 0.0
    skew: float = 0.0
    kill_at: int | None = None
    kill_before: int | None = None
    interrupt_at: int | None = None
    power: bool = False
    full_at: int | None = None
    fails: float = 0.0
    suspend_at: int | None = None
    suspend_for: float = 0.0
    faults: Faults = field(default_factory=Faults)
    workers: int = 3
    page_limit: int = 10_000
    salt: int = 0
    beside: Step | None = None

    def __str__(self) -> str:
        plain = Step(self.kind)
        words = [f"{name}={value!r}" for name, value in vars(self).items() if value != getattr(plain, name) and name != "kind"]
        return f"Step({', '.join([repr(self.kind), *words])})"

    __repr__ = __str__

    @property
    def all(self) -> list[Step]:
        """This step, and those beside it."""
        return [self, *(self.beside.all if self.beside is not None else ())]

    @property
    def faulty(self) -> bool:
        """Whether anything may fail."""
        stops = (self.kill_at, self.kill_before, self.interrupt_at, self.full_at, self.suspend_at, self.beside)
        return self.faults.fatal or bool(self.fails) or any(one is not None for one in stops)


JUSTIFIED = True
"""Whether an adjusted series may be fetched again in full only if a bar of it has changed: not before row 4 is mended."""

_COMPARING = ("recheck", "audit")

FIRST = "2023-07-01"
"""A day before all that worlds ask for: from there on each month is looked for."""

_OF_SERIES = re.compile(r"(equities_[^/]+)/symbol=([^/]+?)(?:\.json)?(?:/|$)")


class _Clock(datetime):
    """`datetime` whose now is the world's."""

    world: World

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.world.machine


def _files(place: str, seed: object) -> Files | Disks | Buckets:
    if place == "memory":
        return Files()
    if place in ("journalled", "strict"):
        return Disks(seed, journalled=place == "journalled")
    return Buckets(seed, place)


class World:
    """Everything there is.

    Args:
        seed: Of the truth.
        securities: What trades.
        now: When it begins.
        place: Where its files are: ``memory``, a ``journalled`` or ``strict`` model of a disk, or a bucket of a service that is
            ``conditional``, ``removing`` or ``plain``.
        wire: Whether the vendor is behind HTTP.
        market: The truth; None is one of the securities alone.
    """

    def __init__(
        self,
        seed: object,
        securities: list[Security],
        now: datetime,
        place: str = "memory",
        *,
        wire: bool = False,
        market: Market | None = None,
    ) -> None:
        self.seed = seed
        self.now = now
        self.skew = timedelta()
        self.market = market or Market(seed, securities)
        self.vendor = WireVendor(self.market) if wire else Vendor(self.market)
        self.place = place
        self.files = _files(place, seed)
        self.in_bucket = isinstance(self.files, Buckets)
        self.oracle = Oracle(self.market)
        self.state = State()
        self.log: list[str] = []
        self._last = now
        self._verified: dict[str, bytes] = {}
        self.memory = Memory(seed)
        self._empty_since: dict[Key, int] = {}
        self._final_emptiness: dict[Key, Spans] = {}
        self._ids = random.Random(f"ids {seed}")

    @property
    def machine(self) -> datetime:
        """What time it is by the machine's clock."""
        return self.now + self.skew

    # ------------------------------------------------------------------------------------------------------------- steps

    def take(self, step: Step) -> Happened:
        """Take a step and check what must be so.

        Raises:
            Violation: Something is not.
        """
        self.now += timedelta(hours=step.hours)
        self.skew = timedelta(hours=step.skew)
        happened = self._do(step)
        self._check(step, happened)
        if step.repeat and step.kind in ("ingest", "update") and happened.report is not None and not step.faulty:
            self._repeat(step)
        return happened

    def _check(self, step: Step, happened: Happened, *, readers: bool = True) -> None:
        if isinstance(happened.error, Deadlock):
            raise Violation(f"nobody can go on: {happened.error}")
        unexpected = happened.error
        if unexpected is not None and not isinstance(unexpected, DataEngineError | KeyboardInterrupt | Killed):
            text = "".join(traceback.format_exception(unexpected))
            raise Violation(f"a traceback: {text}")
        self.oracle.check(happened)
        self._note_emptiness()
        known = any(key.startswith(("equities_", "metadata/coverage/", "metadata/indices/")) for key in self.files.content)
        fine = isinstance(unexpected, InputError) or (isinstance(unexpected, StoreError) and not known)
        fine |= isinstance(unexpected, StoreBusy) and self.place == "plain"  # the claim of a killed writer has to expire
        fine |= self._may_lose_lease(step, unexpected)
        if isinstance(unexpected, DataEngineError) and not step.faulty and not fine:
            raise Violation(f"(e) {step.kind} ended with {unexpected.code} though nothing failed: {unexpected}")
        self._check_durable(happened)
        if readers:
            self._verify()
            self._check_status(step, happened)
            self._check_load(step)

    def _note_emptiness(self) -> None:
        """Remember what was answered without a bar for more than a week: it is final, whatever the vendor maps to it later."""
        for key, claims in self.state.claims.items():
            if self.state.rows_of(key) or not claims.all:
                self._empty_since.pop(key, None)
            elif micros(self.now) - self._empty_since.setdefault(key, micros(self.now)) > 7 * DAY:
                final = minus(claims.covered, claims.tentative)
                self._final_emptiness[key] = joined([*self._final_emptiness.get(key, []), *final])

    def _check_durable(self, happened: Happened) -> None:
        """What a run says is complete survives a power failure after it, also what an earlier one had left unflushed."""
        left = self.files.at_risk() if happened.report is not None else None
        durable = None if left is None else _readable(left)
        for key in happened.requested if durable is not None else ():
            claims, sure = self.state.claims_of(key), durable.claims_of(key)
            lost = minus(claims.all, sure.all) or minus(claims.wanted, sure.wanted)
            same = _rows_in(self.state, key, claims.all) == _rows_in(durable, key, claims.all)
            if happened.normal(key) and (lost or not same):
                raise Violation(f"(b) {key} is reported complete, and a power failure would take {shown(lost)}")

    def _may_lose_lease(self, step: Step, error: BaseException | None) -> bool:
        """One after the other, at two seconds each, the requests of four workers may leave the renewal no minute."""
        return isinstance(error, lease.LockLost) and self._tick(step) >= 1

    def _repeat(self, step: Step) -> None:
        before, old = self.state, dict(self.files.content)
        again = self._do(replace(step, faults=replace(step.faults, lands_at=None)))  # what has landed stays
        self.oracle.check(again)
        if self._may_lose_lease(step, again.error):
            return
        if again.error is not None:
            raise Violation(f"(g) the repeat ended with {again.error!r}")
        final = list(outside_repeat(before, again.asks))
        if final and not step.refetch:
            raise Violation(f"(g) the repeat asked again for {final[0]}")
        changed = [key for key, data in self.files.content.items() if key.endswith(".parquet") and old.get(key) != data]
        anew = again.report is not None and any("adjusted anew" in note for note in again.report["notes"])
        # A series is compared by another session now: a bar of it that the vendor has revised since looks like another basis.
        changed = [key for key in changed if not (anew and not is_raw(key.split("/")[0]))]
        # An action that landed after the responses of the first time is in those of the second, if everything is asked again.
        landed = step.refetch and step.faults.lands_at is not None
        changed = [key for key in changed if is_raw(key.split("/")[0]) or not landed]
        # Emptiness that was answered before a first bar was known is asked again by the run after that which brought the bar.
        changed = [key for key in changed if not before.claims_of(_series_of(key)).tentative]
        # Without the vendor's time, the newest bar of an answer waits for a later one, which another request may show.
        if changed and not again.undated:
            raise Violation(f"(g) the repeat changed {changed[0]}")
        # Nor is it put in the place of the stored one, which looks like another basis each time.
        if anew and JUSTIFIED and not _changed(again.report.changes) and not again.undated:
            raise Violation("(g) the repeat fetched series again in full, though no bar of them has changed")
        self._verify()

    def _do(self, step: Step) -> Happened:
        scheduler = Scheduler(f"{self.seed} {step.salt}", self._tick(step))
        micros_now = micros(self.now)
        self.vendor.open(scheduler, micros_now, step.faults, step.salt)
        self.files.begin(scheduler, step.full_at, step.fails, (self.now - self._last).total_seconds() / 3600)
        at_risk = self.files.at_risk() if any(one.power for one in step.all) else None
        self._last = self.now
        before = self.state
        happened = Happened(
            before, before, [], micros(self.machine), micros_now,
            faulty=step.faulty, undated=not step.faults.dated,
            moved=step.faults.lands_at is not None or step.suspend_at is not None,
            durable=None if at_risk is None else _readable(at_risk),
        )  # fmt: skip
        mains: dict[str, tuple[Process, Callable[[], Any]]] = {}
        for number, one in enumerate(step.all):
            name = ("main", "beside", "third")[number]
            process = Process(name, one.kill_at, one.kill_before, one.interrupt_at, one.suspend_at, one.suspend_for)
            told = happened if not number else replace(happened, requested={})  # what is given and removed is common to all
            mains[name] = (process, partial(self._command, one, told))
        happened.alone = len(mains) == 1
        happened.accept = any(one.accept and (one.refetch or one.kind in _COMPARING) for one in step.all)
        happened.removes = step.kind == "recheck"
        happened.compares = any(one.kind in _COMPARING for one in step.all)
        with self._patched(step):
            try:
                results = scheduler.run(**mains)
            except Deadlock as error:
                results = {"main": error}
        self.files.end(power_failed=any(one.power for one in step.all))
        self.files.begin(scheduler)
        self.now += timedelta(seconds=int(scheduler.suspended))
        result = results["main"]
        happened.asks = self.vendor.asks
        happened.refused = self.vendor.recent_refused
        if isinstance(result, BaseException):
            happened.error = result
        else:
            happened.report = result if step.kind in ("ingest", "update") else None
        for beside in (results.get("beside"), results.get("third")):
            if isinstance(beside, BaseException) and not isinstance(beside, DataEngineError | KeyboardInterrupt | Killed):
                happened.error = beside
        if step.kind == "remove" and happened.error is None:
            happened.report = None
        try:
            self.state = happened.after = read_state(self.files.content)
        except Misplaced as error:
            raise Violation(f"(a) {error}") from error
        self.log.append(f"{self.now:%Y-%m-%d %H:%M} {step} -> {self._summary(happened)}")
        failed, fails = any(one.power for one in step.all), any(one.fails for one in step.all)
        self.memory.remember(self.files.content, power_failed=failed, reading_fails=fails)
        return happened

    def _tick(self, step: Step) -> float:
        """Return how many seconds a request to the bucket takes."""
        ticks = (0.02, 0.2, 2.0) if self.in_bucket and self.place != "plain" else (0.02 * self.in_bucket,)
        return ticks[step.salt % len(ticks)]

    @staticmethod
    def _summary(happened: Happened) -> str:
        if happened.error is not None:
            return f"{type(happened.error).__name__} {happened.error}"[:150]
        if happened.report is not None:
            report = happened.report
            return f"exit {report.exit_code}, {len(happened.asks)} asks, {report.changes}, {report['codes']}"
        return "done"

    @contextmanager
    def _patched(self, step: Step) -> Iterator[None]:
        scheduler = self.vendor.scheduler
        assert scheduler is not None
        _Clock.world = self

        def executor(workers: int | None = None, **_: object) -> Executor:
            return Executor(scheduler, workers or 4)

        def new_id() -> UUID:
            return UUID(int=self._ids.getrandbits(128))

        def waited(futures: Any, timeout: float | None = None, return_when: str = "ALL_COMPLETED") -> Any:
            return wait_for(scheduler, futures, timeout, return_when)

        limits = plan.plan_ingestion.__kwdefaults__
        clock, together = clock_of(scheduler), threads(scheduler)
        with remembered(), ExitStack() as stack:
            for module in (worker_pool, s3_group):
                stack.enter_context(mock.patch.object(module, "ThreadPoolExecutor", executor))
            for module in (worker_pool, http_client, lease):
                stack.enter_context(mock.patch.object(module, "threading", together))
            for module in (dispatcher, http_client, lease, capabilities, s3_files):
                stack.enter_context(mock.patch.object(module, "time", clock))
            for module in (http_client, lease, s3_files):
                stack.enter_context(mock.patch.object(module, "random", self._ids))
            for module in (coverage_store, requested, lease, capabilities, s3_files, s3_history):
                stack.enter_context(mock.patch.object(module, "uuid4", new_id))
            for module in (lease, capabilities, s3_history):
                stack.enter_context(mock.patch.object(module, "elapsed", clock.monotonic))
            for module in (coverage_store, head, open_query, lease):
                stack.enter_context(mock.patch.object(module, "datetime", _Clock))
            stack.enter_context(mock.patch.object(verification, "ThreadPoolExecutor", Inline))
            stack.enter_context(mock.patch.object(s3_files, "atexit", exits(scheduler)))
            for category in (s3_files.SingleWriterWarning, StoreBusyWarning, ConflictWarning):
                stack.enter_context(warnings.catch_warnings(action="ignore", category=category))
            stack.enter_context(mock.patch.object(worker_pool, "wait", waited))
            stack.enter_context(mock.patch.object(dispatcher, "wait", waited))
            if limits and "page_limit" in limits:
                stack.enter_context(mock.patch.dict(limits, page_limit=step.page_limit))
            yield

    # ---------------------------------------------------------------------------------------------------------- commands

    def storage(self) -> ParquetStorage:
        files = self.files.files()
        storage = ParquetStorage(files=files)
        storage.bars.coverage = CoverageStore(files, now=lambda: self.machine)
        return storage

    def pipeline(self, step: Step) -> IngestionPipeline:
        storage = self.storage()
        return IngestionPipeline(
            step.workers,
            client=self.vendor,  # type: ignore[arg-type]
            adjustment=step.adjustment,
            storage=storage,
            metadata=MetadataStore(files=storage.files, today=lambda: new_york_date(self.machine)),
            settings=SETTINGS,
            now=lambda: self.machine,
            progress=False,
            wait=600.0,
            actions=bool(self.market.records),
        )

    def _command(self, step: Step, happened: Happened) -> Any:
        return getattr(self, f"_{step.kind}")(step, happened)

    def _ingest(self, step: Step, happened: Happened) -> Any:
        pipeline = self.pipeline(step)
        dataset = pipeline._dataset(step.timeframe)
        span = self._span(step.start, step.end)
        for symbol in step.symbols or ():
            happened.requested[dataset.name, symbol] = span
        return pipeline.ingest_symbols(
            step.symbols or (), step.start, step.end, step.timeframe, step.index,
            refetch=step.refetch, accept_removals=step.accept, force=True,
        )  # fmt: skip

    def _span(self, start: str | None, end: str | None) -> Spans:
        from data_engine.market.dates import parse_span

        try:
            span = parse_span(start or "", end, now=self.machine).range
        except InputError:
            return []
        return [(micros(span.start), micros(span.end))]

    def _update(self, step: Step, happened: Happened) -> Any:
        now = micros(self.machine)
        members = None
        if step.index is not None:
            try:
                members = set(MetadataStore(files=self.files.files()).members(step.index))
            except DataEngineError:
                members = set()
        for key in happened.before.keys:
            wanted = happened.before.claims_of(key).wanted
            chosen = members if step.index is not None else step.symbols
            # Of several processes, another one may change first what is requested.
            if happened.alone and wanted and (chosen is None or key[1] in chosen):
                happened.requested[key] = [*wanted, (min(wanted[-1][1], now), now)] if wanted[-1][1] < now else list(wanted)
        return self.pipeline(step).update(step.symbols, step.index)

    def _remove(self, step: Step, happened: Happened) -> Any:
        storage = self.storage()
        symbols = step.symbols or ()
        removal = plan_removal(storage.bars, DatasetFilter(), symbols, step.start, step.end)
        for series, span, _ in removal:
            happened.removed[series.dataset.name, series.symbol] = [(micros(span.start), micros(span.end))]
        with storage.files.lock("run", seconds=600):
            storage.files.remove_stale_drafts()
            return {series: storage.bars.remove(series, span) for series, span, _ in removal}

    def _store(self, step: Step, happened: Happened) -> Any:
        """Store a few bars of a user's, some where the vendor has bars, some where it has none."""
        from data_engine.market.bar_frame import to_frame

        draw = random.Random(f"store {step.salt}")
        timeframe = Timeframe.parse(step.timeframe)
        storage = self.storage()
        for symbol in step.symbols or ():
            span = self._span(step.start, step.end)
            if not span:
                continue
            ((start, end),) = span
            end = min(end, floor(micros(min(self.machine, self.now)), timeframe))
            stamps = list(self.market.bars(symbol, timeframe, dataset_of(("equities_1min", "")).adjustment, start, end, end))
            stamps += [stamp for one in stamps if start <= (stamp := next_bar(one, timeframe)) < end]
            chosen = sorted(set(draw.sample(stamps, min(len(stamps), 4))))
            if timeframe.unit in ("Day", "Week"):
                chosen = [stamp for stamp in chosen if instant(stamp).weekday() < 5]
            if not chosen:
                continue
            rows: dict[int, Values] = {
                stamp: (7.0, 8.0, 6.0, 7.5, float(100 + draw.randrange(900)), 2.0, 7.0) for stamp in chosen
            }
            key = (dataset_of((f"equities_{step.timeframe.lower()}", "")).name, symbol)
            stored = happened.stored.setdefault(key, {})
            for stamp, values in rows.items():
                stored.setdefault(stamp, set()).add(values)
            frame = to_frame([(symbol, _table(rows))])
            storage.store(frame, timeframe=step.timeframe)
        return None

    def _recheck(self, step: Step, happened: Happened) -> None:
        """Fetch covered ranges again, and compare them."""
        happened.compared = recheck(
            self.pipeline(step), DatasetFilter(), step.symbols,
            minutes=step.minutes, accept=step.accept, page_limit=step.page_limit,
        )  # fmt: skip

    def _audit(self, step: Step, happened: Happened) -> None:
        """Fetch some sessions again, and compare them."""
        happened.compared = audit(
            self.pipeline(step), DatasetFilter(), step.symbols, sample=1 + step.salt % 7, seed=step.salt, accept=step.accept
        )

    def _repair(self, step: Step, happened: Happened) -> None:
        """Check all, and repair what a killed run left uncounted."""
        storage = self.storage()
        with storage.files.lock("run", seconds=600):
            report = verify(storage.bars, DatasetFilter(), None, now=self.machine)
            repair(storage.bars, report.findings, now=self.machine)

    def _load(self, step: Step, happened: Happened) -> None:
        """Change nothing; what it returns is checked after the step."""

    def _clock(self, step: Step, happened: Happened) -> None:
        """Have time pass."""

    # --------------------------------------------------------------------------------------------------- the other checks

    def _verify(self, *, everything: bool = False) -> None:
        """`verify` names no inconsistency: of the symbols whose files have changed since it ran last, or of all."""
        content, seen = self.files.content, self._verified
        changed = {key for key in {*content, *seen} if content.get(key) != seen.get(key)}
        self._verified = dict(content)
        names: dict[str, set[str]] = {}
        for match in filter(None, map(_OF_SERIES.search, changed)):
            names.setdefault(match[1], set()).add(unquote(match[2]))
        if everything:
            self._verify_part(DatasetFilter(), None)
        for name, symbols in sorted(names.items()) if not everything else ():
            dataset = dataset_of((name, ""))
            self._verify_part(DatasetFilter(dataset.timeframe, dataset.feed, dataset.adjustment), sorted(symbols))

    def _verify_part(self, datasets: DatasetFilter, symbols: list[str] | None) -> None:
        # What gives warnings alone is computed by one seed in eight, and for exceptions alone.
        quick = nullcontext() if symbols is None and zlib.crc32(str(self.seed).encode()) % 8 == 0 else inconsistencies_alone()
        with remembered(), quick, mock.patch.object(verification, "ThreadPoolExecutor", Inline):
            report = verify(self.storage().bars, datasets, symbols, now=max(self.now, self.machine))
        if report.inconsistencies:
            raise Violation(f"(f) verify: {report.inconsistencies[0].code} {report.inconsistencies[0]}")

    def _check_status(self, step: Step, happened: Happened) -> None:
        """`status` says of each series that has changed, every fourth time of all, what its coverage and its files say."""
        before, after = happened.before, happened.after
        changed = {
            key
            for key in after.keys
            if before.claims_of(key) != after.claims_of(key) or before.rows_of(key) != after.rows_of(key)
        }
        names = {symbol for _, symbol in (changed if step.salt % 4 else after.keys)}
        if not names:
            return
        with remembered():
            found = list(series_status(self.storage().bars, DatasetFilter(), sorted(names), now=self.machine))
        keys = {(one.series.dataset.name, one.series.symbol) for one in found}
        unsaid = {key for key in self.state.claims if key[1] in names and key not in keys}
        if unsaid:
            raise Violation(f"(e) status does not name {min(unsaid)}")
        for one in found:
            self._check_series_status(happened, one)

    def _check_series_status(self, happened: Happened, one: SeriesStatus) -> None:
        key, said = (one.series.dataset.name, one.series.symbol), one.to_json()
        claims, rows = self.state.claims_of(key), self.state.rows_of(key)
        limit = floor(micros(self.machine), one.series.dataset.timeframe)
        missing = with_sessions(minus(common(claims.wanted, [(0, limit)]), claims.all), one.series.dataset)
        if one.ended is not None:
            missing = minus(missing, [(micros(one.ended.instant), 1 << 62)])
        told = [(micros(datetime.fromisoformat(start)), micros(datetime.fromisoformat(end))) for start, end in said["missing"]]
        if told != missing:
            raise Violation(f"(e) status of {key} says that {shown(told)} is missing; that is {shown(missing)}")
        counted = len(rows) if claims.changing else claims.bars  # bars that a run left uncounted are no answer yet
        whole = not missing and (counted or claims.all)
        states = ("complete", "empty") if whole else ("failed", "incomplete", "empty", "complete")
        if rows and not claims.wanted and not claims.all:
            states = ("unverified",)
        if rows and claims.all and claims.all[-1][1] - max(rows) > 29 * 86_400_000_000:
            states = ("silent", *states)
        if said["state"] not in (("ended", *states) if one.ended is not None else states):
            raise Violation(f"(e) status of {key} says {said['state']}, and it holds {len(rows)} bars and lacks {shown(missing)}")
        if not happened.normal(key) or happened.undated:
            return
        sizes = [len(data) for path, data in self._bytes(key).items()]
        expected = {"bars": len(rows), "files": len(sizes), "bytes": sum(sizes)}
        expected |= {"first_bar": _iso(min(rows, default=None)), "last_bar": _iso(max(rows, default=None))}
        if not missing and (wrong := {name: (said[name], value) for name, value in expected.items() if said[name] != value}):
            raise Violation(f"(e) status of {key} says otherwise than its files: {wrong}")

    def _check_load(self, step: Step) -> None:
        """What `load` returns is what the files hold, once each."""
        if step.kind != "load":
            return
        for name in sorted({name for name, _ in self.state.keys}):
            rows = {key[1]: self.state.rows_of(key) for key in self.state.keys if key[0] == name}
            if is_raw(name) or any(rows.values()):  # an adjusted dataset without bars is none yet: raw bars would be adjusted
                self._check_load_of(step, name, rows)

    def _check_load_of(self, step: Step, name: str, rows: dict[str, Rows]) -> None:
        dataset = dataset_of((name, ""))
        prices = None if dataset.adjustment.is_raw else "vendor"
        with self._patched(step):
            frame = self.storage().load(
                sorted(rows), FIRST, timeframe=dataset.timeframe, adjustment=dataset.adjustment,
                prices=prices, incomplete="ignore",
            )  # fmt: skip
        if frame.index.has_duplicates or not frame.index.is_monotonic_increasing:
            raise Violation(f"(a) load of {name} gives an index that is not unique and sorted")
        stamps = (frame.index.get_level_values(1).asi8 // 1000).tolist()
        loaded = set(zip(frame.index.get_level_values(0).tolist(), stamps, strict=True))
        held = {(symbol, stamp) for symbol, bars in rows.items() for stamp in bars if stamp < micros(self.machine)}
        if loaded != held:
            raise Violation(f"(a) load of {name} gives {len(loaded)} bars, and the files hold {len(held)}: {min(loaded ^ held)}")

    def finish(self) -> None:
        """Faults off: all that was asked for is brought, and a refetch makes raw series equal to a fresh store's."""
        if not any(claims.wanted for claims in self.state.claims.values()):
            return
        self.skew = timedelta()
        self._owed(self.take(Step("update", salt=9_000_001, hours=24 * 9, repeat=True)))
        self._equal_to_fresh()
        self._verify(everything=True)
        self.memory.check(self.files.files())

    def _owed(self, happened: Happened) -> None:
        """After a complete update nothing is owed but of sessions that it calls missing: what is final was answered again."""
        for key in self.state.keys:
            final = micros(final_before(dataset_of(key), self.now))
            claims = self.state.claims_of(key)
            left = minus(common(claims.provisional, [(0, final)]), reopened(happened, key))
            left = with_sessions(left, dataset_of(key))
            if left:
                raise Violation(f"(b) {key} is still provisional after an update: {shown(left)}")
            security = self.market.securities.get(key[1])
            if security is not None and security.renamed is not None and is_raw(key[0]):
                dataset = dataset_of(key)
                for start, end in minus(claims.wanted, [(final, 1 << 62)]):
                    # Without those that came late, or went before they were asked for: what is final is not asked for again.
                    mapped = min(at(security.renamed + timedelta(days=1), 4), micros(self.now))
                    then, now = (
                        self.market.bars(key[1], dataset.timeframe, dataset.adjustment, start, end, when)
                        for when in (mapped, micros(self.now))
                    )
                    final = self._final_emptiness.get(key, [])
                    there = (stamp for stamp in then if stamp in now and stamp not in self.state.rows_of(key))
                    early = [stamp for stamp in there if stamp < _first(self.state, key) and not _inside(stamp, final)]
                    if early:
                        raise Violation(f"(b) {key} never got its bars from before it was renamed, such as {instant(early[0])}")

    def _equal_to_fresh(self) -> None:
        wanted = {key: claims.wanted for key, claims in self.state.claims.items() if claims.wanted and is_raw(key[0])}
        fresh = World(self.seed, [], self.now)
        fresh.market, fresh.vendor = self.market, Vendor(self.market)
        fresh.oracle.market = self.market
        groups: dict[tuple[str, tuple[int, int]], list[str]] = {}
        for (dataset, symbol), spans in sorted(wanted.items()):
            for span in spans:
                groups.setdefault((dataset, span), []).append(symbol)
        for number, ((name, (start, end)), symbols) in enumerate(groups.items()):
            timeframe = str(dataset_of((name, "")).timeframe)
            step = Step("ingest", tuple(symbols), instant(start).isoformat(), instant(end).isoformat(), timeframe)
            step.refetch, step.accept, step.salt = True, True, 9_100_000 + number
            self._refetch(step)
            fresh._do(Step("ingest", step.symbols, step.start, step.end, timeframe, salt=step.salt))
        for key in wanted:
            outside = {stamp for stamp in self.state.rows_of(key) if not _inside(stamp, wanted[key])}
            mine, theirs = self._bytes(key), fresh._bytes(key)
            if not outside and mine != theirs:
                raise Violation(
                    f"at the end {key} differs from a fresh store's in {sorted(set(mine) ^ set(theirs)) or sorted(mine)}"
                )

    def _refetch(self, step: Step) -> None:
        """Take a step, and again where a slow service let the lease of the store be lost; all is read at the end."""
        for again in range(3):
            step = replace(step, salt=step.salt + 10_000 * again)
            happened = self._do(step)
            self._check(step, happened, readers=False)
            if not isinstance(happened.error, lease.LockLost):
                return

    def _bytes(self, key: Key) -> dict[str, bytes]:
        folder = f"{key[0]}/symbol={encode_symbol(key[1])}/"
        return {path: data for path, data in self.files.content.items() if path.startswith(folder)}


def _series_of(path: str) -> Key:
    match = _OF_SERIES.search(path)
    assert match is not None
    return match[1], unquote(match[2])


def _changed(changes: Changes) -> bool:
    return bool(changes.written or changes.removed)


def _rows_in(state: State, key: Key, spans: Spans) -> Rows:
    """Return the bars of some ranges: no run promises those that a killed one has left elsewhere."""
    return {stamp: row for stamp, row in state.rows_of(key).items() if inside(stamp, spans)}


def _readable(content: dict[str, bytes]) -> State:
    """Read what a power failure could leave: files that it could tear are not there."""
    return read_state({key: data for key, data in content.items() if data and not key.startswith("metadata/drafts/")})


def _iso(stamp: int | None) -> str | None:
    return None if stamp is None else f"{instant(stamp):%Y-%m-%dT%H:%M:%SZ}"


def _first(state: State, key: Key) -> int:
    return min(state.rows_of(key), default=1 << 62)


def _inside(stamp: int, spans: Spans) -> bool:
    return any(start <= stamp < end for start, end in spans)


def _table(rows: dict[int, Values]) -> pa.Table:
    import numpy as np

    stamps = np.array(sorted(rows), np.int64)
    return make_table(stamps, [np.array([rows[stamp][number] for stamp in sorted(rows)]) for number in range(7)])


def day(text: str) -> date:
    return date.fromisoformat(text)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


__all__ = ["Step", "StoreError", "World", "day", "utc"]
