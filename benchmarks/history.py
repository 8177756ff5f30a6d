"""What the history of a store costs: its bytes after a year of nightly updates, and its share of the time of an ingest.

    python benchmarks/history.py --symbols 20 --nights 250

The bars are simulated. The clock of pipeline, server and history moves from night to night.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from data_engine.alpaca.client import AlpacaClient
from data_engine.ingest.pipeline import IngestionPipeline
from data_engine.market.exchange_calendar import sessions
from data_engine.sandbox.server import Sandbox
from data_engine.sandbox.simulated_market import SimulatedMarket
from data_engine.store import local_history
from data_engine.store.history import head

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

FIRST, SPLIT = datetime(2024, 1, 2, 3, tzinfo=UTC), "split"


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
    def now(cls, tz: object = None) -> datetime:
        """Return the time of the night."""
        del tz
        return cls.at


def year(symbols: list[str], nights: int, base: Path) -> None:
    """Update minutes, raw days and split-adjusted days each night; print what the history then takes."""
    days = list(sessions((FIRST - timedelta(days=1)).date(), (FIRST + timedelta(days=2 * nights)).date()))[:nights]
    began = time.process_time()
    with Sandbox(SimulatedMarket(), clock=Clock.now) as server, mock.patch.object(head, "datetime", Clock):
        for number, day in enumerate(days):
            Clock.at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, hours=2)
            for adjustment in (None, SPLIT):
                with AlpacaClient("key", "secret", base_url=server.url) as client:
                    pipeline = IngestionPipeline(
                        2, base, adjustment=adjustment, client=client, progress=False, now=Clock.now, actions=False
                    )
                    for timeframe in ("1Min", "1Day") if adjustment is None else ("1Day",):
                        if number == 0:
                            pipeline.ingest_symbols(symbols, day, timeframe=timeframe)
                        elif timeframe == "1Min":
                            pipeline.update(timeframe=timeframe, adjustment="raw")
                        else:
                            pipeline.update(timeframe=timeframe, adjustment=adjustment or "raw")
    history = size(base / "metadata/history")
    for dataset in ("equities_1min", "equities_1day", "equities_1day_split"):
        print(f"{dataset}: {size(base / dataset):,} bytes")
    print(f"history: {history:,} bytes in {sum(1 for _ in (base / 'metadata/history').iterdir())} files")
    print(
        f"history / minutes: {history / size(base / 'equities_1min'):.2%}; {nights} nights, {time.process_time() - began:.0f} CPU-s"
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
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="Where to leave the store of the year.")
    options = parser.parse_args()
    base = options.keep or Path(tempfile.mkdtemp(prefix="history-"))
    year(names(options.symbols), options.nights, base)
    ingest_time(names(8), options.runs)
    if options.keep is None:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
