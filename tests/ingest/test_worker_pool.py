"""The seam between a run and whoever does its tasks: threads here, and a runner that a test writes in a few lines."""

from __future__ import annotations

import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import Future, wait
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_engine import AlpacaClient, IngestionPipeline, ParquetStorage
from data_engine.errors import CredentialsRefused, DataEngineError, Failure, Interrupted, ServiceDown, SourceError, StoreBusy
from data_engine.ingest import dispatcher as dispatcher_module
from data_engine.ingest import worker_pool
from data_engine.ingest.dispatcher import Dispatcher
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.progress import NoProgress, ProgressState
from data_engine.ingest.run import IngestionRun
from data_engine.ingest.run_plan import RunPlan, plan_run
from data_engine.ingest.task import RunOptions, TaskResult, run_task
from data_engine.ingest.worker_pool import Tally, ThreadPool, WorkerPool, WorkersLost
from data_engine.market.bars import Changes
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import new_york_days
from data_engine.sandbox import Faults, Replay, Sandbox, SimulatedMarket
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.file_store import Change
from data_engine.store.local_files import LocalFiles
from running import HASTY, client_of, content, count, names_of, pipeline_of, write_minutes

MINUTES = Dataset(Timeframe.parse("1Min"), Adjustment.parse(None), Feed.SIP)
JUNE = new_york_days(datetime(2024, 6, 3).date(), datetime(2024, 6, 28).date())
NOW = datetime(2026, 8, 3, 12, tzinfo=UTC)


def job_of(base: Path, names: list[str], workers: int = 4) -> RunPlan:
    coverage: CoverageStore = ParquetStorage(base).bars.coverage
    return plan_run(coverage, {MINUTES: dict.fromkeys(names, (JUNE,))}, now=NOW, workers=workers)


def plan_of(base: Path, names: list[str]) -> tuple[FetchTask, ...]:
    """Return the tasks of one day for one worker."""
    spans = dict.fromkeys(names, (new_york_days(date(2024, 6, 3), date(2024, 6, 3)),))
    days = Dataset(Timeframe.parse("1Day"), Adjustment.parse(None), Feed.SIP)
    return plan_run(ParquetStorage(base).bars.coverage, {days: spans}, now=NOW, workers=1).plans[0].tasks


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class OneByOne:
    """Does every task at once, in the thread that submits it.

    Args:
        again: tasks, by number, that look as if their worker had died when they are done for the first time.
    """

    def __init__(self, client: AlpacaClient, storage: BarStore, window: int = 3, again: set[int] | None = None) -> None:
        self._client, self._storage = client, storage
        self._again = again or set()
        self.window = window
        self.log: list[str] = []
        self.open = 0
        self.numbers: dict[FetchTask, int] = {}

    def submit(self, task: FetchTask, failed: MutableMapping[Series, Failure]) -> Future[TaskResult]:
        self.open += 1
        number = self.numbers.setdefault(task, len(self.numbers))
        self.log.append(f"{number}{'' if self.open > 1 else ' alone'}")
        future: Future[TaskResult] = Future()
        future.set_result(run_task(task, self._client, self._storage, RunOptions(NOW), failed))
        return future

    def collect(self, future: Future[TaskResult], task: FetchTask) -> TaskResult | None:
        self.open -= 1
        if self.numbers[task] in self._again:
            self._again.remove(self.numbers[task])
            return None
        return future.result()

    def tally(self) -> Tally:
        return Tally(self._client.requests)

    def stop(self) -> None:
        self.log.append("stop")

    def close(self) -> None:
        self.log.append("close")


