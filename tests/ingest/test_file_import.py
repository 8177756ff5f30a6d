"""Files in the reference's layout, written as the reference writes them, brought into a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from data_engine.cli.import_files import import_files
from data_engine.errors import InputError, MissingFileError
from data_engine.ingest.file_import import find_sources, import_bars
from data_engine.market.bars import BAR_SCHEMA
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.sandbox import Replay, Sandbox
from data_engine.store.selection import DatasetFilter
from data_engine.verify.verify import verify
from real_data import bars_of
from running import bars_in, count, differing, here, pipeline_of, rows, write_minutes

NOW = datetime(2024, 7, 20, tzinfo=UTC)
MINUTES = Dataset(Timeframe.parse("1Min"))
DAYS = [date(2024, 5, 31), date(2024, 6, 3), date(2024, 6, 4)]
COLUMNS = "open, high, low, close, volume, trade_count, vwap"


def as_the_reference_writes(
    query: str, base: Path, dataset: str = "equities_1min", stamp: str = "timestamp", extra: str = ""
) -> Path:
    """Write bars with the reference's own statement."""
    base.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        f"COPY (SELECT symbol, {stamp} AS timestamp, {COLUMNS}, year(timestamp) AS year, month(timestamp) AS month "
        f"FROM ({query})) "
        f"TO '{base / dataset}' (FORMAT PARQUET, COMPRESSION SNAPPY, PARTITION_BY (symbol, year, month), OVERWRITE_OR_IGNORE)"
    )
    return base


def made_up(path: Path, symbols: tuple[str, ...] = ("AAPL", "BRK.B", "TRUE")) -> str:
    """Return SQL for bars of some symbols in two months."""
    write_minutes(path, symbols, DAYS)
    return (
        "SELECT symbol, timestamp, open, high, low, close, volume, floor(volume / 100) AS trade_count, (high + low) / 2 AS vwap "
        f"FROM read_parquet('{path}')"
    )


@pytest.fixture
def query(tmp_path: Path) -> str:
    return made_up(tmp_path / "bars.parquet")


@pytest.fixture
def old(query: str, tmp_path: Path) -> Path:
    base = as_the_reference_writes(query, tmp_path / "old")
    assert (base / "equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet").is_file(), "as DuckDB names it"
    return base


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "store")


def brought(storage: ParquetStorage, folder: Path, **options):
    sources, strange = find_sources(folder, **options)
    assert strange == []
    return import_bars(storage.bars, sources, now=NOW)


def test_every_bar_is_in_the_store_and_the_originals_are_untouched(storage, old, query, tmp_path):
    before = {path: path.read_bytes() for path in old.rglob("*.parquet")}
    made = brought(storage, old)

    assert differing(bars_in(tmp_path / "store"), query) == 0
    assert (made.files, made.bars, made.added, made.held, made.failed) == (6, 180, 180, 0, [])
    assert made.by_series == {Series(name, MINUTES): 60 for name in ("AAPL", "BRK.B", "TRUE")}
    assert {path: path.read_bytes() for path in old.rglob("*.parquet")} == before


@pytest.mark.parametrize("where", [".", "equities_1min"])
def test_the_folder_of_a_dataset_will_do_too(storage, old, tmp_path, where):
    assert brought(storage, old / where).added == 180


@pytest.mark.parametrize(
    "stamp",
    ["timestamp", "timestamp::TIMESTAMP", "timestamp::TIMESTAMP::TIMESTAMP_NS", "timestamp::TIMESTAMP::TIMESTAMP_MS"],
)
def test_stamps_of_any_unit_and_without_a_zone_are_utc(storage, query, tmp_path, stamp):
    brought(storage, as_the_reference_writes(query, tmp_path / "old", stamp=stamp))

    assert differing(bars_in(tmp_path / "store"), query) == 0


def test_whole_numbers_and_a_symbol_column_are_taken(storage, query, tmp_path):
    whole = query.replace("volume, floor", "volume::BIGINT AS volume, floor").replace(
        "AS trade_count", "::INTEGER AS trade_count"
    )
    brought(storage, as_the_reference_writes(whole, tmp_path / "old"))
    path = tmp_path / "other/equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet"
    path.parent.mkdir(parents=True)
    table = pq.ParquetFile(tmp_path / "old/equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet").read()
    pq.write_table(table.append_column("symbol", pa.array(["AAPL"] * len(table))), path)

    assert differing(bars_in(tmp_path / "store"), query) == 0
    assert brought(storage, tmp_path / "other").held == 40


