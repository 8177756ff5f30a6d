"""Where a store can be: a disk, obstore's memory, moto, and SeaweedFS, a real server of objects. Tests of the store run on each.

What is there is looked at by another road than the store's own: the disk itself, or boto3.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from data_engine.store.file_store import FileStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.removal_mark import is_file
from data_engine.store.s3.s3_files import S3Files

KEY, SECRET = "AKIATESTSOFTHESTORE00", "sEcReTofThoseTestsOfTheStore+/0123456789"
BUCKET = "bars"


@dataclass
class Place:
    """One empty place for a store.

    Attributes:
        kind: ``disk``, ``memory``, ``moto`` or ``seaweedfs``.
        base: as people name it; of ``memory`` no other process can know.
        env: what a process must have in its environment to find it.
        open: makes files there, with the options of their class.
        mark: returns what no two writes of a file have in common.
    """

    kind: str
    base: str
    env: dict[str, str]
    open: Callable[..., FileStore]
    _content: Callable[[], dict[str, bytes]]
    _put: Callable[[str, bytes], None]
    mark: Callable[[str], object]
    _folders: Iterator[Path]
    files: FileStore = field(init=False)

    def __post_init__(self) -> None:
        self.files = self.open()

    @property
    def on_disk(self) -> bool:
        return self.kind == "disk"

    def content(self) -> dict[str, bytes]:
        """Return every file but locks and the history, by key, found without the store's own listing."""
        files = {key: data for key, data in self._content().items() if not key.startswith("metadata/history/")}
        return {key: data for key, data in files.items() if not key.endswith(".lock") and is_file(key, len(data))}

    def put(self, key: str, content: bytes) -> None:
        """Write a file past the program."""
        self._put(key, content)

    def copy(self) -> Path:
        """Return a folder of plain files with what is there now: on a disk it is the place itself."""
        if self.on_disk:
            return Path(self.base)
        folder = next(self._folders)
        for key, data in self._content().items():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(data)
        return folder


# ------------------------------------------------------------------------------------------------------------- the servers


@dataclass(frozen=True)
class Server:
    """A service of objects on this machine."""

    url: str

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    @functools.cached_property
    def client(self) -> Any:
        """Boto3's client of it."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    """Start moto in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _answer_one_at_a_time(server)
    made = Server("http://{}:{}".format(*server.get_host_and_port()))
    made.client.create_bucket(Bucket=BUCKET)
    yield made
    server.stop()


def _answer_one_at_a_time(server: Any) -> None:
    """Make a condition and its write one step, as a service does: moto looks first, and writes when others may have written."""
    answer, lock = server._server.app, threading.Lock()

    def answer_alone(environ: dict[str, Any], begin: Any) -> list[bytes]:
        with lock:
            return list(answer(environ, begin))

    server._server.app = answer_alone


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start SeaweedFS, on loopback alone, without its reports home."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    for _ in range(3):
        process, url = _weed(folder)
        if _answers(process, url) and _has_bucket(process, Server(url)):
            break
        _end(process)
    else:
        pytest.fail(f"SeaweedFS does not start: {(folder / 'log').read_text()[-2000:]}")
    try:
        yield Server(url)
    finally:
        _end(process)


def _weed(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    names = ("s3", "master", "filer", "volume", "admin")
    ports = dict(
        zip([option for name in names for option in (f"{name}.port", f"{name}.port.grpc")], _free_ports(10), strict=True)
    )
    command = [
        shutil.which("weed", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))) or "weed",
        "mini",
        *(f"-{option}={port}" for option, port in ports.items()),
        *(f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}", "-master.telemetry=false"),
        *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-filer.localSocket=filer.sock"),
    ]
    env = {**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with (folder / "log").open("wb") as log:
        options: dict[str, Any] = {"preexec_fn": _die_with_parent} if sys.platform == "linux" else {}
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, **options)
    return process, f"http://127.0.0.1:{ports['s3.port']}"


