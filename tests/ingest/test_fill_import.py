"""``import --fill``: bars of another source lie in gaps that `verify` reports, apart, named, until Alpaca has a bar there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine import ParquetStorage
from data_engine.errors import InputError
from data_engine.ingest.fill_import import import_fill
from data_engine.ingest.import_sources import find_sources
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.sandbox import Replay, Sandbox
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage_file import dump, load
from data_engine.store.file_store import Change
from data_engine.store.local_files import LocalFiles
from real_data import bars_of
from running import Clock, bars_in, content, coverage, differing, here, pipeline_of, rows, write_minutes

DAYS = list(sessions(date(2024, 5, 1), date(2024, 5, 24)))
RANGE = ("2024-05-01", "2024-05-24")
MINUTES = Dataset(Timeframe.parse("1Min"))
FILL = replace(MINUTES, fill=True)
NOW = datetime(2024, 6, 20, 15, tzinfo=UTC)
IN_SESSION = "symbol = 'AAA' AND timestamp >= '2024-05-13 13:30:00+00' AND timestamp < '2024-05-13 20:00:00+00'"
IN_STRETCH = "symbol = 'AAA' AND timestamp >= '2024-05-16 15:00:00+00' AND timestamp < '2024-05-16 16:30:00+00'"
IN_GAPS = f"({IN_SESSION} OR {IN_STRETCH})"
RANGES = [["2024-05-13T13:30:00Z", "2024-05-13T20:00:00Z"], ["2024-05-16T15:00:00Z", "2024-05-16T16:30:00Z"]]


def to_folder(sql: str, folder: Path, dataset: str = "equities_1min") -> Path:
    """Write the bars of SQL as other programs do."""
    folder.mkdir(parents=True, exist_ok=True)
    month = "" if "day" in dataset else ", month"
    query = (
        f"SELECT *, year(timestamp) AS year, month(timestamp) AS month FROM ({sql})"
        if month
        else (f"SELECT *, year(timestamp) AS year FROM ({sql})")
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY ({query}) TO '{folder / dataset}' (FORMAT PARQUET, PARTITION_BY (symbol, year{month}))")
    return folder


def without(sql: str, condition: str, path: Path) -> Path:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY (SELECT * FROM ({sql}) WHERE NOT ({condition})) TO '{path}'")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of AAA and BBB from a vendor that lacks a session of AAA and 90 minutes of another; another source has all bars."""
    folder = tmp_path_factory.mktemp("world")
    whole = write_minutes(folder / "whole.parquet", ["AAA", "BBB"], DAYS, per_day=300)
    theirs = without(f"FROM '{whole}'", IN_GAPS, folder / "theirs.parquet")
    clock = Clock(NOW)
    with Sandbox(Replay(theirs), clock=clock) as server:
        pipeline_of(server, folder / "store", clock).ingest_symbols(["AAA", "BBB"], *RANGE)
    values = (
        "open + 1 AS open, high + 1 AS high, low + 1 AS low, close + 1 AS close, volume, 1.0 AS trade_count, close + 1 AS vwap"
    )
    to_folder(f"SELECT symbol, timestamp, {values} FROM '{whole}'", folder / "other")
    return folder


@pytest.fixture
def base(world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world / "store", tmp_path / "store"))


def fill(base: Path, folder: Path, *more: str, source: str = "other") -> Any:
    return here("import", folder, "--fill", "--source", source, "--json", "--base-path", base, *more)


def source_rows(folder: Path, condition: str) -> str:
    """Return SQL for the bars of the other source that meet a condition."""
    return f"SELECT * FROM ({bars_in(folder)}) WHERE {condition}"


def test_only_bars_in_gaps_that_verify_reports_are_added_and_alpacas_bars_stay(base: Path, world: Path) -> None:
    before = content(base)
    (warning,) = here("verify", "--json", "--base-path", base).json["warnings"]
    assert (warning["code"], [span in warning["message"] for span, _ in RANGES]) == ("gap", [True, True])

    dry = fill(base, world / "other", "--dry-run")
    assert content(base) == before
    ran = fill(base, world / "other")

    expected = source_rows(world / "other", IN_GAPS)
    assert differing(bars_in(base, "equities_1min_fill"), expected) == 0
    assert len(rows(base, "equities_1min_fill")) == 390
    assert {path: data for path, data in content(base).items() if "_fill/" not in path} == before
    assert ran.code == dry.code == 0
    assert {**ran.json, "dry_run": True} == dry.json
    assert (ran.json["added"], ran.json["held"], ran.json["bars"]) == (390, 0, 10_800)
    assert ran.json["left_out"] == {"at_alpaca": 10_410, "other_source": 0, "not_covered": 0, "no_gap": 0}
    assert ran.json["series"][0]["ranges"] == RANGES
    known = coverage(base, "AAA", "equities_1min_fill")
    assert known["filled"] == [[*one, "other"] for one in RANGES]
    assert (known["format"], known["bars"], known["covered"], known["wanted"]) == (1, 390, [], [])
    assert not (base / "metadata/coverage/equities_1min_fill/symbol=BBB.json").exists()

    files = content(base)
    again = fill(base, world / "other")
    assert (again.code, again.json["added"], again.json["held"]) == (0, 0, 390)
    assert content(base) == files


