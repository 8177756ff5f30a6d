"""Export the eight symbols of the real file to each engine, and have the engine's own reader read them back.

``make engines`` runs it. Each engine has an environment of its own below ``.engines``, made with uv where it is on PATH, else
with pip. For each: the first weeks are stored and exported, then the others, as an update stores them. After each export, the
digests of what the engine reads must be those of the source; the second must leave the files of complete months as they are; and
the backtest of the how-to page must run on the result.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from data_engine import ParquetStorage
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.market.corporate_action import decode
from data_engine.market.time_range import TimeRange

ROOT = Path(__file__).resolve().parents[2]
BARS = ROOT.parent / "shared/data/minute/polygon_sip_ext_8sym_20240603_20240816.parquet"
VERSIONS = {
    "nautilus": ("nautilus_trader==1.231.0",),
    "qlib": ("pyqlib==0.9.7",),
    "zipline": ("zipline-reloaded==3.2.1", "pyarrow"),
}
OPTIONS = {"nautilus": (), "qlib": ("--lossy",), "zipline": ("--resample", "1Day", "--lossy")}
CUT = pd.Timestamp("2024-08-09", tz="UTC")
# The dividends of the quarter and NVIDIA's split, as Alpaca's records have them.
ACTIONS = {
    "NVDA": (
        ("forward_split", {"new_rate": 10, "old_rate": 1, "ex_date": "2024-06-10", "process_date": "2024-06-10"}),
        ("cash_dividend", {"rate": 0.01, "ex_date": "2024-06-11", "process_date": "2024-06-28", "payable_date": "2024-06-28"}),
    ),
    "AAPL": (
        ("cash_dividend", {"rate": 0.25, "ex_date": "2024-08-12", "process_date": "2024-08-15", "payable_date": "2024-08-15"}),
    ),
}


def main() -> int:
    """Try the engines that are named, or all; return 0 if all digests are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", choices=[*VERSIONS, []], help="some of: " + ", ".join(VERSIONS))
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environments")
    parser.add_argument("--environments", type=Path, default=ROOT / ".engines", help="the folder of the environments")
    arguments = parser.parse_args()
    if not BARS.is_file():
        print(f"skipped: real bars are not here: {BARS}")
        return 0
    for engine in arguments.engines or VERSIONS:
        python = environment(arguments.python, arguments.environments / engine, VERSIONS[engine])
        with tempfile.TemporaryDirectory(prefix=f"data-engine-{engine}-") as folder:
            attempt(engine, python, Path(folder))
    return 0


def environment(interpreter: str, folder: Path, packages: tuple[str, ...]) -> Path:
    """Return the Python of an environment with some packages; it is made if it is not there."""
    python = folder / "bin" / "python"
    done = folder / "installed.txt"
    if not done.is_file() or done.read_text() != " ".join(packages):
        uv = shutil.which("uv")
        venv = [uv, "venv", "-q", "--python", interpreter, folder] if uv else [interpreter, "-m", "venv", folder]
        subprocess.run(venv, check=True)
        install = [uv, "pip", "install", "-q", "--python", python] if uv else [python, "-m", "pip", "install", "-q"]
        subprocess.run([*install, *packages], check=True)
        done.write_text(" ".join(packages))
    return python


def attempt(engine: str, python: Path, folder: Path) -> None:
    """Export, read back, store more, export again, read back; then run the backtest of the how-to page."""
    every = source()
    storage = ParquetStorage(folder / "store")
    for part in (every[every["timestamp"] < CUT], every[every["timestamp"] >= CUT]):
        storage.store(part, "1Min")
        store_actions(storage, every)
        before = files_of(folder / "out")
        counts = export(engine, folder)
        stored = storage.load(every["symbol"].unique(), "2024-06-01", incomplete="ignore")
        compare(engine, python, folder, (daily(stored) if engine == "zipline" else stored).reset_index())
        after = files_of(folder / "out")
        same = [name for name in before if after.get(name) == before[name]]
        print(f"{engine}: wrote {counts['written_bars']:,} of {counts['bars']:,} bars")
        print(f"{engine}: {len(same):,} of {len(before):,} files untouched")
        if before:
            check_second(engine, folder, counts, before, same)
    backtest(engine, python, folder)


def check_second(engine: str, folder: Path, counts: dict[str, int], before: dict[str, bytes], same: list[str]) -> None:
    """Check that the second export has written only the month (of days: the year) with new bars."""
    assert counts["written_units"] == 8, counts
    if engine == "nautilus":
        assert len([name for name in before if name not in same and "bar" in name]) == 8, "only August is replaced"
    assert export(engine, folder)["written_bars"] == 0, "a third export writes nothing"