def _die_with_parent() -> None:
    """Let the server end with the tests, also with tests that are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the server refuses a request that is not signed: then its keys are there, and all the rest."""
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/{BUCKET}", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 403:
                return True
        except OSError:
            pass
        time.sleep(0.02)
    return False


def _has_bucket(process: subprocess.Popen[bytes], server: Server) -> bool:
    """Wait until the bucket is there; it comes a little later than the first answers."""
    client = server.client
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        if BUCKET in [found["Name"] for found in client.list_buckets()["Buckets"]]:
            return True
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(30)


# -------------------------------------------------------------------------------------------------------------- the places


@contextlib.contextmanager
def variables(more: dict[str, str]) -> Iterator[None]:
    """Have these variables in the environment."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def place_on_disk(folders: Iterator[Path]) -> Place:
    base = next(folders) / "store"

    def content() -> dict[str, bytes]:
        return {path.relative_to(base).as_posix(): path.read_bytes() for path in base.rglob("*") if path.is_file()}

    def put(key: str, data: bytes) -> None:
        (base / key).parent.mkdir(parents=True, exist_ok=True)
        (base / key).write_bytes(data)

    def mark(key: str) -> object:
        found = (base / key).stat()
        return found.st_ino, found.st_mtime_ns, found.st_size  # not when it was read

    return Place("disk", str(base), {}, lambda **options: LocalFiles(base, **options), content, put, mark, folders)


def place_in_memory(folders: Iterator[Path]) -> Place:
    import obstore
    from obstore.store import MemoryStore

    store = MemoryStore()

    def content() -> dict[str, bytes]:
        keys = [meta["path"] for page in obstore.list(store) for meta in page]
        return {key: bytes(obstore.get(store, key).bytes()) for key in keys}

    def put(key: str, data: bytes) -> None:
        obstore.put(store, key, data)

    def mark(key: str) -> object:
        return obstore.head(store, key)["e_tag"]

    def made(**options: Any) -> FileStore:
        return S3Files("memory://store", store=store, **options)

    return Place("memory", "memory://store", {}, made, content, put, mark, folders)


def place_on(kind: str, server: Server, folders: Iterator[Path]) -> Place:
    prefix = uuid4().hex
    client = server.client

    def content() -> dict[str, bytes]:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return {key.removeprefix(f"{prefix}/"): client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def put(key: str, data: bytes) -> None:
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=data)

    def mark(key: str) -> object:
        return client.head_object(Bucket=BUCKET, Key=f"{prefix}/{key}")["Metadata"]

    def made(**options: Any) -> FileStore:
        with variables(server.env):
            return S3Files(f"s3://{BUCKET}/{prefix}", **options)

    return Place(kind, f"s3://{BUCKET}/{prefix}", server.env, made, content, put, mark, folders)


@pytest.fixture(scope="session", params=["disk", "memory", "moto", "seaweedfs"])
def new_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Place]:
    """Make empty places, all of one kind."""
    folders = iter(lambda: tmp_path_factory.mktemp("place"), None)
    if request.param == "disk":
        return lambda: place_on_disk(folders)
    if request.param == "memory":
        return lambda: place_in_memory(folders)
    server = request.getfixturevalue(request.param)
    return lambda: place_on(request.param, server, folders)


def not_on_moto(place: Place) -> None:
    """Skip a test of many requests on moto, whose answers take ten times as long as those of the other services."""
    if place.kind == "moto":
        pytest.skip("SeaweedFS and obstore's memory answer the same requests in a tenth of the time")


@pytest.fixture
def place(new_place: Callable[[], Place], monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty place of each kind; processes that the test starts can find it."""
    made = new_place()
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def shared_place(place: Place) -> Place:
    """An empty place of each kind that other processes can reach."""
    if place.kind == "memory":
        pytest.skip("a process's memory is its own")
    return place