def test_the_month_of_the_path_is_not_believed(storage, query, tmp_path):
    """DuckDB makes it in the time zone of whoever wrote the file."""
    as_the_reference_writes(query, tmp_path / "old")
    folder = tmp_path / "old/equities_1min/symbol=AAPL/year=2024"
    (folder / "month=6").rename(folder / "month=12")
    brought(storage, tmp_path / "old")

    assert differing(bars_in(tmp_path / "store"), query) == 0
    assert (tmp_path / "store/equities_1min/symbol=AAPL/year=2024/month=06/data.parquet").is_file()


def test_days_go_to_their_own_dataset(storage, tmp_path):
    days = "SELECT 'AAPL' AS symbol, TIMESTAMPTZ '2024-06-03 04:00:00+00' AS timestamp, 1.0 AS open, 2.0 AS high, 1.0 AS low, "
    days += "1.5 AS close, 10 AS volume, 1 AS trade_count, 1.5 AS vwap"
    brought(storage, as_the_reference_writes(days, tmp_path / "old", "equities_1day"))

    assert rows(tmp_path / "store", "equities_1day") == [("AAPL", 1717387200000000, 1.0, 2.0, 1.0, 1.5, 10.0, 1.0, 1.5)]


def test_the_feed_and_the_adjustment_can_be_said(storage, old, tmp_path):
    brought(storage, old, feed="iex", adjustment="split")

    assert count(tmp_path / "store", "equities_1min_split_iex") == 180
    assert not (tmp_path / "store/equities_1min").exists()


# What the store has already


@pytest.fixture
def server(query: str, tmp_path: Path) -> Iterator[Sandbox]:
    assert query
    with Sandbox(Replay(tmp_path / "bars.parquet"), clock=lambda: NOW) as sandbox:
        yield sandbox


def test_bars_of_the_store_stay_as_they_are(storage, query, tmp_path):
    brought(storage, as_the_reference_writes(query, tmp_path / "old"))
    other = as_the_reference_writes(query.replace("volume, floor", "volume + 1 AS volume, floor"), tmp_path / "revised")
    made = brought(storage, other)

    assert (made.added, made.held) == (0, 180)
    assert differing(bars_in(tmp_path / "store"), query) == 0


def test_nothing_is_put_where_the_vendor_was_asked_and_had_nothing(server, storage, old, query, tmp_path):
    """Coverage says that the vendor's answer is all there is: a bar from elsewhere would be invented."""
    pipeline_of(server, tmp_path / "store", lambda: NOW).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")
    more = query.replace("symbol, timestamp,", "symbol, timestamp + INTERVAL 3 hours AS timestamp,")
    made = brought(storage, as_the_reference_writes(f"({query}) UNION ALL ({more})", tmp_path / "both"))

    assert (made.held, made.covered) == (20, 20)
    assert made.added == 360 - 40
    assert verify(storage.bars, DatasetFilter(), now=NOW).inconsistencies == []


def test_nothing_is_claimed_and_an_ingestion_asks_for_it(server, storage, old, query, tmp_path):
    brought(storage, old)
    known = storage.bars.coverage.read(Series("AAPL", MINUTES))

    assert (known.wanted, known.covered, known.provisional, known.bars) == ((), (), (), 60)
    verdict = verify(storage.bars, DatasetFilter(), now=NOW)
    assert verdict.findings == []
    server.forget()
    pipeline_of(server, tmp_path / "store", lambda: NOW).ingest_symbols(["AAPL"], "2024-05-31", "2024-06-04")
    assert len(server.requests) > 0
    assert count(tmp_path / "store") == 180


def test_importing_twice_is_importing_once(storage, old, tmp_path):
    brought(storage, old)
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.parquet")}
    made = brought(storage, old)

    assert (made.added, made.held) == (0, 180)
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.parquet")} == before


def test_several_files_of_a_month_are_merged_and_the_last_wins(storage, query, tmp_path):
    """What a reference store holds after two runs with other file names."""
    as_the_reference_writes(query, tmp_path / "old")
    as_the_reference_writes(query.replace("volume, floor", "volume + 1 AS volume, floor"), tmp_path / "new")
    for path in sorted((tmp_path / "new").rglob("*.parquet")):
        path.rename(tmp_path / "old" / path.relative_to(tmp_path / "new").with_name("data_1.parquet"))
    made = brought(storage, tmp_path / "old")

    assert made.added == 180
    assert differing(bars_in(tmp_path / "store"), query.replace("volume, floor", "volume + 1 AS volume, floor")) == 0


