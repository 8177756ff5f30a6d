"""What the end-to-end tests share: the command line as people run it, pipelines, and readers that are not ours."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from data_engine import AlpacaClient, IngestionPipeline
from data_engine.alpaca.retry import RetryPolicy
from data_engine.cli import main
from data_engine.sandbox import Sandbox
from stores import variables

KEY, SECRET = "PKRUNNINGTESTSKEY042", "sEcReTofRunningTests0123456789abcdefGHIJ"
HASTY = RetryPolicy(tries=3, base=0.001, cap=0.01, give_up_after=20.0)
COLUMNS = ("open", "high", "low", "close", "volume", "trade_count", "vwap")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


class Clock:
    """A clock that stands where it was put."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


# ------------------------------------------------------------------------------------------------------------ the command line


def account(url: str | None, **more: str) -> dict[str, str]:
    """Return the variables of someone whose Alpaca is at *url*."""
    where = {} if url is None else {"APCA_API_DATA_URL": url, "APCA_API_BASE_URL": url}
    return {"ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET, **where, **more}


def start(*words: object, url: str | None = None, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start ``python -m data_engine WORDS`` as a process of its own."""
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8", **(account(url) if env is None else env)}
    return subprocess.Popen(
        [sys.executable, "-m", "data_engine", *map(str, words)],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(*words: object, url: str | None = None, env: dict[str, str] | None = None) -> Ran:
    """Run ``python -m data_engine WORDS`` to its end."""
    with start(*words, url=url, env=env) as process:
        return ended(process)


def ended(process: subprocess.Popen[str], *, seconds: float = 120.0) -> Ran:
    """Wait for a process and return what it left behind."""
    try:
        out, err = process.communicate(timeout=seconds)
    except BaseException:
        process.kill()
        raise
    return Ran(process.returncode, out, err)


def here(*words: object, url: str | None = None, env: dict[str, str] | None = None) -> Ran:
    """Run the same command inside this process: quicker, for long tables."""
    out, err = io.StringIO(), io.StringIO()
    with variables(account(url) if env is None else env), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Ran(code, out.getvalue(), err.getvalue())


# ------------------------------------------------------------------------------------------------------------------ the library


def client_of(server: Sandbox, clock: Clock | None = None, **options: Any) -> AlpacaClient:
    """Return a client of a sandbox that does not wait long before it asks again."""
    return AlpacaClient(KEY, SECRET, base_url=server.url, policy=HASTY, **({"now": clock} if clock else {}), **options)


def pipeline_of(
    server: Sandbox,
    base: Path,
    clock: Clock | None = None,
    *,
    workers: int = 4,
    client: AlpacaClient | None = None,
    **options: Any,
) -> IngestionPipeline:
    """Return a pipeline from a sandbox into a folder, which fetches no corporate actions unless *options* say so."""
    client = client or client_of(server, clock)
    options = {"actions": False, "progress": False, **({"now": clock} if clock else {}), **options}
    return IngestionPipeline(workers, base, client=client, **options)


# ------------------------------------------------------------------------------------------------------------- readers, not ours


def bars_in(base: Path, dataset: str = "equities_1min") -> str:
    """Return SQL whose result is what any Parquet reader sees in a dataset."""
    return (
        f"SELECT symbol, timestamp, {', '.join(COLUMNS)} FROM read_parquet('{base}/{dataset}/**/*.parquet', "
        "hive_partitioning = true, hive_types = {'symbol': VARCHAR})"
    )


def rows(base: Path, dataset: str = "equities_1min") -> list[tuple[Any, ...]]:
    """Return all bars of a dataset, sorted: symbol, microseconds since 1970, and the values."""
    if not any((base / dataset).rglob("*.parquet")):
        return []
    names = ", ".join(COLUMNS)
    return duckdb.sql(f"SELECT symbol, epoch_us(timestamp), {names} FROM ({bars_in(base, dataset)}) ORDER BY ALL").fetchall()


def count(base: Path, dataset: str = "equities_1min") -> int:
    """Return how many bars a dataset holds."""
    if not any((base / dataset).rglob("*.parquet")):
        return 0
    return int(duckdb.sql(f"SELECT count(*) FROM ({bars_in(base, dataset)})").fetchall()[0][0])


def differing(left: str, right: str) -> int:
    """Return how many rows are in one of two queries and not in the other, repetitions counted."""
    query = f"SELECT count(*) FROM ((({left}) EXCEPT ALL ({right})) UNION ALL (({right}) EXCEPT ALL ({left})))"
    return int(duckdb.sql(query).fetchall()[0][0])


def content(base: Path) -> dict[str, bytes]:
    """Return the bytes of every bar file of a store, by path."""
    return {path.relative_to(base).as_posix(): path.read_bytes() for path in sorted(base.glob("equities_*/**/*.parquet"))}


def coverage(base: Path, symbol: str, dataset: str = "equities_1min") -> dict[str, Any]:
    """Return a series' coverage file as it is on disk."""
    return json.loads((base / "metadata" / "coverage" / dataset / f"symbol={symbol}.json").read_text())


def asked(server: Sandbox) -> list[tuple[str, str, str]]:
    """Return symbols, start and end of every request that a sandbox has seen, later pages left out."""
    queries = [record.query for record in server.requests]
    return [(q.get("symbols", ""), q.get("start", ""), q.get("end", "")) for q in queries if "page_token" not in q]


# ------------------------------------------------------------------------------------------------------------------ made-up bars


def write_minutes(
    path: Path, symbols: Iterable[str], days: Sequence[date], *, per_day: int = 20, opens: int = 14, shift: float = 0.0
) -> Path:
    """Write a file for a `Replay`: *per_day* minutes from *opens* o'clock UTC on each day, prices that tell the minute."""
    made = []
    for number, symbol in enumerate(symbols):
        for day_number, day in enumerate(days):
            first = datetime(day.year, day.month, day.day, opens, tzinfo=UTC)
            for minute in range(per_day):
                price = 100.0 * (number + 1) + day_number + minute / 100 + shift
                stamp = first + timedelta(minutes=minute)
                made.append((symbol, stamp, price, price + 0.5, price - 0.25, price + 0.125, 1000.0 + 100 * minute))
    names = ("symbol", "timestamp", "open", "high", "low", "close", "volume")
    kinds = (pa.string(), pa.timestamp("us", tz="UTC"), *[pa.float64()] * 5)
    columns = zip(*made, strict=True)
    pq.write_table(pa.table({n: pa.array(c, k) for n, c, k in zip(names, columns, kinds, strict=True)}), path)
    return path


def names_of(how_many: int) -> list[str]:
    """Return that many symbols that the simulated market knows, none of them famous."""
    letters = "ABCDEFGHKM"
    made = (f"{a}{b}{c}" for a in letters for b in letters for c in letters)
    return [next(made) for _ in range(how_many)]
