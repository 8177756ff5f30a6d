"""Files in the layout of the legacy pipeline, written with its own statement and imported into a store."""

from __future__ import annotations

import json
import re
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
from data_engine.ingest.file_import import import_bars
from data_engine.ingest.import_sources import find_sources
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


def write_legacy(query: str, base: Path, dataset: str = "equities_1min", timestamp: str = "timestamp") -> Path:
    """Write bars with the statement of the legacy pipeline."""
    base.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        f"COPY (SELECT symbol, {timestamp} AS timestamp, {COLUMNS}, year(timestamp) AS year, month(timestamp) AS month "
        f"FROM ({query})) "
        f"TO '{base / dataset}' (FORMAT PARQUET, COMPRESSION SNAPPY, PARTITION_BY (symbol, year, month), OVERWRITE_OR_IGNORE)"
    )
    return base


def simulated(path: Path, symbols: tuple[str, ...] = ("AAPL", "BRK.B", "TRUE")) -> str:
    """Return SQL for bars of some symbols in two months."""
    write_minutes(path, symbols, DAYS)
    return (
        "SELECT symbol, timestamp, open, high, low, close, volume, floor(volume / 100) AS trade_count, (high + low) / 2 AS vwap "
        f"FROM read_parquet('{path}')"
    )


@pytest.fixture
def query(tmp_path: Path) -> str:
    return simulated(tmp_path / "bars.parquet")


@pytest.fixture
def old(query: str, tmp_path: Path) -> Path:
    base = write_legacy(query, tmp_path / "old")
    assert (base / "equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet").is_file(), "as DuckDB names it"
    return base


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "store")


def imported(storage: ParquetStorage, folder: Path, **options):
    sources, unusable = find_sources(folder, **options)
    assert unusable == []
    return import_bars(storage.bars, sources, now=NOW)


def test_every_bar_is_in_the_store_and_the_originals_are_untouched(storage, old, query, tmp_path):
    before = {path: path.read_bytes() for path in old.rglob("*.parquet")}
    report = imported(storage, old)

    assert differing(bars_in(tmp_path / "store"), query) == 0
    assert (report.files, report.bars, report.added, report.stored, report.failed) == (6, 180, 180, 0, [])
    assert report.by_series == {Series(name, MINUTES): 60 for name in ("AAPL", "BRK.B", "TRUE")}
    assert {path: path.read_bytes() for path in old.rglob("*.parquet")} == before


@pytest.mark.parametrize("where", [".", "equities_1min"])
def test_the_folder_of_a_dataset_will_do_too(storage, old, tmp_path, where):
    assert imported(storage, old / where).added == 180


@pytest.mark.parametrize(
    "timestamp",
    ["timestamp", "timestamp::TIMESTAMP", "timestamp::TIMESTAMP::TIMESTAMP_NS", "timestamp::TIMESTAMP::TIMESTAMP_MS"],
)
def test_timestamps_of_any_unit_and_without_a_zone_are_utc(storage, query, tmp_path, timestamp):
    imported(storage, write_legacy(query, tmp_path / "old", timestamp=timestamp))

    assert differing(bars_in(tmp_path / "store"), query) == 0


def test_whole_numbers_and_a_symbol_column_are_taken(storage, query, tmp_path):
    whole = query.replace("volume, floor", "volume::BIGINT AS volume, floor").replace(
        "AS trade_count", "::INTEGER AS trade_count"
    )
    imported(storage, write_legacy(whole, tmp_path / "old"))
    path = tmp_path / "other/equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet"
    path.parent.mkdir(parents=True)
    table = pq.ParquetFile(tmp_path / "old/equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet").read()
    pq.write_table(table.append_column("symbol", pa.array(["AAPL"] * len(table))), path)

    assert differing(bars_in(tmp_path / "store"), query) == 0
    assert imported(storage, tmp_path / "other").stored == 40


def test_the_month_of_the_path_is_ignored(storage, query, tmp_path):
    """DuckDB derives it in the time zone of the machine that wrote the file."""
    write_legacy(query, tmp_path / "old")
    folder = tmp_path / "old/equities_1min/symbol=AAPL/year=2024"
    (folder / "month=6").rename(folder / "month=12")
    imported(storage, tmp_path / "old")

    assert differing(bars_in(tmp_path / "store"), query) == 0
    assert (tmp_path / "store/equities_1min/symbol=AAPL/year=2024/month=06/data.parquet").is_file()


