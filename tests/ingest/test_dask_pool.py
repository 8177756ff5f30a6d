"""The workers of a Dask cluster, as separate processes: what is stored, whichever process dies, and who may take part."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="Dask's distributed is not installed: pip install '.[dask]'")

from clusters import Cluster, cluster, until
from data_engine import AlpacaClient, IngestionPipeline, ingest_single_symbol
from data_engine.errors import ConfigError, Interrupted
from data_engine.ingest.dask import dask_pool
from data_engine.ingest.dask.dask_worker import MarkedFiles, writing
from data_engine.ingest.progress import NoProgress, ProgressState
from data_engine.sandbox import Faults, Replay, Sandbox, SimulatedMarket
from data_engine.sandbox.server import Record
from data_engine.store.local_files import LocalFiles
from real_data import bars_of, real
from running import KEY, SECRET, Ran, bars_in, content, count, coverage, differing, ended, here, names_of, pipeline_of, start
from stores import Place, Server, place_on, place_on_disk

EIGHT = "minute/polygon_sip_ext_8sym_20240603_20240816.parquet"
SYMBOLS = ("AAPL", "NVDA", "SPY", "ACHR", "MSTR", "ARM", "SPCX", "INTC")
RANGE = ("--start", "2024-06-03", "--end", "2024-08-16")
JUNE = ("--start", "2024-06-03", "--end", "2024-06-28")

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def port() -> int:
    """A port that no other test listens on: the workers know it before there is a server."""
    with Sandbox(SimulatedMarket()) as server:
        return server.port


@pytest.fixture
def serve(port: int) -> Iterator[Callable[..., Sandbox]]:
    """Start a server where the workers look for one."""
    servers: list[Sandbox] = []

    def serving(source: Any = None, **options: Any) -> Sandbox:
        server = Sandbox(source or SimulatedMarket(), port=port, **options)
        server.start()
        servers.append(server)
        return server

    yield serving
    for server in servers:
        server.close()


def environment(port: int) -> dict[str, str]:
    return {"ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET, "APCA_API_DATA_URL": f"http://127.0.0.1:{port}"}


@pytest.fixture(scope="module")
def pair(port: int, seaweedfs: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two worker processes of two threads each. A task that has killed two workers is not tried a third time."""
    with cluster(tmp_path_factory.mktemp("pair"), {**environment(port), **seaweedfs.env}, ALLOWED_FAILURES="1") as made:
        yield made


@pytest.fixture
def ready(pair: Cluster) -> Cluster:
    """The same, with both workers there: another test may have killed one."""
    until(lambda: len(pair.workers()) == pair.registered() == 2, pair.logs)
    return pair


def ingest(server: Sandbox, *words: object, **env: str) -> subprocess.Popen[str]:
    """Start the command without any credentials: those are the workers'."""
    return start("ingest", *words, env={"APCA_API_DATA_URL": server.url, **env})


def ingested(server: Sandbox, *words: object, **env: str) -> Ran:
    """Run the command inside this process, without any credentials: importing Dask takes a second each time."""
    return here("ingest", *words, env={"APCA_API_DATA_URL": server.url, **env})


def once(number: int, what: Callable[[], object]) -> Callable[[Record], None]:
    """Return a hook that does something at one request."""
    return lambda record: what() if record.number == number else None


def kill(pid: int, how: int = signal.SIGKILL) -> None:
    os.kill(pid, how)


# ------------------------------------------------------------------------------------------------------------- acceptance


