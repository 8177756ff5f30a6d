"""Carry out one run: store what is requested, walk the tasks, bring adjusted series to one basis, report.

Before the first request every target is on disk; after the last response every failure is. What ends a run early is an exception
that carries the report of what was done until then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial

from data_engine.errors import OF_ONE_FILE, ClockError, DamagedFile, DataEngineError, Failure, Interrupted, StoreError
from data_engine.ingest.basis_check import BasisCheck, basis_checks, check_plan, has_nothing_to_compare
from data_engine.ingest.dispatcher import Dispatcher
from data_engine.ingest.empty_sessions import held_back
from data_engine.ingest.missing_sessions import closable, close, missing_sessions, reopen
from data_engine.ingest.outcome import NO_DATA, IngestionReport, LastingNote, Outcome
from data_engine.ingest.plan import IngestionPlan
from data_engine.ingest.run_plan import RunPlan, plan_run
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import Dataset, Feed, Series
from data_engine.market.symbol import suggestion
from data_engine.market.time_range import TimeRange, difference, intersection, iso
from data_engine.market.wording import and_more
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import conflicting_symbols, refresh_conflicts
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageSnapshot
from data_engine.store.partitions import Period
from data_engine.store.silence import silent_since
from data_engine.universe.delisted import Delisted

_NOT_STORED = (DamagedFile.code, ClockError.code, Interrupted.code)

_ROUNDS = 3  # of fetching adjusted series again: more actions than that are not worked in during one run

_CHANGED_AGAIN = Failure("basis_changed", "prices were adjusted anew while they were fetched; run the same command again")

_HEADROOM = 64 << 20  # bytes that are left free on the disk


class IngestionRun:
    """Carries out one `RunPlan`, and reports.

    Args:
        run_plan: What is to be done.
        dispatcher: Has the tasks done.
        storage: The store of the bars; the caller has locked it against other runs.
        notes: Notes for the report; more are added.
        delay: The length of the latest data that a plan may not permit.
        delayed: Whether the run asks for nothing later than that in any case.
    """

    def __init__(
        self,
        run_plan: RunPlan,
        dispatcher: Dispatcher,
        storage: BarStore,
        notes: Sequence[str] = (),
        *,
        delay: timedelta,
        delayed: bool = False,
    ) -> None:
        self._run_plan = run_plan
        self._dispatcher = dispatcher
        self._storage = storage
        self._notes = [*notes, *run_plan.notes]
        self._delay = delay
        self._delayed = delayed
        self._requested = storage.coverage.requested
        self._delisted = Delisted(storage.files)
        self._recounted: dict[Series, Coverage] = {}
        self._wanted: dict[Series, tuple[TimeRange, ...]] = {}  # as stored after the work
        self._compared: set[Series] = set()
        self._named: set[Series] = set()
        self._cleared: set[Series] = set()

    def run(self, refused: DataEngineError | None = None) -> IngestionReport:
        """Carry out the plan; adjusted series whose adjustment basis turns out to have changed are fetched again in full.

        Args:
            refused: What ends the run before its first request, when all that is requested is written. If None, nothing does.

        Raises:
            StoreError: If the disk cannot hold what is to come; nothing was sent or written.
            DataEngineError: If the run ended early; its ``report`` says what was done until then.
        """
        error = self._work(refused)
        self._note_truncation()
        if self._dispatcher.state.unknown:
            names = and_more(sorted(self._dispatcher.state.unknown), 8)
            self._notes.append(LastingNote(f"Alpaca's bars have fields that this version does not read: {names}"))
        report = self._report(error)
        self._tidy(error)
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

    def _work(self, refused: DataEngineError | None) -> DataEngineError | None:
        """Store what is requested, fetch it, and return what ended the run early, if anything did."""
        state = self._dispatcher.state
        state.failed.update(self._run_plan.broken)
        try:
            for note in self._notes:
                self._dispatcher.progress.note(note[0].upper() + note[1:])
            self._check_room()
            # The plan relies on it, and the run that wrote it may have been killed before it was durable.
            self._storage.coverage.flush({plan.dataset for plan in self._run_plan.plans})
            self._recount()
            self._withdraw_lost()
            self._withdraw()
            self._requested.add(self._run_plan.requested())
            if refused is not None:
                return refused
            self._fetch(self._run_plan)
            self._bring_to_one_basis()
            self._judge_empty_sessions()
            self._settle_conflicts()
        except DataEngineError as error:
            return error
        except KeyboardInterrupt:
            return Interrupted("interrupted; what had arrived is stored; run the same command again to continue")
        finally:
            self._dispatcher.progress.close()
        return None

    def _bring_to_one_basis(self) -> None:
        """Fetch adjusted series whose prices have changed again, in full, until the first bars of all are as they are stored.

        An action that the vendor works in meanwhile makes another round necessary; what is not confirmed after the last one is
        not claimed, and the next run goes on with it.
        """
        state = self._dispatcher.state
        for _ in range(_ROUNDS):
            if state.basis_changed:
                self._fetch(self._rebase())
            self._compare_first_bars()
            if not state.basis_changed:
                return
        for series in state.basis_changed:
            state.failed.setdefault(series, _CHANGED_AGAIN)

    def _settle_conflicts(self) -> None:
        """Count the conflicting bars of series that were fetched; those that came again are stored as Alpaca has them."""
        for plan in self._run_plan.plans:
            conflicting = conflicting_symbols(self._storage.files, plan.dataset) if plan.outstanding else frozenset()
            for series in (Series(symbol, plan.dataset) for symbol in plan.outstanding):
                if series.symbol in conflicting or self._run_plan.known[series].conflicting:
                    with self._guarded(series):
                        refresh_conflicts(self._storage, series)

    def _judge_empty_sessions(self) -> None:
        """Have the emptiness of recent sessions be final, unless so many series lack one that it is missing at the source."""
        state, run = self._dispatcher.state, self._run_plan.series
        missing = missing_sessions(self._storage, run, state.empty) if state.empty else []
        self._notes += [LastingNote(one) for one in missing]
        days = [one.day for one in missing]
        for series in run if missing else state.empty:
            self._dispatcher.tick()
            with self._guarded(series):
                changes = close(self._storage, series, closable(state.empty.get(series, ()), days), self._run_plan.now)
                state.changes += changes
                state.vanished[series] = state.vanished.get(series, 0) + changes.vanished
                reopen(self._storage, series, days)
        for one in missing:
            for series in one.lacking:
                state.failed.setdefault(series, one.failure)

    def _compare_first_bars(self) -> None:
        """Compare the first bars of what is not confirmed with what the source says of them now, and claim what is the same."""
        state = self._dispatcher.state
        checks: dict[Dataset, list[BasisCheck]] = {}
        for plan in self._run_plan.plans:
            for symbol in plan.symbols if not plan.dataset.adjustment.is_raw else ():
                series = Series(symbol, plan.dataset)
                unconfirmed = self._run_plan.known[series].unconfirmed
                if series not in state.failed and (symbol in plan.outstanding or unconfirmed):
                    checks.setdefault(plan.dataset, []).extend(self._checks_of(series, plan.asof.get(symbol)))
        plans = [check_plan(wanted, dataset) for dataset, wanted in checks.items() if wanted]
        if not plans:
            return
        state.basis_same.clear()
        self._dispatcher.work(plans, len(self._run_plan.series))
        by_series: dict[Series, list[TimeRange]] = {}
        for check in (one for wanted in checks.values() for one in wanted):
            by_series.setdefault(check.series, []).append(check.range)
        for series, ranges in by_series.items():
            if all((series, span) in state.basis_same for span in ranges):
                self._confirm(series)

    def _confirm(self, series: Series) -> None:
        """Claim what was stored of a series and not claimed, but for recent sessions that the end of the run decides about."""
        held = held_back(self._dispatcher.state.empty.get(series, ()))
        self._storage.coverage.update(series, lambda known: known.confirmed(self._run_plan.now).reopened(held))

    def _checks_of(self, series: Series, asof: date | None) -> list[BasisCheck]:
        self._dispatcher.tick()
        self._compared.add(series)
        try:
            known = self._storage.coverage.read(series)
            before = Coverage(series) if series in self._cleared else self._run_plan.known[series]
            checks = basis_checks(self._storage, known, before, self._run_plan.now, asof)
            if not checks and known.unconfirmed and has_nothing_to_compare(self._storage, known):
                self._confirm(series)
        except DamagedFile as error:
            self._dispatcher.state.failed.setdefault(series, Failure.of(error))
            return []
        return checks

    @contextmanager
    def _guarded(self, series: Series) -> Iterator[None]:
        """Have one file's trouble fail its series, and no other."""
        try:
            yield
        except OF_ONE_FILE as error:
            self._dispatcher.state.failed.setdefault(series, Failure.of(error))

    def _recount(self) -> None:
        """Count the files anew that a killed run was changing: what is said of them must be what they hold."""
        for series, known in self._run_plan.known.items():
            if known.uncounted:
                with self._guarded(series):
                    self._recounted[series] = self._storage.recount(series)

    def _withdraw(self) -> None:
        """Claim nothing after the security of a series left its ticker: it may come back, and is requested then."""
        for series, end in self._run_plan.ended.items():
            known = self._run_plan.known[series]
            beyond = [one.end for one in (*known.wanted, *known.covered, *known.provisional) if one.end > end]
            if beyond:
                span = TimeRange(end, max(beyond))
                if intersection(self._requested.of(series), (span,)):  # the coverage would take it over again
                    self._requested.withdraw(series, span)
                self._storage.coverage.update(series, lambda known, span=span: known.without(span, {}))  # type: ignore[misc]

    def _withdraw_lost(self) -> None:
        """Withdraw what was claimed of files that are gone, before anything is requested."""
        for series, periods in self._run_plan.lost.items():
            with self._guarded(series):
                self._storage.coverage.update(series, partial(self._without, periods))

    def _without(self, lost: frozenset[Period], known: Coverage) -> Coverage:
        return known.without_files(lost, self._storage.count_files(known, lost))

    def _fetch(self, run_plan: RunPlan) -> None:
        self._dispatcher.begin(run_plan.plans, len(self._run_plan.series))
        for plan in run_plan.plans if run_plan.refetch else ():
            for symbol in plan.outstanding if not plan.dataset.adjustment.is_raw else ():
                self._dispatcher.tick()
                # Before a file of another adjustment basis is moved into place, nothing is claimed any more.
                series = Series(symbol, plan.dataset)
                self._storage.coverage.update(series, Coverage.cleared)
                self._cleared.add(series)
                self._dispatcher.state.basis_changed.discard(series)
                self._dispatcher.state.empty.pop(series, None)
        if any(plan.tasks for plan in run_plan.plans):
            self._dispatcher.work(run_plan.plans, len(self._run_plan.series))

    def _note_truncation(self) -> None:
        latest = self._run_plan.now - self._delay
        if self._dispatcher.tally.recent_refused and any(plan.span.end > latest for plan in self._run_plan.plans):
            end = iso(latest.replace(microsecond=0))
            self._notes.append(
                f"the plan does not permit the latest 15 minutes of SIP data; the end was truncated to about {end}"
            )

    def _tidy(self, error: DataEngineError | None) -> None:
        """Leave behind what the coverage has not taken over; nothing that a clock which is ahead has asked for."""
        withdrawn = self._run_plan.requested() if isinstance(error, ClockError) else {}
        left: dict[Series, tuple[TimeRange, ...]] = {}
        with suppress(StoreError):  # what stays there too long is read twice, and says the same
            for series in self._requested.series():
                ranges = difference(self._requested.of(series), withdrawn.get(series, ()))
                stored = self._wanted.get(series) or self._storage.coverage.stored(series).wanted
                left[series] = difference(ranges, stored)
            self._requested.replace(left)
            for series in self._cleared & withdrawn.keys():  # its coverage had taken the refused ranges over
                self._storage.coverage.update(series, partial(_without_wish, withdrawn[series]))

    def _rebase(self) -> RunPlan:
        """Return the plan that fetches the series whose adjustment basis has changed again, in full."""
        changed = sorted(self._dispatcher.state.basis_changed, key=lambda series: (series.dataset.name, series.symbol))
        named = and_more([series for series in changed if series not in self._named], 10)
        if named:
            self._notes.append(f"prices were adjusted anew since they were stored, so these were fetched again in full: {named}")
            self._named.update(changed)
        targets: dict[Dataset, dict[str, tuple[TimeRange, ...]]] = {}
        for series in changed:
            targets.setdefault(series.dataset, {})[series.symbol] = self._storage.coverage.read(series).wanted
        return plan_run(
            CoverageSnapshot(self._storage.coverage),
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
        known, failure = self._recounted.get(series, self._run_plan.known[series]), state.failed.get(series)
        if symbol in plan.outstanding or series in self._compared or error is not None:
            try:
                stored = self._storage.coverage.stored(series)
                self._wanted[series] = stored.wanted
                known = self._storage.coverage.with_requested(stored)
                if stored.changing and error is None:  # no task is at work any more: what they left to each other is counted
                    known = self._storage.recount(series)
            except StoreError as damage:
                failure = failure or Failure.of(damage)
        verdict = failure or self._verdict(known, plan, error)
        if verdict is not None and verdict.code == "no_data" and any(self._storage.partitions(plan.dataset, symbol)):
            known = self._storage.recount(series)  # a killed run stored bars, and did not count them
            verdict = self._verdict(known, plan, error)
        if verdict is not None and symbol in plan.outstanding and verdict.code not in _NOT_STORED:
            self._store_failure(series, verdict)
        label = symbol if len(self._run_plan.plans) == 1 else f"{symbol} ({plan.dataset.name})"
        written, vanished = state.written.get(series, 0), state.vanished.get(series, 0)
        ended = series in self._run_plan.ended or self._delisted.change_of(known) is not None
        silent = not ended and silent_since(known) is not None
        return Outcome(label, verdict, known.bars, written, vanished, ended=ended, silent=silent, conflicting=known.conflicting)

    def _verdict(self, known: Coverage, plan: IngestionPlan, error: DataEngineError | None) -> Failure | None:
        """Return why a series is not complete, read from its coverage after the work; None if it is."""
        series = known.series
        limit = self._limit(plan.dataset)
        requested = tuple(part for span in plan.wanted.get(series.symbol, ()) if (part := span.before(limit)))
        missing = difference(requested, (*known.covered, *known.provisional))
        changed = series in self._dispatcher.state.basis_changed
        if any(can_hold_bars(span, plan.dataset) for span in missing) or (error is not None and changed):
            return _unfinished(known, error, undated=self._dispatcher.state.undated)
        forming = series in self._dispatcher.state.forming
        if not known.bars and not forming and any(can_hold_bars(span, plan.dataset) for span in requested):
            meant = suggestion(series.symbol)
            return Failure("no_data", NO_DATA + (f"; did you mean {meant}?" if meant else ""))
        return None

    def _limit(self, dataset: Dataset) -> datetime:
        """Return the instant from which on nothing could be asked for: the start of the bar that was forming."""
        now = self._run_plan.now
        if self._dispatcher.tally.recent_refused or self._delayed:
            now -= self._delay if dataset.feed in (Feed.SIP, Feed.ACCOUNT) else timedelta(0)
        return dataset.timeframe.floor(now)

    def _store_failure(self, series: Series, failure: Failure) -> None:
        now = self._run_plan.now.replace(microsecond=0)
        # What cannot be written is in the report; what is on disk claims nothing more than before.
        with suppress(StoreError):
            self._storage.coverage.update(series, lambda known: known.failed(failure.code, failure.message, now))


def _without_wish(withdrawn: Sequence[TimeRange], known: Coverage) -> Coverage:
    return replace(known, wanted=difference(known.wanted, withdrawn))


def _unfinished(known: Coverage, error: DataEngineError | None, *, undated: bool) -> Failure:
    begun = "not finished" if known.bars or known.covered or known.provisional else "not started"
    if error is None:
        why = "the responses do not say what time it is, so that nothing after their newest bar is claimed"
        return Failure("unanswered", f"{begun}: {why if undated else 'no complete response'}")
    if isinstance(error, Interrupted):
        return Failure(Interrupted.code, f"{begun}: the run was interrupted")
    return Failure(error.code, f"{begun}: {error}")
