"""Stores that somebody else prepared, through the ordinary commands: an exit code, no hang, no control character, no loss."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine.sandbox import Sandbox, SimulatedMarket
from running import Ran, here, rows

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names and kinds of files that Windows lacks")

ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
DATASET, MONTH = "equities_1min", "year=2024/month=06/data.parquet"
BAR, OTHER = f"{DATASET}/symbol=AAPL/{MONTH}", f"{DATASET}/symbol=B/{MONTH}"
COVERAGE = f"metadata/coverage/{DATASET}/symbol=AAPL.json"
OTHERS = f"metadata/coverage/{DATASET}/symbol=B.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("made") / "store"
    with Sandbox(SimulatedMarket()) as server:
        for words in (("AAPL", "--index", "list"), ("KO",)):
            ran = here("ingest", *words, "--start", "2024-06-03", "--end", "2024-06-04", "--base-path", base, url=server.url)
            assert ran.code == 0, ran.text
    return base


Harm = Callable[[Path], object]


def put(key: str | bytes, content: bytes = b"x") -> Harm:
    def harm(base: Path) -> None:
        path = base / (key if isinstance(key, str) else os.fsdecode(key))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return harm


def raw(key: bytes, content: bytes = b"x") -> Harm:
    return put(key, content)


def made_of(key: str, make: Callable[[Path], object]) -> Harm:
    def harm(base: Path) -> None:
        path = base / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            path.unlink()
        make(path)

    return harm


def known(**changed: Any) -> Harm:
    """Change the coverage of AAPL."""

    def harm(base: Path) -> None:
        content = json.loads((base / COVERAGE).read_text())
        content.update(changed)
        (base / COVERAGE).write_text(json.dumps(content))

    return harm


def folder(path: Path) -> None:
    path.mkdir(parents=True)


def loop(path: Path) -> None:
    path.symlink_to(path)


def copied(key: str) -> Harm:
    def harm(base: Path) -> None:
        path = base / key
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(base / BAR, path)

    return harm


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no space on the disk, and more memory than there is


def many_columns(path: Path) -> None:
    pq.write_table(pa.table({f"column_{number}": [1] for number in range(3000)}), path)


ESC = "\x1b[31m\r\nevil"

STORES: dict[str, Harm] = {
    # Bar files.
    "bar-empty": put(BAR, b""),
    "bar-damaged": put(BAR, b"PAR1" + bytes(100) + b"PAR1"),
    "bar-of-another-series-damaged": put(OTHER, b"x" * 100),
    "bar-whose-footer-is-huge": put(OTHER, b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
    "bar-pipe": made_of(OTHER, os.mkfifo),
    "bar-folder": made_of(OTHER, folder),
    "bar-dangling": made_of(OTHER, lambda path: path.symlink_to("nowhere")),
    "bar-loop": made_of(OTHER, loop),
    "bar-device": made_of(OTHER, lambda path: path.symlink_to("/dev/zero")),
    "bar-socket": made_of(OTHER, lambda path: os.mknod(path, 0o140600)),
    "bar-sparse": made_of(OTHER, sparse),
    "bar-of-many-columns": made_of(OTHER, many_columns),
    "coverage-of-holes": made_of(OTHERS, sparse),
    "folder-that-contains-the-store": made_of(f"{DATASET}/symbol=C", lambda path: path.symlink_to("/")),
    "folder-above": made_of(f"{DATASET}/symbol=C", lambda path: path.symlink_to("..")),
    "bar-csv": put(OTHER, b"timestamp,open\n1,2\n"),
    "bar-copied-to-another-month": copied(f"{DATASET}/symbol=AAPL/year=2024/month=07/data.parquet"),
    "bar-copied-to-another-symbol": copied(f"{DATASET}/symbol=ZZZ/{MONTH}"),
    "bar-without-month": copied(f"{DATASET}/symbol=AAPL/year=2024/data.parquet"),
    "bar-of-the-legacy-pipeline": copied(f"{DATASET}/symbol=AAPL/year=2024/month=6/data_0.parquet"),
    "bar-hidden": copied(f"{DATASET}/symbol=AAPL/year=2024/month=06/.data.parquet"),
    "bar-missing": lambda base: (base / BAR).unlink(),
    # Folders.
    "year-9999": copied(f"{DATASET}/symbol=AAPL/year=9999/month=12/data.parquet"),
    "year-0": copied(f"{DATASET}/symbol=AAPL/year=0000/month=01/data.parquet"),
    "year-1": copied(f"{DATASET}/symbol=AAPL/year=0001/month=01/data.parquet"),
    "year-99999": copied(f"{DATASET}/symbol=AAPL/year=99999/month=01/data.parquet"),
    "year-of-other-digits": copied(f"{DATASET}/symbol=AAPL/year=\u0662\u0660\u0662\u0664/month=06/data.parquet"),
    "year-negative": copied(f"{DATASET}/symbol=AAPL/year=-001/month=01/data.parquet"),
    "year-9999-of-days": copied("equities_1day/symbol=AAPL/year=9999/data.parquet"),
    "month-13": copied(f"{DATASET}/symbol=AAPL/year=2024/month=13/data.parquet"),
    "month-0": copied(f"{DATASET}/symbol=AAPL/year=2024/month=00/data.parquet"),
    "symbol-empty": copied(f"{DATASET}/symbol=/{MONTH}"),
    "symbol-with-escapes": copied(f"{DATASET}/symbol=%1B%5B31m%0D%0Aevil/{MONTH}"),
    "symbol-with-raw-escapes": copied(f"{DATASET}/symbol={ESC}/{MONTH}"),
    "symbol-with-percent": copied(f"{DATASET}/symbol=%/{MONTH}"),
    "symbol-with-bad-utf-8": copied(f"{DATASET}/symbol=%FF%FE/{MONTH}"),
    "symbol-of-dots": copied(f"{DATASET}/symbol=%2E%2E%2Fetc/{MONTH}"),
    "symbol-long": copied(f"{DATASET}/symbol={'A' * 200}/{MONTH}"),
    "symbol-in-lower-case": copied(f"{DATASET}/symbol=aapl/{MONTH}"),
    "name-that-is-not-utf-8": raw(b"equities_1min/symbol=\xff\xfe/year=2024/month=06/data.parquet"),
    "dataset-that-is-not-utf-8": raw(b"equities_\xff/symbol=A/year=2024/month=06/data.parquet"),
    "file-name-that-is-not-utf-8": raw(b"equities_1min/\xff.parquet"),
    "dataset-of-no-timeframe": copied(f"equities_never/symbol=A/{MONTH}"),
    "dataset-with-escapes": copied(f"equities_{ESC}/symbol=A/{MONTH}"),
    "dataset-that-is-a-file": put("equities_5min"),
    "dataset-link-to-itself": made_of(f"{DATASET}/symbol=C", loop),
    "deep": put("/".join([DATASET, *["d" * 50] * 30, "x"])),
    # Coverage.
    "coverage-empty": put(COVERAGE, b""),
    "coverage-damaged": put(COVERAGE, b"{"),
    "coverage-a-list": put(COVERAGE, b"[]"),
    "coverage-null": put(COVERAGE, b"null"),
    "coverage-binary": put(COVERAGE, bytes(range(256))),
    "coverage-nested": put(COVERAGE, b"[" * 100_000),
    "coverage-huge-number": put(COVERAGE, b'{"format":' + b"1" * 5000 + b"}"),
    "coverage-of-a-later-format": known(format=99),
    "coverage-of-no-format": known(format=None),
    "coverage-of-another-series": lambda base: shutil.copy(base / COVERAGE, base / OTHERS),
    "coverage-wanted-to-the-end": known(wanted=[["2024-06-03T04:00:00Z", "9999-12-31T23:59:59Z"]]),
    "coverage-covered-to-the-end": known(covered=[["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]]),
    "coverage-reversed": known(covered=[["2024-06-05T00:00:00Z", "2024-06-03T00:00:00Z"]]),
    "coverage-overlapping": known(covered=[["2024-06-03T04:00:00Z", "2024-06-05T04:00:00Z"]] * 2),
    "coverage-of-words": known(covered=[["soon", "later"]]),
    "coverage-without-a-zone": known(covered=[["2024-06-03T04:00:00", "2024-06-04T04:00:00"]]),
    "coverage-of-numbers": known(covered=7),
    "coverage-rows-of-10^400": known(rows={"2024-06": 10**400}),
    "coverage-rows-negative": known(rows={"2024-06": -1}),
    "coverage-rows-of-a-float": known(rows={"2024-06": 1e308}),
    "coverage-rows-of-no-month": known(rows={"2024-13": 1}),
    "coverage-failure-with-escapes": known(failure={"code": ESC, "message": ESC * 100, "when": "2024-06-03T00:00:00Z"}),
    "coverage-failure-with-a-surrogate": known(failure={"code": "x", "message": "\ud800", "when": "2024-06-03T00:00:00Z"}),
    "coverage-pipe": made_of(OTHERS, os.mkfifo),
    "coverage-folder": made_of(OTHERS, folder),
    "coverage-device": made_of(OTHERS, lambda path: path.symlink_to("/dev/zero")),
    "coverage-sparse": made_of(OTHERS, sparse),
    "coverage-loop": made_of(OTHERS, loop),
    "coverage-name-that-is-not-utf-8": raw(b"metadata/coverage/equities_1min/symbol=\xff.json", b"{}"),
    "coverage-name-with-escapes": put(f"metadata/coverage/{DATASET}/symbol=%1B%5B31m.json", b"{}"),
    "coverage-dataset-of-nothing": put("metadata/coverage/other/symbol=A.json", b"{}"),
    # Lists, requests, actions, drafts.
    "index-damaged": put("metadata/indices/list.csv", b"\xff\xfe\x00"),
    "index-sparse": made_of("metadata/indices/list.csv", sparse),
    "index-pipe": made_of("metadata/indices/other.csv", os.mkfifo),
    "index-with-escapes": put("metadata/indices/odd.csv", f"symbol,added_date\n{ESC},2024-01-01\n".encode()),
    "index-name-that-is-not-utf-8": raw(b"metadata/indices/\xff.csv", b"symbol,added_date\n"),
    "requests-damaged": put("metadata/wanted/0.json", b"{"),
    "requests-to-the-end": put("metadata/wanted/0.json", b'{"format":1,"wanted":[]}'),
    "requests-pipe": made_of("metadata/wanted/1.json", os.mkfifo),
    "actions-nested": put("metadata/actions/symbol=AAPL.json", b"[" * 100_000),
    "actions-sparse": made_of("metadata/actions/symbol=AAPL.json", sparse),
    "requests-sparse": made_of("metadata/wanted/1.json", sparse),
    "actions-damaged": put("metadata/actions/symbol=AAPL.json", b"{"),
    "draft-left": put("metadata/drafts/00-" + "0" * 32 + ".tmp"),
    "draft-pipe": made_of("metadata/drafts/01-" + "0" * 32 + ".tmp", os.mkfifo),
    "runs-damaged": put("metadata/runs/2024-06.jsonl", b"{\n\xff\n[\n"),
    "unknown-files": put("metadata/unknown/x"),
    "file-beside": put("README"),
}  # fmt: skip

COMMANDS = (
    ("status",),
    ("verify",),
    ("query", "SELECT count(*), (SELECT count(*) >= 0 FROM coverage) FROM bars_1min WHERE symbol = 'KO'"),
)
PLAN = ("ingest", "KO", "--start", "2024-06-03", "--end", "2024-06-04", "--dry-run")


def test_the_table_is_long():
    assert len(STORES) >= 60


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Fail where something hangs: a read of a named pipe, or of a device that never ends."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"hung for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(ran: Ran) -> None:
    assert ran.code in (0, 1, 2, 4, 5), ran.text[:1000]
    assert "internal error" not in ran.text, ran.text[:1500]
    assert "Traceback" not in ran.text
    assert "hung for" not in ran.text
    assert ODD.search(ran.text) is None, ODD.search(ran.text)
    assert len(ran.text) < 20_000


@pytest.mark.parametrize(("name", "harm"), STORES.items(), ids=STORES)
def test_a_store_cannot_hurt(made: Path, tmp_path: Path, name: str, harm: Harm) -> None:
    base = tmp_path / "store"
    shutil.copytree(made, base)
    before = [row for row in rows(base) if row[0] == "KO"]
    harm(base)
    for command in (*COMMANDS, *((PLAN,) if name.startswith(("coverage", "requests", "index")) else ())):
        with bounded(8):
            ran = here(*command, "--base-path", base, url="http://127.0.0.1:9")
        check(ran)
        # The damage of one series is its own; what was requested is known for all or for none.
        if command[0] == "query" and name not in ("requests-damaged", "requests-to-the-end", "requests-pipe", "requests-sparse"):
            assert (ran.code, str(len(before)) in ran.out) == (0, True), ran.text[:1500]
    # No command wrote anything.
    assert [row for row in rows_of(base) if row[0] == "KO"] == before


def rows_of(base: Path) -> list[Any]:
    """Return the bars of KO, by its own files."""
    alone = base.parent / "alone"
    shutil.copytree(base / DATASET / "symbol=KO", alone / DATASET / "symbol=KO")
    return rows(alone)
