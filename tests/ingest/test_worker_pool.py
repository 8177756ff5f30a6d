"""The seam between a run and whoever does its tasks: threads here, and a runner that a test writes in a few lines."""

from __future__ import annotations

import pickle
from collections.abc import MutableMapping
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_engine import AlpacaClient, ParquetStorage
from data_engine.errors import CredentialsRefused, DataEngineError, Failure, Interrupted
from data_engine.ingest.dispatcher import Dispatcher
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.progress import NoProgress
from data_engine.ingest.run_plan import RunPlan, plan_run
from data_engine.ingest.task import RunOptions, TaskResult, run_task
from data_engine.ingest.worker_pool import Tally, ThreadPool, WorkerPool, WorkersLost
from data_engine.market.bars import Changes
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import new_york_days
from data_engine.sandbox import Faults, Sandbox, SimulatedMarket
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage_store import CoverageStore
from running import client_of, content, count, names_of, pipeline_of

MINUTES = Dataset(Timeframe.parse("1Min"), Adjustment.parse(None), Feed.SIP)
JUNE = new_york_days(datetime(2024, 6, 3).date(), datetime(2024, 6, 28).date())
NOW = datetime(2026, 8, 3, 12, tzinfo=UTC)


def job_of(base: Path, names: list[str], workers: int = 4) -> RunPlan:
    coverage: CoverageStore = ParquetStorage(base).bars.coverage
    return plan_run(coverage, {MINUTES: dict.fromkeys(names, (JUNE,))}, now=NOW, workers=workers)


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
        dispatcher.state.bars.update(dict.fromkeys(job.series, 0))
        dispatcher.work(job.plans, len(names))

    assert content(tmp_path / "own") == content(tmp_path / "threads")
    assert set(dispatcher.state.left.values()) == {0}
    assert dispatcher.state.failed == {}
    assert sum(dispatcher.state.bars.values()) == count(tmp_path / "own")
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


def test_a_client_is_left_stopped_while_a_thread_is_still_at_it(tmp_path: Path) -> None:
    """It would go on sending after a run that has ended."""
    with Sandbox(SimulatedMarket(), latency=0.5) as server:
        client = client_of(server)
        runner = ThreadPool(client, ParquetStorage(tmp_path).bars, RunOptions(NOW), 1)
        (task,) = job_of(tmp_path, names_of(4), workers=1).plans[0].tasks
        future = runner.submit(task, {})
        runner.stop()
        runner.close()
        result = future.result(60)

    assert isinstance(result.fatal, Interrupted)
    assert len(server.requests) <= 1


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
