"""Start Dask clusters for tests: a scheduler and workers as separate processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SECONDS = 60.0


@dataclass(frozen=True)
class Host:
    """The place of a process: this machine, or a network namespace that stands for another.

    Attributes:
        address: The address at which it listens.
        prefix: The prefix of every command.
    """

    address: str
    prefix: tuple[str, ...] = ()


HERE = Host("127.0.0.1")


class Cluster:
    """A scheduler and its workers, on loopback, with nannies that start a killed worker anew.

    Args:
        folder: The folder for logs and working directories.
        env: The environment of the workers; the scheduler has none of it.
        scheduler_on: The host of the scheduler.
        workers_on: The host of the workers.
        **settings: Dask's settings for the scheduler, as in ``WORKER_TTL="3s"``.
    """

    def __init__(
        self,
        folder: Path,
        env: dict[str, str],
        *,
        scheduler_on: Host | None = None,
        workers_on: Host | None = None,
        **settings: str,
    ) -> None:
        self._folder = folder
        self._workers_on = workers_on or HERE
        on = scheduler_on or HERE
        self._env = {**clean(), "HOME": str(folder), **env}
        self._processes: list[subprocess.Popen[bytes]] = []
        address_file = folder / "scheduler.json"
        variables = {**clean(), **{f"DASK_DISTRIBUTED__SCHEDULER__{name}": value for name, value in settings.items()}}
        listen = ("--host", on.address, "--port", "0", "--dashboard-address", f"{on.address}:0")
        self.scheduler = self._start(on, "dask_scheduler", *listen, "--scheduler-file", address_file, env=variables)
        until(lambda: address_file.exists() and bool(address_file.read_text().strip()), self.logs)
        self.address: str = json.loads(address_file.read_text())["address"]

    def add(self, processes: int = 1, threads: int = 2, *more: object, **env: str | None) -> subprocess.Popen[bytes]:
        """Start worker processes below one nanny process; a variable that is None is removed from their environment."""
        variables = {**self._env, **{name: value for name, value in env.items() if value is not None}}
        for name in [name for name, value in env.items() if value is None]:
            variables.pop(name, None)
        there = len(self.workers())
        size = ("--nworkers", processes, "--nthreads", threads, "--memory-limit", "2GiB")
        arguments = (
            self.address,
            "--host",
            self._workers_on.address,
            *size,
            "--no-dashboard",
            "--local-directory",
            self._folder,
            *more,
        )
        nanny = self._start(self._workers_on, "dask_worker", *arguments, env=variables)
        until(lambda: self.registered() >= there + processes, self.logs)
        return nanny

    def remove(self, nanny: subprocess.Popen[bytes]) -> None:
        """Stop worker processes regularly."""
        there = self.registered()
        nanny.terminate()
        nanny.wait(SECONDS)
        self._processes.remove(nanny)
        until(lambda: self.registered() < there, self.logs)

    def workers(self) -> list[int]:
        """Return the process ids of the workers that are alive."""
        return [
            child.pid
            for process in self._processes[1:]
            if process.poll() is None
            for child in psutil.Process(process.pid).children()
            if "spawn_main" in " ".join(_command_of(child)) and child.status() != psutil.STATUS_ZOMBIE
        ]

    def registered(self) -> int:
        """Return how many workers the scheduler knows, by its log."""
        log = (self._folder / "dask_scheduler.log").read_text()
        return log.count("Register worker") - log.count("Remove worker")

    def logs(self) -> str:
        return "\n".join(path.read_text()[-20_000:] for path in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(process.pid).children(recursive=True)
                for one in (*family, process):
                    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                        one.send_signal(signal.SIGKILL)
            process.wait(SECONDS)

    def _start(self, host: Host, module: str, *arguments: object, env: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self._folder / f"{module}.log").open("ab") as log:
            process = subprocess.Popen(
                [*host.prefix, sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)],
                cwd=self._folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process


@contextlib.contextmanager
def cluster(folder: Path, env: dict[str, str], processes: int = 2, threads: int = 2, **more: Any) -> Iterator[Cluster]:
    started = Cluster(folder, env, **more)
    try:
        if processes:
            started.add(processes, threads)
        yield started
    finally:
        started.close()


def clean() -> dict[str, str]:
    """Return the environment without credentials."""
    return {name: text for name, text in os.environ.items() if not name.startswith(("ALPACA_", "APCA_", "AWS_"))}


def until(condition: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {SECONDS:g} s\n{why()}"
        time.sleep(0.02)


def _command_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return list(process.cmdline())
    return []
