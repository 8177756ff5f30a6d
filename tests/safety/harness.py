"""Children that may die, and what must be true of a store whatever happened to it.

What is expected is worked out here from the source of the bars and from plain JSON and Parquet, never with the code under
test. In addition `verify` is to agree.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow.parquet as pq

from data_engine.market.series import Adjustment, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.sandbox import Faults, Replay, Sandbox
from data_engine.store.bar_store import BarStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.removal_mark import is_mark
from data_engine.store.selection import DatasetFilter
from data_engine.verify.verify import verify

from . import market
from .driver import Job
from .market import MIDDLE, NOW, START, SYMBOLS

VALUES = ("open", "high", "low", "close", "volume", "trade_count", "vwap")
MINUTES = Timeframe.parse("1Min")
_ALL = TimeRange(datetime(2016, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


class Children:
    """A process that forks a child for every job."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "safety.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        hello = self._hear()
        assert hello == {"ready": True, "threads": 1}

    def start(self, job: Job) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(job.line())
        self._server.stdin.flush()

    def finish(self) -> dict[str, Any]:
        told = self._hear()
        assert told.get("code") != 99, told["trace"]
        return told

    def run(self, job: Job) -> dict[str, Any]:
        self.start(job)
        return self.finish()

    def close(self) -> None:
        self._server.communicate(timeout=60)

    def _hear(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the process that forks has died"
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def children() -> Iterator[Children]:
    made = Children()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def served(source: Replay, faults: Faults | None = None, **named: Any) -> Iterator[Sandbox]:
    with Sandbox(source, clock=lambda: NOW, faults=faults, **named) as sandbox:
        yield sandbox


# ------------------------------------------------------------------------------------------------------------- the truth

Rows = dict[int, tuple[float, ...]]
"""Bars by stamp, in microseconds since 1970."""


def truth_of(source: Replay, symbols: Sequence[str] = SYMBOLS, adjustment: str = "raw") -> dict[str, Rows]:
    """Return what the server would tell of each symbol, at `NOW`."""
    truth = {}
    for symbol in symbols:
        bars = source.bars(symbol, MINUTES, _ALL, adjustment=Adjustment.parse(adjustment), feed="sip", now=NOW)
        stamps = (bars.start // 1000).tolist()
        truth[symbol] = dict(zip(stamps, zip(*(column.tolist() for column in bars.values), strict=True), strict=True))
    return truth


# ------------------------------------------------------------------------------------------------- what is on the disk


def rows_in(path: Path) -> Rows:
    """Read one file of bars as it is; it must be sorted, without doubles."""
    table = pq.ParquetFile(path).read()
    assert table.column_names == ["timestamp", *VALUES], path
    stamps = table["timestamp"].cast("int64").to_numpy()
    assert (np.diff(stamps) > 0).all(), f"{path} is not sorted, or has a bar twice"
    assert len(stamps) or is_mark(path.name, path.stat().st_size), f"{path} is empty"
    columns = [table[name].to_pylist() for name in VALUES]
    return dict(zip(stamps.tolist(), zip(*columns, strict=True), strict=True))


def bars_on(base: Path, symbol: str, dataset: str = "equities_1min") -> Rows:
    rows: Rows = {}
    for path in sorted((base / dataset / f"symbol={quote(symbol, safe='')}").glob("**/*.parquet")):
        year, month = (int(part.split("=")[1]) for part in path.parts[-3:-1])
        found = rows_in(path)
        inside = {datetime.fromtimestamp(stamp / 1e6, UTC).strftime("%Y %m") for stamp in found}
        assert not found or inside == {f"{year} {month:02d}"}, f"{path} holds bars of {inside}"
        rows |= found
    return rows


def coverage_on(base: Path, symbol: str, dataset: str = "equities_1min") -> dict[str, Any]:
    """Return a series' coverage file as plain JSON; nothing where there is none."""
    path = base / "metadata" / "coverage" / dataset / f"symbol={quote(symbol, safe='')}.json"
    return json.loads(path.read_bytes()) if path.exists() else {}


def _microseconds(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1e6)


def check_whole(base: Path, truths: Sequence[dict[str, Rows]], dataset: str = "equities_1min", *, claims: bool = True) -> None:
    """Check everything that must be true of a store at any moment, also right after a kill.

    Args:
        base: of the store.
        truths: versions of the source that the store may have met. A bar on disk is a bar of one of them; with *claims*,
            what a series' coverage says is there equals one of them, the same one for all its ranges.
        dataset: that is looked at.
        claims: whether to hold coverage against the truth, too.
    """
    folders = [path for path in base.glob("*") if path.name != "metadata"]
    assert {path.name for path in folders} <= {dataset}
    for path in base.rglob("*"):
        if path.is_dir():
            continue
        where = path.relative_to(base).parts
        if where[0] == dataset:
            # Its content is read below: every file of the folder of a symbol.
            assert path.name == "data.parquet", f"{path} lies among the bars"
            assert unquote(where[1].removeprefix("symbol=")) in truths[0], path
        elif where[:2] == ("metadata", "history"):
            assert path.name.replace("-", "").isdigit(), path
        else:
            assert path.suffix in (".json", ".jsonl", ".csv", ".lock", ".tmp"), path
            assert (path.suffix == ".jsonl") == (where == ("metadata", "log", "runs.jsonl")), path
            assert (path.suffix == ".tmp") == (where[:2] == ("metadata", "drafts")), path
    for symbol in truths[0]:
        held, known = bars_on(base, symbol, dataset), coverage_on(base, symbol, dataset)
        for stamp, values in held.items():
            assert any(truth[symbol].get(stamp) == values for truth in truths), f"{symbol} {stamp}: a bar that nobody sent"
        ranges = [tuple(map(_microseconds, pair)) for pair in known.get("covered", []) + known.get("provisional", [])]
        if claims and ranges:
            claimed = _inside(held, ranges)
            assert any(claimed == _inside(truth[symbol], ranges) for truth in truths), (
                f"{symbol}: the coverage {known['covered']} + {known['provisional']} is not what is on disk"
            )


def check_killed(base: Path, truths: Sequence[dict[str, Rows]], dataset: str = "equities_1min", *, claims: bool = True) -> None:
    """Check all that, and that `verify` names no inconsistency: a killed run has not damaged the store."""
    check_whole(base, truths, dataset, claims=claims)
    found = verify(BarStore(LocalFiles(base)), DatasetFilter(), now=NOW).inconsistencies
    assert not found, [str(one) for one in found]


def _inside(rows: Rows, ranges: Sequence[tuple[int, ...]]) -> Rows:
    return {stamp: values for stamp, values in rows.items() if any(start <= stamp < end for start, end in ranges)}


@dataclass(frozen=True)
class Snapshot:
    """What two stores must have in common to be the same: files of bars and of lists, byte for byte, and coverage."""

    files: dict[str, bytes] = field(repr=False)
    coverage: dict[str, Any] = field(repr=False)

    def without(self, name: str) -> Snapshot:
        """Return the same without one field of every coverage file."""
        coverage = {path: {key: value for key, value in known.items() if key != name} for path, known in self.coverage.items()}
        return Snapshot(self.files, coverage)

    def differences(self, other: Snapshot) -> list[str]:
        names = sorted(self.files.keys() | other.files.keys())
        found = [f"{name}: other bytes" for name in names if self.files.get(name) != other.files.get(name)]
        for name in sorted(self.coverage.keys() | other.coverage.keys()):
            left, right = (side.coverage.get(name, {}) for side in (self, other))
            keys = sorted(left.keys() | right.keys())
            found += [f"{name}: {k}: {left.get(k)} / {right.get(k)}" for k in keys if left.get(k) != right.get(k)]
        return found


def snapshot(base: Path) -> Snapshot:
    files: dict[str, bytes] = {}
    coverage: dict[str, Any] = {}
    for path in sorted(base.rglob("*")):
        name = path.relative_to(base).as_posix()
        if name.startswith(("metadata/history/", "metadata/log/")):
            continue  # it says how the store came to be, and that differs where the end is the same
        if path.is_file() and is_mark(name, path.stat().st_size):
            continue  # a file that was removed from a bucket, by a process that was killed before it removed the mark
        if path.suffix == ".json":
            # When something was asked says how the store came to be, too: `tentative` is what was found empty, and when.
            told = json.loads(path.read_bytes())
            coverage[name] = {key: value for key, value in told.items() if key not in ("updated", "begun", "tentative")}
        elif path.suffix == ".csv":
            # The day on which a member was added is that of the run.
            files[name] = b"\n".join(line.split(b",")[0] for line in path.read_bytes().splitlines())
        elif path.is_file() and path.suffix != ".lock":
            files[name] = path.read_bytes()
    return Snapshot(files, coverage)


def same(base: Path, expected: Snapshot) -> None:
    """Check that a store ended as it should, with nothing left over."""
    assert drafts_on(base) == [], f"left over: {drafts_on(base)}"
    differences = snapshot(base).differences(expected)
    assert not differences, "\n".join(["found / expected:", *differences])


def drafts_on(base: Path) -> list[str]:
    return sorted(path.name for path in (base / "metadata" / "drafts").glob("*"))


# ------------------------------------------------------------------------------------------------------------- scenarios


@dataclass(frozen=True)
class Scenario:
    """Something that is done to a store, and what must have come of it, whoever was killed on the way.

    Attributes:
        name: of it.
        template: the store before.
        job: what is done.
        again: what is done after a kill; it must bring the same end.
        truths: what the store may hold on the way.
        claims: whether coverage must be true of one of them at any moment. (While held bars are being refetched in place
            it is true of neither: some files are revised, some not yet.)
        dataset: whose.
        expected: the end.
        points: how often each kill point is reached.
        seconds: how long it takes, undisturbed.
    """

    name: str
    template: Path
    job: Job
    again: Job
    truths: tuple[dict[str, Rows], ...]
    claims: bool
    dataset: str
    expected: Snapshot
    points: dict[str, int]
    seconds: float

    def kill(self, forks: Children, folder: Path, deaths: Sequence[dict[str, Any]]) -> int:
        """Do it with kills in a row, check the store after each, then let it end in peace. Return how many were killed."""
        base = folder / "store"
        shutil.copytree(self.template, base)
        killed = 0
        job = self.job
        for death in deaths:
            killed += forks.run(replace(job, base=str(base), **death))["killed"]
            check_killed(base, self.truths, self.dataset, claims=self.claims)
            job = self.again
        told = forks.run(replace(job, base=str(base)))
        assert not told["killed"]
        assert told["code"] in (0, 1), told
        check_killed(base, self.truths[-1:], self.dataset)
        same(base, self.expected)
        shutil.rmtree(base)
        return killed


class Stage:
    """Servers, forks and templates for all scenarios."""

    def __init__(self, folder: Path, forks: Children) -> None:
        self.folder = folder
        self.forks = forks
        self._scenarios: dict[str, Scenario] = {}
        self.paths = market.write_market(folder)
        self.original, self.revised, self.split = (make(self.paths) for make in (market.original, market.revised, market.split))
        self.sandboxes = [Sandbox(source, clock=lambda: NOW) for source in (self.original, self.revised, self.split)]
        for sandbox in self.sandboxes:
            sandbox.start()

    def close(self) -> None:
        for sandbox in self.sandboxes:
            sandbox.close()

    def job(self, **named: Any) -> Job:
        whole = {"symbols": SYMBOLS, "start": START, "url": self.sandboxes[0].url, "now": NOW.isoformat()}
        return Job(**{"base": "", **whole, **named})

    def scenario(self, name: str) -> Scenario:
        """Return a scenario, played once whoever asks for it."""
        if name not in self._scenarios:
            self._scenarios[name] = self._played(name)
        return self._scenarios[name]

    def _played(self, name: str) -> Scenario:
        import time

        second, third = (sandbox.url for sandbox in self.sandboxes[1:])
        was, is_now = truth_of(self.original), truth_of(self.revised)
        adjusted = [truth_of(source, adjustment="split") for source in (self.original, self.split)]
        before: Job | None = None
        job, truths, claims, dataset = self.job(), (was,), True, "equities_1min"
        if name == "first":
            job = self.job(index="six")
        elif name == "extend":
            before = self.job(end=MIDDLE)
        elif name == "update":
            before, job = self.job(end=MIDDLE), self.job(action="update")
        elif name == "refetch":
            before, job = self.job(), self.job(url=second, refetch=True)
            truths, claims = (was, is_now), False
        elif name == "rebase":
            before = self.job(end=MIDDLE, adjustment="split")
            job = self.job(url=third, adjustment="split", start="2024-05-09")
            truths, dataset = tuple(adjusted), "equities_1min_split"
        elif name == "remove":
            before = self.job()
            job = self.job(action="remove", start="2024-04-20T00:00:00+00:00", end="2024-06-06T00:00:00+00:00")
        else:
            raise ValueError(name)
        template = self.folder / name / "before"
        template.mkdir(parents=True)
        if before is not None:
            self.forks.run(replace(before, base=str(template)))
        after = self.folder / name / "after"
        shutil.copytree(template, after)
        started = time.monotonic()
        told = self.forks.run(replace(job, base=str(after)))
        seconds = time.monotonic() - started
        assert told["code"] in (0, 1), told
        check_whole(after, truths[-1:], dataset)
        # After a kill in the middle of a new price base, `update` is what finishes everything that was ever wanted.
        again = replace(job, action="update") if name == "rebase" else job
        return Scenario(name, template, job, again, truths, claims, dataset, snapshot(after), told["points"], seconds)


@contextmanager
def staged(folder: Path | None = None) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as own, children() as forks:
        stage = Stage(folder or Path(own), forks)
        try:
            yield stage
        finally:
            stage.close()
