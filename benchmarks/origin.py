"""An origin for benchmarks: answers any bars query of the planner at next to no cost.

It serves minute bars of any symbol, 960 a weekday (08:00 to 24:00 UTC) or fewer. The text of a bar does not name its symbol, so all
symbols share one series, written once. It is kept in segments of 80 bars, each deflated on its own and ended with a full flush:
such segments can be joined under one gzip header, and the checksum is computed at the join. Only the ends of a page that fall
inside a segment are compressed on the fly.

    python benchmarks/origin.py --port 0 --start 2016-01-04 --weekdays 2605

prints its URL, and on each empty line that it reads from standard input, the CPU seconds and requests so far.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import sys
import threading
import time
import zlib
from datetime import UTC, date, datetime, timedelta
from email.utils import formatdate
from urllib.parse import parse_qs, urlsplit

import numpy as np
from isal import isal_zlib

SEGMENT = 80
FIRST_MINUTE = 8 * 60
GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
LAST_BLOCK = b"\x03\x00"


class Series:
    """The one series of bars: its text in pieces, and where its days lie."""

    def __init__(self, start: date, weekdays: int, per_day: int) -> None:
        self.per_day = per_day
        days: list[date] = []
        day = start
        while len(days) < weekdays:
            if day.weekday() < 5:
                days.append(day)
            day += timedelta(days=1)
        self.starts = np.array(
            [int(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp()) // 60 + FIRST_MINUTE for d in days], dtype=np.int64
        )
        self.rows = weekdays * per_day
        rng = np.random.default_rng(7)
        steps = rng.integers(-6, 7, self.rows)
        close = 20_000 + np.abs(np.cumsum(steps)) % 20_000
        open_ = close - rng.integers(-4, 5, self.rows)
        high = np.maximum(open_, close) + rng.integers(0, 5, self.rows)
        low = np.minimum(open_, close) - rng.integers(0, 5, self.rows)
        volume = rng.integers(100, 90_000, self.rows)
        trades = volume // 90 + 1
        vwap = (high + low) * 5_000 + rng.integers(0, 9_999, self.rows)
        clocks = [f"T{(FIRST_MINUTE + m) // 60:02d}:{m % 60:02d}:00Z" for m in range(per_day)]
        self.text: list[bytes] = []
        self.packed: list[bytes] = []
        for number, day in enumerate(days):
            at = number * per_day
            stamp = day.isoformat()
            columns = [a[at : at + per_day].tolist() for a in (close, high, low, trades, open_, volume, vwap)]
            bars = [
                f'{{"c":{c / 100},"h":{h / 100},"l":{lo / 100},"n":{n},"o":{o / 100},"t":"{stamp}{clock}","v":{v},"vw":{w / 1000000}}},'
                for c, h, lo, n, o, v, w, clock in zip(*columns, clocks, strict=True)
            ]
            for first in range(0, per_day, SEGMENT):
                text = "".join(bars[first : first + SEGMENT]).encode()
                self.text.append(text)
                self.packed.append(deflated(text))

    def row_at(self, minute: int) -> int:
        """Return the number of the first bar that is not before a minute since 1970."""
        day = int(np.searchsorted(self.starts, minute, side="right")) - 1
        if day < 0:
            return 0
        return day * self.per_day + min(self.per_day, minute - int(self.starts[day]))

    def pieces(self, first: int, stop: int) -> list[tuple[bytes, bytes]]:
        """Return text and deflated text of rows, with a comma after each row."""
        made = []
        while first < stop:
            segment, inside = divmod(first, SEGMENT)
            end = min(stop, (segment + 1) * SEGMENT)
            if inside == 0 and end - first == SEGMENT:
                made.append((self.text[segment], self.packed[segment]))
            else:
                rows = self.text[segment].split(b"},")[inside : inside + end - first]
                text = b"".join(row + b"}," for row in rows)
                made.append((text, deflated(text)))
            first = end
        return made


def deflated(text: bytes) -> bytes:
    """Deflate a piece so that it can stand anywhere in a stream."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)


def stored(text: bytes) -> tuple[bytes, bytes]:
    """Return text and itself as a deflate block that is not compressed."""
    size = len(text)
    return text, b"\x00" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + text


