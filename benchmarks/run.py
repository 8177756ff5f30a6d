"""All benchmarks, side by side in one run, as ratios; the result is docs/benchmarks.md.

    make bench                        five rounds, about a quarter of an hour
    python benchmarks/run.py --rounds 1 --only ingest,load

Every command runs as a process of its own and is measured from outside: wall seconds, CPU seconds (user and system, threads
included) and peak resident memory, as the kernel accounts for them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REAL = ROOT.parent / "shared" / "data" / "minute"
EIGHT = tuple("ABCDEFGH")
OURS = 2605  # weekdays, of 960 bars
WITHOUT_COMPILED_CODE = """
from data_engine.alpaca import bars_protocol as wire
wire.library = lambda: None
from data_engine.cli import run
run()
"""
START = "2016-01-04"


@dataclass
class Usage:
    """What a process took."""

    wall: float
    cpu: float
    memory: float  # MB
    output: str


def measured(command: Sequence[str], environment: dict[str, str] | None = None) -> Usage:
    """Run a command to its end and return what it took."""
    with tempfile.TemporaryFile("w+") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})})
        errors = process.stderr.read() if process.stderr else b""
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text[-2000:]}\n{errors.decode()[-2000:]}")
    return Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text)


class Origin:
    """The benchmark's server, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._line().strip()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def counts(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counts: dict[str, float] = json.loads(self._line())
        return counts


