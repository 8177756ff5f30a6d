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
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from origin import Origin, Series, in_http
from run import Usage, environment, measured, our_command

from data_engine.sandbox.rate_limit import TokenBucket
from market import names, page_of_days

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
        starts = [datetime(day.year, day.month, day.day, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC) for day in days]
        stamps = [f"{start:%Y-%m-%dT%H:%M:%SZ}" for start in starts]
        self.days = {
            stamp: f'{{"c":101.5,"h":102.25,"l":99.5,"n":900,"o":100.25,"t":"{stamp}","v":9000,"vw":100.125}}' for stamp in stamps
        }
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
            return in_http(page_of_days(self.days, query), limit)
        response = super().respond(path, query)
        return response.replace(b"\r\n", b"\r\n" + limit, 1)


def serve(days: list[date]) -> None:
    """Serve; a line of standard input sets the limit, and the number of requests so far is printed."""
    market = Market(days)
    threading.Thread(target=market.serve, daemon=True).start()
    print(market.url, flush=True)
    for line in sys.stdin:
        print(market.requests, flush=True)
        if line.strip():
            market.bucket = TokenBucket(int(line), int(line))


def command(store: Path, url: str, *words: str) -> tuple[Usage, int]:
    """Run data-engine; return what it used, and how many bars it wrote."""
    used = measured(our_command(*words, "--base-path", str(store), "--json"), environment(url))
    return used, json.loads(used.output)["bars_written"]


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
    symbols = names(options.symbols)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", *map(str, days)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    questions, answers = server.stdin, server.stdout
    assert questions is not None
    assert answers is not None
    try:
        url = answers.readline().strip()
        with tempfile.TemporaryDirectory(prefix="data-engine-bench-") as scratch:
            store, listed = Path(scratch) / "store", Path(scratch) / "names.txt"
            listed.write_text("\n".join(symbols))
            for timeframe in ("1Min", "1Day"):
                span = ("--start", str(days[0]), "--end", str(days[HELD - 1]))
                command(store, url, "ingest", "--file", str(listed), *span, "--timeframe", timeframe)

            def requests(line: str = "") -> int:
                print(line, file=questions, flush=True)
                return int(answers.readline())

            before = requests(str(options.rate))
            used, written = command(store, url, "update")
            asked = requests() - before
        new = len(symbols) * (PER_DAY + 1)
        assert written == new, (written, new)
        needed = asked * 60 / options.rate
        print(
            f"{len(symbols):,} symbols, {new:,} bars: {asked} requests, {needed:.0f} s at {options.rate} a minute; "
            f"{used.wall:.0f} s, {used.cpu:.0f} CPU-s, {used.memory:.0f} MB"
        )
    finally:
        server.kill()


if __name__ == "__main__":
    main()
