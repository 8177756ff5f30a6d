"""A vendor that thinks better of its history, and a store that is rechecked every night: a model with a memory of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow.parquet as pq

from data_engine import IngestionPipeline
from data_engine.ingest.recheck import RecheckReport, planned, recheck
from data_engine.ingest.recheck_plan import RecheckPlan
from data_engine.ingest.recheck_tasks import UNSEEN
from data_engine.ingest.recheckable import recheckable
from data_engine.market.bars import make_table
from data_engine.market.bars_page import BarsPage
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Dataset, Feed, Timeframe
from data_engine.market.time_range import TimeRange, new_york_midnight
from data_engine.settings import Settings
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.selection import DatasetFilter
from running import Clock

NEW_YORK = ZoneInfo("America/New_York")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EVERYTHING = DatasetFilter()

Bar = tuple[float, ...]


def micros(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)


@dataclass
class Ask:
    symbols: tuple[str, ...]
    start: int
    end: int


class Vendor:
    """Has bars by symbol and microsecond; answers as a `BarSource`, so many bars a page."""

    feed = Feed.SIP
    credentials_source = "the model"
    recent_refused = False

    def __init__(self, bars: dict[str, dict[int, Bar]], clock: Clock, *, page_bars: int, allowed: float | None = None) -> None:
        self.bars, self.clock, self.page_bars, self.allowed = bars, clock, page_bars, allowed
        self.requests = 0
        self.fail_at: int | None = None
        self.asks: list[Ask] = []

    def begin(self) -> Vendor:
        run = copy(self)
        run.requests = 0
        return run

    @property
    def server_time(self) -> datetime:
        return self.clock.now

    def request(self, symbols: Sequence[str], dataset: Dataset, span: TimeRange, **options: Any) -> Ask | None:
        wide = dataset.timeframe.widen(span).before(options.get("now") or self.clock.now)
        return None if wide is None else Ask(tuple(symbols), micros(wide.start), micros(wide.end))

    def pages(self, ask: Ask) -> Iterator[BarsPage]:
        self.asks.append(ask)
        rows = [
            (symbol, stamp, bar)
            for symbol in ask.symbols
            for stamp, bar in sorted(self.bars.get(symbol, {}).items())
            if ask.start <= stamp < ask.end
        ]
        cuts = [rows[at : at + self.page_bars] for at in range(0, len(rows), self.page_bars)] or [[]]
        for number, cut in enumerate(cuts):
            self.requests += 1
            if self.fail_at is not None and self.requests >= self.fail_at:
                raise KeyboardInterrupt
            yield _page(cut, None if number + 1 == len(cuts) else str(number), EPOCH + timedelta(microseconds=ask.end))

    def stop(self, *, at_once: bool = False) -> None:
        """Nothing is under way when a model stops."""


def _page(rows: list[tuple[str, int, Bar]], token: str | None, until: datetime) -> BarsPage:
    slices: list[tuple[str, int, int]] = []
    for number, (symbol, _, _) in enumerate(rows):
        same = bool(slices) and slices[-1][0] == symbol
        slices[len(slices) - same :] = [(symbol, slices[-1][1] if same else number, number + 1)]
    stamps = np.array([stamp for _, stamp, _ in rows], np.int64)
    columns = np.array([bar for _, _, bar in rows], np.float64).reshape(len(rows), 7).T
    return BarsPage(make_table(stamps, list(columns)), tuple(slices), token, 100, until)


@dataclass
class Thought:
    """Something that the vendor thought better of: what must be found, and when at the latest."""

    kind: str
    appeared: dict[tuple[str, int], Bar] = field(default_factory=dict)
    conflicting: dict[tuple[str, int], Bar | None] = field(default_factory=dict)
    night: int = 0
    within: int = 0
    suspect: bool = False


class World:
    """One store, from one seed.

    Args:
        seed: Of everything.
        base: The folder of the store.
    """

    def __init__(self, seed: object, base: Path) -> None:
        self.random = draw = random.Random(f"second thoughts {seed}")
        self.base = base
        self.intraday = draw.random() < 0.5
        self.dataset = Dataset(Timeframe.parse("1Min" if self.intraday else "1Day"))
        end = date(2024, draw.randint(1, 12), draw.randint(1, 28))
        begin = end - timedelta(days=draw.randint(65, 90) if self.intraday else draw.randint(150, 300))
        self.days = list(sessions(begin, end - timedelta(days=1)))
        self.clock = Clock(datetime.combine(end, time(21), NEW_YORK).astimezone(UTC))
        self.minutes = [600, 630, 800] if self.intraday else [0]
        self.symbols = [f"S{chr(65 + number)}" for number in range(draw.randint(4, 6))]
        self.late = {"SA": len(self.days) // 2, "SB": len(self.days) // 3}
        self.empty = [self.symbols[-1]]
        self.outages = {self.days[at] for at in draw.sample(range(20, len(self.days) - 15), 2)}
        bars: dict[str, dict[int, Bar]] = {symbol: {} for symbol in self.symbols}
        for symbol in self.symbols:
            for number, day in enumerate(self.days):
                there = symbol not in self.empty and number >= self.late.get(symbol, 0) and day not in self.outages
                for minute in self.minutes if there else ():
                    bars[symbol][self.stamp(day, minute)] = self.bar()
        self.limit = draw.choice((1, 2, 6, 12))
        pages = self.limit * draw.randint(4, 15)
        self.vendor = Vendor(bars, self.clock, page_bars=max(4, sum(map(len, bars.values())) // pages))
        settings = Settings(base, "the model", 2, self.limit, None, "http://127.0.0.1:9", None)
        self.pipeline = IngestionPipeline(
            2,
            client=self.vendor,
            settings=settings,
            progress=False,
            now=self.clock,
            actions=False,  # type: ignore[arg-type]
        )
        bars_of = self.pipeline.storage.bars
        bars_of.coverage = CoverageStore(bars_of.files, now=self.clock)
        self.pipeline.ingest_symbols(self.symbols, begin, None, self.dataset.timeframe)
        for days in (draw.randint(8, 40), 1):
            self.clock.now += timedelta(days=days)
            self.pipeline.update()

    def stamp(self, day: date, minute: int) -> int:
        if not self.intraday:
            return micros(new_york_midnight(day))
        return micros(datetime.combine(day, time(minute // 60, minute % 60), NEW_YORK).astimezone(UTC))

    def bar(self) -> Bar:
        price = round(self.random.uniform(5, 500), 2)
        return (price, price + 1, price - 1, price + 0.25, float(self.random.randint(1, 10_000)), 7.0, price)

    # ------------------------------------------------------------------------------------------------------------- thoughts

    def think(self, kind: str, used: set[tuple[str, int]]) -> Thought | None:
        """Change what the vendor has, where nothing changed before; None where there is nothing of the kind left."""
        thought = Thought(kind)
        draw, bars = self.random, self.vendor.bars
        free = [(s, t) for s in self.symbols for t in bars[s] if (s, t) not in used]
        if kind == "late_minute":
            places = [(s, self.stamp(d, 900)) for s in self.symbols if bars[s] for d in self.days if d not in self.outages]
            places = [(s, t) for s, t in places if self.intraday and t > min(bars[s]) and (s, t) not in used]
            chosen = draw.sample(places, min(1, len(places)))
        elif kind == "late_session":  # of an outage
            day = next((d for d in sorted(self.outages) if (self.symbols[2], self.stamp(d, self.minutes[0])) not in used), None)
            traded = [s for s in self.symbols if day and bars[s] and min(bars[s]) < self.stamp(day, 0)]
            chosen = [(s, self.stamp(day, m)) for s in traded for m in self.minutes] if day else []
        elif kind == "before_first_bar":
            late = [s for s in self.late if not any(place[0] == s for place in used)]
            chosen = [(s, self.stamp(self.days[self.late[s] - 3], m)) for s in late[:1] for m in self.minutes]
        elif kind == "empty_series":
            chosen = [(s, self.stamp(self.days[5], m)) for s in self.empty for m in self.minutes]
            chosen = [place for place in chosen if place not in used]
        elif kind == "withdrawn_session":
            days = [
                d for d in self.days[25:-15] if all((s, self.stamp(d, m)) not in used for s in self.symbols for m in self.minutes)
            ]
            day = draw.choice([d for d in days if d not in self.outages] or [self.days[0]])
            chosen = [(s, self.stamp(day, m)) for s in self.symbols for m in self.minutes if self.stamp(day, m) in bars[s]]
        else:
            chosen = [draw.choice(free)]
        for symbol, stamp in chosen:
            used.add((symbol, stamp))
            if kind.startswith("withdrawn"):
                del bars[symbol][stamp]
                thought.conflicting[symbol, stamp] = None
            elif stamp in bars[symbol]:
                old = bars[symbol][stamp]
                column = draw.randrange(7)
                bars[symbol][stamp] = (*old[:column], old[column] + 0.5, *old[column + 1 :])
                thought.conflicting[symbol, stamp] = bars[symbol][stamp]
            else:
                bars[symbol][stamp] = thought.appeared[symbol, stamp] = self.bar()
        return thought if chosen else None

    # --------------------------------------------------------------------------------------------------------------- nights

    def plan(self) -> RecheckPlan:
        """Return what a dry run says."""
        store = self.pipeline.storage.bars
        found = recheckable(store, EVERYTHING, None, now=self.clock.now)
        return planned(store, found, now=self.clock.now, minutes=1, limit=self.limit, page_limit=self.vendor.page_bars)

    def night(self, *, update: bool = True) -> RecheckReport:
        """Do what `update --recheck 1` does, a day later."""
        self.clock.now += timedelta(days=1)
        if update:
            self.pipeline.update()
        return recheck(self.pipeline, EVERYTHING, None, minutes=1, page_limit=self.vendor.page_bars)

    def expect(self, thought: Thought, night: int) -> None:
        """Have a thought be found within as many nights as a dry run says now."""
        plan = self.plan()
        first = [one.task for one in plan.tasks if one.reason != UNSEEN]
        places = [*thought.appeared, *thought.conflicting]
        thought.suspect = all(
            any(symbol in task.symbols and micros(task.range.start) <= stamp < micros(task.range.end) for task in first)
            for symbol, stamp in places
        )
        thought.night, thought.within = night, plan.suspect_nights if thought.suspect else plan.nights
        assert plan.suspect_nights <= max(1, plan.nights // 10)

    def found(self, thought: Thought) -> bool:
        """Tell whether the store has what appeared, and names what conflicts with the vendor's values."""
        stored = {symbol: self.stored(symbol) for symbol, _ in thought.appeared}
        named = {symbol: self.conflicts(symbol) for symbol, _ in thought.conflicting}
        return all(stored[symbol].get(stamp) == bar for (symbol, stamp), bar in thought.appeared.items()) and all(
            stamp in named[symbol] and named[symbol][stamp] == bar for (symbol, stamp), bar in thought.conflicting.items()
        )

    def stored(self, symbol: str) -> dict[int, Bar]:
        """Return the stored bars of a symbol, as any Parquet reader sees them."""
        made: dict[int, Bar] = {}
        for path in self.base.glob(f"{self.dataset.name}/symbol={symbol}/**/*.parquet"):
            table = pq.ParquetFile(path).read()
            stamps, *columns = (table.column(number).to_pylist() for number in range(8))
            made |= {micros(stamp): bar for stamp, *bar in zip(stamps, zip(*columns, strict=True), strict=True) for bar in bar}
        return made

    def conflicts(self, symbol: str) -> dict[int, Bar | None]:
        """Return the conflicting bars that the file of a symbol names."""
        path = self.base / f"metadata/conflicts/{self.dataset.name}/symbol={symbol}.json"
        rows = json.loads(path.read_text())["bars"] if path.exists() else []
        return {micros(datetime.fromisoformat(at)): values and tuple(values) for at, _, values in rows}


KINDS = ("late_minute", "late_session", "before_first_bar", "empty_series", "withdrawn_session", "withdrawn_bar", "revised_bar")


def play(seed: object, base: Path) -> list[Thought]:
    """Play one world to its end; return what the vendor thought better of.

    Raises:
        AssertionError: If something is not found within the nights that a dry run said.
    """
    world = World(seed, base)
    used: set[tuple[str, int]] = set()
    waiting: list[Thought] = []
    thoughts: list[Thought] = []
    todo = world.random.sample(KINDS, 5)
    todo.append(world.random.choice(("late_session", "before_first_bar", "empty_series")))  # the first
    night = 0
    while todo or waiting:
        if todo and (not waiting or world.random.random() < 0.5):
            thought = world.think(todo.pop(), used)
            if thought is not None:
                world.expect(thought, night)
                waiting.append(thought)
                thoughts.append(thought)
        world.night(update=world.random.random() < 0.4)
        night += 1
        waiting = [one for one in waiting if not world.found(one)]
        for one in waiting:
            told = f"{one.kind} of night {one.night} is not found within {one.within} nights (seed {seed})"
            assert night - one.night < one.within, told
    return thoughts
