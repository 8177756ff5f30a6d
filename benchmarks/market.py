"""Many new series at once: what the store costs, against a bare script that writes and flushes the same files.

    python benchmarks/market.py --series 2000
    python benchmarks/market.py --series 11000

A server in a process of its own answers with one month of daily bars of any symbol, at next to no cost. `data-engine ingest` fetches
them into a new store. Then eight threads write the same bar and coverage files to another folder and flush each, and do nothing
else. Both are in one run, on one disk: read the ratio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

START, END = date(2024, 3, 1), date(2024, 3, 28)
DAYS = [day for day in (START + timedelta(number) for number in range((END - START).days + 1)) if day.weekday() < 5]


def stamp(day: date) -> str:
    """Return the start of a New York day, UTC."""
    return f"{day}T{'05' if day < date(2024, 3, 10) else '04'}:00:00Z"


BARS = {
    stamp(
        day
    ): f'{{"c":{100 + number}.5,"h":{101 + number}.25,"l":99.5,"n":{900 + number},"o":100.25,"t":"{stamp(day)}","v":{9000 + 7 * number},'
    f'"vw":{100 + number}.125}}'
    for number, day in enumerate(DAYS)
}


def names(count: int) -> list[str]:
    """Return symbols that are spread over the alphabet."""
    letters = ("".join(one) for one in itertools.product("ABCDEFGHIJKLMNOPQRSTUVWXYZ", repeat=4))
    return [name for number, name in enumerate(letters) if not number % 37][:count]


def page_of_days(bars: Mapping[str, str], query: Mapping[str, str]) -> bytes:
    """Return a page of daily bars that all symbols share: whole symbols, as many as fit.

    Args:
        bars: The text of each bar, by its stamp.
        query: The parameters of the request.
    """
    symbols = sorted(query["symbols"].split(","))
    first = int(query.get("page_token", "0"))
    chosen_bars = [bar for stamp, bar in bars.items() if query["start"] <= stamp <= query["end"]]
    chosen = symbols[first : first + int(query.get("limit", "1000")) // max(1, len(chosen_bars))]
    text = ",".join(f'"{symbol}":[{",".join(chosen_bars)}]' for symbol in chosen if chosen_bars)
    rest = f'"{first + len(chosen)}"' if first + len(chosen) < len(symbols) else "null"
    return f'{{"bars":{{{text}}},"next_page_token":{rest}}}'.encode()


class Handler(BaseHTTPRequestHandler):
    """Answers any query of daily bars: whole symbols, as many as fit on a page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        body = page_of_days(BARS, query)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve() -> None:
    """Serve until the process is killed; print the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def ingested(url: str, names: list[str], folder: Path, workers: int) -> tuple[float, float, float]:
    """Ingest a month of days into a new store; return the wall seconds, those of the run alone, and the CPU seconds."""
    listed = folder.with_suffix(".txt")
    listed.write_text("\n".join(names))
    words = ["ingest", "--file", str(listed), "--start", str(START), "--end", str(END), "--timeframe", "1Day", "--no-actions"]
    words += ["--workers", str(workers), "--base-path", str(folder), "--json"]
    environment = {**os.environ, "APCA_API_DATA_URL": url, "ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "data_engine", *words], env=environment, capture_output=True, text=True, check=True
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(done.stdout)
    assert result["bars_written"] == len(names) * len(DAYS), result["failed"][:3]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, result["elapsed_seconds"], cpu


def bare(store: Path, folder: Path) -> tuple[float, float]:
    """Write the bar and coverage files of a store to another folder, each flushed; return the wall and CPU seconds."""
    found = [*store.glob("equities_*/**/*.parquet"), *store.glob("metadata/coverage/**/*.json")]
    contents = {folder / path.relative_to(store): path.read_bytes() for path in found}

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(contents[path])
            file.flush()
            os.fsync(file.fileno())

    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, contents))
    return time.perf_counter() - began, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
    symbols = names(options.series)
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip() if server.stdout else ""
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="data-engine-bench-") as scratch:
                store = Path(scratch) / "store"
                wall, run, cpu = ingested(url, symbols, store, options.workers)
                alone, alone_cpu = bare(store, Path(scratch) / "bare")
            print(
                f"{len(symbols):,} series: {wall:.1f} s ({run:.1f} s without the start), {cpu:.1f} CPU-s; "
                f"bare {alone:.2f} s, {alone_cpu:.1f} CPU-s; {wall / alone:.1f} x, {(wall - 3) / alone:.1f} x beyond 3 s"
            )
    finally:
        server.kill()


if __name__ == "__main__":
    main()