def test_commands_know_such_bars_and_ask_nothing_of_alpaca_for_them(base: Path, world: Path) -> None:
    fill(base, world / "other")
    states = {(one["dataset"], one["symbol"]): one for one in here("status", "--json", "--base-path", base).json["series"]}
    assert states["equities_1min_fill", "AAA"]["state"] == "filled"
    assert (states["equities_1min_fill", "AAA"]["bars"], states["equities_1min", "AAA"]["bars"]) == (390, 5_010)
    assert states["equities_1min_fill", "AAA"]["filled"] == [[*one, "other"] for one in RANGES]
    checked = here("verify", "--json", "--base-path", base).json
    assert (checked["series"], checked["inconsistencies"], [one["code"] for one in checked["warnings"]]) == (3, [], ["gap"])
    for view, count in (("bars_1min_fill", 390), ("bars_1min", 10_410)):
        assert here("query", f"SELECT count(*) AS n FROM {view}", "--format", "json", "--base-path", base).json["rows"] == [
            [count]
        ]

    before = coverage(base, "AAA", "equities_1min_fill")
    with Sandbox(Replay(world / "theirs.parquet"), clock=Clock(NOW)) as server:
        pipeline = pipeline_of(server, base, Clock(NOW))
        report = pipeline.update()
        assert [one.symbol for one in report.outcomes] == ["AAA", "BBB"]
        assert not any("not updated" in note for note in report.notes)
    assert coverage(base, "AAA", "equities_1min_fill") == before
    (path,) = (base / "equities_1min_fill").rglob("*.parquet")
    path.write_bytes(next((base / "equities_1min").rglob("*.parquet")).read_bytes())
    assert here("verify", "--base-path", base).code == 5
    assert here("verify", "--repair", "--base-path", base).code == 0
    repaired = coverage(base, "AAA", "equities_1min_fill")
    assert ("filled" in repaired, repaired["wanted"], repaired["bars"]) == (False, [], 0)

    assert fill(base, world / "other").json["added"] == 390
    assert here("remove", "AAA", "--fill", "--start", "2024-05-16", "--base-path", base).code == 0
    assert coverage(base, "AAA", "equities_1min_fill")["filled"] == [[*RANGES[0], "other"]]
    assert len(rows(base)) == 10_410


def test_every_way_of_reading_joins_them_and_the_frame_names_the_source(base: Path, world: Path) -> None:
    storage, call = ParquetStorage(base), (["AAA", "BBB"], *RANGE)
    without_fill = storage.load(*call)
    fill(base, world / "other")

    assert storage.load(*call).equals(without_fill)
    assert storage.load(*call).attrs["data_engine"].keys() == without_fill.attrs["data_engine"].keys()
    table = storage.load_arrow(*call, fill=True)
    with duckdb.connect() as connection:
        connection.register("answer", table)
        expected = f"({bars_in(base)}) UNION ALL ({source_rows(world / 'other', IN_GAPS)})"
        wanted = connection.sql(f"SELECT symbol, epoch_us(timestamp), close, vwap FROM ({expected}) ORDER BY ALL").fetchall()
        assert connection.sql("SELECT symbol, epoch_us(timestamp), close, vwap FROM answer").fetchall() == wanted
        lazy = storage.relation(*call, fill=True, connection=connection).order("symbol, timestamp").to_arrow_table()
    assert lazy.cast(table.schema).equals(table)
    assert pa.concat_tables([part for _, part in storage.batches(*call, fill=True)]).equals(table)
    assert pa.table(storage.load_polars(*call, fill=True).to_arrow()).cast(table.schema).equals(table)

    frame = storage.load(*call, fill=True)
    assert len(frame) == len(table)
    assert frame.index.is_unique
    about = frame.attrs["data_engine"]
    named = [{"symbol": "AAA", "start": start, "end": end, "source": "other"} for start, end in RANGES]
    assert about["filled"] == {"bars": 390, "ranges": named, "more_ranges": 0}
    assert about["sessions"] == without_fill.attrs["data_engine"]["sessions"]  # the gap is Alpaca's still
    assert about["sessions"]["suspect"] == 1
    with pytest.raises(InputError):  # bars of two sources are not stored as Alpaca's
        storage.store(frame)
    day = storage.load("AAA", "2024-05-13", "2024-05-13", resample="1Hour", fill=True, columns=["volume"])
    hours = "hour(timestamp - INTERVAL 30 MINUTE)"
    sums = f"SELECT sum(volume) FROM ({source_rows(world / 'other', IN_SESSION)}) GROUP BY {hours} ORDER BY {hours}"
    assert day["volume"].tolist() == [value for (value,) in duckdb.sql(sums).fetchall()]


