"""A night of the market: `data-engine update` of many symbols' minutes, days and corporate actions, at an account's rate limit.

    python benchmarks/night.py --symbols 3000

A server in a process of its own has the bars of the last eleven weekdays and no corporate actions. The first ten are ingested
without a limit; then the server admits `--rate` requests a minute, says so in its headers as Alpaca does, and `update` fetches the
last one. Real flushes, on one disk. What is printed: the requests, the seconds that so many take at the limit (an account whose
minute is unused has as many at once), the seconds that the command took, its CPU seconds and its peak memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from origin import Origin, Series, in_http, nanos

from data_engine.sandbox.rate_limit import TokenBucket

HELD = 10

PER_DAY = 400
"""Minutes with a bar of a symbol and day: what most of three thousand symbols have."""

ACTIONS = b'{"corporate_actions":{},"next_page_token":null}'


def weekdays(last: date, count: int) -> list[date]:
    """Return the last weekdays up to a day, in order."""
    days = (last - timedelta(number) for number in itertools.count())
    return sorted(itertools.islice((day for day in days if day.weekday() < 5), count))


class Market(Origin):
    """Minutes as the origin has them, daily bars, no corporate actions, and the rate limit of an account."""

    def __init__(self, days: list[date]) -> None:
        super().__init__(Series(days[0], len(days), PER_DAY), 0, 0.0)
        self.days = [datetime(day.year, day.month, day.day, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC) for day in days]
        self.bucket: TokenBucket | None = None

    def respond(self, path: str, query: dict[str, str]) -> bytes:
        """Return the whole response to a request."""
        limit = b""
        if self.bucket is not None:
            admitted = self.bucket.take()
            limit = "".join(f"{name}: {value}\r\n" for name, value in self.bucket.headers(time.time()).items()).encode()
            if not admitted:
                return in_http(b'{"message":"too many requests."}', limit, b"429 Too Many Requests")
        if path.endswith("/corporate-actions"):
            self.requests += 1
            return in_http(ACTIONS, limit)
        if query["timeframe"] == "1Day":
            self.requests += 1
            return in_http(self.daily(query), limit)
        response = super().respond(path, query)
        return response.replace(b"\r\n", b"\r\n" + limit, 1)

    def daily(self, query: dict[str, str]) -> bytes:
        """Return a page of daily bars: whole symbols, as many as fit."""
        first, last = nanos(query["start"]), nanos(query["end"])
        stamps = [f"{day:%Y-%m-%dT%H:%M:%SZ}" for day in self.days if first <= int(day.timestamp()) * 1_000_000_000 <= last]
        bars = ",".join(
            f'{{"c":101.5,"h":102.25,"l":99.5,"n":900,"o":100.25,"t":"{one}","v":9000,"vw":100.125}}' for one in stamps
        )
        symbols = sorted(query["symbols"].split(","))
        at = int(query.get("page_token", "0"))
        chosen = symbols[at : at + int(query.get("limit", "1000")) // max(1, len(stamps))]
        rest = f'"{at + len(chosen)}"' if at + len(chosen) < len(symbols) else "null"
        text = ",".join(f'"{symbol}":[{bars}]' for symbol in chosen if bars)
        return f'{{"bars":{{{text}}},"next_page_token":{rest}}}'.encode()


def serve(days: list[date]) -> None:
    """Serve; a line of standard input sets the limit, and the number of requests so far is printed."""
    market = Market(days)
    threading.Thread(target=market.serve, daemon=True).start()
    print(market.url, flush=True)
    for line in sys.stdin:
        print(market.requests, flush=True)
        if line.strip():
            market.bucket = TokenBucket(int(line), int(line))


def command(store: Path, url: str, *words: str) -> tuple[float, float, float, dict[str, object]]:
    """Run data-engine; return the wall and CPU seconds, the peak memory in MB, and what it prints as JSON."""
    environment = {**os.environ, "APCA_API_DATA_URL": url, "ALPACA_API_KEY": "key", "ALPACA_SECRET_KEY": "secret"}
    began = time.perf_counter()
    made = subprocess.Popen(
        [sys.executable, "-m", "data_engine", *words, "--base-path", str(store), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    output = made.stdout.read() if made.stdout else b""
    _, status, usage = os.wait4(made.pid, 0)
    found = json.loads(output)
    assert os.waitstatus_to_exitcode(status) == 0, found
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=3000)
    parser.add_argument("--rate", type=int, default=200, help="requests per minute")
    parser.add_argument("--serve", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        return serve([date.fromisoformat(day) for day in options.serve])
    # The server has nothing of today: whatever time it is, the last day is over.
    days = weekdays(datetime.now(UTC).date() - timedelta(days=2), HELD + 1)
    letters = ("".join(one) for one in itertools.product("ABCDEFGHIJKLMNOPQRSTUVWXYZ", repeat=4))
    names = [name for number, name in enumerate(letters) if not number % 37][: options.symbols]
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", *map(str, days)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory(prefix="data-engine-bench-") as scratch:
            store, listed = Path(scratch) / "store", Path(scratch) / "names.txt"
            listed.write_text("\n".join(names))
            for timeframe in ("1Min", "1Day"):
                span = ("--start", str(days[0]), "--end", str(days[HELD - 1]))
                command(store, url, "ingest", "--file", str(listed), *span, "--timeframe", timeframe)

            def requests(line: str = "") -> int:
                print(line, file=server.stdin, flush=True)
                return int(server.stdout.readline())

            before = requests(str(options.rate))
            wall, cpu, memory, found = command(store, url, "update")
            asked = requests() - before
        new = len(names) * (PER_DAY + 1)
        assert found["bars_written"] == new, (found["bars_written"], new)
        needed = asked * 60 / options.rate
        print(
            f"{len(names):,} symbols, {new:,} bars: {asked} requests, {needed:.0f} s at {options.rate} a minute; "
            f"{wall:.0f} s, {cpu:.0f} CPU-s, {memory:.0f} MB"
        )
    finally:
        server.kill()


if __name__ == "__main__":
    main()
