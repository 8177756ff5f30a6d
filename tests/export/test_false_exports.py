"""What a review found that an export said and that was not so: each was shown before it was mended."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

import pages
from data_engine import MetadataStore, ParquetStorage
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.export import state_export
from data_engine.export.nautilus_catalog import NautilusCatalog
from data_engine.export.qlib_features import QlibFeatures
from data_engine.export.zipline_bundle import ZiplineBundle
from data_engine.market.corporate_action import decode
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Series
from data_engine.market.time_range import new_york_days
from data_engine.store.bar_store import BarStore
from data_engine.store.disk import Disk
from data_engine.store.local_files import LocalFiles
from data_engine.store.selection import DatasetFilter
from running import COLUMNS, Ran, here

NEW_YORK = "America/New_York"
FORMATS = {"nautilus": NautilusCatalog, "qlib": QlibFeatures, "zipline": ZiplineBundle}
NAMES = ("AAA", "BBB", "CCC")


def daily(symbol: str, first: str, last: str, price: float = 100.0) -> pd.DataFrame:
    """Return a bar of each session, with prices that tell the sessions apart."""
    opens = pd.DatetimeIndex(list(sessions(date.fromisoformat(first), date.fromisoformat(last)))).tz_localize(NEW_YORK)
    index = pd.MultiIndex.from_arrays([[symbol] * len(opens), opens.tz_convert("UTC")], names=["symbol", "timestamp"])
    frame = pd.DataFrame({name: price + np.arange(len(opens)) for name in COLUMNS}, index=index)
    return frame.assign(volume=1000.0, trade_count=7.0)


def announce(storage: ParquetStorage, symbol: str, *found: tuple[str, dict[str, Any]]) -> None:
    span = new_york_days(date(2021, 1, 1), date(2030, 12, 31))
    made = [decode(kind, {"symbol": symbol, "process_date": one["ex_date"], **one}) for kind, one in found]
    now = datetime.now(UTC)
    ActionStore(storage.files).update(symbol, lambda known: known.answered(span, known.to_fetch(span), made, now=now)[0])


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    """A store of three symbols with daily bars of three years, and their corporate actions."""
    storage = ParquetStorage(tmp_path / "store")
    for number, symbol in enumerate(NAMES, start=1):
        storage.store(daily(symbol, "2022-01-03", "2024-06-28", 1000.0 * number), timeframe="1Day")
        announce(storage, symbol)
    return storage


def export(storage: ParquetStorage, to: str, folder: Path, *words: str) -> Ran:
    base = str(storage.files.folder)
    return here("export", "--to", to, "--timeframe", "1Day", "--base-path", base, *words, str(folder))


def stored(storage: ParquetStorage, symbol: str) -> dict[str, float]:
    """Return the closes of the store by day, read by DuckDB."""
    files = f"{storage.files.folder}/equities_1day/symbol={symbol}/**/*.parquet"
    rows = duckdb.sql(f"SELECT epoch_us(timestamp), close FROM read_parquet('{files}')").fetchall()
    return {str(pd.Timestamp(at, unit="us", tz="UTC").tz_convert(NEW_YORK).date()): close for at, close in rows}


def of_qlib(folder: Path, name: str = "close") -> dict[str, dict[str, float]]:
    """Return the values of each folder of features by day, whether the list has it or not."""
    (calendar,) = (folder / "calendars").glob("*.txt")
    days, found = calendar.read_text().splitlines(), {}
    for path in sorted((folder / "features").glob(f"*/{name}.*.bin")):
        numbers = np.fromfile(path, "<f4").astype(float)
        placed = zip(days[int(numbers[0]) :], numbers[1:], strict=False)
        found[path.parent.name.upper()] = {day: value for day, value in placed if not np.isnan(value)}
    return found


def listed(folder: Path) -> dict[str, tuple[str, str]]:
    lines = (folder / "instruments" / "all.txt").read_text().splitlines()
    return {symbol: (first, last) for symbol, first, last in (line.split("\t") for line in lines)}


def of_nautilus(folder: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for path in sorted(folder.glob("data/bar/*/*.parquet")):
        table = pq.read_table(path)
        ends = pd.to_datetime(table["ts_init"].to_pylist(), utc=True).tz_convert(NEW_YORK) - pd.Timedelta(hours=1)
        values = [int.from_bytes(raw, "little") / 10**16 for raw in table["close"].to_pylist()]
        found.setdefault(path.parent.name.split(".")[0], {}).update(zip(map(str, ends.date), values, strict=True))
    return found


def of_zipline(folder: Path) -> dict[str, dict[str, float]]:
    files = {path.name[len("symbol=") : -len(".csv")]: path for path in sorted((folder / "daily").glob("*.csv"))}
    return {symbol: pd.read_csv(path).set_index("date")["close"].to_dict() for symbol, path in files.items()}


READERS = {"nautilus": of_nautilus, "qlib": of_qlib, "zipline": of_zipline}


class Killed(BaseException):
    """The end of the process, as far as the program can tell."""


def killed_in(monkeypatch: pytest.MonkeyPatch, to: str, symbol: str, label: str, storage: ParquetStorage, out: Path) -> None:
    """Export, and end while a unit of a symbol is to be written."""
    real = FORMATS[to].write

    def write(self: Any, name: str, unit: Any, *more: Any) -> int:
        if (name, unit.label) == (symbol, label):
            raise Killed
        return real(self, name, unit, *more)

    with monkeypatch.context() as patch:
        patch.setattr(FORMATS[to], "write", write)
        with pytest.raises(Killed):
            export(storage, to, out)


# --------------------------------------------------------------------------------------------------- interrupted exports


def honest(storage: ParquetStorage, folder: Path) -> None:
    """Check that no value stands at a wrong day, and that what is listed is there."""
    if not (folder / "calendars").is_dir():
        return
    found = of_qlib(folder)
    for symbol, values in found.items():
        true = stored(storage, symbol)
        assert values == {day: true[day] for day in values}, symbol
    for symbol, (first, last) in listed(folder).items():
        days = [day for day in stored(storage, symbol) if first <= day <= last]
        assert set(days) <= found[symbol].keys(), symbol


def killed_after(monkeypatch: pytest.MonkeyPatch, flushes: int, storage: ParquetStorage, to: str, out: Path) -> bool:
    """Export, and end after so many flushes; return whether it ended before it was done."""
    real, calls = Disk.flush, iter(range(flushes))

    def flush(self: Disk, handle: int) -> None:
        real(self, handle)
        if next(calls, None) is None:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "flush", flush)
        patch.setattr(Disk, "together", lambda self, every: [call() for call in every])
        try:
            export(storage, to, out)
        except Killed:
            return True
    return False


def test_wherever_an_export_that_moves_the_calendar_is_killed_no_feature_is_at_a_wrong_day(storage, tmp_path, monkeypatch):
    first, out = tmp_path / "first", tmp_path / "out"
    assert export(storage, "qlib", first, "--start", "2024-01-02").code == 0
    for at in range(4, 400, 4):  # each of some 80 flushes was tried once
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(first, out)
        if not killed_after(monkeypatch, at, storage, "qlib", out):
            break
        honest(storage, out)
        ran = export(storage, "qlib", out, "--symbols", "BBB")
        assert ran.code in (0, 2), ran.text  # 2: others are still counted by the old calendar
        honest(storage, out)
        assert export(storage, "qlib", out).code == 0
        assert of_qlib(out) == {symbol: stored(storage, symbol) for symbol in NAMES}
    assert at > 30


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_wherever_an_export_is_killed_the_next_one_of_a_symbol_leaves_all_others_whole(storage, tmp_path, monkeypatch, to):
    first, out = tmp_path / "first", tmp_path / "out"
    assert export(storage, to, first, "--end", "2024-03-28").code == 0
    old = {symbol: {day: close for day, close in stored(storage, symbol).items() if day <= "2024-03-28"} for symbol in NAMES}
    for symbol in ("AAA", "BBB"):
        storage.store(daily(symbol, "2023-05-01", "2023-05-31", 7000.0), timeframe="1Day")
    announce(storage, "CCC", ("cash_dividend", {"rate": 0.25, "ex_date": "2023-05-10"}))
    new = {symbol: stored(storage, symbol) for symbol in NAMES}
    for at in range(3, 300, 5):  # each of some 50 flushes was tried once
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(first, out)
        if not killed_after(monkeypatch, at, storage, to, out):
            break
        assert export(storage, to, out, "--symbols", "BBB").code == 0
        found = READERS[to](out)
        assert found["BBB"] == new["BBB"]
        assert [symbol for symbol in found if found[symbol] not in (old[symbol], new[symbol])] == []
        if to == "qlib":
            assert sorted(listed(out)) == sorted(found)
        if to == "zipline":
            assert sorted(path.name for path in (out / "actions").iterdir()) == [f"symbol={name}.csv" for name in sorted(found)]
        assert export(storage, to, out).code == 0
        assert READERS[to](out) == new
    assert at > 20


def test_a_killed_export_that_moved_the_calendar_leaves_no_symbol_that_the_old_one_counts(storage, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert export(storage, "qlib", out, "--start", "2024-01-02").code == 0
    killed_in(monkeypatch, "qlib", "BBB", "2022", storage, out)
    honest(storage, out)
    assert export(storage, "qlib", out, "--symbols", "BBB", "--strict").code == 0
    honest(storage, out)
    assert sorted(listed(out)) == sorted(of_qlib(out)) == ["AAA", "BBB"]


def test_symbols_that_two_calendars_count_are_refused_by_name(storage, tmp_path):
    out = tmp_path / "out"
    assert export(storage, "qlib", out).code == 0
    path = out / ".data-engine-export" / "symbol=CCC.json"
    record = json.loads(path.read_bytes())
    record["shape"]["calendar"] = "2023-05-05"  # what an earlier version left that was killed
    path.write_text(json.dumps(record))

    ran = export(storage, "qlib", out, "--symbols", "BBB")
    assert ran.code == 2
    assert all(word in ran.err for word in ("2022-01-03", "AAA", "2023-05-05", "CCC")), ran.err
    assert export(storage, "qlib", out).code == 0
    honest(storage, out)


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_half_a_symbol_is_removed_by_the_next_export_of_others_and_written_whole_if_asked_for(storage, tmp_path, monkeypatch, to):
    out = tmp_path / "out"
    killed_in(monkeypatch, to, "BBB", "2023", storage, out)
    assert "BBB" in READERS[to](out) if to != "qlib" else (out / "features" / "bbb").exists()
    other = tmp_path / "other"
    shutil.copytree(out, other)

    ran = export(storage, to, out, "--symbols", "AAA", "--strict", "--json")
    assert [path for path in out.rglob("*") if "BBB" in path.name.upper()] == []
    assert READERS[to](out) == {"AAA": stored(storage, "AAA")}
    assert (ran.code, ran.json["removed"]) == (0, ["BBB"])
    assert "BBB" in ran.err

    assert export(storage, to, other, "--symbols", "BBB").code == 0
    assert READERS[to](other) == {symbol: stored(storage, symbol) for symbol in ("AAA", "BBB")}


def test_corporate_actions_are_written_with_their_symbol_and_removed_with_it(storage, tmp_path, monkeypatch):
    out, dividend = tmp_path / "out", ("cash_dividend", {"rate": 0.25, "ex_date": "2023-05-10"})
    announce(storage, "AAA", dividend)
    killed_in(monkeypatch, "zipline", "BBB", "2022", storage, out)
    assert "dividend,2023-05-10,0.25" in (out / "actions" / "symbol=AAA.csv").read_text()

    announce(storage, "BBB", dividend)
    assert export(storage, "zipline", out).code == 0
    announce(storage, "BBB", ("cash_dividend", {"rate": 0.75, "ex_date": "2023-06-12"}))
    assert export(storage, "zipline", out).code == 0
    assert "dividend,2023-06-12,0.75" in (out / "actions" / "symbol=BBB.csv").read_text()
    assert here("remove", "AAA", "--base-path", str(storage.files.folder)).code == 0
    assert export(storage, "zipline", out).code == 0
    names = ["symbol=BBB.csv", "symbol=CCC.csv"]
    assert [sorted(path.name for path in (out / kind).iterdir()) for kind in ("daily", "actions")] == [names, names]


@pytest.mark.parametrize("to", ["qlib", "zipline"])
def test_bars_that_were_appended_are_on_the_device_before_the_record_says_so(storage, tmp_path, monkeypatch, to):
    out = tmp_path / "out"
    export(storage, to, out, "--end", "2024-05-31")
    said: list[str] = []
    flushing, replacing = os.fsync, os.replace
    rename = Path.replace

    def fsync(handle: int) -> None:
        found = os.fstat(handle).st_ino
        said.extend(path.name for path in out.rglob("*") if path.is_file() and path.stat().st_ino == found)
        flushing(handle)

    def replace(source: Any, target: Any) -> None:
        said.append(Path(target).name)
        replacing(source, target)

    def renamed(self: Path, target: Any) -> Path:
        said.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "replace", renamed)
    assert export(storage, to, out, "--symbols", "AAA").code == 0
    grown = [f"{name}.day.bin" for name in (*COLUMNS, "factor")] if to == "qlib" else ["symbol=AAA.csv"]
    done = len(said) - 1 - said[::-1].index("symbol=AAA.json")
    assert set(grown) <= set(said[:done]), said


# ------------------------------------------------------------------------------------------------ the folder and its record


@pytest.mark.parametrize(
    ("to", "lost"),
    [
        ("nautilus", "data/bar/AAA*/2022*"),
        ("nautilus", "data/equity/AAA*/*"),
        ("qlib", "features/aaa/high.day.bin"),
        ("zipline", "daily/symbol=AAA.csv"),
        ("zipline", "actions/symbol=AAA.csv"),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_a_file_of_the_folder_that_is_gone_or_cut_is_written_again(storage, tmp_path, to, lost, cut):
    out = tmp_path / "out"
    export(storage, to, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.suffix not in ("", ".json")}
    (path,) = out.glob(lost)
    if cut:
        os.truncate(path, path.stat().st_size // 2 if to == "nautilus" and "bar" in lost else 0)
    else:
        path.unlink()
    other = tmp_path / "other"
    shutil.copytree(out, other)

    assert export(storage, to, out).code == 0
    assert {path: path.read_bytes() for path in before} == before
    assert export(storage, to, other, "--symbols", "BBB").code == 0
    assert sorted(READERS[to](other)) == ["BBB", "CCC"], "what is broken and not asked for is not there"


def test_bars_are_not_appended_to_features_that_were_cut(storage, tmp_path):
    out = tmp_path / "out"
    export(storage, "qlib", out, "--end", "2024-05-31")
    os.truncate(out / "features" / "aaa" / "close.day.bin", 4 * 201)
    assert export(storage, "qlib", out).code == 0
    for name in COLUMNS:
        assert list(of_qlib(out, name)["AAA"]) == sorted(stored(storage, "AAA"))
    assert of_qlib(out)["AAA"] == stored(storage, "AAA")


def test_a_record_of_an_earlier_version_is_read(storage, tmp_path):
    out = tmp_path / "out"
    export(storage, "nautilus", out)
    for path in (out / ".data-engine-export").glob("symbol=*.json"):
        record = json.loads(path.read_bytes())
        for unit in record["units"]:
            unit["end"] = unit["rows"]  # the end was the number of bars
        path.write_text(json.dumps(record))
    assert export(storage, "nautilus", out, "--json").json["written_bars"] == 0


def test_exporting_all_symbols_removes_what_the_store_no_longer_has_and_some_leave_the_others(storage, tmp_path):
    for to in FORMATS:
        export(storage, to, tmp_path / to)
    assert here("remove", "AAA", "--base-path", str(storage.files.folder)).code == 0
    for to, read in READERS.items():
        out = tmp_path / to
        assert export(storage, to, out, "--symbols", "BBB").code == 0
        assert sorted(read(out)) == list(NAMES)
        ran = export(storage, to, out, "--json")
        assert sorted(read(out)) == ["BBB", "CCC"]
        if to == "qlib":
            assert sorted(listed(out)) == ["BBB", "CCC"]
        assert (ran.code, ran.json["removed"]) == (0, ["AAA"])
        assert "AAA" in ran.err


def test_a_second_export_at_the_same_time_is_refused(storage, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(storage, "qlib", out, "--end", "2024-05-31")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with FileLock(out / ".data-engine-export" / "lock"):
        ran = export(storage, "qlib", out, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (7, "store_busy")
    assert str(out) in ran.text
    assert {path: path.read_bytes() for path in before} == before

    real = FORMATS["qlib"].prepare

    def meanwhile(self: QlibFeatures, *plan: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(QlibFeatures, "prepare", real)
            assert export(storage, "qlib", out, "--symbols", "AAA").code == 0
        real(self, *plan)

    with monkeypatch.context() as patch:
        patch.setattr(QlibFeatures, "prepare", meanwhile)
        assert export(storage, "qlib", out, "--symbols", "BBB").code == 7
    assert export(storage, "qlib", out).code == 0
    assert of_qlib(out) == {symbol: stored(storage, symbol) for symbol in NAMES}


def test_a_folder_in_which_an_export_was_killed_before_it_wrote_anything_is_free(storage, tmp_path):
    out = tmp_path / "out"
    (out / ".data-engine-export").mkdir(parents=True)
    (out / ".data-engine-export" / "lock").touch()
    assert export(storage, "qlib", out).code == 0


# ------------------------------------------------------------------------------------------------------------ members


def index_of(storage: ParquetStorage, tmp_path: Path, *changes: str) -> None:
    """Store an index, by days on which symbols were added or removed."""
    path = tmp_path / "changes.csv"
    path.write_text("\n".join(("date,added,removed", *changes, "")))
    rows = [one.split(",") for one in changes]
    left = {removed for _, _, removed in rows}
    MetadataStore(storage.files.folder).store("ours", [added for _, added, _ in rows if added and added not in left])
    base = str(storage.files.folder)
    ran = here("index", "import", "ours", "--changes", str(path), "--force", "--base-path", base)
    assert ran.code == 0, ran.text


def test_an_index_is_exported_from_the_first_bar_of_any_member_on(tmp_path):
    storage = ParquetStorage(tmp_path / "store")
    storage.store(daily("AAA", "2024-05-01", "2024-06-28"), timeframe="1Day")
    storage.store(daily("BBB", "2022-01-03", "2024-06-28"), timeframe="1Day")
    storage.store(daily("CCC", "2021-01-04", "2021-06-28"), timeframe="1Day")
    index_of(storage, tmp_path, "2020-01-02,AAA,", "2020-01-02,BBB,")

    assert export(storage, "qlib", tmp_path / "out", "--index", "ours", "--strict").code == 0
    assert of_qlib(tmp_path / "out") == {symbol: stored(storage, symbol) for symbol in ("AAA", "BBB")}


def test_bars_from_before_the_first_list_are_not_those_of_members(storage, tmp_path):
    index_of(storage, tmp_path, "2023-03-01,AAA,")
    assert export(storage, "qlib", tmp_path / "out", "--index", "ours").code == 0
    bars = of_qlib(tmp_path / "out")["AAA"]
    assert bars == {day: close for day, close in stored(storage, "AAA").items() if day >= "2023-03-01"}


def test_members_that_were_never_ingested_are_named(storage, tmp_path):
    index_of(storage, tmp_path, "2020-01-02,AAA,", "2020-01-02,NEVER,", "2020-01-02,GONE,", "2021-03-01,,GONE")
    out = tmp_path / "out"
    ran = export(storage, "qlib", out, "--index", "ours", "--strict")
    assert (ran.code, out.exists()) == (1, False)
    assert "no bars of NEVER\n" in ran.err  # what had left before the first bar is not of the range
    assert export(storage, "qlib", out, "--index", "ours").code == 0


def wanting(storage: ParquetStorage, symbol: str, first: date, last: date) -> None:
    storage.bars.coverage.update(Series(symbol, pages.DAYS), lambda known: known.wanting(new_york_days(first, last)))


def test_gaps_of_members_in_their_memberships_are_named_and_no_others(storage, tmp_path):
    index_of(storage, tmp_path, "2020-01-02,AAA,", "2020-01-02,BBB,", "2023-03-01,,BBB")
    wanting(storage, "CCC", date(2021, 5, 3), date(2021, 5, 7))
    wanting(storage, "BBB", date(2024, 7, 1), date(2024, 7, 5))  # after it left
    ran = export(storage, "qlib", tmp_path / "out", "--index", "ours", "--strict")
    assert ran.code == 0, ran.text
    assert "misses" not in ran.err

    wanting(storage, "AAA", date(2024, 7, 1), date(2024, 7, 5))
    ran = export(storage, "qlib", tmp_path / "out", "--index", "ours", "--strict")
    assert ran.code == 1
    assert "requested ranges of 1 symbol (AAA)" in ran.err


def test_an_index_ends_members_without_bars_and_leaves_symbols_that_are_no_members(storage, tmp_path):
    out = tmp_path / "out"
    assert export(storage, "qlib", out).code == 0
    index_of(storage, tmp_path, "2020-01-02,AAA,", "2020-01-02,BBB,")
    assert here("remove", "BBB", "--base-path", str(storage.files.folder)).code == 0
    ran = export(storage, "qlib", out, "--index", "ours", "--json")
    assert of_qlib(out) == {symbol: stored(storage, symbol) for symbol in ("AAA", "CCC")}
    assert (ran.code, ran.json["removed"]) == (0, ["BBB"])


# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("to", "name", "value"),
    [
        ("nautilus", "volume", -5.0),
        ("nautilus", "high", -1.5),
        ("nautilus", "high", 17_014_118_346_047.0),
        ("nautilus", "volume", 34_028_236_692_094.0),
        ("zipline", "volume", -5.0),
        ("zipline", "low", -1.5),
    ],
)
def test_a_value_that_a_format_takes_for_another_is_refused(storage, tmp_path, to, name, value):
    wrong = daily("BBB", "2024-07-01", "2024-07-01", 50.0)
    storage.store(wrong.assign(**{name: value}), timeframe="1Day")
    ran = export(storage, to, tmp_path / "out", "--lossy")
    assert (ran.code, (tmp_path / "out").exists()) == (2, False)
    assert all(word in ran.err for word in (repr(value), name, "BBB", "leave BBB out")), ran.err
    assert export(storage, to, tmp_path / "out", "--symbols", "AAA,CCC").code == 0


def test_prices_whose_decimals_exceed_64_bits_are_refused_and_the_highest_are_exact(storage, tmp_path):
    storage.store(daily("BBB", "2024-07-01", "2024-07-01", 17_014_118_346_046.0), timeframe="1Day")
    assert export(storage, "nautilus", tmp_path / "out").code == 0
    assert of_nautilus(tmp_path / "out")["BBB"]["2024-07-01"] == 17_014_118_346_046.0

    storage.store(daily("BBB", "2024-07-02", "2024-07-02", 50.123456789), timeframe="1Day")
    ran = export(storage, "nautilus", tmp_path / "other")
    assert ran.code == 2
    assert "17014118346046.0" in ran.err


def minutes(day: str, *clocks: str) -> pd.DataFrame:
    times = pd.DatetimeIndex([pd.Timestamp(f"{day} {one}", tz=NEW_YORK) for one in clocks]).tz_convert("UTC")
    index = pd.MultiIndex.from_arrays([["AAA"] * len(times), times], names=["symbol", "timestamp"])
    return pd.DataFrame(10.0, index=index, columns=list(COLUMNS))


def test_the_list_of_instruments_has_the_first_and_last_bar_that_were_written(tmp_path):
    storage, out = ParquetStorage(tmp_path / "store"), tmp_path / "out"

    def check(*times: str) -> None:
        ran = here("export", "--to", "qlib", "--lossy", "--base-path", str(storage.files.folder), str(out))
        assert ran.code == 0, ran.text
        assert list(of_qlib(out)["AAA"]) == list(times)
        assert listed(out) == {"AAA": (times[0], times[-1])}

    storage.store(minutes("2024-05-31", "22:00"), timeframe="1Min")  # a month without a bar inside the hours
    storage.store(minutes("2024-06-03", "09:30", "09:31"), timeframe="1Min")
    check("2024-06-03 09:30:00", "2024-06-03 09:31:00")
    storage.store(minutes("2024-06-03", "09:32"), timeframe="1Min")
    check("2024-06-03 09:30:00", "2024-06-03 09:31:00", "2024-06-03 09:32:00")
    storage.store(minutes("2024-07-01", "23:00"), timeframe="1Min")
    check("2024-06-03 09:30:00", "2024-06-03 09:31:00", "2024-06-03 09:32:00")


def test_prices_of_two_origins_do_not_mix_in_a_folder(tmp_path):
    storage, out = ParquetStorage(tmp_path / "store"), tmp_path / "out"
    for symbol in ("AAA", "BBB"):
        storage.store(daily(symbol, "2024-01-02", "2024-06-28", 50.0), timeframe="1Day", adjustment="split")
    words = ("--adjustment", "split", "--lossy")
    assert export(storage, "qlib", out, "--symbols", "AAA", *words).code == 0
    storage.store(daily("BBB", "2024-01-02", "2024-06-28", 200.0), timeframe="1Day")
    announce(storage, "BBB", ("forward_split", {"new_rate": 2, "old_rate": 1, "ex_date": "2024-05-01"}))

    ran = export(storage, "qlib", out, "--symbols", "BBB", *words)
    assert ran.code == 2
    assert all(word in ran.err for word in ("computed from raw bars", "Alpaca has adjusted", "AAA")), ran.err
    assert sorted(of_qlib(out)) == ["AAA"]
    path = out / ".data-engine-export" / "symbol=AAA.json"
    record = json.loads(path.read_bytes())
    del record["shape"]["prices"]  # as an earlier version wrote it
    path.write_text(json.dumps(record))
    assert "unknown origin of AAA" in export(storage, "qlib", out, "--symbols", "BBB", *words).err

    storage.store(daily("AAA", "2024-01-02", "2024-06-28", 50.0), timeframe="1Day")
    announce(storage, "AAA")
    assert export(storage, "qlib", out, *words).code == 0
    split = {day: close / 2 if day < "2024-05-01" else close for day, close in stored(storage, "BBB").items()}
    assert of_qlib(out) == {"AAA": stored(storage, "AAA"), "BBB": split}


# -------------------------------------------------------------------------------------------------------- plain files


def put(storage: ParquetStorage, symbol: str, last: date) -> None:
    """Store and cover bars as a run does."""
    days = list(sessions(date(2023, 1, 3), last))
    span = new_york_days(days[0], days[-1])
    pages.put(storage, symbol, pages.DAYS, days, 100.0, wanted=(span,), covered=(span,))


def state_of(storage: ParquetStorage, out: Path) -> state_export.StateExport:
    base = storage.files.folder
    assert base is not None
    call = state_export.StateCall(out, None, DatasetFilter(), None)
    return state_export.StateExport(BarStore(LocalFiles(base)), call, folder=base)


def files_of(folder: Path, parts: Sequence[str] = ("equities_1day", "metadata/coverage")) -> dict[str, bytes]:
    found = (path for part in parts for path in (folder / part).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_file_that_a_run_stores_after_the_export_began_is_exported_with_its_coverage(tmp_path):
    storage, out = ParquetStorage(tmp_path / "store"), tmp_path / "out"
    for symbol in ("AAA", "BBB"):
        put(storage, symbol, date(2023, 12, 29))
    made = state_of(storage, out)
    put(storage, "BBB", date(2024, 6, 28))
    made.run()
    assert files_of(out) == files_of(tmp_path / "store")
    assert here("verify", "--base-path", str(out)).code == 0


def test_a_file_that_is_stored_while_its_series_is_exported_is_exported_or_not_covered(tmp_path, monkeypatch):
    storage, out = ParquetStorage(tmp_path / "store"), tmp_path / "out"
    put(storage, "AAA", date(2023, 12, 29))
    put(storage, "BBB", date(2023, 12, 29))
    real, left = state_export.write_whole, iter(range(1))

    def write(path: Path, content: bytes) -> bool:
        if "symbol=BBB" in str(path) and next(left, None) is not None:
            storage.store(pages_frame("BBB"), timeframe="1Day")  # a new file, and no coverage of it
            storage.bars.remove(Series("BBB", pages.DAYS), new_york_days(date(2023, 1, 1), date(2023, 12, 31)))
        return real(path, content)

    monkeypatch.setattr(state_export, "write_whole", write)
    state_of(storage, out).run()
    assert files_of(out) == files_of(tmp_path / "store")
    assert [name for name in files_of(out) if "BBB" in name and "year" in name] == [
        "equities_1day/symbol=BBB/year=2024/data.parquet"
    ]


def pages_frame(symbol: str) -> pd.DataFrame:
    return daily(symbol, "2024-02-01", "2024-03-28", 500.0)
