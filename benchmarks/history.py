"""What the history of a store costs: its bytes after a year of nightly updates, and its share of the time of an ingest.

    python benchmarks/history.py --symbols 20 --nights 250
    python benchmarks/history.py --symbols 100 --nights 250 --timeframes 1Day --runs 0

The bars are simulated: each symbol pays a dividend in each quarter, so that the bars of the adjusted days are replaced. A symbol is
removed in the middle. The clock of pipeline, server and history moves from night to night.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import numpy as np

from data_engine.alpaca.client import AlpacaClient
from data_engine.ingest.pipeline import IngestionPipeline
from data_engine.market.dates import any_span
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Adjustment, Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.sandbox.bar_columns import Bars
from data_engine.sandbox.server import Sandbox
from data_engine.sandbox.simulated_market import SimulatedMarket
from data_engine.store import local_history
from data_engine.store.bar_store import BarStore
from data_engine.store.history import head
from data_engine.store.history.pack import pack
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.local_files import LocalFiles
from data_engine.store.removal import remove_bars

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

ALL = "all"

FIRST = datetime(2024, 1, 2, 3, tzinfo=UTC)


def names(count: int) -> list[str]:
    """Return symbols of the simulated market."""
    return ["AAPL", "MSFT", "NVDA", "AMZN", "META", *("SIM" + one + other for one in LETTERS for other in LETTERS)][:count]


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Clock(datetime):
    """The clock of the history."""

    at = FIRST

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        """Return the time of the night."""
        del tz
        return cls.at


class PayingMarket(SimulatedMarket):
    """The simulated market, with a dividend of each symbol in each quarter."""

    def bars(
        self, symbol: str, timeframe: Timeframe, span: TimeRange, *, adjustment: Adjustment, feed: str, now: datetime
    ) -> Bars:
        """Return bars; the adjusted ones before a dividend that has been paid are lower by it."""
        found = super().bars(symbol, timeframe, span, adjustment=adjustment, feed=feed, now=now)
        if adjustment.value != ALL:
            return found
        paid = [day for year in (2024, 2025) for month in (3, 6, 9, 12) if (day := datetime(year, month, 15, tzinfo=UTC)) <= now]
        later = sum((found.start < day.timestamp() * 1e9).astype(int) for day in paid) if paid else np.zeros(len(found))
        lower = 0.996**later
        prices = {name: np.round(getattr(found, name) * lower, 4) for name in ("open", "high", "low", "close", "vwap")}
        return replace(found, **prices)


def year(symbols: list[str], nights: int, base: Path, timeframes: list[str]) -> None:
    """Update raw bars and adjusted days each night; print what the history then takes."""
    days = list(sessions((FIRST - timedelta(days=1)).date(), (FIRST + timedelta(days=2 * nights)).date()))[:nights]
    began = time.process_time()
    asked = [*((timeframe, Adjustment()) for timeframe in timeframes), ("1Day", Adjustment(ALL))]
    with Sandbox(PayingMarket(), clock=Clock.now) as server, mock.patch.object(head, "datetime", Clock):
        for number, day in enumerate(days):
            Clock.at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, hours=2)
            for timeframe, adjustment in asked:
                with AlpacaClient("key", "secret", base_url=server.url) as client:
                    pipeline = IngestionPipeline(
                        2,
                        base,
                        adjustment=None if adjustment.is_raw else ALL,
                        client=client,
                        progress=False,
                        now=Clock.now,
                        actions=False,
                    )
                    if number == 0:
                        pipeline.ingest_symbols(symbols, day, timeframe=timeframe)
                    else:
                        pipeline.update(timeframe=timeframe, adjustment=adjustment.value)
            if number == nights // 2:
                removed = [Series(symbols[-1], Dataset(Timeframe.parse(timeframe), one)) for timeframe, one in asked]
                remove_bars(BarStore(LocalFiles(base)), removed, any_span("2016-01-01", "2027-01-01"))
    print(f"{len(symbols)} symbols, {nights} nights, {time.process_time() - began:.0f} CPU-s")
    print_sizes(base)


def print_sizes(base: Path) -> None:
    """Print what files, coverage and history take, in all and for each dataset."""
    history = StoreHistory(LocalFiles(base))
    records = [one for found in history.packs.values() for one in found.records()] + history.records
    print(f"history: {size(base / 'metadata/history'):,} bytes in {len(list((base / 'metadata/history').iterdir()))} files")
    for name in sorted(path.name for path in base.glob("equities_*")):
        kept = []
        for place in (f"{name}/", f"metadata/coverage/{name}/"):
            entries = ((one, tuple(entry for entry in one.entries if entry.key.startswith(place))) for one in records)
            kept.append(len(pack([replace(one, entries=found) for one, found in entries if found])))
        bars, coverage = size(base / name), size(base / "metadata/coverage" / name)
        print(
            f"{name}: bars {bars:,} bytes, their history in one pack {kept[0]:,} ({kept[0] / bars:.1%}); "
            f"coverage {coverage:,}, its history {kept[1]:,}; history / bars and coverage {sum(kept) / (bars + coverage):.1%}"
        )


def ingest_time(symbols: list[str], runs: int) -> None:
    """Print the CPU time of an ingest with and without records, alternating."""

    def once(record: Callable[..., None] | None) -> float:
        base = Path(tempfile.mkdtemp(prefix="history-"))
        try:
            with Sandbox(SimulatedMarket()) as server, AlpacaClient("key", "secret", base_url=server.url) as client:
                pipeline = IngestionPipeline(4, base, client=client, progress=False, actions=False)
                patched = mock.patch.object(local_history.LocalHistory, "record", record) if record else mock.patch.dict({}, {})
                with patched:
                    began = time.process_time()
                    pipeline.ingest_symbols(symbols, "2024-01-02", "2024-06-28")
                    return time.process_time() - began
        finally:
            shutil.rmtree(base)

    once(None)
    with_records, without = [], []
    for _ in range(runs):
        with_records.append(once(None))
        without.append(once(lambda *_, **__: None))
    one, other = sorted(with_records)[runs // 2], sorted(without)[runs // 2]
    print(f"ingest with records {one:.2f} CPU-s, without {other:.2f}: {one / other - 1:+.1%} (medians of {runs})")


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--nights", type=int, default=250)
    parser.add_argument("--timeframes", default="1Min,1Day", help="Of the raw bars, with commas.")
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--keep", type=Path, help="Where to leave the store of the year.")
    options = parser.parse_args()
    base = options.keep or Path(tempfile.mkdtemp(prefix="history-"))
    year(names(options.symbols), options.nights, base, options.timeframes.split(","))
    if options.runs:
        ingest_time(names(8), options.runs)
    if options.keep is None:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