@pytest.mark.parametrize("options", [{"source": "vendor"}, {"adjustment": "split", "prices": "vendor"}, {"fill": "yes"}])
def test_a_call_that_cannot_be_filled_is_refused(base: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ParquetStorage(base).load("AAA", *RANGE, incomplete="ignore", **{"fill": True, **options})


def later(world: Path, tmp_path: Path) -> Path:
    """Write what Alpaca has later: one minute more, in the session that it lacked."""
    frame = pd.read_parquet(world / "theirs.parquet")
    late = frame.iloc[[0]].assign(timestamp=pd.Timestamp("2024-05-13 15:09:00+00:00"))
    made = pd.concat([frame, late]).sort_values(["symbol", "timestamp"])
    pq.write_table(pa.Table.from_pandas(made, preserve_index=False), tmp_path / "later.parquet")
    return tmp_path / "later.parquet"


def test_once_alpaca_has_a_bar_in_a_range_its_fill_is_left_out_but_not_from_an_earlier_state(
    base: Path, world: Path, tmp_path: Path
) -> None:
    fill(base, world / "other")
    storage = ParquetStorage(base)
    lazy = storage.relation("AAA", *RANGE, fill=True)
    stored = datetime.now(UTC)
    with Sandbox(Replay(later(world, tmp_path))) as server:
        ran = here("recheck", "--json", "--base-path", base, url=server.url)
    assert (ran.json["series"], ran.json["bars_written"]) == (2, 1)

    frame = storage.load("AAA", *RANGE, fill=True)
    expected = f"({bars_in(base)}) UNION ALL ({source_rows(world / 'other', IN_STRETCH)})"
    wanted = duckdb.sql(f"SELECT close FROM ({expected}) WHERE symbol = 'AAA' ORDER BY timestamp").fetchall()
    assert frame["close"].tolist() == [close for (close,) in wanted]
    assert lazy.order("timestamp").to_arrow_table()["close"].to_pylist() == frame["close"].tolist()  # also what was begun before
    assert [one["start"] for one in frame.attrs["data_engine"]["filled"]["ranges"]] == [RANGES[1][0]]
    then = storage.load("AAA", *RANGE, fill=True, as_stored_on=stored)
    assert then.attrs["data_engine"]["filled"]["bars"] == 390
    assert len(then) == 5_400

    (finding,) = [one for one in here("verify", "--json", "--base-path", base).json["warnings"] if "fill" in one["code"]]
    assert (finding["code"], RANGES[0][0] in finding["message"], RANGES[1][0] in finding["message"]) == (
        "fill_superseded",
        True,
        False,
    )

    # What Alpaca lacks of that session still, a third source may fill: no bar of the first passes for one of it.
    thinner = f"SELECT * FROM ({bars_in(world / 'other')}) WHERE symbol = 'AAA' AND minute(timestamp) % 2 = 0"
    ran = fill(base, to_folder(thinner, tmp_path / "third"), "--timeframe", "1Min", source="third")
    assert ran.json["left_out"]["other_source"] == 45  # of the range that the first source fills
    known = coverage(base, "AAA", "equities_1min_fill")["filled"]
    assert [one for one in known if one[2] != "third"] == [[*RANGES[1], "other"]]
    assert {tuple(one) for one in known if one[2] == "third"} == {
        ("2024-05-13T13:30:00Z", "2024-05-13T15:09:00Z", "third"),
        ("2024-05-13T15:10:00Z", "2024-05-13T20:00:00Z", "third"),
    }
    assert "changing" not in coverage(base, "AAA", "equities_1min_fill")  # all is counted
    day = storage.load("AAA", "2024-05-13", "2024-05-13", fill=True)
    minutes = {stamp.minute for _, stamp in day.index if (stamp.hour, stamp.minute) != (15, 9)}
    assert len(day) == 151
    assert minutes == set(range(0, 60, 2))


class Killed(BaseException):
    """The end of a process."""


class Mortal(LocalFiles):
    """Files whose process ends before its change number *left*."""

    def __init__(self, base: Path, left: int) -> None:
        super().__init__(base)
        self.left = left

    def update(self, key: str, change: Change) -> bool:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().update(key, change)


def filled_by(files: LocalFiles, folder: Path) -> None:
    sources, _ = find_sources(folder, fill=True)
    import_fill(BarStore(files), sources, source="other", now=NOW)


def test_killed_at_every_change_no_range_is_filled_without_its_bars_and_it_ends_the_same(world: Path, tmp_path: Path) -> None:
    other, whole = (
        Path(shutil.copytree(world / name, tmp_path / name, ignore=shutil.ignore_patterns("symbol=BBB*")))
        for name in ("other", "store")
    )
    store = Path(shutil.copytree(whole, tmp_path / "empty"))
    filled_by(LocalFiles(whole), other)
    expected, changes, alive = rows(whole, "equities_1min_fill"), 0, False
    while not alive:
        base = Path(shutil.copytree(store, tmp_path / f"killed-{changes}"))
        try:
            filled_by(Mortal(base, changes), other)
            alive = True
        except Killed:
            frame = ParquetStorage(base).load("AAA", *RANGE, fill=True)
            claims = (base / "metadata/coverage/equities_1min_fill/symbol=AAA.json").exists()
            bars = frame.attrs["data_engine"]["filled"]["bars"]
            assert bars == (390 if claims and coverage(base, "AAA", "equities_1min_fill").get("filled") else 0)
            filled_by(LocalFiles(base), other)
        assert rows(base, "equities_1min_fill") == expected
        assert coverage(base, "AAA", "equities_1min_fill")["filled"] == coverage(whole, "AAA", "equities_1min_fill")["filled"]
        changes += 1
    assert changes > 3, "that many changes there are to die in"


def test_nothing_is_filled_where_alpaca_was_not_asked_or_verify_reports_no_gap(base: Path, world: Path, tmp_path: Path) -> None:
    early = f"SELECT * REPLACE (timestamp - INTERVAL 60 DAY AS timestamp) FROM ({bars_in(world / 'other')})"
    quiet = f"SELECT * REPLACE (timestamp + INTERVAL 5 HOUR AS timestamp) FROM ({bars_in(world / 'other')}) WHERE symbol = 'BBB'"
    for number, (sql, reason, bars) in enumerate(((early, "not_covered", 10_800), (quiet, "no_gap", 5_400))):
        ran = fill(base, to_folder(sql, tmp_path / str(number)))
        assert (ran.code, ran.json["added"], ran.json["left_out"][reason]) == (1, 0, bars)
    assert not (base / "equities_1min_fill").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--fill"],
        ["--source", "x"],
        ["--fill", "--source", "x", "--claim"],
        ["--fill", "--source", "x\n" * 2 + "y"],
        ["--fill", "--source", "n" * 41],
    ],
)
def test_options_that_contradict_each_other_are_refused_and_nothing_is_written(base: Path, world: Path, words: list[str]) -> None:
    before = content(base)
    assert here("import", world / "other", "--base-path", base, *words).code == 2
    assert content(base) == before