def page(series: Series, query: dict[str, str]) -> tuple[bytes, int]:
    """Return one answer, gzipped, and how many bars it holds."""
    symbols = sorted(query["symbols"].split(","))
    first = series.row_at(-(-nanos(query["start"]) // 60_000_000_000))
    stop = series.row_at(nanos(query["end"]) // 60_000_000_000 + 1)
    budget = int(query.get("limit", "1000"))
    at, row = 0, first
    if "page_token" in query:
        name, number = base64.b64decode(query["page_token"]).decode().split("|")
        at, row = symbols.index(name), int(number)
    parts = [stored(b'{"bars":{')]
    count = 0
    token = b"null"
    while at < len(symbols):
        end = min(stop, row + budget - count)
        if end > row:
            parts.append(stored(b'%s"%s":[' % (b"," if count else b"", symbols[at].encode())))
            rows = series.pieces(row, end)
            if len(rows[-1][0]):
                last = rows.pop()
                text = last[0].rstrip(b",")
                # The last row of a list has no comma: its piece is closed by hand.
                rows.append((text, deflated(text)) if len(text) < 4096 else tail(text))
            parts += rows
            parts.append(stored(b"]"))
            count += end - row
        if end < stop:
            token = b'"' + base64.b64encode(f"{symbols[at]}|{end}".encode()) + b'"'
            break
        at, row = at + 1, first
        if count == budget and at < len(symbols) and stop > first:
            token = b'"' + base64.b64encode(f"{symbols[at]}|{first}".encode()) + b'"'
            break
    parts.append(stored(b'},"next_page_token":' + token + b"}"))
    checksum = size = 0
    for text, _ in parts:
        checksum = isal_zlib.crc32(text, checksum)
        size += len(text)
    trailer = checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
    return b"".join([GZIP_HEAD, *(packed for _, packed in parts), LAST_BLOCK, trailer]), count


_TAILS: dict[bytes, tuple[bytes, bytes]] = {}


def tail(text: bytes) -> tuple[bytes, bytes]:
    """Return a last piece, remembered: pages of one size end in the same places."""
    if text not in _TAILS:
        _TAILS[text] = (text, deflated(text))
    return _TAILS[text]


def nanos(text: str) -> int:
    """Read an RFC-3339 time in UTC as nanoseconds since 1970."""
    whole, _, fraction = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


class Origin:
    """The server: a thread per connection, keep-alive, nothing else."""

    def __init__(self, series: Series, port: int, latency: float) -> None:
        self.series = series
        self.latency = latency
        self.requests = self.bars = 0
        self.listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """Accept for ever."""
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                part = connection.recv(65536)
                if not part:
                    return
                pending += part
            head, _, pending = pending.partition(b"\r\n\r\n")
            url = urlsplit(head.split(b" ", 2)[1].decode())
            response = self.respond(url.path, {name: values[0] for name, values in parse_qs(url.query).items()})
            if self.latency:
                time.sleep(self.latency)
            connection.sendall(response)

    def respond(self, path: str, query: dict[str, str]) -> bytes:  # noqa: ARG002 - this one knows bars alone
        """Return the whole response to a request."""
        body, bars = page(self.series, query)
        self.requests += 1
        self.bars += bars
        return in_http(body, b"Content-Encoding: gzip\r\n")


def in_http(body: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> bytes:
    """Return a response: *headers* are whole lines."""
    return (
        b"HTTP/1.1 %s\r\nContent-Type: application/json; charset=UTF-8\r\n%sDate: %s\r\nContent-Length: %d\r\n\r\n"
        % (status, headers, formatdate(usegmt=True).encode(), len(body))
    ) + body


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--start", type=date.fromisoformat, default=date(2016, 1, 4))
    parser.add_argument("--weekdays", type=int, default=2605)
    parser.add_argument("--per-day", type=int, default=960, help="bars a weekday, a multiple of 80")
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    origin = Origin(Series(options.start, options.weekdays, options.per_day), options.port, options.latency)
    threading.Thread(target=origin.serve, daemon=True).start()
    print(origin.url, flush=True)
    ready = time.process_time()
    for _ in sys.stdin:
        print(json.dumps({"cpu": time.process_time() - ready, "requests": origin.requests, "bars": origin.bars}), flush=True)


if __name__ == "__main__":
    main()
