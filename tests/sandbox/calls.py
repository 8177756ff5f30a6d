"""A plain HTTP client that hides nothing, and files of bars with known content."""

from __future__ import annotations

import http.client
import json
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KEYS = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}
NOW = datetime(2024, 6, 15, 12, tzinfo=UTC)


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    raw: bytes
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


class Caller:
    """One keep-alive connection to a sandbox."""

    def __init__(self, url: str) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)

    def get(
        self, path: str = "/v2/stocks/bars", *, headers: dict[str, str] | None = None, gzip: bool = False, **query: str
    ) -> Response:
        sent = dict(KEYS if headers is None else headers)
        if gzip:
            sent["Accept-Encoding"] = "gzip"
        self.connection.request("GET", f"{path}?{urlencode(query)}" if query else path, headers=sent)
        response = self.connection.getresponse()
        raw = response.read()
        names = {name.lower(): value for name, value in response.getheaders()}
        body = zlib.decompress(raw, 31) if names.get("content-encoding") == "gzip" else raw
        return Response(response.status, names, raw, body)

    def walk(self, **query: str) -> dict[str, list[dict[str, Any]]]:
        """Follow the tokens to the end."""
        bars: dict[str, list[dict[str, Any]]] = {}
        while True:
            page = self.get(**query).json
            for symbol, rows in page["bars"].items():
                bars.setdefault(symbol, []).extend(rows)
            if page["next_page_token"] is None:
                return bars
            query["page_token"] = page["next_page_token"]


def write_bars(path: Path, rows: list[tuple[Any, ...]], *, column: str = "timestamp") -> Path:
    """Write rows of (symbol, timestamp, open, high, low, close, volume)."""
    columns = list(zip(*rows, strict=True))
    kind = pa.timestamp("us", tz="UTC") if column == "timestamp" else pa.date32()
    names = ["symbol", column, "open", "high", "low", "close", "volume"]
    kinds = [pa.string(), kind, *[pa.float64()] * 5]
    pq.write_table(pa.table({n: pa.array(c, k) for n, c, k in zip(names, columns, kinds, strict=True)}), path)
    return path


def minutes_of(symbol: str, count: int, first: datetime = datetime(2024, 6, 3, 13, 30, tzinfo=UTC)) -> list[tuple[Any, ...]]:
    """Return bars in *count* minutes in a row, each with prices that tell the minute."""
    stamps = np.datetime64(first.replace(tzinfo=None), "us") + np.arange(count) * np.timedelta64(1, "m")
    return [
        (symbol, s.item().replace(tzinfo=UTC), 10.0 + i, 11.5 + i, 9.25 + i, 11.0 + i, 100.0 * (i + 1))
        for i, s in enumerate(stamps)
    ]