def test_a_dataset_of_fill_bars_is_imported_with_its_source_only(base: Path, world: Path, tmp_path: Path) -> None:
    copied = to_folder(source_rows(world / "other", IN_GAPS), tmp_path / "copied", "equities_1min_fill")
    plain = here("import", copied, "--json", "--base-path", base)
    assert (plain.code, plain.json["added"], len(plain.json["failed"])) == (1, 0, 1)

    assert fill(base, copied).json["added"] == 390


# ------------------------------------------------------------------------------------------------------------ the coverage


def test_coverage_of_fill_bars_is_of_their_dataset_only_and_older_coverage_has_none(base: Path, world: Path) -> None:
    fill(base, world / "other")
    data = (base / "metadata/coverage/equities_1min_fill/symbol=AAA.json").read_bytes()
    series = Series("AAA", FILL)

    assert dump(load(data, series)) == data
    with pytest.raises(ValueError, match="another source"):
        load(data, Series("AAA", MINUTES))
    theirs = (base / "metadata/coverage/equities_1min/symbol=AAA.json").read_bytes()
    assert "filled" not in json.loads(theirs)  # as before there were fills
    assert load(theirs, Series("AAA", MINUTES)).filled == ()
    with pytest.raises(ValueError, match="asked"):
        load(theirs, series)
    assert (Dataset.from_name("equities_1min_iex_fill").name, FILL.name) == ("equities_1min_iex_fill", "equities_1min_fill")
    for name in ("equities_fill", "equities_1min_split_fill", "equities_1min_fill_iex"):
        with pytest.raises(ValueError, match="fill"):
            Dataset.from_name(name)