@pytest.fixture(params=["disk", "seaweedfs"])
def reachable(request: pytest.FixtureRequest, seaweedfs: Server, tmp_path: Path) -> Place:
    """A place for a store that other processes can reach: a disk, or a real S3 server."""
    folders = iter(lambda: tmp_path, None)
    return place_on_disk(folders) if request.param == "disk" else place_on(request.param, seaweedfs, folders)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many requests the eight symbols take where nothing happens."""
    with Sandbox(Replay(real(EIGHT)), gzip_level=0) as server:
        ran = here("ingest", *SYMBOLS, *RANGE, "--workers", 26, "--base-path", tmp_path_factory.mktemp("alone"), url=server.url)
        assert ran.code == 0, ran.text
        return len(server.requests)


@pytest.mark.slow
def test_eight_real_symbols_through_two_processes_one_of_them_killed(
    ready: Cluster, serve: Serve, reachable: Place, planned: int
) -> None:
    # A limit that the plan reaches: eight at once, then fifteen a second.
    server = serve(Replay(real(EIGHT)), gzip_level=0, rate=900, burst=8)
    words = ("ingest", *SYMBOLS, *RANGE, "--workers", 26, "--base-path", reachable.base)
    before = ready.logs().count("was killed by signal 9")
    server._on_request = once(12, lambda: kill(ready.workers()[0]))
    ran = here(*words, "--dask", ready.address, env={"APCA_API_DATA_URL": server.url, **reachable.env})
    died = ready.logs().count("was killed by signal 9") - before
    again = here(*words, env={**environment(server.port), **reachable.env})

    assert (ran.code, again.code) == (0, 0), ran.text + ready.logs()
    assert died == 1
    copy = reachable.copy()
    assert count(copy) == 258_824
    assert differing(bars_in(copy), bars_of(EIGHT)) == 0
    # Only the requests in flight of the killed process are sent again: its two threads, a task of a page or two each.
    assert planned <= len(server.requests) <= planned + 2 * 2
    assert server.counts[429] == 0


# ------------------------------------------------------------------------------------------------------- the same as threads


def test_the_same_bars_summary_and_coverage_as_with_threads(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    names = [*names_of(6), "ZZZQ"]
    server = serve()
    words = (*names, *JUNE, "--json")
    clusters = ingested(server, *words, "--base-path", tmp_path / "a", "--dask", ready.address)
    threads = here("ingest", *words, "--base-path", tmp_path / "b", url=server.url)

    assert clusters.code == threads.code == 1, clusters.text
    report, expected = clusters.json, threads.json
    for fields in (report, expected):
        fields.pop("elapsed_seconds")
    assert report == expected
    assert report["requests"] == sum(one.path == "/v2/stocks/bars" for one in server.requests) / 2
    assert content(tmp_path / "a") == content(tmp_path / "b")
    known, known_too = (coverage(tmp_path / side, names[0]) for side in "ab")
    when = {"begun": "", "updated": ""}
    assert {**known, **when} == {**known_too, **when}
    assert not list((tmp_path / "a" / "metadata").glob("runs/*"))


def test_update_and_the_library_accept_a_cluster_too(
    ready: Cluster, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setenv("APCA_API_DATA_URL", server.url)
    report = ingest_single_symbol("AAPL", "2024-06-03", "2024-06-28", base_path=tmp_path, dask=ready.address)
    stored = count(tmp_path)
    updated = here("update", "--quiet", "--base-path", tmp_path, "--dask", ready.address, env={})

    assert report["successful"] == ["AAPL"]
    assert updated.code == 0, updated.text
    assert "1 of 1 series up to date" in updated.out
    assert count(tmp_path) > stored > 0


class RecordingProgress(NoProgress):
    """Keeps every state of a run."""

    def __init__(self) -> None:
        self.states: list[ProgressState] = []

    def update(self, state: ProgressState) -> None:
        self.states.append(state)


def test_progress_is_by_the_request(ready: Cluster, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task of many pages: the progress does not wait for its end."""
    server, progress = serve(latency=0.2), RecordingProgress()
    monkeypatch.setenv("APCA_API_DATA_URL", server.url)
    pipeline = IngestionPipeline(1, tmp_path, dask=ready.address, progress=progress)
    report = pipeline.ingest_symbols(["AAPL"], "2024-01-02", "2024-06-28")

    assert any(state.pages > 0 and not state.successful for state in progress.states)
    assert progress.states[-1].pages == len(server.requests) == report["requests"] == report["pages"] > 5
    assert progress.states[-1].successful == 1


# ------------------------------------------------------------------------------------------------------------ the limit