@pytest.mark.parametrize("again", [set(), {1, 3}], ids=["undisturbed", "two-done-again"])
def test_a_runner_of_a_few_lines_brings_what_threads_bring(tmp_path: Path, again: set[int]) -> None:
    names = names_of(12)
    with Sandbox(SimulatedMarket(), clock=lambda: NOW) as server:
        pipeline_of(server, tmp_path / "threads", lambda: NOW).ingest_symbols(names, "2024-06-03", "2024-06-28")
        runner = OneByOne(client_of(server), ParquetStorage(tmp_path / "own").bars, again=set(again))
        dispatcher = Dispatcher(runner, NoProgress(), workers=4)
        job = job_of(tmp_path / "own", names)
        dispatcher.work(job.plans, len(names))

    assert content(tmp_path / "own") == content(tmp_path / "threads")
    assert set(dispatcher.state.left.values()) == {0}
    assert dispatcher.state.failed == {}
    # What is done again is done last, with nothing beside it.
    assert sorted(runner.log[len(runner.log) - len(again) :]) == [f"{number} alone" for number in sorted(again)]


def test_no_more_is_submitted_than_the_window_holds(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        runner = OneByOne(client_of(server), ParquetStorage(tmp_path).bars, window=2)
        most = []
        submit = runner.submit
        runner.submit = lambda task, failed: (most.append(runner.open + 1), submit(task, failed))[1]  # type: ignore[method-assign]
        Dispatcher(runner, NoProgress(), workers=8).work(job_of(tmp_path, names_of(12), workers=8).plans, 12)

    assert max(most) == 2


def test_a_symbol_that_is_known_to_fail_is_not_asked_for_by_later_tasks(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        runner = OneByOne(client_of(server), ParquetStorage(tmp_path).bars, window=1)
        dispatcher = Dispatcher(runner, NoProgress(), workers=4)
        failed = Series("AAA", MINUTES)
        dispatcher.state.failed[failed] = Failure("invalid_symbol", "invalid symbol: AAA")
        dispatcher.work(job_of(tmp_path, names_of(3)).plans, 3)

        assert not any("AAA" in record.query["symbols"].split(",") for record in server.requests)


class Failing(OneByOne):
    """Hands back given ends in place of work."""

    def __init__(self, *ends: DataEngineError) -> None:
        self._ends = list(ends)
        self.window = len(ends)
        self.log = []

    def submit(self, task: FetchTask, failed: MutableMapping[Series, Failure]) -> Future[TaskResult]:
        future: Future[TaskResult] = Future()
        future.set_result(TaskResult(changes=Changes(1), fatal=self._ends.pop(0)))
        return future

    def collect(self, future: Future[TaskResult], task: FetchTask) -> TaskResult | None:
        return future.result()

    def tally(self) -> Tally:
        return Tally()


@pytest.mark.parametrize(
    "ends",
    [(Interrupted("interrupted"), CredentialsRefused("no")), (CredentialsRefused("no"), Interrupted("interrupted"))],
    ids=["heard-last", "heard-first"],
)
def test_what_ended_the_run_is_told_and_not_that_others_were_interrupted_by_it(
    tmp_path: Path, ends: tuple[DataEngineError, ...]
) -> None:
    runner = Failing(*ends)
    dispatcher = Dispatcher(runner, NoProgress(), workers=2)

    with pytest.raises(CredentialsRefused):
        dispatcher.work(job_of(tmp_path, names_of(2), workers=2).plans, 2)

    assert runner.log == ["stop"]
    assert dispatcher.state.changes.added == 2  # what was done until then counts
    assert all(dispatcher.state.left.values())


def test_workers_that_are_lost_end_the_run_with_one(tmp_path: Path) -> None:
    with pytest.raises(WorkersLost) as caught:
        Dispatcher(Failing(WorkersLost("gone")), NoProgress(), workers=1).work(job_of(tmp_path, ["AAPL"], 1).plans, 1)

    assert (caught.value.code, caught.value.exit_code) == ("workers_lost", 1)


# ------------------------------------------------------------------------------------------------------------------ threads


def test_threads_tell_of_every_page(tmp_path: Path) -> None:
    seen: list[int] = []
    with Sandbox(SimulatedMarket(), latency=0.2) as server:
        storage, client = ParquetStorage(tmp_path).bars, client_of(server)
        runner = ThreadPool(client, storage, RunOptions(NOW), 1)
        (task,) = job_of(tmp_path, names_of(4), workers=1).plans[0].tasks
        future = runner.submit(task, {})
        while not wait([future], timeout=0.02).done:
            seen.append(runner.tally().pages)
        result = runner.collect(future, task)
        runner.close()

    assert result.pages == runner.tally().pages == len(server.requests) > 2
    assert set(range(1, result.pages)) <= set(seen)
    assert result.bars == runner.tally().bars == result.changes.added


def test_what_fails_for_one_thread_is_known_to_all_at_once(tmp_path: Path) -> None:
    failed: dict[Series, Failure] = {}
    with Sandbox(SimulatedMarket(), faults=Faults(fail_symbols=["AAB"])) as server:
        runner = ThreadPool(client_of(server), ParquetStorage(tmp_path).bars, RunOptions(NOW), 1)
        tasks = job_of(tmp_path, names_of(3), workers=1).plans[0].tasks
        futures = [runner.submit(task, failed) for task in tasks]
        results = [future.result() for future in futures]
        runner.close()

    assert set(failed) == {Series("AAB", MINUTES)}
    assert failed == {series: reason for result in results for series, reason in result.failed.items()}


def test_a_thread_that_must_end_the_run_stops_the_others(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket(), faults=Faults(always=401)) as server:
        client = client_of(server)
        runner = ThreadPool(client, ParquetStorage(tmp_path).bars, RunOptions(NOW), 1)
        tasks = job_of(tmp_path, names_of(12), workers=12).plans[0].tasks
        fatal = [runner.submit(task, {}).result().fatal for task in tasks]
        runner.close()

        assert len(server.requests) == 1
        assert [type(error) for error in fatal] == [CredentialsRefused] + [Interrupted] * (len(tasks) - 1)
        server.faults = Faults()
        assert len(client.fetch_bars("AAPL", "2024-06-03", "2024-06-03"))  # the caller's own client goes on


def test_a_second_run_does_not_wake_the_threads_of_the_first(tmp_path: Path) -> None:
    """They would send all that is left of a run that was cancelled."""
    with Sandbox(SimulatedMarket(), latency=0.3) as server:
        client, storage = client_of(server), ParquetStorage(tmp_path).bars
        first = ThreadPool(client, storage, RunOptions(NOW), 2)
        tasks = job_of(tmp_path, names_of(12), workers=12).plans[0].tasks
        futures = [first.submit(task, {}) for task in tasks]
        until(lambda: bool(server.requests))
        first.stop()
        first.close()
        sent = first.tally().requests
        second = ThreadPool(client, storage, RunOptions(NOW), 2)
        (task,) = job_of(tmp_path / "other", ["AAPL"], workers=1).plans[0].tasks
        done = second.submit(task, {}).result(60)
        second.close()
        left = [future.result(60) for future in futures if not future.cancelled()]

    assert done.fatal is None
    assert any(isinstance(result.fatal, Interrupted) for result in left)
    assert first.tally().requests == sent < len(tasks)
    assert second.tally().requests == client.requests - sent == len([r for r in server.requests if r.query["symbols"] == "AAPL"])


class SlowFiles(LocalFiles):
    """A disk on which a write of bars takes as long as a test wants."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.held, self.go = threading.Event(), threading.Event()

    def update(self, key: str, change: Change) -> bool:
        def slow(content: bytes | None) -> bytes | None:
            changed = change(content)
            if key.endswith(".parquet"):
                self.held.set()
                self.go.wait(60)
            return changed

        return super().update(key, slow)

    def update_many(self, changes: Mapping[str, Change], *, before_move: Callable[[], None]) -> dict[str, DataEngineError]:
        def slow() -> None:
            before_move()
            if any(key.endswith(".parquet") for key in changes):
                self.held.set()
                self.go.wait(60)

        return super().update_many(changes, before_move=slow)


def test_the_store_stays_locked_until_the_last_writer_has_ended(tmp_path: Path) -> None:
    files = SlowFiles(tmp_path)
    with Sandbox(SimulatedMarket()) as server:
        runner = ThreadPool(client_of(server), BarStore(files), RunOptions(NOW), 1)
        future = runner.submit(job_of(tmp_path, ["AAPL"], workers=1).plans[0].tasks[0], {})
        assert files.held.wait(60)
        runner.stop()
        started = time.monotonic()
        ended = runner.close()
        seconds = time.monotonic() - started
        assert ended is not None
        assert not wait([ended], timeout=0.2).done
        files.go.set()
        ended.result(60)

    assert seconds < 1
    assert future.done()
    assert count(tmp_path) > 0  # what had arrived is stored


class InterruptsDuring(NoProgress):
    """Presses Ctrl-C once a disk is in the midst of a write."""

    def __init__(self, files: SlowFiles) -> None:
        self.files, self.at = files, 0.0

    def update(self, state: ProgressState) -> None:
        if self.files.held.is_set():
            self.at = time.monotonic()
            raise KeyboardInterrupt


def test_after_an_interrupt_the_store_stays_locked_until_the_last_writer_has_ended(tmp_path: Path) -> None:
    """A `remove` of another process two seconds later would be undone by a thread that still stores what had arrived."""
    files = SlowFiles(tmp_path)
    progress = InterruptsDuring(files)
    with Sandbox(SimulatedMarket()) as server:
        storage = ParquetStorage(files=files)
        pipeline = IngestionPipeline(1, client=client_of(server), storage=storage, progress=progress, now=lambda: NOW)
        with pytest.raises(Interrupted):
            pipeline.ingest_symbols(names_of(20), "2024-06-03", "2024-06-28")
        seconds = time.monotonic() - progress.at
        with pytest.raises(StoreBusy), LocalFiles(tmp_path).lock("run", seconds=0.2):
            pass
        files.go.set()
        with LocalFiles(tmp_path).lock("run", seconds=30):
            stored = content(tmp_path)
        sent = len(server.requests)
        time.sleep(0.5)

    assert seconds < 5
    assert stored
    assert (content(tmp_path), len(server.requests)) == (stored, sent)


def test_a_thread_that_is_held_up_for_too_long_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write that it is in the midst of is waited for; the next one is refused."""
    monkeypatch.setattr(worker_pool, "_WRITING_SECONDS", 0.1)
    files = SlowFiles(tmp_path)
    with Sandbox(SimulatedMarket()) as server:
        runner = ThreadPool(client_of(server), BarStore(files), RunOptions(NOW), 1)
        future = runner.submit(job_of(tmp_path, ["AAPL"], workers=1).plans[0].tasks[0], {})
        assert files.held.wait(60)
        runner.stop()
        ended = runner.close()
        assert ended is not None
        assert not wait([ended], timeout=0.4).done
        files.go.set()
        ended.result(60)
        result = future.result(60)

    assert isinstance(result.fatal, Interrupted)
    assert count(tmp_path) > 0
    assert not (tmp_path / "metadata" / "coverage").exists()  # it would have come second


def test_a_pool_whose_threads_have_ended_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        runner = ThreadPool(client_of(server), ParquetStorage(tmp_path).bars, RunOptions(NOW), 1)
        (task,) = job_of(tmp_path, ["AAPL"], workers=1).plans[0].tasks
        runner.submit(task, {}).result(60)

        assert runner.close() is None


def test_a_silent_server_does_not_keep_the_store_locked(tmp_path: Path) -> None:
    """Closing breaks requests off: without, a thread waits half a minute for a server that says nothing."""
    with Sandbox(SimulatedMarket(), faults=Faults(always="stall")) as server:
        runner = ThreadPool(client_of(server), ParquetStorage(tmp_path).bars, RunOptions(NOW), 1)
        future = runner.submit(job_of(tmp_path, ["AAPL"], workers=1).plans[0].tasks[0], {})
        until(lambda: bool(server.requests))
        runner.stop()
        started = time.monotonic()
        ended = runner.close()
        if ended is not None:
            ended.result(60)

    assert time.monotonic() - started < 5
    assert isinstance(future.result(60).fatal, Interrupted)


# ------------------------------------------------------------------------------------------------- what fails for everyone


def test_an_outage_is_not_halved_symbol_by_symbol(tmp_path: Path) -> None:
    names = names_of(64)
    with Sandbox(SimulatedMarket(), faults=Faults(always=503)) as server:
        (task,) = plan_of(tmp_path, names)
        result = run_task(task, client_of(server), ParquetStorage(tmp_path).bars, RunOptions(NOW), {})

    assert {series.symbol for series in result.failed} == set(names)
    assert {failure.code for failure in result.failed.values()} == {"unavailable"}
    # The task, and four of its symbols alone; 127 requests of three tries each were sent before.
    assert len(server.requests) == 5 * HASTY.tries
    assert {len(record.query["symbols"].split(",")) for record in server.requests} == {64, 1}


def test_an_outage_of_all_workers_ends_the_run_before_a_request_is_halved(tmp_path: Path) -> None:
    names = names_of(64)
    with Sandbox(SimulatedMarket(), faults=Faults(always=503), latency=0.01) as server, pytest.raises(ServiceDown) as caught:
        pipeline_of(server, tmp_path, lambda: NOW).ingest_symbols(names, "2024-06-03", "2024-06-28")

    assert caught.value.report is not None
    assert set(caught.value.report["codes"].values()) == {"unavailable"}
    assert min(len(record.query["symbols"].split(",")) for record in server.requests) > 1


@pytest.mark.parametrize("broken", [[0], [31, 32], [0, 21, 42], list(range(20))], ids=str)
def test_symbols_that_fail_for_themselves_are_isolated(tmp_path: Path, broken: list[int]) -> None:
    names = names_of(64)
    bad = {names[number] for number in broken}
    with Sandbox(SimulatedMarket(), faults=Faults(fail_symbols=bad)) as server:
        (task,) = plan_of(tmp_path, names)
        result = run_task(task, client_of(server), ParquetStorage(tmp_path).bars, RunOptions(NOW), {})

    assert {series.symbol for series in result.failed} == bad
    stored = {path.parts[-3].removeprefix("symbol=") for path in tmp_path.rglob("*.parquet")}
    assert stored == set(names) - bad


class Busy:
    """A source whose other requests are answered between the first failure and the second."""

    def __init__(self, source: AlpacaClient) -> None:
        self._source = source
        self._failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def pages(self, request: Any) -> Iterator[Any]:
        try:
            yield from self._source.pages(request)
        except SourceError as error:
            error.isolated = self._failures > 0
            self._failures += 1
            raise


def test_the_neighbor_of_a_symbol_that_fails_is_asked_before_it_is_said_to_fail(tmp_path: Path) -> None:
    """While other workers got responses, the one symbol that was left failed unasked."""
    names = names_of(2)
    with Sandbox(SimulatedMarket(), faults=Faults(fail_symbols=names[:1])) as server:
        (task,) = plan_of(tmp_path, names)
        result = run_task(task, Busy(client_of(server)), ParquetStorage(tmp_path).bars, RunOptions(NOW), {})

    assert {series.symbol for series in result.failed} == {names[0]}


# --------------------------------------------------------------------------------------------- in which order results come


class Late(OneByOne):
    """Does every task at once, and hands one result over now and then, in an order that a seed draws."""

    def __init__(self, client: AlpacaClient, storage: BarStore, seed: int) -> None:
        super().__init__(client, storage, window=100)
        self._random = random.Random(seed)
        self._waiting: list[tuple[Future[TaskResult], TaskResult]] = []

    def submit(self, task: FetchTask, failed: MutableMapping[Series, Failure]) -> Future[TaskResult]:
        future: Future[TaskResult] = Future()
        self._waiting.append((future, super().submit(task, failed).result()))
        return future

    def tally(self) -> Tally:
        if self._waiting:
            future, result = self._waiting.pop(self._random.randrange(len(self._waiting)))
            future.set_result(result)
        return super().tally()


@pytest.mark.parametrize("seed", range(6))
def test_in_which_order_tasks_are_collected_changes_no_verdict(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A series' first tasks bring nothing, its last one bars: "no_data" once, if the empty ones were collected last."""
    monkeypatch.setattr(dispatcher_module, "_TICK_SECONDS", 0.001)
    listed = write_minutes(tmp_path / "bars.parquet", ["AAA", "BBB"], [date(2024, 6, 27), date(2024, 6, 28)])
    names = ["AAA", "BBB", "CCC"]
    with Sandbox(Replay(listed), clock=lambda: NOW) as server:
        storage = ParquetStorage(tmp_path / "store").bars
        spans = {name: (new_york_days(date(2021, 1, 4), date(2024, 6, 28)),) for name in names}
        plan = plan_run(storage.coverage, {MINUTES: spans}, now=NOW, workers=6)
        pool = Late(client_of(server), storage, seed)
        dispatcher = Dispatcher(pool, NoProgress(), workers=6)
        report = IngestionRun(plan, dispatcher, storage, delay=timedelta(minutes=16)).run()

    assert len(pool.numbers) > 3
    assert report["successful"] == ["AAA", "BBB"]
    assert report["codes"] == {"CCC": "no_data"}
    assert report["bars"] == {"AAA": 40, "BBB": 40, "CCC": 0}


# --------------------------------------------------------------------------------------------------- before the first request


class Impatient(NoProgress):
    """Presses Ctrl-C when it is told for the first time how far the run has come."""

    def __init__(self) -> None:
        self.states: list[ProgressState] = []

    def update(self, state: ProgressState) -> None:
        self.states.append(state)
        raise KeyboardInterrupt


def test_progress_comes_before_the_first_request_and_ctrl_c_there_leaves_every_series_not_started(tmp_path: Path) -> None:
    names, progress = names_of(6), Impatient()
    with Sandbox(SimulatedMarket(), clock=lambda: NOW) as server:
        with pytest.raises(Interrupted) as caught:
            pipeline_of(server, tmp_path, lambda: NOW, progress=progress).ingest_symbols(names, "2024-06-03", "2024-06-28")
        assert server.requests == []
        report = caught.value.report

    assert [(state.total, state.done, state.pages) for state in progress.states] == [(6, 0, 0)]
    assert caught.value.exit_code == 130
    assert report is not None
    assert (report.exit_code, report["successful"], report["requests"]) == (130, [], 0)
    assert report["codes"] == dict.fromkeys(names, "interrupted")
    assert all(message.startswith("not started") for _, message in report["failed"])
    requested = ParquetStorage(tmp_path).bars.coverage.requested
    requested.refresh()
    assert [series.symbol for series in requested.series()] == names


# ---------------------------------------------------------------------------------------------------------- what may travel


def test_a_result_is_counts_and_no_bar(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        (task,) = job_of(tmp_path, names_of(8), workers=1).plans[0].tasks
        result = run_task(task, client_of(server), ParquetStorage(tmp_path).bars, RunOptions(NOW), {})

    travelled = pickle.loads(pickle.dumps(result))
    assert travelled == result
    assert result.bars > 50_000
    assert len(pickle.dumps((task, result))) < 5_000


@pytest.mark.parametrize("error", [Interrupted("x"), CredentialsRefused("x"), WorkersLost("x")], ids=lambda error: error.code)
def test_what_ended_a_task_travels(error: DataEngineError) -> None:
    back = pickle.loads(pickle.dumps(TaskResult(fatal=error))).fatal

    assert (type(back), str(back), back.code) == (type(error), "x", error.code)


def test_a_stop_from_outside_is_the_end_of_every_task(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        client = client_of(server)
        client.stop()
        (task,) = job_of(tmp_path, ["AAPL"], workers=1).plans[0].tasks
        result = run_task(task, client, ParquetStorage(tmp_path).bars, RunOptions(NOW), {})

    assert isinstance(result.fatal, Interrupted)
    assert (result.pages, server.requests) == (0, [])


def test_runners_are_runners(tmp_path: Path) -> None:
    def runner(made: WorkerPool) -> WorkerPool:
        return made

    with Sandbox(SimulatedMarket()) as server:
        for made in (
            ThreadPool(client_of(server), ParquetStorage(tmp_path).bars, RunOptions(NOW), 1),
            OneByOne(client_of(server), ParquetStorage(tmp_path).bars),
        ):
            assert runner(made).tally() == Tally()
            made.close()
