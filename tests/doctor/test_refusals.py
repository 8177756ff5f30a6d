"""Whatever a run refuses before its first request, ``doctor`` says, too: each trouble is made, and both are asked."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data_engine.errors import StoreError
from data_engine.sandbox import Sandbox, SimulatedMarket
from data_engine.sandbox.connection import Request, Response
from data_engine.store.local_files import LocalFiles
from running import account, here

INGEST = ("ingest", "AAPL", "--timeframe", "1Day", "--start", "2024-06-03", "--end", "2024-06-03", "--no-actions")


@dataclass
class Machine:
    """A store, and the variables of who uses it."""

    base: Path
    url: str
    more: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {**account(self.url), **self.more}

    def put(self, key: str, text: str = "junk") -> None:
        path = self.base / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def file_in_place_of(self, folder: str) -> None:
        (self.base / folder).rename(self.base.parent / f"aside-{Path(folder).name}")
        self.put(folder)


def with_variable(name: str, value: str) -> Callable[[Machine], None]:
    return lambda machine: machine.more.update({name: value})


def below_a_file(machine: Machine) -> None:
    machine.put("file")
    machine.base = machine.base / "file" / "store"


def a_file(machine: Machine) -> None:
    machine.put("file")
    machine.base = machine.base / "file"


def a_link_to_nowhere(machine: Machine) -> None:
    (machine.base / "link").symlink_to(machine.base / "nowhere")
    machine.base = machine.base / "link"


def junk_for_all_coverage(machine: Machine) -> None:
    for file in (machine.base / "metadata" / "coverage").rglob("*.json"):
        file.write_text("junk")


def only_legacy_files(machine: Machine) -> None:
    machine.base = machine.base.parent / "legacy"
    machine.put("equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet")


def with_wrong_proxy(machine: Machine) -> None:
    """Only https goes through a proxy, so the address is Alpaca's; nothing is sent, as the proxy is refused before."""
    machine.url = "https://data.alpaca.markets"
    (machine.base / "metadata" / "source.txt").unlink()
    machine.more["HTTPS_PROXY"] = "socks5://nowhere"


TROUBLES: dict[str, Callable[[Machine], None]] = {
    "the store is a file": a_file,
    "the store is below a file": below_a_file,
    "the store is a link to nowhere": a_link_to_nowhere,
    "metadata is a file": lambda machine: machine.file_in_place_of("metadata"),
    "the folder of locks is a file": lambda machine: machine.file_in_place_of("metadata/locks"),
    "the folder of drafts is a file": lambda machine: machine.file_in_place_of("metadata/drafts"),
    "the folder of coverage is a file": lambda machine: machine.file_in_place_of("metadata/coverage"),
    "the bars are of another source": lambda machine: machine.put("metadata/source.txt", "https://data.alpaca.markets\n"),
    "the coverage is junk": junk_for_all_coverage,
    "the requested ranges are junk": lambda machine: machine.put("metadata/wanted/0123.json"),
    "only the legacy pipeline wrote": only_legacy_files,
    "a webhook without https": with_variable("DATA_ENGINE_NOTIFY", "hooks.example.com/x"),
    "a proxy that is none": with_wrong_proxy,
    "no secret": with_variable("ALPACA_SECRET_KEY", ""),
    "a number of threads that is none": with_variable("DATA_ENGINE_THREADS", "many"),
    "a feed that is none": with_variable("DATA_ENGINE_FEED", "nonsense"),
    "an address without https": with_variable("APCA_API_DATA_URL", "http://example.com"),
    "a settings file that is not there": with_variable("DATA_ENGINE_SETTINGS", "/nowhere/settings.ini"),
}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Sandbox(SimulatedMarket()) as server:
        made = Machine(tmp_path / "store", server.url)
        assert here(*INGEST, "--base-path", made.base, env=made.env).code == 0
        yield made


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_a_run_refuses_is_not_ok(machine: Machine, trouble: str) -> None:
    TROUBLES[trouble](machine)

    run = here("update", "--quiet", "--no-actions", "--base-path", machine.base, env=machine.env)
    told = here("doctor", "--json", "--base-path", machine.base, env=machine.env)

    assert run.code != 0
    assert told.code != 0
    assert "failed" in {one["state"] for one in told.json["checks"]}, told.text


def test_where_a_run_works_all_is_ok_and_the_store_is_as_it_was(machine: Machine) -> None:
    before = {path: path.read_bytes() for path in machine.base.rglob("*") if path.is_file()}

    told = here("doctor", "--json", "--base-path", machine.base, env=machine.env)

    assert told.code == 0, told.text
    assert {one["state"] for one in told.json["checks"]} == {"ok"}
    assert {path: path.read_bytes() for path in machine.base.rglob("*") if path.is_file()} == before


def test_a_series_that_cannot_be_read_is_a_warning_while_others_can(machine: Machine) -> None:
    assert here("ingest", "MSFT", *INGEST[2:], "--base-path", machine.base, env=machine.env).code == 0
    machine.put("metadata/coverage/equities_1day/symbol=AAPL.json")

    told = here("doctor", "--json", "--base-path", machine.base, env=machine.env)

    (series,) = [one for one in told.json["checks"] if one["check"] == "series"]
    assert (told.code, series["state"]) == (0, "warning")
    assert "AAPL" in series["text"]


class Portal(Sandbox):
    """A network that answers every request with its own page."""

    def answer(self, request: Request, connection_number: int) -> Response:
        response = super().answer(request, connection_number)
        response.status, response.body = 200, b"<html>Log in to the network of the hotel</html>"
        response.headers.update({"content-type": "text/html"})
        response.headers.pop("Content-Type", None)
        return response


def test_a_page_of_another_server_is_no_answer(tmp_path: Path) -> None:
    with Portal(SimulatedMarket()) as server:
        told = here("doctor", "--json", "--base-path", tmp_path / "store", url=server.url)

    (request,) = [one for one in told.json["checks"] if one["check"] == "request"]
    assert (told.code, request["state"]) == (6, "failed")
    assert "text/html" in request["text"]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach: pytest's own belong to who runs it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def checked_as_nobody(base: Path) -> str:
    """Return what a process of another user says of a store."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = "can be written"
        try:
            os.setgid(65534)
            os.setuid(65534)
            LocalFiles(base).check_writable()
        except StoreError as error:
            said = str(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        return pipe.read()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("folder", ["metadata/locks", "metadata/drafts", "metadata/coverage/equities_1day", "equities_1day"])
def test_a_folder_inside_a_store_that_may_not_be_written_is_found(public: Path, folder: str) -> None:
    base = public / "store"
    with Sandbox(SimulatedMarket()) as server:
        assert here(*INGEST, "--base-path", base, url=server.url).code == 0
    for path in (base, *base.rglob("*")):
        path.chmod(0o777)
    assert checked_as_nobody(base) == "can be written"

    (base / folder).chmod(0o555)

    assert f"{base / folder} is not writable for this user" in checked_as_nobody(base)
