"""Fetch covered ranges again, compare them with what is stored, and say what Alpaca has thought better of: `recheck`.

`recheck` fetches within a budget what is most suspect, then what was seen longest ago; `audit` fetches a sample. Both are done as
a run is: tasks of one chain of pages each, handed to the threads or processes that do those of an ingestion. Each range that was
answered is dated, so that what an interrupt left is the first of the next run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from data_engine.errors import DamagedFile, DataEngineError, Failure, InputError, Interrupted, SourceUnavailable, StoreBusy
from data_engine.ingest.audit_plan import AuditPlan, plan_audit
from data_engine.ingest.conflicting_bars import Accepted, accept_conflicts
from data_engine.ingest.dispatcher import Dispatcher
from data_engine.ingest.drift import Rechecked, total
from data_engine.ingest.outcome import IngestionReport, Outcome
from data_engine.ingest.plan import FetchTask, IngestionPlan
from data_engine.ingest.recheck_plan import LEAST_LIMIT, RecheckPlan, plan_recheck, requests_of
from data_engine.ingest.recheck_record import RecheckRecord, recheck_record
from data_engine.ingest.recheck_tasks import UNSEEN, RecheckTask
from data_engine.ingest.recheckable import Recheckable, recheckable
from data_engine.ingest.run_log import RunLog, actor_of, run_record
from data_engine.ingest.suspects import find_suspects
from data_engine.ingest.task import RunOptions
from data_engine.market.bars import NO_CHANGES, Changes
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.selection import DatasetFilter

if TYPE_CHECKING:
    from concurrent.futures import Future

    from data_engine.ingest.pipeline import IngestionPipeline

_FASTER = 1.05  # times the limit that was counted on: so much more is worth another look at the plan

_MOST_LISTED = 10_000  # differences in a report; all are counted

_GO_ON = "interrupted; run the same command again to go on with what is left"

Steps = Callable[[Dispatcher], Iterator[Sequence[FetchTask]]]
"""Yields the tasks of a run, some at a time; what has come so far is in the dispatcher."""


@dataclass(slots=True)
class RecheckReport:
    """The result of a recheck, or of an audit.

    Attributes:
        plan: The plan of all nights. If None, a sample or nothing was fetched.
        sample: The plan of an audit. If None, there was none.
        tasks: The number of tasks that were to be done.
        requests: The number of requests sent.
        pages: The number of responses.
        seconds: The duration.
        rechecked: What was compared, by series.
        added: The number of bars that were not stored before.
        accepted: What was taken over. If None, nothing was to be.
        conflicting: The number of conflicting bars of the selected series after the run, by series.
        failed: The failures of series that could not be compared.
    """

    plan: RecheckPlan | None = None
    sample: AuditPlan | None = None
    tasks: int = 0
    requests: int = 0
    pages: int = 0
    seconds: float = 0.0
    rechecked: dict[Series, Rechecked] = field(default_factory=dict)
    added: int = 0
    accepted: Accepted | None = None
    conflicting: dict[Series, int] = field(default_factory=dict)
    failed: dict[Series, Failure] = field(default_factory=dict)

    @property
    def total(self) -> Rechecked:
        """What was compared, in all."""
        return total(self.rechecked[one] for one in sorted(self.rechecked, key=lambda one: (one.dataset.name, one.symbol)))

    @property
    def changes(self) -> Changes:
        """How the stored bars have changed; those that vanished are the ones that were kept."""
        taken = {} if self.accepted is None else self.accepted.changes
        kept = (max(0, done.vanished - taken.get(one, NO_CHANGES).removed) for one, done in self.rechecked.items())
        return sum(taken.values(), Changes(added=self.added, vanished=sum(kept)))

    @property
    def exit_code(self) -> int:
        """0 if every series was compared, with differences or without; else as for an ingestion."""
        codes = {failure.code for failure in self.failed.values()}
        if StoreBusy.code in codes:
            return StoreBusy.exit_code
        if codes == {SourceUnavailable.code} and not self.rechecked:
            return SourceUnavailable.exit_code
        return 1 if codes else 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        done, accepted = self.total, self.accepted
        return {
            "series": len(self.rechecked),
            "tasks": self.tasks,
            "requests": self.requests,
            "elapsed_seconds": round(self.seconds, 3),
            "bars": done.bars,
            **done.counts,
            "bars_written": self.changes.written,
            "accepted": accepted.total.written if accepted else 0,
            "removed": accepted.total.removed if accepted else 0,
            "conflicting": sum(self.conflicting.values()),
            "conflicts": [
                {"dataset": series.dataset.name, "symbol": series.symbol, "bars": count}
                for series, count in self.conflicting.items()
            ],
            "differences": [one.to_json() for one in done.differences[:_MOST_LISTED]],
            "failed": [
                {"symbol": series.symbol, "dataset": series.dataset.name, "code": failure.code, "message": failure.message}
                for series, failure in self.failed.items()
            ],
        }


def planned(
    storage: BarStore, found: Recheckable, *, now: datetime, minutes: float, limit: float | None, page_limit: int = 10_000
) -> RecheckPlan:
    """Return the plan of all nights for some series of a store; timestamps of stored bars are read.

    Args:
        storage: The store of the bars.
        found: The series.
        now: The current instant.
        minutes: The minutes per night.
        limit: The requests per minute of the account. If None, those of a free plan.
        page_limit: The bars per page.
    """
    suspects = find_suspects(storage, found.known)
    budget = requests_of(minutes, limit)
    return plan_recheck(found.known, suspects, now=now, budget=budget, asof=found.asof, page_limit=page_limit)


def recheck(
    pipeline: IngestionPipeline,
    choice: DatasetFilter,
    names: Sequence[str] | None,
    *,
    minutes: float | None,
    accept: bool = False,
    page_limit: int = 10_000,
) -> RecheckReport:
    """Fetch covered ranges again within a budget, and compare them.

    New bars are stored. Bars that Alpaca revised or dropped stay as they are, and are conflicting.

    Args:
        pipeline: What fetches, and the store.
        choice: The datasets.
        names: The symbols. If None, all.
        minutes: The time at the account's rate limit. If None, nothing is fetched.
        accept: Whether to store Alpaca's values of all conflicting bars of the series, and remove those that Alpaca dropped.
        page_limit: The bars per page that are counted on.

    Raises:
        InputError: If a symbol is in no dataset; nothing was sent or written.
        CredentialsRefused: If the keys are refused.
        ServiceDown: If there was no usable response for ten minutes.
        StoreError: If the store cannot be written.
        Interrupted: If Ctrl-C was pressed; what had been compared is dated and not fetched again by the next run.
    """
    if choice.adjustment is not None and not choice.adjustment.is_raw:
        raise InputError(
            f"cannot recheck with --adjustment {choice.adjustment}: `data-engine update` compares adjusted series with Alpaca "
            "and fetches those again whose prices have changed; run `data-engine audit` to compare a sample"
        )
    with pipeline.access.locked() as hold:
        now = pipeline.clock()
        bars = pipeline.storage.bars.acting(actor_of("recheck", now))
        found = recheckable(bars, choice, names, now=now)
        report = RecheckReport(failed=dict(found.failed))
        run = _Run(pipeline, hold, now, "recheck", report)
        with run.recorded():
            if minutes is not None:
                limit = pipeline.settings.requests_per_minute or (pipeline.client.allowed if pipeline.dask is None else None)
                plan = planned(bars, found, now=now, minutes=minutes, limit=limit, page_limit=page_limit)
                report.plan = plan
                record = RecheckRecord(now.replace(microsecond=0), minutes, plan.budget, plan.nights)
                whole = names is None and choice.is_everything
                _write(bars, record if whole else None)
                bound = pipeline.settings.requests_per_minute is not None
                run.do(lambda dispatcher: _steps(plan, minutes, dispatcher, bound=bound))
                if report.failed.keys() <= found.failed.keys():  # else a part of tonight is left for another night
                    _write(bars, replace(record, nights=max(0, plan.nights - 1)) if whole else None)
            _finish(bars, found, report, accept=accept)
        return report


def audit(
    pipeline: IngestionPipeline,
    choice: DatasetFilter,
    names: Sequence[str] | None,
    *,
    sample: int,
    seed: int,
    accept: bool = False,
) -> RecheckReport:
    """Fetch a sample of final sessions again, and compare them as `recheck` does.

    Args:
        pipeline: What fetches, and the store.
        choice: The datasets; adjusted series only if it names their adjustment, and nothing of them is written.
        names: The symbols. If None, all.
        sample: The number of sessions, counted per series.
        seed: The seed; the same one draws the same sessions.
        accept: Whether to store Alpaca's values of conflicting bars. Bars that Alpaca dropped are kept.

    Raises:
        DataEngineError: As `recheck`.
    """
    if accept and choice.adjustment is not None and not choice.adjustment.is_raw:
        raise InputError(
            f"cannot use --accept with --adjustment {choice.adjustment}: an adjusted series has one adjustment basis; "
            "run `data-engine ingest --refetch` to replace it"
        )
    with pipeline.access.locked() as hold:
        now = pipeline.clock()
        bars = pipeline.storage.bars.acting(actor_of("audit", now))
        found = recheckable(bars, choice, names, now=now, command="audit")
        plan = plan_audit(found.known, sample, seed=seed, asof=found.asof)
        report = RecheckReport(sample=plan, failed=dict(found.failed))
        run = _Run(pipeline, hold, now, "audit", report)
        with run.recorded():
            run.do(lambda _: iter((plan.tasks,)))
            _finish(bars, found, report, accept=accept, removals=False)
        return report


def _steps(plan: RecheckPlan, minutes: float, dispatcher: Dispatcher, *, bound: bool) -> Iterator[Sequence[FetchTask]]:
    """Yield the tasks of tonight: suspects, the others, and more if the account turns out to allow more."""
    tonight = plan.night()
    yield [one.task for one in tonight if one.reason != UNSEEN]
    yield [one.task for one in tonight if one.reason == UNSEEN]
    allowed = dispatcher.tally.allowed
    if not bound and allowed is not None and allowed > _FASTER * max(LEAST_LIMIT, plan.budget / minutes):
        left = requests_of(minutes, allowed) - sum(one.pages for one in tonight)
        yield [one.task for one in _within(plan.tasks[len(tonight) :], left)]


def _within(tasks: Iterable[RecheckTask], budget: int) -> Iterator[RecheckTask]:
    for one in tasks:
        budget -= one.pages
        if budget < 0:
            return
        yield one


def _write(storage: BarStore, record: RecheckRecord | None) -> None:
    """Write down when everything will have been seen; a run of a part of the store (None) says nothing of that."""
    if record is not None:
        recheck_record(storage.files).update(lambda _: record)


def _finish(storage: BarStore, found: Recheckable, report: RecheckReport, *, accept: bool, removals: bool = True) -> None:
    """Take over what is accepted, and count what conflicts."""
    known: list[Coverage] = []
    for one in found.known:
        try:
            stored = storage.coverage.read(one.series, fingerprints=False)
            # No task is at work any more: what they left to each other is counted.
            known.append(storage.recount(one.series) if stored.changing else stored)
        except DataEngineError as error:
            report.failed.setdefault(one.series, Failure.of(error))
    if accept:
        report.accepted = Accepted()
        accept_conflicts(storage, known, report.accepted, removals=removals)
        report.failed |= report.accepted.failed
        known = [_read_again(storage, one) if one.conflicting else one for one in known]
    report.conflicting = {one.series: one.conflicting for one in known if one.conflicting}


def _read_again(storage: BarStore, known: Coverage) -> Coverage:
    """Return what is known of a series now; what was known of it if that was damaged meanwhile, which its failure names."""
    try:
        return storage.coverage.read(known.series, fingerprints=False)
    except DamagedFile:
        return known


class _Run:
    """Does the tasks of a recheck, writes what came of them into a report, and adds the run to the run log.

    Args:
        pipeline: What fetches, and the store.
        hold: Unlocks the store.
        now: The instant when the run began.
        command: The command, for the run log and the history of the store.
        report: The report.
    """

    def __init__(self, pipeline: IngestionPipeline, hold: ExitStack, now: datetime, command: str, report: RecheckReport) -> None:
        self._pipeline = pipeline
        self._hold = hold
        self._now = now
        self._command = command
        self._report = report
        self._plans: list[IngestionPlan] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Add the run to the run log once the block is over: all that changes bars is to be in it.

        The error that ends the block carries the report, which says what was done until then.
        """
        error: DataEngineError | None = DataEngineError("internal error in data-engine")  # unless it turns out otherwise
        try:
            yield
            error = None
        except DataEngineError as raised:
            error, raised.recheck = raised, self._report
            raise
        except KeyboardInterrupt:
            error = Interrupted(_GO_ON)
            error.recheck = self._report
            raise error from None
        finally:
            if self._report.requests or not isinstance(error, InputError):  # which was refused before anything was done
                self._log(error)

    def do(self, steps: Steps) -> None:
        """Do the tasks that some steps yield."""
        pipeline = self._pipeline
        writing: Future[None] | None = None
        pool = pipeline.access.pool_for(RunOptions(self._now, recheck=True, actor=actor_of(self._command, self._now)))
        dispatcher = Dispatcher(pool, pipeline.progress, workers=pipeline.workers)
        dispatcher.state.failed.update(self._report.failed)
        try:
            try:
                for tasks in steps(dispatcher):
                    self._work(dispatcher, tasks)
            except KeyboardInterrupt:
                raise Interrupted(_GO_ON) from None
            finally:
                pipeline.progress.close()
                writing = pool.close()
                self._take(dispatcher)
            if writing is not None:
                writing.result()  # nothing is under way; the store stays locked for what follows
        except DataEngineError:
            if writing is not None:  # the last writer unlocks the store
                unlock = self._hold.pop_all().close
                writing.add_done_callback(lambda _: unlock())
            raise

    def _work(self, dispatcher: Dispatcher, tasks: Sequence[FetchTask]) -> None:
        plans = plans_of(tasks)
        if plans:
            self._plans += plans
            self._report.tasks += len(tasks)
            dispatcher.work(plans, len({Series(name, plan.dataset) for plan in self._plans for name in plan.symbols}))

    def _take(self, dispatcher: Dispatcher) -> None:
        report, state = self._report, dispatcher.state
        report.requests, report.pages, report.seconds = dispatcher.tally.requests, dispatcher.tally.pages, dispatcher.seconds
        report.rechecked, report.added = dict(state.rechecked), state.changes.added
        report.failed.update(state.failed)

    def _log(self, error: DataEngineError | None) -> None:
        from data_engine.version import written_by

        report = self._report
        accepted = {} if report.accepted is None else report.accepted.changes
        every = {**report.rechecked, **accepted, **report.failed}
        outcomes = tuple(Outcome(series.symbol, report.failed.get(series)) for series in every)
        made = IngestionReport(outcomes, report.requests, report.pages, report.seconds, report.changes)
        run = run_record(self._command, self._plans, made, error, began=self._now, by=written_by())
        RunLog(self._pipeline.storage.files).add(run)


def plans_of(tasks: Iterable[FetchTask]) -> list[IngestionPlan]:
    """Return tasks as one plan per dataset, in their order."""
    by_dataset: dict[Dataset, list[FetchTask]] = {}
    for task in tasks:
        by_dataset.setdefault(task.dataset, []).append(task)
    made = []
    for dataset, ours in by_dataset.items():
        count = Counter(symbol for task in ours for symbol in task.symbols)
        span = TimeRange(min(task.range.start for task in ours), max(task.range.end for task in ours))
        made.append(IngestionPlan(dataset, tuple(count), span, tuple(ours), count))
    return made
