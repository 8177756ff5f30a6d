"""What lies in the files of a store, read with pyarrow and json alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.market.series import Timeframe

from .market import Values, floor, instant, micros

COLUMNS = ("open", "high", "low", "close", "volume", "trade_count", "vwap")

Key = tuple[str, str]
"""Dataset and symbol."""

Rows = dict[int, Values]

Spans = list[tuple[int, int]]

_PATH = re.compile(r"(equities_[^/]+)/symbol=([^/]+)/year=(\d{4})(?:/month=(\d\d))?/data\.parquet")


class Misplaced(Exception):
    """A row is where it does not belong."""


def joined(spans: Iterable[tuple[int, int]]) -> Spans:
    made: Spans = []
    for start, end in sorted(spans):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        elif start < end:
            made.append((start, end))
    return made


def minus(spans: Iterable[tuple[int, int]], taken: Iterable[tuple[int, int]]) -> Spans:
    left = joined(spans)
    for cut_start, cut_end in joined(taken):
        left = [
            piece
            for start, end in left
            for piece in ((start, min(end, cut_start)), (max(start, cut_end), end))
            if piece[0] < piece[1]
        ]
    return left


def common(one: Iterable[tuple[int, int]], other: Iterable[tuple[int, int]]) -> Spans:
    others = joined(other)
    if not others:
        return []
    pieces = ((max(start, low), min(end, high)) for start, end in joined(one) for low, high in others)
    return [(start, end) for start, end in pieces if start < end]


def inside(stamp: int, spans: Iterable[tuple[int, int]]) -> bool:
    for start, end in spans:  # noqa: SIM110 - much faster than `any` of a generator
        if start <= stamp < end:
            return True
    return False


def shown(spans: Iterable[tuple[int, int]]) -> str:
    return ", ".join(f"{instant(start):%Y-%m-%dT%H:%M:%S}..{instant(end):%Y-%m-%dT%H:%M:%S}" for start, end in spans) or "nothing"


@dataclass
class Claims:
    """What the coverage of a series says."""

    wanted: Spans = field(default_factory=list)
    covered: Spans = field(default_factory=list)
    provisional: Spans = field(default_factory=list)
    tentative: Spans = field(default_factory=list)
    bars: int = 0
    changing: bool = False
    unconfirmed: Spans = field(default_factory=list)
    conflicting: int = 0

    @property
    def all(self) -> Spans:
        return joined([*self.covered, *self.provisional])


@dataclass
class State:
    """Rows and claims by series."""

    rows: dict[Key, Rows] = field(default_factory=dict)
    claims: dict[Key, Claims] = field(default_factory=dict)

    def rows_of(self, key: Key) -> Rows:
        return self.rows.get(key, {})

    def claims_of(self, key: Key) -> Claims:
        return self.claims.get(key) or Claims()

    @property
    def keys(self) -> list[Key]:
        return sorted({*self.rows, *self.claims})


def timeframe_of(dataset: str) -> Timeframe:
    return Timeframe.parse(re.sub(r"^(\d+)([a-z]+)$", lambda m: m[1] + m[2].capitalize(), dataset.split("_")[1]))


def read_state(content: Mapping[str, bytes]) -> State:
    """Read all rows and claims.

    Raises:
        Misplaced: A row is out of order, twice, or in a wrong file.
    """
    state = State()
    for path, data in sorted(content.items()):
        if path.endswith(".parquet"):
            match = _PATH.fullmatch(path)
            if match is None:
                raise Misplaced(f"{path} is no file of a store")
            key = (match[1], unquote(match[2]))
            state.rows.setdefault(key, {}).update(_rows(path, data))
        elif path.startswith("metadata/coverage/"):
            _, _, dataset, name = path.split("/")
            symbol = unquote(name.removeprefix("symbol=").removesuffix(".json"))
            state.claims[dataset, symbol] = _claims(data)
    for path, data in content.items():
        if path.startswith("metadata/wanted/"):
            for row in json.loads(data)["requested"]:
                for symbol in row["symbols"]:
                    claims = state.claims.setdefault((row["dataset"], symbol), Claims())
                    claims.wanted = joined([*claims.wanted, *_spans(row["ranges"])])
    return state


@lru_cache(maxsize=4096)
def _rows(path: str, data: bytes) -> Rows:
    match = _PATH.fullmatch(path)
    assert match is not None
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    stamps = table.column("timestamp").cast("int64").to_pylist()
    timeframe = timeframe_of(match[1])
    if stamps != sorted(set(stamps)):
        before, after = next(pair for pair in pairwise(stamps) if pair[0] >= pair[1])
        raise Misplaced(f"{path} has {instant(after)} after {instant(before)}")
    for when in map(instant, (*stamps[:1], *stamps[-1:])):  # they are in order
        if when.year != int(match[3]) or (match[4] and when.month != int(match[4])):
            raise Misplaced(f"{path} has a bar of {when}")
    for stamp in stamps:
        if floor(stamp, timeframe) != stamp:
            raise Misplaced(f"{path} has a bar of {instant(stamp)}, where none starts")
    columns = [table.column(name).to_pylist() for name in COLUMNS]
    return dict(zip(stamps, zip(*columns, strict=True), strict=True)) if stamps else {}


def _claims(data: bytes) -> Claims:
    fields = json.loads(data)
    return Claims(
        _spans(fields["wanted"]),
        _spans(fields["covered"]),
        _spans(fields["provisional"]),
        _spans(row[:2] for row in fields.get("tentative", ())),
        fields["bars"],
        bool(fields.get("changing") or fields.get("storing")),
        joined(_spans(row[:2] for row in fields.get("unconfirmed", ()))),
        fields.get("conflicting", 0),
    )


def _spans(pairs: Iterable[Any]) -> Spans:
    return [(_micros(start), _micros(end)) for start, end in pairs]


@lru_cache(maxsize=65536)
def _micros(text: str) -> int:
    return micros(datetime.fromisoformat(text))