def test_the_whole_cluster_keeps_to_the_limit_that_the_responses_state(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    server = serve(rate=1200, burst=10)
    ran = ingested(server, *names_of(40), *JUNE, "--workers", 40, "--base-path", tmp_path / "s", "--dask", ready.address)

    times = sorted(record.started for record in server.requests)
    assert ran.code == 0, ran.text
    assert len(times) >= 40
    assert server.counts[429] == 0
    # Ten at once, and twenty a second.
    assert len(times) - 10 <= 20 * (times[-1] - times[0]) + 2


def test_the_users_maximum_holds_for_the_whole_cluster(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    server = serve()
    maximum = ("--workers", 40, "--requests-per-minute", 900)
    ran = ingested(server, *names_of(40), *JUNE, *maximum, "--base-path", tmp_path / "s", "--dask", ready.address)

    times = sorted(record.started for record in server.requests)
    assert ran.code == 0, ran.text
    assert len(times) >= 35
    assert len(times) - 15 <= 15 * (times[-1] - times[0]) + 2


def test_a_free_plans_refusal_is_met_once_a_process_at_most(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    server = serve(plan="free")
    ran = ingested(
        server, *names_of(4), "--start", "2026-01-02", "--workers", 4, "--base-path", tmp_path, "--dask", ready.address
    )

    assert ran.code == 0, ran.text
    assert "latest 15 minutes" in ran.text
    assert server.counts[403] <= 4  # the requests in flight when the first was refused


# ------------------------------------------------------------------------------------------------------- when things fail


def test_keys_that_are_refused_end_the_run_at_once(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    server = serve(faults=Faults(always=401))
    ran = ingested(server, *names_of(30), *JUNE, "--workers", 30, "--base-path", tmp_path, "--dask", ready.address)

    assert ran.code == 3, ran.text
    assert "401" in ran.err
    assert len(server.requests) <= 4  # one a thread


def test_a_task_that_kills_its_workers_fails_alone(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    names = names_of(8)
    poison = names[3]

    def deadly(record: Record) -> None:
        if poison in record.query["symbols"].split(","):
            for pid in ready.workers():
                kill(pid)

    # Both workers die of it, so that whatever the other one does looks as bad.
    server = serve(on_request=deadly, latency=0.1)
    ran = ingested(server, *names, *JUNE, "--workers", 8, "--json", "--base-path", tmp_path, "--dask", ready.address)

    assert ran.code == 1, ran.text + ready.logs()
    assert ran.json["successful"] == [name for name in names if name != poison]
    assert [(one["symbol"], one["code"]) for one in ran.json["failed"]] == [(poison, "worker_died")]
    assert "memory" in ran.json["failed"][0]["message"]


def test_ctrl_c_ends_the_run_and_the_next_goes_on(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    names = names_of(12)
    server = serve(latency=0.2)
    words = (*names, *JUNE, "--workers", 12, "--base-path", tmp_path / "s")
    process = ingest(server, *words, "--dask", ready.address)
    server._on_request = once(5, lambda: process.send_signal(signal.SIGINT))
    cut = ended(process)
    sent, stored = len(server.requests), count(tmp_path / "s")
    server._on_request, server.latency = None, 0.0
    finished = ingested(server, *words, "--dask", ready.address)

    assert cut.code == 130, cut.text
    assert "interrupted" in cut.out
    assert "Traceback" not in cut.text
    assert stored > 0
    # Four threads: only their requests in flight came after it.
    assert 5 <= sent <= 5 + 4
    assert finished.code == 0, finished.text
    pipeline_of(server, tmp_path / "whole").ingest_symbols(names, "2024-06-03", "2024-06-28")
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_workers_stop_when_the_process_that_started_the_run_is_killed(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    names = names_of(12)
    server = serve(latency=0.2)
    words = (*names, *JUNE, "--workers", 12, "--base-path", tmp_path / "s", "--dask", ready.address)
    process = ingest(server, *words)
    server._on_request = once(5, process.kill)
    killed = ended(process)
    server._on_request = None
    finished = ingested(server, *words)

    assert killed.code == -signal.SIGKILL
    assert finished.code == 0, finished.text
    # The tasks of the first run in flight, and perhaps a second page of each; the rest of it was never requested.
    assert len(server.requests) <= 5 + 8 + requests_of(finished)
    assert not list((tmp_path / "s" / "metadata").glob("runs/*"))


def requests_of(ran: Ran) -> int:
    return int(ran.out.split("Requests: ")[1].split()[0].replace(",", ""))


# --------------------------------------------------------------------------------------------------- who may take part

UNFIT: dict[str, tuple[dict[str, str | None], tuple[str, ...], str]] = {
    "without-credentials": ({"ALPACA_API_KEY": None, "ALPACA_SECRET_KEY": None}, (), "ALPACA_API_KEY"),
    "of-another-version": ({}, ("--preload", "older"), "0.0.1"),
    "of-another-server": ({"APCA_API_DATA_URL": "http://127.0.0.1:9"}, (), "APCA_API_DATA_URL"),
}


@pytest.mark.parametrize(("env", "words", "named"), UNFIT.values(), ids=UNFIT)
def test_a_worker_that_cannot_take_part_is_named_and_nothing_is_written(
    port: int,
    serve: Serve,
    tmp_path: Path,
    pair: Cluster,
    env: dict[str, str | None],
    words: tuple[str, ...],
    named: str,
) -> None:
    (tmp_path / "older.py").write_text("import data_engine.version\ndata_engine.version.__version__ = '0.0.1'\n")
    server = serve()
    nanny = pair.add(1, 1, *words, PYTHONPATH=str(tmp_path), **env)
    try:
        ran = ingested(server, "AAPL", *JUNE, "--base-path", tmp_path / "s", "--dask", pair.address)
    finally:
        pair.remove(nanny)

    assert ran.code == 2, ran.text
    assert named in ran.err
    assert re.search(r"worker tcp://", ran.err)
    assert SECRET not in ran.text
    assert server.requests == []
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a path that means another folder in every process: /proc/self/cwd")
def test_a_worker_that_slept_over_the_end_of_its_run_writes_nothing(tmp_path: Path) -> None:
    """The store is not locked for it then: its bars could have another adjustment basis, or be of a range that was removed."""
    files = LocalFiles(tmp_path)
    files.update("metadata/runs/one.json", lambda _: b"{}")
    writer = MarkedFiles(files, "metadata/runs/one.json")
    assert writer.update("a", lambda _: b"in time")

    counts = [writing("metadata/runs/one.json")]

    def slow(content: bytes | None) -> bytes:
        files.delete("metadata/runs/one.json")
        counts.append(writing("metadata/runs/one.json"))  # the end of the run waits for this one
        return b"too late"

    with pytest.raises(Interrupted):
        writer.update("a", slow)
    with pytest.raises(Interrupted):
        writer.delete("a")
    assert not writer.update("a", lambda _: None)
    assert [*counts, writing("metadata/runs/one.json")] == [0, 1, 0]
    assert (files.get("a"), writer.get("a"), writer.folder) == (b"in time", b"in time", tmp_path)


def test_a_run_without_a_cluster_ends_the_one_that_was_killed_before(serve: Serve, tmp_path: Path) -> None:
    run_marker = "metadata/runs/0123.json"
    LocalFiles(tmp_path).update(run_marker, lambda _: b"{}")
    assert here("ingest", "AAPL", *JUNE, "--base-path", tmp_path, url=serve().url).code == 0

    assert LocalFiles(tmp_path).get(run_marker) is None


def test_a_worker_that_sees_another_store_is_refused(ready: Cluster, serve: Serve, tmp_path: Path) -> None:
    server = serve()
    ran = ingested(server, "AAPL", *JUNE, "--base-path", "/proc/self/cwd/mine", "--dask", ready.address)

    assert ran.code == 2, ran.text
    assert "the store /proc/self/cwd/mine" in ran.err
    assert server.requests == []
    assert count(tmp_path / "mine") == 0


# --------------------------------------------------------------------------------------------------------- weaker clusters


@pytest.mark.slow
def test_a_scheduler_without_workers_without_our_plugin_and_killed(
    port: int, serve: Serve, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cluster for what takes a cluster of its own. It refuses plugins."""
    names = names_of(6)
    server = serve()
    refusing = {"BLOCKED_HANDLERS": '["register_scheduler_plugin"]', "WORKER_TTL": "3s"}
    folder = tmp_path_factory.mktemp("weak")
    with cluster(folder, environment(port), processes=0, **refusing) as weak:
        words = (*names, *JUNE, "--workers", 6, "--dask", weak.address)
        monkeypatch.setattr(dask_pool, "PATIENCE", 0.2)
        empty = ingested(server, *words, "--base-path", tmp_path / "n")
        monkeypatch.undo()
        assert empty.code == 1
        assert "0.2 s" in empty.err
        assert not (tmp_path / "n").exists()

        weak.add(2, 2)
        maximum = ("--requests-per-minute", 1200)
        ran = ingested(server, *words, *maximum, "--base-path", tmp_path / "a")
        assert ran.code == 0, ran.text
        assert re.search(r"\b2 worker processes\b.*\b600 requests\b", ran.text)
        assert f"Requests: {len(server.requests)}" in ran.out

        # Stopped as a machine that sleeps: the scheduler gives it up, the nanny ends it, and the others do its work.
        server.forget()
        asleep = weak.workers()[0]
        server._on_request = lambda record: kill(asleep, signal.SIGSTOP) if len(server.requests) == 2 else None
        server.latency = 0.2
        wedged = ingested(server, *words, "--base-path", tmp_path / "b")
        assert wedged.code == 0, wedged.text + weak.logs()
        assert "--requests-per-minute" in wedged.text
        assert content(tmp_path / "b") == content(tmp_path / "a")
        server._on_request = None

        server.forget()
        server._on_request = lambda record: weak.scheduler.kill() if len(server.requests) == 3 else None
        lost = ingested(server, *words, "--json", "--base-path", tmp_path / "c")
        server._on_request = None
    assert lost.code == 1, lost.text
    assert {one["code"] for one in lost.json["failed"]} == {"workers_lost"}
    assert lost.json["error"]["code"] == "workers_lost"
    assert "same command" in lost.err
    assert "Traceback" not in lost.text
    assert here("update", "--base-path", tmp_path / "c", url=server.url).code == 0
    assert content(tmp_path / "c").items() >= content(tmp_path / "a").items()


# ------------------------------------------------------------------------------------------------------ a cluster for one run


@pytest.mark.slow
def test_local_is_a_cluster_for_one_run_and_ctrl_c_reaches_all_its_processes(serve: Serve, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the workers too; they go on until what they have is stored."""
    names = names_of(6)
    server = serve(latency=0.1)
    command = [
        sys.executable,
        "-m",
        "data_engine",
        "ingest",
        *names,
        *JUNE,
        "--dask",
        "local",
        "--base-path",
        str(tmp_path / "s"),
    ]
    env = {**os.environ, **environment(server.port)}
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    server._on_request = once(3, lambda: os.killpg(process.pid, signal.SIGINT))
    cut = ended(process)
    stored, server._on_request, server.latency = count(tmp_path / "s"), None, 0.0
    finished = here(*command[3:], env=environment(server.port))

    assert cut.code == 130, cut.text
    assert "Traceback" not in cut.text
    assert stored > 0
    assert finished.code == 0, finished.text
    assert finished.out.count("Successful: 6/6") == 1
    until(lambda: not is_there(process.pid))


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_script_without_its_guard_gets_the_remedy(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    script = tmp_path / "script.py"
    script.write_text(
        "from data_engine import ingest_single_symbol as it\nit('AAPL', '2024-06-03', base_path='s', dask='local')\n"
    )
    env = {**os.environ, **environment(server.port)}
    ran = subprocess.run([sys.executable, script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].endswith("""if __name__ == "__main__":""")
    assert not (tmp_path / "s").exists()


# ---------------------------------------------------------------------------------------------------------- without a cluster


TAIL = """
import sys
from data_engine.cli import main
code = main(sys.argv[1:])
sys.stderr.write(" ".join(sys.modules))
sys.exit(code)
"""


def inside(code: str, *words: object, env: dict[str, str] | None = None) -> Ran:
    """Run a few lines, then the command, in a process of its own; the last line of stderr is all that it has imported."""
    command = [sys.executable, "-c", code + TAIL, *map(str, words)]
    ran = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=60, check=False)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


ABSENT = "import sys; sys.modules['distributed'] = None"


@pytest.mark.parametrize("address", ["local", "tcp://127.0.0.1:8786"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, address: str) -> None:
    ran = inside(ABSENT, "ingest", "AAPL", *JUNE, "--base-path", tmp_path / "s", "--dask", address, env=environment(9))

    assert ran.code == 2
    assert "pip install '.[dask]'" in ran.err
    assert not (tmp_path / "s").exists()


def test_a_dry_run_needs_no_cluster_and_no_extra(tmp_path: Path) -> None:
    words = ("ingest", "AAPL", *JUNE, "--base-path", tmp_path / "s", "--dry-run")

    assert inside(ABSENT, *words, "--dask", "tcp://127.0.0.1:1").out == inside("", *words).out


def test_threads_import_nothing_of_dask(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    ran = inside("", "ingest", "AAPL", *JUNE, "--base-path", tmp_path / "s", env=environment(server.port))

    assert ran.code == 0, ran.text
    loaded = {name.split(".")[0] for name in ran.err.splitlines()[-1].split()}
    assert loaded & {"distributed", "dask", "tornado", "psutil"} == set()
    assert "data_engine" in loaded


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8786", "tcp://", ""])
def test_an_invalid_address_is_bad_usage(tmp_path: Path, address: str) -> None:
    ran = here("ingest", "AAPL", *JUNE, "--base-path", tmp_path / "s", "--dask", address, env=environment(9))

    assert ran.code == 2
    assert "tcp://" in ran.err


def test_an_address_without_a_scheduler_is_bad_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_pool, "_CONNECT_SECONDS", 0.3)
    ran = here("ingest", "AAPL", *JUNE, "--base-path", tmp_path / "s", "--dask", "tcp://127.0.0.1:1", env=environment(9))

    assert ran.code == 2
    assert "tcp://127.0.0.1:1" in ran.err
    assert "`dask scheduler`" in ran.err
    assert not (tmp_path / "s").exists()


def test_a_client_and_a_cluster_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"client.*dask"):
        IngestionPipeline(base_path=tmp_path, client=AlpacaClient(KEY, SECRET), dask="local")