@contextmanager
def origin(weekdays: int, per_day: int = 960) -> Iterator[Origin]:
    command = [sys.executable, str(HERE / "origin.py"), "--start", START, "--weekdays", str(weekdays), "--per-day", str(per_day)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Origin(process)
    finally:
        process.kill()
        process.wait()


def end_of(weekdays: int) -> str:
    return str(date.fromisoformat(START) + timedelta(days=weekdays // 5 * 7 + weekdays % 5 - 1))


def our_command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("data-engine")), *arguments]


def environment(url: str) -> dict[str, str]:
    return {"APCA_API_DATA_URL": url, "ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret"}


def size_of(folder: Path, pattern: str = "**/*") -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


@dataclass
class Book:
    """The figures of all rounds, and how they are shown."""

    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)
        print(f"  {name}: {value:,.4g}", flush=True)

    def median(self, name: str) -> float:
        return statistics.median(self.figures[name])

    def ratio(self, name: str, other: str) -> float:
        """Return the median of the ratios, round by round: drift of the machine falls out."""
        pairs = zip(self.figures[name], self.figures[other], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def our_run(book: Book, name: str, program: Sequence[str], workers: int, server: Origin, folder: Path) -> dict[str, float]:
    """Ingest 8 symbols of 2.5 million bars with our *program*, note what it took, and return what it says, with its CPU seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    span = ("--start", START, "--end", end_of(OURS))
    used = measured(
        [*program, "ingest", *EIGHT, *span, "--workers", str(workers), "--base-path", str(folder), "--json"],
        environment(server.url),
    )
    result = json.loads(used.output)
    assert not result["failed"], result["failed"]
    bars = result["bars_written"]
    book.add(f"ours bars/s, {name}", bars / used.wall)
    book.add(f"ours CPU s per million, {name}", used.cpu / bars * 1e6)
    book.add(f"ours peak MB, {name}", used.memory)
    return {**result, "cpu": used.cpu}


def ingest(book: Book, rounds: int, workers: Sequence[int], folder: Path, peers: Path | None) -> None:
    """End to end, origin to Parquet and coverage: ours 8 x 2.5 million bars, the reference 8 x 250,000."""
    theirs = 261
    with origin(OURS) as server:
        for number in range(rounds):
            shutil.rmtree(folder, ignore_errors=True)
            used = measured(
                [sys.executable, str(HERE / "reference.py"), server.url, str(folder), START, end_of(theirs), "8", *EIGHT]
            )
            bars = int(used.output.split()[-1])
            book.add("reference bars/s", bars / used.wall)
            book.add("reference CPU s per million", used.cpu / bars * 1e6)
            book.add("reference peak MB", used.memory)
            for count in workers:
                before = server.counts()
                result = our_run(book, f"{count} workers", our_command(), count, server, folder)
                after = server.counts()
                book.add("origin share of CPU", (after["cpu"] - before["cpu"]) / result["cpu"])
                book.add("requests above the least", result["requests"] / -(-result["bars_written"] // 10_000))
            our_run(book, "8 workers, without compiled code", [sys.executable, "-c", WITHOUT_COMPILED_CODE], 8, server, folder)
            if peers is not None:
                used = measured([str(peers), str(HERE / "peers.py"), "raw", server.url, START, end_of(theirs), "8", *EIGHT])
                bars = json.loads(used.output)["bars"]
                book.add("alpaca-py raw_data bars/s", bars / used.wall)
                book.add("alpaca-py raw_data CPU s per million", used.cpu / bars * 1e6)
                book.add("alpaca-py raw_data peak MB", used.memory)
            print(f"round {number + 1} of {rounds}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)


def memory(book: Book, folder: Path) -> None:
    """Peak memory of 16 workers, 500 symbols x 2 years."""
    names = [f"{a}{b}{c}" for a in "ABCDEFGHIJ" for b in "KLMNOPQRST" for c in "UVWXY"]
    with origin(520, per_day=400) as server:
        listed = folder.with_suffix(".txt")
        listed.write_text("\n".join(names))
        used = measured(
            our_command("ingest", "--file", str(listed), "--start", START, "--end", end_of(520), "--workers", "16",
                        "--base-path", str(folder), "--json"),
            environment(server.url),
        )  # fmt: skip
        book.add("500 symbols x 2 years: peak MB, 16 workers", used.memory)
        book.add("500 symbols x 2 years: bars/s", json.loads(used.output)["bars_written"] / used.wall)
    shutil.rmtree(folder, ignore_errors=True)


def replayed(file: str, symbols: Sequence[str], start: str, end: str, folder: Path) -> None:
    """Ingest a file of real bars through the sandbox."""
    from data_engine import AlpacaClient, IngestionPipeline
    from data_engine.sandbox import Replay, Sandbox

    with Sandbox(Replay(REAL / file)) as server, AlpacaClient("key", "secret", base_url=server.url) as client:
        report = IngestionPipeline(4, folder, client=client, progress=False).ingest_symbols(symbols, start, end)
    assert not report["failed"], report["failed"]


def size(book: Book, folder: Path) -> None:
    """Bytes a bar of real minute bars with extended hours, ours and the reference's."""
    import duckdb

    names = ("AAPL", "NVDA", "SPY", "ACHR", "MSTR", "ARM", "SPCX", "INTC")
    replayed("polygon_sip_ext_8sym_20240603_20240816.parquet", names, "2024-06-03", "2024-08-16", folder)
    with duckdb.connect() as connection:
        columns = "symbol, timestamp, open, high, low, close, volume, trade_count, vwap"
        source = (
            f"read_parquet('{folder}/equities_1min/**/*.parquet', hive_partitioning = true, hive_types = {{'symbol': VARCHAR}})"
        )
        bars = connection.sql(f"SELECT count(*) FROM {source}").fetchall()[0][0]
        connection.execute(
            f"COPY (SELECT {columns}, year(timestamp) AS year, month(timestamp) AS month FROM {source} ORDER BY symbol, timestamp) "
            f"TO '{folder}/reference' (FORMAT parquet, PARTITION_BY (symbol, year, month), OVERWRITE_OR_IGNORE)"
        )
    book.add("ours bytes a bar", size_of(folder / "equities_1min", "**/*.parquet") / bars)
    book.add("reference bytes a bar", size_of(folder / "reference", "**/*.parquet") / bars)
    shutil.rmtree(folder, ignore_errors=True)


def load(book: Book, rounds: int, folder: Path, peers: Path | None) -> None:
    """Reading a symbol-month and a symbol-year (196,718 real bars) to pandas, ours and ArcticDB's."""
    import duckdb

    replayed("polygon_sip_ext_SPY_2024.parquet", ["SPY"], "2024-01-01", "2024-12-31", folder)
    exported = folder / "spy.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT timestamp, open, high, low, close, volume, trade_count, vwap FROM "
            f"read_parquet('{folder}/equities_1min/**/*.parquet') ORDER BY timestamp) TO '{exported}' (FORMAT parquet)"
        )
    for _ in range(3 * rounds):  # seconds each, and what is compared takes milliseconds: the machine's mood would decide
        found = json.loads(measured([sys.executable, str(HERE / "reading.py"), "load", str(folder)]).output)
        for name, seconds in found.items():
            book.add(f"ours load {name} ms", seconds * 1000)
        if peers is not None:
            shutil.rmtree(folder / "arctic", ignore_errors=True)
            used = measured([str(peers), str(HERE / "peers.py"), "arctic", str(exported), str(folder / "arctic")])
            found = json.loads(used.output)
            book.add("ArcticDB read month ms", found["month"] * 1000)
            book.add("ArcticDB read year ms", found["year"] * 1000)
            book.add("ArcticDB write year ms", found["write"] * 1000)
    shutil.rmtree(folder, ignore_errors=True)