def test_days_go_to_their_own_dataset(storage, tmp_path):
    days = "SELECT 'AAPL' AS symbol, TIMESTAMPTZ '2024-06-03 04:00:00+00' AS timestamp, 1.0 AS open, 2.0 AS high, 1.0 AS low, "
    days += "1.5 AS close, 10 AS volume, 1 AS trade_count, 1.5 AS vwap"
    imported(storage, write_legacy(days, tmp_path / "old", "equities_1day"))

    assert rows(tmp_path / "store", "equities_1day") == [("AAPL", 1717387200000000, 1.0, 2.0, 1.0, 1.5, 10.0, 1.0, 1.5)]


def test_the_feed_and_the_adjustment_can_be_given(storage, old, tmp_path):
    imported(storage, old, feed="iex", adjustment="split")

    assert count(tmp_path / "store", "equities_1min_split_iex") == 180
    assert not (tmp_path / "store/equities_1min").exists()


# What is stored already


@pytest.fixture
def server(query: str, tmp_path: Path) -> Iterator[Sandbox]:
    assert query
    with Sandbox(Replay(tmp_path / "bars.parquet"), clock=lambda: NOW) as sandbox:
        yield sandbox


def test_bars_of_the_store_stay_as_they_are(storage, query, tmp_path):
    imported(storage, write_legacy(query, tmp_path / "old"))
    other = write_legacy(query.replace("volume, floor", "volume + 1 AS volume, floor"), tmp_path / "revised")
    report = imported(storage, other)

    assert (report.added, report.stored) == (0, 180)
    assert differing(bars_in(tmp_path / "store"), query) == 0


@pytest.mark.parametrize("answered", [NOW, datetime(2024, 6, 4, 4, 30, tzinfo=UTC)], ids=["covered", "provisional"])
def test_nothing_is_added_to_ranges_that_alpaca_has_answered(server, storage, old, query, tmp_path, answered):
    """There a bar from elsewhere would be invented."""
    pipeline_of(server, tmp_path / "store", lambda: answered).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")
    more = query.replace("symbol, timestamp,", "symbol, timestamp + INTERVAL 3 hours AS timestamp,")
    report = imported(storage, write_legacy(f"({query}) UNION ALL ({more})", tmp_path / "both"))

    assert (report.stored, report.covered) == (20, 20)
    assert report.added == 360 - 40
    assert verify(storage.bars, DatasetFilter(), now=NOW).inconsistencies == []


def test_nothing_becomes_covered_and_an_ingestion_fetches_it(server, storage, old, query, tmp_path):
    imported(storage, old)
    known = storage.bars.coverage.read(Series("AAPL", MINUTES))

    assert (known.wanted, known.covered, known.provisional, known.bars) == ((), (), (), 60)
    checked = verify(storage.bars, DatasetFilter(), now=NOW)
    assert checked.findings == []
    server.forget()
    pipeline_of(server, tmp_path / "store", lambda: NOW).ingest_symbols(["AAPL"], "2024-05-31", "2024-06-04")
    assert len(server.requests) > 0
    assert count(tmp_path / "store") == 180


def test_importing_twice_is_importing_once(storage, old, tmp_path):
    imported(storage, old)
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.parquet")}
    report = imported(storage, old)

    assert (report.added, report.stored) == (0, 180)
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.parquet")} == before


def test_several_files_of_a_month_are_merged_and_the_last_wins(storage, query, tmp_path):
    """What the legacy pipeline leaves after two runs with other file names."""
    write_legacy(query, tmp_path / "old")
    write_legacy(query.replace("volume, floor", "volume + 1 AS volume, floor"), tmp_path / "new")
    for path in sorted((tmp_path / "new").rglob("*.parquet")):
        path.rename(tmp_path / "old" / path.relative_to(tmp_path / "new").with_name("data_1.parquet"))
    report = imported(storage, tmp_path / "old")

    assert report.added == 180
    assert differing(bars_in(tmp_path / "store"), query.replace("volume, floor", "volume + 1 AS volume, floor")) == 0


# What cannot be imported

MONTH = "equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet"


