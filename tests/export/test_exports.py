"""Exports, read back by small readers of our own that follow the formats' documentation. `make engines` asks the engines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_engine import ParquetStorage
from data_engine.cli import main
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.export import nautilus_catalog
from data_engine.export.kept_digits import lost_in_float32
from data_engine.export.nautilus_catalog import NautilusCatalog
from data_engine.export.qlib_features import QlibFeatures
from data_engine.market.corporate_action import decode
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import new_york_days
from data_engine.sandbox import Sandbox, SimulatedMarket
from running import here

NEW_YORK = "America/New_York"
VALUES = ["open", "high", "low", "close", "volume", "trade_count", "vwap"]
PRICES = VALUES[:4]
HOLIDAYS = ["2023-12-25", "2024-01-01", "2024-01-15", "2024-02-19", "2024-03-29", "2024-05-27", "2024-06-19", "2024-07-04"]


def bars(symbol: str, first: str, last: str, freq: str, seed: int = 1) -> pd.DataFrame:
    """Return bars with prices in cents and some absent, at local times of sessions."""
    times = pd.date_range(first, last, freq=freq, tz=NEW_YORK)
    if freq != "D":
        times = times[(times.hour >= 8) & (times.hour < 18) & (times.day_of_week < 5)]
    times = times[(times.day_of_week < 5) & ~times.strftime("%Y-%m-%d").isin(HOLIDAYS)]
    rng = np.random.default_rng(seed + len(symbol))
    times = times[rng.random(len(times)) < 0.9]
    price = np.round(rng.uniform(90, 110, len(times)), 2)
    columns = dict.fromkeys((*PRICES, "vwap"), price)
    index = pd.MultiIndex.from_arrays([[symbol] * len(times), times.tz_convert("UTC")], names=["symbol", "timestamp"])
    return pd.DataFrame({**columns, "volume": rng.integers(1, 9999, len(times)), "trade_count": 7.0}, index=index)[VALUES]


def two(first: str, last: str, freq: str = "30min") -> pd.DataFrame:
    return pd.concat([bars(symbol, first, last, freq) for symbol in ("AAPL", "BRK.B")])


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    """A store of two symbols, from May into June: minutes, and days with all their corporate actions."""
    storage = ParquetStorage(tmp_path / "store")
    storage.store(two("2024-05-20", "2024-06-14"), timeframe="1Min")
    storage.store(two("2023-12-01", "2024-06-14", "D"), timeframe="1Day")
    for symbol in ("AAPL", "BRK.B"):
        announce(storage, symbol)
    return storage


def announce(storage: ParquetStorage, symbol: str, *found: tuple[str, dict[str, Any]], first: date = date(2023, 1, 1)) -> None:
    span = new_york_days(first, date(2024, 12, 31))
    made = [decode(kind, {"symbol": symbol, "process_date": record["ex_date"], **record}) for kind, record in found]
    now = datetime.now(UTC)
    ActionStore(storage.files).update(symbol, lambda known: known.answered(span, known.to_fetch(span), made, now=now)[0])


def exported(storage: ParquetStorage, to: str, folder: Path, *options: str, code: int = 0) -> int:
    length = ["--timeframe", "1Day"] if to == "zipline" else []
    words = ["export", "--to", to, "--base-path", str(storage.files.folder), *length, *options, str(folder)]
    assert main(words) == code
    return code


def read_nautilus(folder: Path) -> pd.DataFrame:
    """Parquet files, each named by the ends of its bars; integers of 16 decimals in 16 bytes."""
    frames, spans = [], []
    for path in sorted(folder.glob("data/bar/*/*.parquet")):
        file = pq.read_table(path)
        told = {key.decode(): value.decode() for key, value in file.schema.metadata.items()}
        frame = pd.DataFrame(
            {
                name: [float(Decimal(int.from_bytes(raw, "little")).scaleb(-16)) for raw in file[name].to_pylist()]
                for name in (*PRICES, "volume")
            }
        )
        assert file["ts_event"] == file["ts_init"]
        ends = file["ts_init"].to_pylist()
        spans.append((path.parent.name, ends[0], ends[-1]))
        named = [f"{pd.Timestamp(end, tz='UTC'):%Y-%m-%dT%H-%M-%S}-{end % 10**9:09d}Z" for end in (ends[0], ends[-1])]
        assert path.name == f"{named[0]}_{named[1]}.parquet"
        assert path.parent.name == told["bar_type"] == f"{told['instrument_id']}-1-MINUTE-LAST-EXTERNAL"
        (row,) = pq.read_table(next(folder.glob(f"data/equity/{told['instrument_id']}/*.parquet"))).to_pylist()
        assert (row["id"], str(row["price_precision"])) == (told["instrument_id"], told["price_precision"])
        assert all(round(value, row["price_precision"]) == value for value in frame["open"])
        times = pd.to_datetime(np.array(ends) - 60 * 10**9, utc=True)
        frames.append(frame.assign(symbol=row["raw_symbol"], timestamp=times))
    spans.sort()
    assert all(a[2] < b[1] for a, b in pairwise(spans) if a[0] == b[0]), "files do not overlap"
    return pd.concat(frames)


def read_qlib(folder: Path) -> pd.DataFrame:
    """32-bit floats: first the place in the calendar, then a value per place."""
    (calendar,) = (folder / "calendars").iterdir()
    times = pd.DatetimeIndex(calendar.read_text().splitlines()).tz_localize(NEW_YORK).tz_convert("UTC")
    assert times.is_monotonic_increasing
    frames = []
    for line in (folder / "instruments" / "all.txt").read_text().splitlines():
        symbol, first, last = line.split("\t")
        columns = {}
        for name in (*VALUES, "factor"):
            numbers = np.fromfile(folder / "features" / symbol.lower() / f"{name}.{calendar.stem}.bin", "<f4")
            columns[name] = pd.Series(numbers[1:].astype(float), times[int(numbers[0]) : int(numbers[0]) + numbers.size - 1])
        frame = pd.DataFrame(columns).dropna(how="all")
        assert (frame.pop("factor") == 1).all()
        local = frame.index.tz_convert(NEW_YORK).tz_localize(None)
        assert (pd.Timestamp(first), pd.Timestamp(last)) == (local[0], local[-1])
        frames.append(frame.rename_axis("timestamp").reset_index().assign(symbol=symbol))
    return pd.concat(frames)


def read_zipline(folder: Path) -> pd.DataFrame:
    frames = []
    for path in sorted((folder / "daily").iterdir()):
        frame = pd.read_csv(path)
        times = pd.DatetimeIndex(frame.pop("date")).tz_localize(NEW_YORK).tz_convert("UTC")
        frames.append(frame.assign(timestamp=times, symbol=path.name.removeprefix("symbol=").removesuffix(".csv")))
    return pd.concat(frames)


READERS: dict[str, Callable[[Path], pd.DataFrame]] = {"nautilus": read_nautilus, "qlib": read_qlib, "zipline": read_zipline}


def check(storage: ParquetStorage, to: str, folder: Path) -> None:
    """Compare what a folder has with what the store has."""
    read = READERS[to](folder).astype({"volume": float}).sort_values(["symbol", "timestamp"]).reset_index(drop=True)
    timeframe = "1Day" if to == "zipline" else "1Min"
    source = storage.load(["AAPL", "BRK.B"], "2023-01-01", timeframe=timeframe, incomplete="ignore").reset_index()
    names = [name for name in ("symbol", "timestamp", *VALUES) if name in read.columns]
    if to == "qlib":
        source[VALUES] = source[VALUES].astype("f4").astype(float)
    times = {"timestamp": "datetime64[ns, UTC]", "symbol": object}
    pd.testing.assert_frame_equal(read[names].astype(times), source[names].astype(times))


def touched(folder: Path) -> dict[str, tuple[int, int]]:
    made = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_ino) for path in made}


@pytest.mark.parametrize("to", sorted(READERS))
def test_an_export_is_the_source_and_later_ones_write_only_what_differs(storage, tmp_path, capsys, to):
    out = tmp_path / "out"
    exported(storage, to, out)
    check(storage, to, out)

    before = touched(out)
    exported(storage, to, out, "--json")
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["written_bars"] == 0
    assert touched(out) == before, "nothing new, nothing written"

    storage.store(two("2024-06-17", "2024-07-02"), timeframe="1Min")
    storage.store(two("2024-06-17", "2024-07-02", "D"), timeframe="1Day")
    exported(storage, to, out)
    check(storage, to, out)
    after = touched(out)
    if to == "nautilus":
        assert {name for name in before if "bar/" in name and after.get(name) == before[name]} == {
            name for name in before if "bar/" in name and "/2024-05" in name
        }

    revised = storage.load(
        "AAPL", "2024-05-21", "2024-05-21", timeframe="1Day" if to == "zipline" else "1Min", incomplete="ignore"
    )
    storage.store(revised.assign(close=99.99))
    series = Series("BRK.B", Dataset(Timeframe.parse("1Day" if to == "zipline" else "1Min")))
    storage.bars.remove(series, new_york_days(date(2024, 6, 20), date(2024, 7, 31)))
    exported(storage, to, out)
    check(storage, to, out)


def test_after_an_update_only_months_with_new_bars_are_written(tmp_path):
    now = pd.Timestamp.now(NEW_YORK)
    cut = now.normalize() - pd.Timedelta(days=12)
    days = (now.replace(day=1) - pd.Timedelta(days=20)).strftime("%Y-%m-%d"), cut.strftime("%Y-%m-%d")
    store, out = tmp_path / "store", tmp_path / "out"

    def export() -> int:
        ran = here("export", "--to", "nautilus", "--base-path", store, out, "--json")
        assert ran.code == 0, ran.text
        return int(ran.json["written_units"])

    with Sandbox(SimulatedMarket()) as server:
        assert here("ingest", "AAPL", "--start", days[0], "--end", days[1], "--base-path", store, url=server.url).code == 0
        export()
        before = touched(out)
        assert here("update", "--base-path", store, url=server.url).code == 0
    bars = ParquetStorage(store).load("AAPL", days[0], incomplete="ignore")
    new = bars.index.get_level_values("timestamp").tz_convert(NEW_YORK)
    fresh = set(new[new >= cut + pd.Timedelta(days=1)].strftime("%Y-%m"))
    assert len(fresh) == export() > 0
    after = touched(out)
    same = {name.rpartition("/")[2][: len("2024-06")] for name in before if "/bar/" in name and after.get(name) == before[name]}
    assert same == set(new.strftime("%Y-%m")) - fresh
    read = read_nautilus(out)
    assert read[PRICES].to_numpy().tolist() == bars[PRICES].to_numpy().tolist()


@pytest.mark.parametrize("to", sorted(READERS))
def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(storage, tmp_path, capsys, to):
    timeframe = "1Day" if to == "zipline" else "1Min"
    some = storage.load("AAPL", "2024-06-03", "2024-06-03", timeframe=timeframe, incomplete="ignore").head(1)
    lost = {"nautilus": 10.5, "qlib": 2.0**24 + 1, "zipline": 0.25}[to]
    storage.store(some.assign(volume=lost), timeframe=timeframe)
    out = tmp_path / "out"

    exported(storage, to, out, code=1)
    assert f"{lost!r} of AAPL" in capsys.readouterr().err
    assert not out.exists()

    exported(storage, to, out, "--lossy")
    read = READERS[to](out)
    kept = read[(read["symbol"] == "AAPL") & (read["timestamp"] == some.index[0][1])]["volume"].tolist()
    assert kept == [{"nautilus": 10.0, "qlib": 2.0**24, "zipline": 0.0}[to]]


def test_bars_outside_the_hours_are_left_out_of_a_calendar_only_if_told(storage, tmp_path, capsys):
    night = bars("AAPL", "2024-06-05 22:00", "2024-06-05 22:00", "D", seed=4)
    storage.store(night if len(night) else bars("AAPL", "2024-06-05 22:00", "2024-06-05 22:00", "D", seed=5), timeframe="1Min")

    exported(storage, "qlib", tmp_path / "out", code=1)
    assert "2024-06-06T02:00Z of AAPL" in capsys.readouterr().err
    exported(storage, "qlib", tmp_path / "out", "--lossy")
    assert "2024-06-05 22:00:00" not in (tmp_path / "out" / "calendars" / "1min.txt").read_text()


def test_an_interrupted_export_is_made_whole_by_the_next(storage, tmp_path, monkeypatch):
    out = tmp_path / "out"
    exported(storage, "qlib", out)
    storage.store(two("2024-06-17", "2024-07-02"), timeframe="1Min")
    real, write = QlibFeatures._path, QlibFeatures.write
    calls = iter(range(1000))

    def failing(self: QlibFeatures, symbol: str, name: str) -> Path:
        if next(calls) == 12:
            raise OSError(28, "No space left on device")
        return real(self, symbol, name)

    def writing(*arguments: Any) -> int:
        monkeypatch.setattr(QlibFeatures, "_path", failing)
        return write(*arguments)

    monkeypatch.setattr(QlibFeatures, "write", writing)
    exported(storage, "qlib", out, code=4)
    monkeypatch.undo()

    exported(storage, "qlib", out)
    check(storage, "qlib", out)


def test_splits_and_dividends_of_the_store_are_in_the_bundle(storage, tmp_path, capsys):
    announce(
        storage,
        "AAPL",
        ("forward_split", {"new_rate": 4, "old_rate": 1, "ex_date": "2024-06-10"}),
        ("cash_dividend", {"rate": 0.25, "ex_date": "2024-05-10", "record_date": "2024-05-13", "payable_date": "2024-05-16"}),
        ("cash_dividend", {"rate": 9.0, "ex_date": "2024-11-08"}),
    )
    exported(storage, "zipline", tmp_path / "out")

    rows = list(csv.reader((tmp_path / "out" / "actions" / "symbol=AAPL.csv").read_text().splitlines()))
    assert rows == [
        ["kind", "ex_date", "value", "record_date", "pay_date"],
        ["dividend", "2024-05-10", "0.25", "2024-05-13", "2024-05-16"],
        ["split", "2024-06-10", "0.25", "", ""],
    ]
    announce(storage, "BRK.B", ("spin_off", {"source_rate": 1, "new_rate": 1, "new_symbol": "X", "ex_date": "2024-03-01"}))
    exported(storage, "zipline", tmp_path / "out", code=1)
    assert "spin-off of X on 2024-03-01" in capsys.readouterr().err


def test_a_bundle_without_known_actions_is_refused(storage, tmp_path, capsys):
    storage.store(bars("NEW", "2024-05-20", "2024-06-14", "D"), timeframe="1Day")

    exported(storage, "zipline", tmp_path / "out", code=4)
    assert "data-engine actions NEW" in capsys.readouterr().err
    exported(storage, "zipline", tmp_path / "out", "--symbols", "AAPL,BRK.B")


@pytest.mark.parametrize(
    ("to", "options", "named"),
    [
        ("zipline", ["--timeframe", "1Min"], "--resample 1Day"),
        ("zipline", ["--timeframe", "1Day", "--adjustment", "split"], "split"),
        ("nautilus", ["--venue", "x y"], "x y"),
        ("nautilus", ["--resample", "7Min"], "7Min"),
        ("qlib", ["--timeframe", "1Week"], "equities_1week"),
        ("qlib", ["--symbols", "AAPPL"], "did you mean AAPL?"),
        ("qlib", ["--symbols", "AAPL", "--timeframe", "1Hour"], "--resample 1Hour"),
        ("qlib", ["--timeframe", "5Min"], "--resample 5Min"),
        ("qlib", ["--start", "2024-13-01"], "2024-13-01"),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(storage, tmp_path, capsys, to, options, named):
    words = ["export", "--to", to, "--base-path", str(storage.files.folder), *options, str(tmp_path / "out")]

    assert main(words) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_has_something_else_is_left_alone(storage, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("work")
    exported(storage, "qlib", mine, code=2)
    exported(storage, "qlib", Path(str(storage.files.folder)) / "out", code=2)
    exported(storage, "qlib", tmp_path, code=2)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]

    exported(storage, "qlib", tmp_path / "out")
    exported(storage, "nautilus", tmp_path / "out", code=2)
    exported(storage, "qlib", tmp_path / "out", "--session", "regular", code=2)
    assert "regular" in capsys.readouterr().err


def test_other_symbols_of_a_folder_stay_and_their_calendar_is_not_moved(storage, tmp_path, capsys):
    out = tmp_path / "out"
    exported(storage, "qlib", out, "--symbols", "AAPL", "--start", "2024-06-03")
    exported(storage, "qlib", out, "--symbols", "BRK.B", "--start", "2024-06-05")
    assert sorted(read_qlib(out)["symbol"].unique()) == ["AAPL", "BRK.B"]

    exported(storage, "qlib", out, "--symbols", "BRK.B", code=2)
    assert "2024-06-03" in capsys.readouterr().err
    exported(storage, "qlib", out)
    check(storage, "qlib", out)


def test_missing_bars_are_named_and_strict_refuses_them(storage, tmp_path, capsys):
    series = Series("AAPL", Dataset(Timeframe.parse("1Min")))
    storage.bars.coverage.update(series, lambda known: known.wanting(new_york_days(date(2024, 3, 1), date(2024, 3, 8))))

    exported(storage, "qlib", tmp_path / "out", "--strict", code=1)
    assert not (tmp_path / "out").exists()
    exported(storage, "qlib", tmp_path / "out")
    assert "AAPL" in capsys.readouterr().err
    exported(storage, "qlib", tmp_path / "other", "--start", "2024-03-04", "--strict", code=1)


def test_bars_that_change_during_an_export_end_it(storage, tmp_path, monkeypatch):
    real = NautilusCatalog.begin

    def meanwhile(self: NautilusCatalog) -> None:
        revised = storage.load("AAPL", "2024-06-03", "2024-06-03", incomplete="ignore")
        storage.store(revised.assign(close=1.0))
        real(self)

    monkeypatch.setattr(NautilusCatalog, "begin", meanwhile)
    exported(storage, "nautilus", tmp_path / "out", code=4)
    monkeypatch.undo()
    exported(storage, "nautilus", tmp_path / "out")
    check(storage, "nautilus", tmp_path / "out")


def values() -> Iterator[tuple[float, int]]:
    random = Random(7)
    for _ in range(2000):
        decimals = random.randrange(10)
        yield round(random.uniform(0, 10.0 ** random.randrange(1, 13 - decimals)), decimals), decimals


def test_wide_integers_are_those_of_python():
    for value, decimals in values():
        (raw,) = nautilus_catalog._wide(np.array([value]), decimals).to_pylist()
        assert int.from_bytes(raw, "little") == int(Decimal(repr(value)).scaleb(16)), value


def test_a_float_of_32_bits_keeps_a_value_if_it_still_names_it():
    for value, _ in values():
        digits = max(0, -int(Decimal(repr(value)).normalize().as_tuple().exponent))
        narrow = Decimal(float(np.float32(value)))
        kept = narrow.quantize(Decimal(1).scaleb(-digits)) == Decimal(repr(value))
        assert lost_in_float32(np.array([value]))[0] == (not kept), value