def query(book: Book, rounds: int, folder: Path) -> None:
    """One day of 500 symbols, through a view narrowed to that day and through the bare glob."""
    measured([sys.executable, str(HERE / "reading.py"), "fill", str(folder)])
    for _ in range(rounds):
        found = json.loads(measured([sys.executable, str(HERE / "reading.py"), "query", str(folder)]).output)
        book.add("view, one day of 500 symbols, ms", found["view"] * 1000)
        book.add("bare glob, one day of 500 symbols, ms", found["glob"] * 1000)
    shutil.rmtree(folder, ignore_errors=True)


def market(book: Book, rounds: int, folder: Path) -> None:
    """A whole market: 10,000 series of 11 files, 10,000 series of 120 months, and a month of minutes of 500 symbols."""

    def part(*arguments: str) -> dict[str, float]:
        made: dict[str, float] = json.loads(measured([sys.executable, str(HERE / "market_store.py"), *arguments]).output)
        return made

    days, coverage, minutes = (str(folder / name) for name in ("days", "coverage", "minutes"))
    part("days", days)
    part("coverage", coverage)
    part("minutes", minutes)
    kept = folder / "kept"
    shutil.copytree(folder / "days" / "metadata", kept)
    for _ in range(min(3, rounds)):
        plan = part("plan")
        book.add("plan of 11,000 x 10 years, CPU s", plan["seconds"])
        book.add("plan of 11,000 x 10 years, MB", plan["memory"])
        book.add("status of 110,000 files, CPU s", measured(our_command("status", "--base-path", days)).cpu)
        book.add("verify --quick of 110,000 files, CPU s", measured(our_command("verify", "--quick", "--base-path", days)).cpu)
        book.add("status of 10,000 x 120 months, MB", measured(our_command("status", "--base-path", coverage)).memory)
        book.add("update of one new day without the fetch, CPU s", part("update", days)["seconds"])
        shutil.rmtree(folder / "days" / "metadata")  # the update has written to it
        shutil.copytree(kept, folder / "days" / "metadata")
        found = part("load", minutes)
        for what in ("month", "day"):
            book.add(f"500 symbols, {what}, CPU s", found[what])
            book.add(f"500 symbols, {what}, Polars, CPU s", found[f"polars_{what}"])
    shutil.rmtree(folder, ignore_errors=True)


def replaced_by(content: bytes, _: bytes | None) -> bytes:
    return content


