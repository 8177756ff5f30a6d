"""Carry out one run: store what is requested, walk the tasks, bring adjusted series to one basis, report.

Before the first request every target is on disk; after the last response every failure is. What ends a run early is an exception
that carries the report of what was done until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from data_engine.errors import ClockError, DataEngineError, Failure, Interrupted, StoreError
from data_engine.ingest.dispatcher import Dispatcher, RunState
from data_engine.ingest.outcome import NO_DATA, IngestionReport, Outcome
from data_engine.ingest.plan import IngestionPlan
from data_engine.ingest.run_plan import RunPlan, plan_run
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import suggestion
from data_engine.market.time_range import TimeRange, iso, union
from data_engine.market.wording import and_more
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage

_HEADROOM = 64 << 20  # bytes that are left free on the disk


class IngestionRun:
    """Carries out one `RunPlan`, and reports.

    Args:
        run_plan: What is to be done.
        dispatcher: Has the tasks done.
        storage: The store of the bars; the caller has locked it against other runs.
        notes: Notes for the report; more are added.
        delay: The length of the latest data that a plan may not permit.
    """

    def __init__(
        self, run_plan: RunPlan, dispatcher: Dispatcher, storage: BarStore, notes: Sequence[str] = (), *, delay: timedelta
    ) -> None:
        self._run_plan = run_plan
        self._dispatcher = dispatcher
        self._storage = storage
        self._notes = [*notes, *run_plan.notes]
        self._delay = delay

    def run(self) -> IngestionReport:
        """Carry out the plan; adjusted series whose adjustment basis turns out to have changed are fetched again in full.

        Raises:
            StoreError: If the disk cannot hold what is to come; nothing was sent or written.
            DataEngineError: If the run ended early; its ``report`` says what was done until then.
        """
        for note in self._notes:
            self._dispatcher.progress.note(note[0].upper() + note[1:])
        self._check_room()
        error = self._work()
        self._note_truncation()
        if isinstance(error, ClockError):
            self._withdraw_targets()
        report = self._report(error)
        if error is not None:
            error.report = report
            raise error
        return report

    def _check_room(self) -> None:
        """Raise `StoreError` if the disk cannot hold what is to come."""
        free = self._storage.files.free_bytes()
        need = sum(plan.disk_bytes for plan in self._run_plan.plans)
        if free is not None and need and need + _HEADROOM > free:
            raise StoreError(
                f"cannot store about {need / 1e9:,.1f} GB of bars in {self._storage.files.location}: "
                f"{free / 1e9:,.1f} GB are free; free some space, or use a shorter range or another --base-path"
            )

    def _work(self) -> DataEngineError | None:
        """Store what is requested, fetch it, and return what ended the run early, if anything did."""
        state = self._dispatcher.state
        state.bars.update({series: known.bars for series, known in self._run_plan.known.items()})
        state.failed.update(self._run_plan.broken)
        try:
            self._fetch(self._run_plan)
            if state.basis_changed:
                self._fetch(self._rebase())
        except DataEngineError as error:
            return error
        except KeyboardInterrupt:
            return Interrupted("interrupted; what had arrived is stored; run the same command again to continue")
        finally:
            self._dispatcher.progress.close()
        return None

    def _fetch(self, run_plan: RunPlan) -> None:
        self._store_targets(run_plan)
        if any(plan.tasks for plan in run_plan.plans):
            self._dispatcher.work(run_plan.plans, len(self._run_plan.series))

    def _note_truncation(self) -> None:
        latest = self._run_plan.now - self._delay
        if self._dispatcher.tally.recent_refused and any(plan.span.end > latest for plan in self._run_plan.plans):
            end = iso(latest.replace(microsecond=0))
            self._notes.append(
                f"the plan does not permit the latest 15 minutes of SIP data; the end was truncated to about {end}"
            )

    def _store_targets(self, run_plan: RunPlan) -> None:
        """Write down what is requested before the first request: whatever happens, `update` knows what is still missing."""
        for series, ranges in run_plan.outstanding():
            clear = run_plan.refetch and not series.dataset.adjustment.is_raw

            def add(known: Coverage, ranges: tuple[TimeRange, ...] = ranges, clear: bool = clear) -> Coverage:
                # Before a file of another adjustment basis is moved into place, nothing is claimed any more.
                made = known.cleared() if clear else known
                return replace(made, wanted=union((*made.wanted, *ranges)))

            self._dispatcher.state.bars[series] = self._storage.coverage.update(series, add).bars

    def _withdraw_targets(self) -> None:
        """Undo what was written down by a clock that was wrong: it reaches into the future."""
        for series, _ in self._run_plan.outstanding():
            before = self._run_plan.known[series].wanted

            def withdraw(known: Coverage, before: tuple[TimeRange, ...] = before) -> Coverage:
                return replace(known, wanted=before)

            known = self._storage.coverage.update(series, withdraw)
            if known == Coverage(series, begun=known.begun, updated=known.updated, by=known.by):
                self._storage.coverage.remove(series)

    def _rebase(self) -> RunPlan:
        """Return the plan that fetches the series whose adjustment basis has changed again, in full."""
        changed = sorted(self._dispatcher.state.basis_changed, key=lambda series: (series.dataset.name, series.symbol))
        named = and_more(changed, 10)
        self._notes.append(f"prices were adjusted anew since they were stored, so these were fetched again in full: {named}")
        targets: dict[Dataset, dict[str, tuple[TimeRange, ...]]] = {}
        for series in changed:
            targets.setdefault(series.dataset, {})[series.symbol] = self._storage.coverage.read(series).wanted
        return plan_run(
            self._storage.coverage,
            targets,
            now=self._run_plan.now,
            workers=self._dispatcher.workers,
            refetch=True,
            changes=self._run_plan.changes,
        )

    def _report(self, error: DataEngineError | None) -> IngestionReport:
        state, tally = self._dispatcher.state, self._dispatcher.tally
        outcomes = [self._outcome(plan, symbol, error) for plan in self._run_plan.plans for symbol in plan.symbols]
        codes = {outcome.failure.code if outcome.failure else None for outcome in outcomes}
        return IngestionReport(
            tuple(outcomes),
            requests=tally.requests,
            pages=tally.pages,
            seconds=self._dispatcher.seconds,
            changes=state.changes,
            notes=tuple(self._notes),
            interrupted=isinstance(error, Interrupted),
            unreachable=tally.pages == 0 and codes == {"unavailable"},
        )

    def _outcome(self, plan: IngestionPlan, symbol: str, error: DataEngineError | None) -> Outcome:
        series, state = Series(symbol, plan.dataset), self._dispatcher.state
        failure = failure_of(state, series, plan, error)
        if failure is not None and symbol in plan.outstanding and failure.code not in ("damaged_file", ClockError.code):
            self._store_failure(series, failure)
        label = symbol if len(self._run_plan.plans) == 1 else f"{symbol} ({plan.dataset.name})"
        return Outcome(label, failure, state.bars[series], state.written.get(series, 0))

    def _store_failure(self, series: Series, failure: Failure) -> None:
        now = self._run_plan.now.replace(microsecond=0)
        # What cannot be written is in the report; what is on disk claims nothing more than before.
        with suppress(StoreError):
            self._storage.coverage.update(series, lambda known: known.failed(failure.code, failure.message, now))


def failure_of(state: RunState, series: Series, plan: IngestionPlan, error: DataEngineError | None) -> Failure | None:
    """Return why a series failed, or None.

    Args:
        state: The state of the run.
        series: The series.
        plan: The plan of its dataset.
        error: What ended the whole run early, if anything did.
    """
    if series in state.failed:
        return state.failed[series]
    if state.left.get(series) or (error is not None and series in state.basis_changed):
        if error is None or isinstance(error, Interrupted):
            return Failure("interrupted", "not finished: the run was interrupted")
        return Failure(error.code, f"not finished: {error}")
    requested = plan.wanted.get(series.symbol, ())
    if not state.bars[series] and any(can_hold_bars(span, plan.dataset) for span in requested):
        meant = suggestion(series.symbol)
        return Failure("no_data", NO_DATA + (f"; did you mean {meant}?" if meant else ""))
    return None
