"""One run: wishes remembered, tasks walked, adjusted series brought to one price base, and what came of it told.

Before the first request every wish is on disk; after the last answer every failure is. What ends a run early is an exception
that carries the report of what was done until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from data_engine.errors import ClockError, DataEngineError, Interrupted, StoreError
from data_engine.ingest.dispatcher import Dispatcher, RunState
from data_engine.ingest.outcome import NO_DATA, IngestionReport, Outcome
from data_engine.ingest.plan import IngestionPlan
from data_engine.ingest.run_plan import RunPlan, plan_run
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import suggestion
from data_engine.market.time_range import TimeRange, iso, union
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage

_HEADROOM = 64 << 20  # bytes that are left free on the disk


class IngestionRun:
    """Does one job, and reports.

    Args:
        job: what is to be done.
        fetching: does its tasks.
        storage: of the bars; the caller holds it against other runs.
        notes: what is to be said in any case; more is added.
        delay: The length of the latest data that a plan may not permit.
    """

    def __init__(
        self, job: RunPlan, fetching: Dispatcher, storage: BarStore, notes: Sequence[str] = (), *, delay: timedelta
    ) -> None:
        self._delay = delay
        self._job = job
        self._fetching = fetching
        self._storage = storage
        self._notes = [*notes, *job.notes]

    def run(self) -> IngestionReport:
        """Do the job, adjusted series that turn out to have a new price base included.

        Raises:
            StoreError: the disk cannot hold what is to come; nothing was sent or written.
            DataEngineError: what ended the run early; the report is its ``report``.
        """
        job, fetching, notes = self._job, self._fetching, self._notes
        for note in notes:
            fetching.progress.note(note[0].upper() + note[1:])
        self._check_room()
        fetching.found.held.update({series: known.bars for series, known in job.known.items()})
        fetching.found.failed.update(job.broken)
        error: DataEngineError | None = None
        try:
            self._remember_wishes(job)
            if any(plan.tasks for plan in job.plans):
                fetching.work(job.plans, len(job.series))
            if fetching.found.price_base_changed:
                second = self._rebase()
                self._remember_wishes(second)
                fetching.work(second.plans, len(job.series))
        except DataEngineError as caught:
            error = caught
        except KeyboardInterrupt:
            error = Interrupted("interrupted; what had arrived is stored, and the same command goes on from here")
        finally:
            fetching.progress.close()
        if fetching.tally.recent_refused and any(plan.span.end > job.now - self._delay for plan in job.plans):
            end = iso((job.now - self._delay).replace(microsecond=0))
            notes.append(f"the plan does not permit the latest 15 minutes of SIP data; the end was clamped to about {end}")
        if isinstance(error, ClockError):
            self._forget_wishes()
        report = self._report(error)
        if error is not None:
            error.report = report
            raise error
        return report

    def _check_room(self) -> None:
        """Raise `StoreError` where the disk cannot hold what is to come."""
        free = self._storage.files.free_bytes()
        need = sum(plan.disk_bytes for plan in self._job.plans)
        if free is not None and need and need + _HEADROOM > free:
            raise StoreError(
                f"{self._storage.files.location}: about {need / 1e9:,.1f} GB of bars are to come, but only "
                f"{free / 1e9:,.1f} GB are free; free some space, or choose a shorter range or another --base-path"
            )

    def _remember_wishes(self, job: RunPlan) -> None:
        """Write down what is wanted before the first request: whatever happens, `update` knows what is still owed."""
        for plan in job.plans:
            for symbol in plan.outstanding:
                series, ranges = Series(symbol, plan.dataset), plan.wanted[symbol]
                withdraw = job.again and not plan.dataset.adjustment.is_raw

                def wish(known: Coverage, ranges: tuple[TimeRange, ...] = ranges, withdraw: bool = withdraw) -> Coverage:
                    # Before a file of another price base is moved into place, nothing is claimed any more.
                    made = known.cleared() if withdraw else known
                    return replace(made, wanted=union((*made.wanted, *ranges)))

                self._fetching.found.held[series] = self._storage.coverage.update(series, wish).bars

    def _forget_wishes(self) -> None:
        """Undo what was written down by a clock that was wrong: it reaches into the future."""
        for plan in self._job.plans:
            for symbol in plan.outstanding:
                series = Series(symbol, plan.dataset)
                before = self._job.known[series].wanted

                def forget(known: Coverage, before: tuple[TimeRange, ...] = before) -> Coverage:
                    return replace(known, wanted=before)

                known = self._storage.coverage.update(series, forget)
                if known == Coverage(series, begun=known.begun, updated=known.updated, by=known.by):
                    self._storage.coverage.remove(series)

    def _rebase(self) -> RunPlan:
        """Return the job that fetches the series whose price base has changed again, in full."""
        rebased = sorted(self._fetching.found.price_base_changed, key=lambda series: (series.dataset.name, series.symbol))
        names = ", ".join(map(str, rebased[:10])) + (f" and {len(rebased) - 10} more" if len(rebased) > 10 else "")
        self._notes.append(f"prices were adjusted anew since they were stored, so these were fetched again in full: {names}")
        wishes: dict[Dataset, dict[str, tuple[TimeRange, ...]]] = {}
        for series in rebased:
            wishes.setdefault(series.dataset, {})[series.symbol] = self._storage.coverage.read(series).wanted
        return plan_run(
            self._storage.coverage,
            wishes,
            now=self._job.now,
            workers=self._fetching.workers,
            again=True,
            renames=self._job.renames,
        )

    def _report(self, error: DataEngineError | None) -> IngestionReport:
        job, fetching, found = self._job, self._fetching, self._fetching.found
        outcomes = []
        for plan in job.plans:
            for symbol in plan.symbols:
                series = Series(symbol, plan.dataset)
                code, message = failure_of(found, series, plan, error)
                label = symbol if len(job.plans) == 1 else f"{symbol} ({plan.dataset.name})"
                outcomes.append(Outcome(label, code, message, found.held[series], found.written.get(series, 0)))
                if code is not None and symbol in plan.outstanding and code not in ("damaged_file", ClockError.code):
                    self._remember_failure(series, code, message or "")
        codes = {outcome.code for outcome in outcomes}
        return IngestionReport(
            tuple(outcomes),
            requests=fetching.tally.requests,
            pages=fetching.tally.pages,
            seconds=fetching.seconds,
            added=found.added,
            revised=found.revised,
            vanished=found.vanished,
            notes=tuple(self._notes),
            interrupted=isinstance(error, Interrupted),
            unreachable=fetching.tally.pages == 0 and codes == {"unavailable"},
        )

    def _remember_failure(self, series: Series, code: str, message: str) -> None:
        now = self._job.now.replace(microsecond=0)
        try:
            self._storage.coverage.update(series, lambda known: known.failed(code, message, now))
        except StoreError:
            return  # the report says it; what is on disk claims nothing more than before


def failure_of(
    found: RunState, series: Series, plan: IngestionPlan, error: DataEngineError | None
) -> tuple[str | None, str | None]:
    """Return code and message of why a series failed, or None and None.

    Args:
        found: what the run found out.
        series: which.
        plan: of its dataset.
        error: what ended the whole run early, if anything did.
    """
    if series in found.failed:
        return found.failed[series]
    if found.left.get(series) or (error is not None and series in found.price_base_changed):
        if error is None or isinstance(error, Interrupted):
            return "interrupted", "not finished: the run was interrupted"
        return error.code, f"not finished: {error}"
    asked = plan.wanted.get(series.symbol, ())
    if not found.held[series] and any(can_hold_bars(span, plan.dataset) for span in asked):
        meant = suggestion(series.symbol)
        return "no_data", NO_DATA + (f"; did you mean {meant}?" if meant else "")
    return None, None