def start(book: Book, rounds: int, folder: Path) -> None:
    """Start-up: help, and a run over 500 symbols x 9 years that has nothing to ask."""
    from data_engine.market.dates import any_span
    from data_engine.market.series import Dataset, Series, Timeframe
    from data_engine.store import coverage_file
    from data_engine.store.coverage import Coverage
    from data_engine.store.local_files import LocalFiles
    from data_engine.store.partitions import Partition, Period

    files, span = LocalFiles(folder), any_span("2016-01-01", "2024-12-31")
    rows = {Period(year, month): 8000 for year in range(2016, 2025) for month in range(1, 13)}
    names = [f"{a}{b}{c}" for a in "ABCDEFGHIJ" for b in "KLMNOPQRST" for c in "UVWXY"]
    folder.mkdir(exist_ok=True)
    bars = folder / "bars.parquet"
    bars.write_bytes(b"bars" * 50_000)
    for name in names:
        known = Coverage(
            Series(name, Dataset(Timeframe(1, "Min"))), (span,), (span,), rows=rows, first_bar=span.start, last_bar=span.end
        )
        content = coverage_file.dump(known)
        files.update(coverage_file.key(known.series), partial(replaced_by, content))
        # A counted file that is gone would be fetched again; of those that are there, a run that plans reads none.
        for period in rows:
            path = folder / Partition(known.series, period).key
            path.parent.mkdir(parents=True)
            os.link(bars, path)
    (folder / "names.txt").write_text("\n".join(names))
    for _ in range(max(5, rounds)):
        book.add("--help s", measured(our_command("--help")).wall)
        used = measured(
            our_command("ingest", "--file", str(folder / "names.txt"), "--start", "2016-01-01", "--end", "2024-12-31",
                        "--no-actions", "--base-path", str(folder), "--json"),
            environment("http://127.0.0.1:9"),
        )  # fmt: skip
        assert json.loads(used.output)["requests"] == 0
        book.add("no-op run, 500 symbols x 9 years, s", used.wall)
    shutil.rmtree(folder, ignore_errors=True)


def peer_environment() -> Path | None:
    """Return the Python of the peers' environment, made if need be: ArcticDB pins an older pandas."""
    folder = ROOT / ".venv" / "peers"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        packages = ["arcticdb", "alpaca-py==0.44.0", "pyarrow"]
        try:
            if shutil.which("uv"):
                subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
                subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), *packages], check=True)
            else:
                subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
                subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        except subprocess.CalledProcessError:
            print("the peers cannot be installed here; going on without them", file=sys.stderr)
            return None
        (folder / ".ready").touch()
    return python


def main() -> None:
    parts = ("ingest", "memory", "size", "load", "query", "start", "market")
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(parts))
    parser.add_argument("--workers", default="4,8,32")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    chosen = options.only.split(",")
    workers = [int(count) for count in options.workers.split(",")]
    peers = peer_environment()
    book = Book()
    with tempfile.TemporaryDirectory(prefix="data-engine-bench-") as scratch:
        folder = Path(scratch) / "store"
        runs: dict[str, Callable[[], None]] = {
            "ingest": lambda: ingest(book, options.rounds, workers, folder, peers),
            "memory": lambda: memory(book, folder),
            "size": lambda: size(book, folder),
            "load": lambda: load(book, options.rounds, folder, peers),
            "query": lambda: query(book, options.rounds, folder),
            "start": lambda: start(book, options.rounds, folder),
            "market": lambda: market(book, options.rounds, folder),
        }
        for name in parts:
            if name in chosen:
                if name in ("size", "load") and not REAL.is_dir():
                    print(f"{name}: skipped, there are no real bars at {REAL}")
                    continue
                print(f"{name}:", flush=True)
                runs[name]()
    text = page(book, options, workers)
    print(text)
    if options.write:
        (ROOT / "docs" / "benchmarks.md").write_text(text, encoding="utf-8")


