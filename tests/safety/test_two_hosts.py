"""Two hosts, the scheduler on one and the workers on the other, and the line between them cut for ten seconds.

The hosts are network namespaces of this machine, joined by a pair of virtual interfaces; making them takes root. The disk is
shared, as by a network file system. The server of bars stands beside the workers, since nobody else asks it for anything.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="Dask's distributed is not installed: pip install 'data-engine[dask]'")

from clusters import Host, cluster, until
from data_engine.sandbox import Sandbox, SimulatedMarket
from running import KEY, SECRET, content, count, ended, names_of, pipeline_of

CUT_SECONDS = 10.0
NAMES = names_of(12)
WORDS = ("ingest", *NAMES, "--start", "2024-01-02", "--end", "2024-02-29", "--workers", 12, "--json", "--no-actions")


@dataclass(frozen=True)
class TwoHosts:
    """Two hosts and the line between them."""

    left: Host
    right: Host
    line: tuple[str, str]

    def cut(self) -> None:
        ip("-n", self.line[0], "link", "set", self.line[1], "down")

    def join(self) -> None:
        ip("-n", self.line[0], "link", "set", self.line[1], "up")


def ip(*words: str) -> None:
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    if ran.returncode:
        raise OSError(f"ip {' '.join(words)}: {ran.stderr.strip()}")


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    if sys.platform != "linux" or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("two hosts are network namespaces: they take Linux, root and iproute2's `ip`")
    left, right = (f"de{os.getpid()}{side}" for side in "ab")
    addresses = {left: "10.213.77.1", right: "10.213.77.2"}
    try:
        ip("netns", "add", left)
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        ip("netns", "add", right)
        ip("link", "add", f"{left}v", "netns", left, "type", "veth", "peer", "name", f"{right}v", "netns", right)
        for name, address in addresses.items():
            ip("-n", name, "addr", "add", f"{address}/30", "dev", f"{name}v")
            for device in ("lo", f"{name}v"):
                ip("-n", name, "link", "set", device, "up")
        both = (Host(address, ("ip", "netns", "exec", name)) for name, address in addresses.items())
        yield TwoHosts(*both, (left, f"{left}v"))
    finally:
        for name in addresses:
            with contextlib.suppress(OSError):
                ip("netns", "delete", name)


@contextlib.contextmanager
def serving(host: Host, folder: Path) -> Iterator[str]:
    """Start a server of the simulated market on one host, at its own loopback interface."""
    with (folder / "sandbox.log").open("wb") as log:
        command = [*host.prefix, sys.executable, "-m", "data_engine", "sandbox", "--port", "8000", "--latency", "0.5"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until(lambda: b"http://127.0.0.1:8000" in (folder / "sandbox.log").read_bytes())
        yield "http://127.0.0.1:8000"
    finally:
        process.kill()
        process.wait(30)


@pytest.mark.slow
def test_a_line_that_is_cut_for_ten_seconds_costs_time_and_no_bar(hosts: TwoHosts, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with serving(hosts.right, tmp_path) as url:
        env = {"ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET, "APCA_API_DATA_URL": url}
        (tmp_path / "dask").mkdir()
        with cluster(tmp_path / "dask", env, 2, 2, scheduler_on=hosts.left, workers_on=hosts.right) as two:

            def ingest() -> subprocess.Popen[str]:
                command = [
                    sys.executable,
                    "-m",
                    "data_engine",
                    *map(str, WORDS),
                    "--dask",
                    two.address,
                    "--base-path",
                    str(store),
                ]
                return subprocess.Popen(
                    [*hosts.left.prefix, *command],
                    env={**os.environ, "APCA_API_DATA_URL": url},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )

            process = ingest()
            until(lambda: process.poll() is not None or count(store) > 0, two.logs)
            hosts.cut()
            time.sleep(CUT_SECONDS)
            under_way = process.poll() is None
            hosts.join()
            cut = ended(process)
            again = ended(ingest())

    assert under_way, cut.text
    assert cut.code in (0, 1), cut.text + two.logs()
    assert "Traceback" not in cut.text
    missing = {one["symbol"] for one in cut.json["failed"]}
    assert (cut.code == 1) == bool(missing)
    assert missing | set(cut.json["successful"]) == set(NAMES)
    assert again.code == 0, again.text + two.logs()
    assert cut.code or again.json["requests"] == 0
    with Sandbox(SimulatedMarket()) as server:
        pipeline_of(server, tmp_path / "whole").ingest_symbols(NAMES, "2024-01-02", "2024-02-29")
    assert content(store) == content(tmp_path / "whole")