# ----------------------------------------------------------------------------------------------------------------- real bars


REMOVED = """symbol = 'AAPL' AND timestamp >= '2024-11-29 14:30:00+00' AND timestamp < '2024-11-29 18:00:00+00'
    OR symbol = 'ACHR' AND timestamp >= '2024-12-11 14:30:00+00' AND timestamp < '2024-12-11 21:00:00+00'
        AND minute(timestamp) % 3 = 0
    OR symbol = 'ACHR' AND month(timestamp) = 12 AND hour(timestamp) = 15 AND minute(timestamp) = 15"""


def test_real_bars_that_the_vendor_lacks_come_back_from_another_source_and_no_others(tmp_path: Path) -> None:
    """A half day, every third minute of a session, and a minute of the day in each session of a month."""
    bars = bars_of("minute/polygon_sip_ext_halfday_3sym_20241125_20241231.parquet")
    other = to_folder(bars, tmp_path / "other")
    theirs, base, clock = without(bars, REMOVED, tmp_path / "theirs.parquet"), tmp_path / "store", Clock(NOW.replace(year=2025))
    symbols, days = ["AAPL", "ACHR", "SPCX"], ("2024-11-25", "2024-12-31")
    with Sandbox(Replay(theirs), clock=clock) as server:
        pipeline_of(server, base, clock).ingest_symbols(symbols, *days)

    columns = "SELECT symbol, epoch_us(timestamp), close"

    assert fill(base, other, source="a source with a name of forty letters.").code == 0
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        removed = connection.sql(f"{columns} FROM ({bars}) WHERE {REMOVED} ORDER BY ALL").fetchall()
        everything = connection.sql(f"{columns} FROM ({bars}) ORDER BY ALL").fetchall()
    assert [(row[0], row[1], row[5]) for row in rows(base, "equities_1min_fill")] == removed
    assert len(removed) > 300
    frame = ParquetStorage(base).load(symbols, *days, fill=True, incomplete="ignore", columns=[])
    about = frame.attrs["data_engine"]
    assert about["filled"]["bars"] == len(removed)
    assert about["filled"]["more_ranges"] > 100
    assert len(json.dumps(about)) < 1_000
    table = ParquetStorage(base).load_arrow(symbols, *days, fill=True, incomplete="ignore")
    micros = table["timestamp"].cast(pa.int64()).to_pylist()
    assert list(zip(table["symbol"].to_pylist(), micros, table["close"].to_pylist(), strict=True)) == everything


def test_each_absent_day_is_a_gap_of_its_own(tmp_path: Path) -> None:
    days = list(sessions(date(2023, 1, 3), date(2024, 5, 24)))
    lost = days[200:202]
    frame = pd.DataFrame({"symbol": "AAA", "timestamp": [pd.Timestamp(day, tz="America/New_York") for day in days], "n": 5_000.0})
    frame = frame.assign(open=10.0, high=10.5, low=9.5, close=10.25, volume=1e6, trade_count=5_000.0, vwap=10.0).drop(columns="n")
    frame["timestamp"] = frame["timestamp"].dt.tz_convert("UTC")
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "whole.parquet")
    kept = frame[~frame["timestamp"].dt.tz_convert("America/New_York").dt.date.isin(lost)]
    pq.write_table(pa.Table.from_pandas(kept, preserve_index=False), tmp_path / "theirs.parquet")
    base, clock = tmp_path / "store", Clock(NOW)
    with Sandbox(Replay(tmp_path / "theirs.parquet", timeframe="1Day"), clock=clock) as server:
        pipeline_of(server, base, clock).ingest_symbols(["AAA"], "2023-01-03", "2024-05-24", "1Day")

    ran = fill(base, to_folder(f"FROM '{tmp_path}/whole.parquet'", tmp_path / "other", "equities_1day"))

    assert (ran.code, ran.json["added"], ran.json["left_out"]["at_alpaca"]) == (0, 2, len(days) - 2)
    assert [row[:1] for row in coverage(base, "AAA", "equities_1day_fill")["filled"]] == [
        [f"{pd.Timestamp(day, tz='America/New_York').tz_convert('UTC'):%Y-%m-%dT%H:%M:%SZ}"] for day in lost
    ]
    call = ("AAA", str(lost[0]), str(lost[1]))
    assert len(ParquetStorage(base).load(*call, timeframe="1Day", fill=True)) == 2
    assert len(ParquetStorage(base).load(*call, timeframe="1Day")) == 0