def rewritten(old: Path, change) -> None:
    path = old / MONTH
    pq.write_table(change(pq.ParquetFile(path).read()), path)


def column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda table: table.drop_columns(["vwap"]), ("vwap",)),
        (lambda table: column(table, "close", pa.array([None] * len(table), pa.float64())), ("40", "close")),
        (lambda table: column(table, "close", pa.array([float("nan")] * len(table))), ("close", "2024-06-03")),
        (lambda table: column(table, "close", pa.array(["1.0"] * len(table))), ("close", "string")),
        (lambda table: column(table, "timestamp", pa.array(range(len(table)))), ("timestamp", "int64")),
        (
            lambda table: column(table, "timestamp", pa.array([datetime(2024, 6, 3, 14, 0, 7)] * len(table))),
            ("2024-06-03T14:00:07Z", "1Min"),
        ),
        (
            lambda table: column(table, "timestamp", pa.array([datetime(2034, 6, 3, 14)] * len(table))),
            ("2034-06-03T14:00:00Z",),
        ),
        (
            lambda table: table.append_column("symbol", pa.array(["MSFT"] * len(table))),
            ("MSFT", "AAPL"),
        ),
    ],
)
def test_one_bad_file_is_named_and_the_others_are_imported(storage, old, tmp_path, change, named):
    rewritten(old, change)
    report = imported(storage, old)

    ((path, message),) = report.failed
    assert path == str(old / MONTH)
    assert all(word in message for word in named)
    assert (report.files, report.added) == (5, 140)


def test_a_file_that_is_no_parquet_is_named(storage, old):
    (old / MONTH).write_bytes(b"PAR1 no")

    assert [path for path, _ in imported(storage, old).failed] == [str(old / MONTH)]


def test_a_path_of_another_layout_is_named(old):
    (old / MONTH).rename(old / "equities_1min/stray.parquet")
    sources, unusable = find_sources(old)

    assert len(sources) == 5
    assert [path for path, _ in unusable] == [str(old / "equities_1min/stray.parquet")]


def test_a_store_is_not_imported_into_itself(old):
    with pytest.raises(InputError, match=f"{re.escape(str(old))}.*--base-path"):
        import_bars(ParquetStorage(old).bars, find_sources(old)[0], now=NOW)


def test_nothing_to_import_is_an_error(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        find_sources(tmp_path / "nowhere")
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        find_sources(tmp_path)


# The command, and `verify` on such a folder


def command(*words: object):
    return CliRunner().invoke(import_files, [str(word) for word in words])


def test_the_command_imports_and_prints_counts(old, query, tmp_path):
    rewritten(old, lambda table: table.drop_columns(["vwap"]))
    ran = command(old, "--base-path", tmp_path / "store", "--json")
    fields = json.loads(ran.stdout)

    assert (ran.exit_code, fields["files"], fields["added"], len(fields["failed"])) == (1, 5, 140, 1)
    assert fields["failed"][0]["file"] == str(old / MONTH)
    again = command(old, "--base-path", tmp_path / "store")
    assert re.search(r"\b0 added, 140 already\b", again.stdout)


def test_a_dry_run_reads_everything_and_writes_nothing(old, tmp_path):
    ran = command(old, "--base-path", tmp_path / "store", "--dry-run")

    assert (ran.exit_code, "180 would" in ran.stdout) == (0, True)
    assert not (tmp_path / "store").exists()


def test_verify_names_a_legacy_store_and_the_remedy(old):
    ran = here("verify", "--base-path", old)

    assert ran.code == 0
    line = next(line for line in ran.out.splitlines() if str(old / MONTH.replace("month=6", "month=5")) in line)
    assert re.search(r"\bequities_1min\b.*\b6 files\b", line)
    assert "`data-engine import --in-place`" in line


def test_all_real_bars_are_imported(storage, tmp_path):
    name = "minute/polygon_sip_ext_8sym_20240603_20240816.parquet"
    sources, _ = find_sources(write_legacy(bars_of(name), tmp_path / "old"))
    report = import_bars(storage.bars, sources, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert (report.added, report.failed) == (258_824, [])
    assert differing(bars_in(tmp_path / "store"), bars_of(name)) == 0
    schema = pq.ParquetFile(next((tmp_path / "store").rglob("*.parquet"))).schema_arrow
    assert schema.equals(BAR_SCHEMA)