# What cannot be imported

MONTH = "equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet"


def rewritten(old: Path, change) -> None:
    path = old / MONTH
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda table: table.drop_columns(["vwap"]), "it lacks vwap"),
        (lambda table: column(table, "close", pa.array([None] * len(table), pa.float64())), "40 values of close are missing"),
        (lambda table: column(table, "close", pa.array([float("nan")] * len(table))), "close at 2024-06-03"),
        (lambda table: column(table, "close", pa.array(["1.0"] * len(table))), "close is string"),
        (lambda table: column(table, "timestamp", pa.array(range(len(table)))), "timestamp is int64"),
        (
            lambda table: column(table, "timestamp", pa.array([datetime(2024, 6, 3, 14, 0, 7)] * len(table))),
            "2024-06-03T14:00:07Z is not the start of a 1Min bar",
        ),
        (
            lambda table: column(table, "timestamp", pa.array([datetime(2034, 6, 3, 14)] * len(table))),
            "2034-06-03T14:00:00Z has not come yet",
        ),
        (
            lambda table: table.append_column("symbol", pa.array(["MSFT"] * len(table))),
            "it holds bars of MSFT in a folder of AAPL",
        ),
    ],
)
def test_one_bad_file_is_named_and_the_others_are_brought(storage, old, tmp_path, change, why):
    rewritten(old, change)
    made = brought(storage, old)

    ((path, message),) = made.failed
    assert path == str(old / MONTH)
    assert why in message
    assert (made.files, made.added) == (5, 140)


def test_a_file_that_is_no_parquet_is_named(storage, old):
    (old / MONTH).write_bytes(b"PAR1 no")

    assert [path for path, _ in brought(storage, old).failed] == [str(old / MONTH)]


def test_a_path_of_another_layout_is_named(old):
    (old / MONTH).rename(old / "equities_1min/stray.parquet")
    sources, strange = find_sources(old)

    assert len(sources) == 5
    assert [path for path, _ in strange] == [str(old / "equities_1min/stray.parquet")]


def test_a_store_is_not_imported_into_itself(old):
    with pytest.raises(InputError, match="lie in the store"):
        import_bars(ParquetStorage(old).bars, find_sources(old)[0], now=NOW)


def test_nothing_to_import_is_said(tmp_path):
    with pytest.raises(MissingFileError, match="no such folder"):
        find_sources(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no files like"):
        find_sources(tmp_path)


# The command, and what `verify` says of such a folder


def command(*words: object):
    return CliRunner().invoke(import_files, [str(word) for word in words])


def test_the_command_imports_and_says_what_it_did(old, query, tmp_path):
    rewritten(old, lambda table: table.drop_columns(["vwap"]))
    ran = command(old, "--base-path", tmp_path / "store", "--json")
    said = json.loads(ran.stdout)

    assert (ran.exit_code, said["files"], said["added"], len(said["failed"])) == (1, 5, 140, 1)
    assert said["failed"][0]["file"] == str(old / MONTH)
    again = command(old, "--base-path", tmp_path / "store")
    assert "0 added, 140 already held" in again.stdout


def test_a_dry_run_reads_everything_and_writes_nothing(old, tmp_path):
    ran = command(old, "--base-path", tmp_path / "store", "--dry-run")

    assert (ran.exit_code, "180 would be added" in ran.stdout) == (0, True)
    assert not (tmp_path / "store").exists()


def test_verify_names_a_store_of_the_reference_and_the_way_out(old):
    ran = here("verify", "--base-path", old)

    assert ran.code == 0
    assert f"6 files of equities_1min have the reference's layout ({old / MONTH.replace('month=6', 'month=5')})" in ran.out
    assert f"`data-engine import {old} --base-path NEW`" in ran.out


def test_all_real_bars_come_over(storage, tmp_path):
    name = "minute/polygon_sip_ext_8sym_20240603_20240816.parquet"
    sources, _ = find_sources(as_the_reference_writes(bars_of(name), tmp_path / "old"))
    made = import_bars(storage.bars, sources, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert (made.added, made.failed) == (258_824, [])
    assert differing(bars_in(tmp_path / "store"), bars_of(name)) == 0
    schema = pq.ParquetFile(next((tmp_path / "store").rglob("*.parquet"))).schema_arrow
    assert schema.equals(BAR_SCHEMA)