def export(engine: str, folder: Path, out: str = "out", *options: str) -> dict[str, int]:
    """Run the command, and return its counts."""
    command = [sys.executable, "-m", "data_engine", "export", "--to", engine, *OPTIONS[engine], *options, "--json"]
    run = subprocess.run([*command, "--base-path", folder / "store", folder / out], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    made: dict[str, int] = json.loads(run.stdout)
    return made


def source() -> pd.DataFrame:
    """Return the bars of the file, which lacks two columns; they are derived as the folder's README says."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql(
            "SELECT symbol, timestamp, open, high, low, close, volume::DOUBLE AS volume, "
            "greatest(1, floor(volume / 100))::DOUBLE AS trade_count, round((high + low + close) / 3, 4)::DOUBLE AS vwap "
            f"FROM read_parquet('{BARS}') ORDER BY symbol, timestamp"
        ).df()


def store_actions(storage: ParquetStorage, bars: pd.DataFrame) -> None:
    """Store the corporate actions of all symbols, complete for the time of the bars."""
    now = datetime.now(UTC)
    span = TimeRange(datetime(2024, 5, 31, 4, tzinfo=UTC), datetime(2024, 8, 18, 4, tzinfo=UTC))
    actions = ActionStore(storage.files)
    for symbol in bars["symbol"].unique():
        found = [decode(kind, {"id": f"{symbol} {kind}", "symbol": symbol, **record}) for kind, record in ACTIONS.get(symbol, ())]
        actions.update(symbol, lambda known, found=found: known.answered(span, known.to_fetch(span), found, now=now)[0])


def daily(bars: pd.DataFrame) -> pd.DataFrame:
    """Return the daily bars of the regular hours by pandas, with prices of three decimals."""
    clock = bars.index.get_level_values("timestamp").tz_convert("America/New_York")
    minutes = clock.hour * 60 + clock.minute
    last = np.where(clock.strftime("%Y-%m-%d") == "2024-07-03", 13 * 60, 16 * 60)
    frame = bars[(minutes >= 570) & (minutes < last)].reset_index()
    frame["timestamp"] = frame["timestamp"].dt.tz_convert("America/New_York").dt.normalize().dt.tz_convert("UTC")
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    return frame.groupby(["symbol", "timestamp"]).agg(rules).round(3)


def compare(engine: str, python: Path, folder: Path, expected: pd.DataFrame) -> None:
    """Compare the digests, symbol by symbol, of what the engine reads with those of the source."""
    out = folder / "read.parquet"
    environ = {**os.environ, "ZIPLINE_ROOT": str(folder / "zipline")}
    environ.pop("PYTHONPATH", None)
    words = [python, Path(__file__).with_name("read_back.py"), engine, folder / "out", out]
    run = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    read = pd.read_parquet(out)
    names = [name for name in read.columns if name not in ("symbol", "timestamp")]
    kind = "f4" if engine == "qlib" else "f8"  # 32 bits are what its files have
    for symbol, bars in expected.groupby("symbol"):
        assert digest(bars, names, kind) == digest(read[read["symbol"] == symbol], names, kind), f"{engine}: {symbol} differs"
    assert len(read) == len(expected)
    print(f"{engine}: {len(read):,} bars of {read['symbol'].nunique()} symbols, digests equal to the source's")
    if engine == "zipline":
        check_adjustments(folder, expected["timestamp"].max())


def check_adjustments(folder: Path, last: pd.Timestamp) -> None:
    splits = pd.read_csv(folder / "read.parquet.splits.csv")
    assert splits[["effective_date", "ratio"]].to_numpy().tolist() == [["2024-06-10", 0.1]], splits
    paid = pd.read_csv(folder / "read.parquet.dividend_payouts.csv")
    amounts = sorted(zip(paid["ex_date"], paid["amount"], paid["pay_date"], strict=True))
    assert amounts == [("2024-06-11", 0.01, "2024-06-28"), ("2024-08-12", 0.25, "2024-08-15")][: 1 + (last > CUT)], amounts


def digest(bars: pd.DataFrame, names: list[str], kind: str) -> str:
    """Return a digest of rows: the instants and the values, in order of time."""
    ordered = bars.sort_values("timestamp")
    times = ordered["timestamp"].dt.tz_convert("UTC").dt.as_unit("us").astype("int64").to_numpy()
    return blake2b(times.tobytes() + ordered[names].to_numpy(kind).tobytes()).hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of an export, with what tells whether they were written: the content and the time of the last write."""
    return {
        str(path.relative_to(folder)): blake2b(path.read_bytes() + str(path.stat().st_mtime_ns).encode()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def backtest(engine: str, python: Path, folder: Path) -> None:
    """Run the Python of the how-to page on the export; that of Qlib is about daily bars."""
    out = "days" if engine == "qlib" else "out"
    if engine == "qlib":
        export(engine, folder, out, "--resample", "1Day")
    page = (ROOT / "docs" / "how-to" / f"backtest-with-{engine}.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1].replace("/data/engine-export", str(folder / out))
    environ = {**os.environ, "ZIPLINE_ROOT": str(folder / "zipline")}
    environ.pop("PYTHONPATH", None)
    run = subprocess.run([python, "-c", code], env=environ, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-5000:]
    print(f"{engine}: the backtest of the how-to page:\n" + "\n".join(run.stdout.strip().splitlines()[-6:]))


if __name__ == "__main__":
    raise SystemExit(main())