def page(book: Book, options: argparse.Namespace, workers: Sequence[int]) -> str:
    """Return the page: targets first, then every figure."""
    lines = [
        "# Benchmarks",
        "",
        f"Output of `python benchmarks/run.py --rounds {options.rounds} --write` on {date.today().isoformat()}: "
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()} {platform.release()}, Python {platform.python_version()}.\n"
        "The machine is shared and noisy: read the ratios, which are medians over rounds that ran side by side.",
        "",
    ]
    from data_engine.alpaca.page_decoder_native import library

    if library() is None:
        lines += ["There was no C compiler where this was installed: all pages were decoded without compiled code.", ""]
    rows = list(targets(book, workers))
    if rows:
        lines += [
            "| what | here | wanted |",
            "|---|---|---|",
            *(f"| {what} | {seen} | {wanted} |" for what, seen, wanted in rows),
            "",
        ]
    lines += ["## Every figure", "", "| figure | median | least | most | runs |", "|---|---|---|---|---|"]
    for name, values in book.figures.items():
        shown = (statistics.median(values), min(values), max(values))
        lines.append(
            f"| {name} | {' | '.join(f'{value:,.4g}' if value < 1e5 else f'{value:,.0f}' for value in shown)} | {len(values)} |"
        )
    return "\n".join([*lines, "", (HERE / "about.md").read_text(encoding="utf-8")])


def targets(book: Book, workers: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """Yield what was promised, what was seen, and what was wanted."""
    known = book.figures
    for count in workers:
        if f"ours bars/s, {count} workers" in known:
            ratio = book.ratio(f"ours bars/s, {count} workers", "reference bars/s")
            speed = book.median(f"ours bars/s, {count} workers") / 1e6
            yield (
                f"end to end, {count} workers: times the reference",
                f"{ratio:.1f} x ({speed:.2f} M bars/s)",
                "20 x (1.67 M bars/s quiet)",
            )
            yield (
                f"CPU seconds per million bars, {count} workers",
                f"{book.median(f'ours CPU s per million, {count} workers'):.2f}",
                "1.0",
            )
    if "500 symbols x 2 years: peak MB, 16 workers" in known:
        yield (
            "peak memory, 16 workers, 500 symbols x 2 years",
            f"{book.median('500 symbols x 2 years: peak MB, 16 workers'):.0f} MB",
            "400 MB",
        )
    pairs = [
        ("bytes a bar, real minutes", "ours bytes a bar", "reference bytes a bar", "0.60 x"),
        ("load of a symbol-month, against ArcticDB", "ours load month ms", "ArcticDB read month ms", "1.0 x"),
        ("load of a symbol-year, against ArcticDB", "ours load year ms", "ArcticDB read year ms", "3 x"),
        ("one day of 500 symbols: bare glob against the view", "bare glob, one day of 500 symbols, ms", "view, one day of 500 symbols, ms", "5 x"),
        ("500 symbols x a month of minutes to pandas, CPU against Polars", "500 symbols, month, CPU s", "500 symbols, month, Polars, CPU s", "1.5 x"),
    ]  # fmt: skip
    for what, mine, other, wanted in pairs:
        if mine in known and other in known:
            yield what, f"{book.ratio(mine, other):.2f} x", wanted
    for what, name, wanted in (
        ("`data-engine --help`", "--help s", "0.15 s"),
        ("no-op run, 500 symbols x 9 years", "no-op run, 500 symbols x 9 years, s", "1.5 s"),
    ):
        if name in known:
            yield what, f"{book.median(name):.2f} s", wanted
    for name, wanted in (
        ("plan of 11,000 x 10 years, CPU s", "3"),
        ("plan of 11,000 x 10 years, MB", "200"),
        ("status of 110,000 files, CPU s", "1.5"),
        ("update of one new day without the fetch, CPU s", "12"),
        ("verify --quick of 110,000 files, CPU s", "12"),
        ("status of 10,000 x 120 months, MB", "300"),
        ("500 symbols, day, CPU s", "1.2"),
    ):
        if name in known:
            yield name, f"{book.median(name):,.2f}", wanted


if __name__ == "__main__":
    main()
