"""What the issues ask for before they count as done, each sentence a test. Real bars where they are, counted at the server."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from data_engine.sandbox import Replay, Sandbox, SimulatedMarket
from data_engine.sandbox.server import Record
from real_data import bars_of, real
from running import (
    COLUMNS,
    SECRET,
    account,
    asked,
    bars_in,
    client_of,
    content,
    count,
    coverage,
    differing,
    ended,
    names_of,
    pipeline_of,
    rows,
    run,
    start,
    write_minutes,
)

EIGHT = "minute/polygon_sip_ext_8sym_20240603_20240816.parquet"
SYMBOLS = ["AAPL", "NVDA", "SPY", "ACHR", "MSTR", "ARM", "SPCX", "INTC"]
RANGE = ("--start", "2024-06-03", "--end", "2024-08-16")
NOW = datetime(2026, 8, 3, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def alpaca() -> ModuleType:
    """alpaca-py, whose import warns of deprecations that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pytest.importorskip("alpaca.data")
        pytest.importorskip("alpaca.data.historical")
    return data


@pytest.fixture(scope="module")
def eight() -> Iterator[Sandbox]:
    """A server of the eight real symbols."""
    with Sandbox(Replay(real(EIGHT)), gzip_level=0) as server:
        yield server


@pytest.fixture(scope="module")
def eight_store(eight: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Those bars, ingested by the command from a CSV list, and how many requests it took."""
    folder = tmp_path_factory.mktemp("eight")
    (folder / "list.csv").write_text("Ranking,Company Name,Symbol\n" + "".join(f"1,Some Inc,{name}\n" for name in SYMBOLS))
    before = len(eight.requests)
    words = ("ingest", "--csv", folder / "list.csv", *RANGE, "--base-path", folder / "store")
    ran = run(*words, url=eight.url, env=account(eight.url, HOME=str(folder)))
    assert ran.code == 0, ran.text
    return folder / "store", len(eight.requests) - before


def least(server: Sandbox) -> int:
    """Return the fewest requests that carry the bars that a server has transferred."""
    return math.ceil(sum(record.rows for record in server.requests) / 10_000)


# ------------------------------------------------------------------------------------------- A: from the protocol to the store


def test_all_258_824_real_bars_are_in_the_store_as_duckdb_reads_it(eight_store: tuple[Path, int]) -> None:
    store, _ = eight_store

    assert count(store) == 258_824
    assert differing(bars_in(store), bars_of(EIGHT)) == 0


def test_pandas_reads_the_same_258_824_bars(eight_store: tuple[Path, int]) -> None:
    store, _ = eight_store
    expected = duckdb.sql(f"{bars_of(EIGHT)} ORDER BY symbol, timestamp").fetchnumpy()

    read = pd.read_parquet(store / "equities_1min").sort_values(["symbol", "timestamp"])

    assert read["symbol"].astype(str).tolist() == expected["symbol"].tolist()
    assert str(read["timestamp"].dtype) == "datetime64[us, UTC]"
    times = np.asarray(expected["timestamp"], "datetime64[us]")
    assert (read["timestamp"].dt.tz_localize(None).to_numpy() == times).all()
    for name in COLUMNS:
        assert (read[name].to_numpy() == np.asarray(expected[name])).all(), name


def test_polars_reads_the_same_258_824_bars(eight_store: tuple[Path, int]) -> None:
    store, _ = eight_store
    source = pl.read_parquet(real(EIGHT)).with_columns(
        trade_count=(pl.col("volume") / 100).floor().clip(lower_bound=1.0),
        vwap=((pl.col("high") + pl.col("low") + pl.col("close")) / 3),
    )
    order = ["symbol", "timestamp"]
    source = source.select(*order, *COLUMNS).sort(order)

    read = pl.read_parquet(store / "equities_1min" / "**" / "*.parquet", hive_partitioning=True).select(*order, *COLUMNS)
    read = read.sort(order)

    exact = [*order, "open", "high", "low", "close", "volume", "trade_count"]
    assert read.select(exact).equals(source.select(exact))
    # Polars rounds halves its own way: the derived column is held against DuckDB's above, here to within the last decimal.
    assert ((read["vwap"] - source["vwap"]).abs() <= 0.000051).all()


def test_files_hold_the_eight_columns_in_order_and_nothing_of_their_path(eight_store: tuple[Path, int]) -> None:
    store, _ = eight_store
    path = store / "equities_1min" / "symbol=AAPL" / "year=2024" / "month=06" / "data.parquet"

    described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{path}', hive_partitioning = false)").fetchall()

    assert [(name, kind) for name, kind, *_ in described] == [
        ("timestamp", "TIMESTAMP WITH TIME ZONE"),
        *((name, "DOUBLE") for name in COLUMNS),
    ]


FILES = {
    "both-clock-changes": ("minute/polygon_sip_ext_dst_4sym_202403_202411.parquet", 43_258, "1Min", "sip", "equities_1min"),
    "half-days": ("minute/polygon_sip_ext_halfday_3sym_20241125_20241231.parquet", 37_370, "1Min", "sip", "equities_1min"),
    "fractional-volume": ("minute/polygon_sip_ext_fracvol_3sym_202602.parquet", 14_620, "1Min", "sip", "equities_1min"),
    "recorded-iex": ("minute/alpaca_iex_SPY_202506.parquet", 1_176, "1Min", "iex", "equities_1min_iex"),
    "days-of-tiingo": ("daily/tiingo_raw_adj_12sym_20240401_20260331.parquet", 6_019, "1Day", "sip", "equities_1day"),
    "days-of-yahoo": ("daily/yahoo_adj_12sym_20160516_20210514.parquet", 10_758, "1Day", "sip", "equities_1day"),
}


def expected_of(name: str) -> str:
    """Return SQL for the bars of any of the files, as the folder's README says."""
    if name.startswith("minute/alpaca"):
        return f"SELECT symbol, timestamp, {', '.join(COLUMNS)} FROM read_parquet('{real(name)}')"
    if name.startswith("daily/"):
        day = "timezone('America/New_York', date::TIMESTAMP)"
        return (
            f"SELECT symbol, {day} AS timestamp, open, high, low, close, volume::DOUBLE AS volume, "
            "greatest(1, floor(volume / 100))::DOUBLE AS trade_count, round((high + low + close) / 3, 4)::DOUBLE AS vwap "
            f"FROM read_parquet('{real(name)}')"
        )
    return bars_of(name)


@pytest.mark.parametrize(("name", "bars", "timeframe", "feed", "dataset"), FILES.values(), ids=FILES)
def test_real_bars_of_every_kind_arrive_in_every_column(
    tmp_path: Path, name: str, bars: int, timeframe: str, feed: str, dataset: str
) -> None:
    expected = expected_of(name)
    symbols = [row[0] for row in duckdb.sql(f"SELECT DISTINCT symbol FROM ({expected}) ORDER BY 1").fetchall()]
    first, last = duckdb.sql(
        f"SELECT min(d)::VARCHAR, max(d)::VARCHAR FROM (SELECT timezone('America/New_York', timestamp)::DATE d FROM ({expected}))"
    ).fetchall()[0]

    with Sandbox(Replay(real(name))) as server:
        words = ("--start", first, "--end", last, "--timeframe", timeframe, "--feed", feed, "--base-path", tmp_path / "store")
        ran = run("ingest", *symbols, *words, url=server.url)

    assert ran.code == 0, ran.text
    assert count(tmp_path / "store", dataset) == bars
    assert differing(bars_in(tmp_path / "store", dataset), expected) == 0
    assert [path.name for path in tmp_path.joinpath("store").glob("equities_*")] == [dataset]


def test_a_day_ingested_again_leaves_rows_and_bytes_as_they_are(eight: Sandbox, eight_store: tuple[Path, int]) -> None:
    store, _ = eight_store
    before = content(store)

    again = run("ingest", *SYMBOLS, "--start", "2024-06-10", "--end", "2024-06-10", "--base-path", store, url=eight.url)
    refetched = run(
        "ingest", *SYMBOLS, "--start", "2024-06-10", "--end", "2024-06-10", "--refetch", "--base-path", store, url=eight.url
    )

    assert (again.code, refetched.code) == (0, 0)
    assert "Requests: 0" in again.out
    assert "Bars: 0 new, 0 revised" in refetched.out
    assert content(store) == before


PIECES = (("2024-06-03", "2024-06-25"), ("2024-06-26", "2024-07-18"), ("2024-07-19", "2024-08-16"))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=lambda order: "-".join(map(str, order)))
def test_three_pieces_in_any_order_make_the_same_bytes(
    eight: Sandbox, eight_store: tuple[Path, int], tmp_path: Path, order: tuple[int, ...]
) -> None:
    for piece in order:
        report = pipeline_of(eight, tmp_path / "store", workers=1 + piece).ingest_symbols(SYMBOLS, *PIECES[piece])
        assert report.exit_code == 0

    assert content(tmp_path / "store") == content(eight_store[0])


def test_of_eight_symbols_a_malformed_and_an_unknown_one_fail_and_say_why(eight: Sandbox, tmp_path: Path) -> None:
    names = ["AAPL", "BRK-B", "NVDA", "ZZZQ", "ACHR", "ARM", "SPCX", "INTC"]
    (tmp_path / "list.csv").write_text("Symbol\n" + "\n".join(names))

    words = ("ingest", "--csv", "list.csv", "--start", "2024-06-03", "--end", "2024-06-14", "--base-path", "store")
    people = run(*words, url=eight.url)
    machines = run(*words, "--json", url=eight.url)

    assert people.code == 1
    assert people.out[people.out.index("Ingestion Summary:") :].splitlines() == [
        "Ingestion Summary:",
        "  Successful: 6/8",
        "  Failed: 2/8",
        next(line for line in people.out.splitlines() if line.startswith("  Bars: ")),
        "",
        "Failed symbols:",
        "  - BRK-B: invalid symbol: BRK-B; did you mean BRK.B?",
        "  - ZZZQ: No data available",
    ]
    assert machines.code == 1
    assert machines.json["successful"] == ["AAPL", "NVDA", "ACHR", "ARM", "SPCX", "INTC"]
    assert [(one["symbol"], one["code"]) for one in machines.json["failed"]] == [("BRK-B", "invalid_symbol"), ("ZZZQ", "no_data")]
    # What came of the others is whole.
    inside = f"SELECT * FROM ({bars_of(EIGHT)}) WHERE timestamp < '2024-06-15 04:00:00+00' AND symbol NOT IN ('SPY', 'MSTR')"
    assert differing(bars_in(tmp_path / "store"), inside) == 0


@pytest.mark.parametrize("workers", [1, 5])
def test_wrong_keys_end_the_run_within_one_request_a_worker(tmp_path: Path, workers: int) -> None:
    words = ("--start", "2022-01-01", "--end", "2023-12-31", "--workers", workers, "--base-path", tmp_path / "store")
    with Sandbox(SimulatedMarket(), keys={"PKRIGHT": "right"}, latency=0.05) as server:
        ran = run("ingest", *names_of(30), *words, url=server.url)

        assert ran.code == 3
        assert 1 <= len(server.requests) <= workers
    assert "refused the credentials" in ran.err
    assert SECRET not in ran.text
    assert count(tmp_path / "store") == 0


def test_no_keys_is_bad_usage_and_the_message_names_the_variables_and_the_demo(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        ran = run(
            "ingest", "AAPL", "--start", "2024-01-01", "--base-path", tmp_path / "store", env={"APCA_API_DATA_URL": server.url}
        )

        assert server.requests == []
    assert ran.code == 2
    for words in ("ALPACA_API_KEY", "ALPACA_SECRET_KEY", "APCA_API_KEY_ID", "APCA_API_SECRET_KEY", ".env", "data-engine demo"):
        assert words in ran.err
    assert not (tmp_path / "store").exists()


def test_json_is_the_one_thing_on_stdout(eight: Sandbox, tmp_path: Path) -> None:
    words = ("ingest", "AAPL", "SPCX", "--start", "2024-06-03", "--end", "2024-06-07", "--base-path", tmp_path / "store")
    ran = run(*words, "--json", url=eight.url)

    result = ran.json
    assert ran.code == 0
    assert result["successful"] == ["AAPL", "SPCX"]
    assert result["failed"] == []
    assert result["bars_written"] == count(tmp_path / "store")
    assert isinstance(result["requests"], int)
    assert result["elapsed_seconds"] >= 0
    assert "Ingestion Summary:" in ran.err


LIGHT = {
    "import": "import data_engine, data_engine.cli",
    "help": "from data_engine.cli import main; assert main(['--help']) == 0",
}


@pytest.mark.parametrize("code", LIGHT.values(), ids=LIGHT)
def test_import_and_help_stay_light(code: str) -> None:
    watch = "import sys; print(*{'pandas', 'pyarrow', 'duckdb', 'alpaca', 'numpy'} & set(sys.modules), file=sys.stderr)"

    done = subprocess.run([sys.executable, "-c", f"{code}\n{watch}"], capture_output=True, text=True, check=True)

    assert done.stderr.strip() == ""


# ------------------------------------------------------------------------------------------ A: the examples of the contract


@pytest.fixture
def example_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """An account, a store and a list, all named by the environment; bars of a few sessions in every year of the examples."""
    names = ["AAPL", "GOOGL", "MSFT", "TSLA"]
    # The first Wednesdays of four months: sessions all.
    firsts = (date(year, month, 1) for year in range(2016, 2025) for month in (2, 3, 6, 10))
    days = [first + timedelta((2 - first.weekday()) % 7) for first in firsts]
    (tmp_path / "sp500-2025.csv").write_text("Ranking,Company Name,Symbol\n" + "".join(f"1,X Inc,{name}\n" for name in names))
    with Sandbox(Replay(write_minutes(tmp_path / "replay.parquet", names, days, opens=15))) as server:
        for name, text in account(server.url, DATA_ENGINE_BASE_PATH=str(tmp_path / "store")).items():
            monkeypatch.setenv(name, text)
        yield server


@pytest.mark.parametrize("words", ["alpaca-py's types", "strings"])
def test_the_examples_of_the_contract_run_as_written(
    example_world: Sandbox, alpaca: ModuleType, tmp_path: Path, words: str
) -> None:
    from data_engine import (
        AlpacaClient,
        IngestionPipeline,
        MetadataStore,
        ParquetStorage,
        SymbolLoader,
        ingest_from_csv,
        ingest_single_symbol,
        ingest_symbol_list,
    )

    minute, day = (alpaca.TimeFrame.Minute, alpaca.TimeFrame.Day) if words == "alpaca-py's types" else ("1Min", "1Day")

    one = ingest_single_symbol("AAPL", "2016-01-01", "2025-01-01", minute)
    several = ingest_symbol_list(["AAPL", "GOOGL", "MSFT"], "2016-01-01", "2025-01-01", minute, index_name="tech_stocks")
    listed = ingest_from_csv("sp500-2025.csv", "2016-01-01", "2025-01-01", minute, index_name="s_and_p_500")

    assert one["successful"] == ["AAPL"]
    assert several["successful"] == ["AAPL", "GOOGL", "MSFT"]
    assert listed["successful"] == ["AAPL", "GOOGL", "MSFT", "TSLA"]
    assert count(tmp_path / "store") == 4 * 36 * 20

    pipeline = IngestionPipeline(max_workers=10)
    result = pipeline.ingest_symbols(
        symbols=["AAPL", "TSLA"], start_date="2020-01-01", end_date="2024-12-31", timeframe=day, index_name="my_portfolio"
    )
    assert result["successful"] == ["AAPL", "TSLA"]
    assert result["failed"] == []
    assert count(tmp_path / "store", "equities_1day") == 2 * 20

    result = pipeline.ingest_from_csv("sp500-2025.csv", "2024-01-01", "2024-12-31", symbol_column="Symbol")
    assert result["successful"] == ["AAPL", "GOOGL", "MSFT", "TSLA"]
    assert (tmp_path / "store" / "metadata" / "indices" / "sp500_2025.csv").read_text().splitlines()[0] == "symbol,added_date"

    client = AlpacaClient()
    bars = client.fetch_bars("AAPL", "2024-01-01", "2024-12-31")
    storage = ParquetStorage()
    storage.store(bars)
    loaded = storage.load("AAPL", "2024-03-01", "2024-03-31")
    assert list(bars.index.names) == ["symbol", "timestamp"]
    assert len(bars) == 4 * 20
    pd.testing.assert_frame_equal(loaded, bars.loc[(slice(None), slice("2024-03-01", "2024-03-31")), :], check_freq=False)
    assert count(tmp_path / "store") == 4 * 36 * 20

    assert SymbolLoader.from_csv("sp500-2025.csv", symbol_column="Symbol") == ["AAPL", "GOOGL", "MSFT", "TSLA"]
    assert SymbolLoader.from_list(["aapl"]) == ["AAPL"]
    (tmp_path / "list.txt").write_text("AAPL\n# a comment\n\nMSFT\n")
    assert SymbolLoader.from_text_file("list.txt") == ["AAPL", "MSFT"]
    MetadataStore().store("tech_stocks", ["AAPL", "MSFT", "GOOGL"])
    stored = MetadataStore().load("tech_stocks")
    assert list(stored.columns) == ["symbol", "added_date"]
    assert sorted(stored["symbol"]) == ["AAPL", "GOOGL", "MSFT"]


def test_a_failed_symbol_is_a_pair_of_symbol_and_message(example_world: Sandbox) -> None:
    from data_engine import IngestionPipeline

    result = IngestionPipeline(max_workers=10).ingest_symbols(["AAPL", "X-1"], "2024-01-01", "2024-12-31")

    assert result["failed"] == [("X-1", "invalid symbol: X-1")]
    assert dict(result)["codes"] == {"X-1": "invalid_symbol"}


@pytest.mark.parametrize(("feed", "adjustment"), [("IEX", "SPLIT"), ("SIP", "RAW")])
def test_alpaca_pys_feeds_and_adjustments_mean_what_their_strings_mean(
    example_world: Sandbox, alpaca: ModuleType, tmp_path: Path, feed: str, adjustment: str
) -> None:
    from alpaca.data.enums import Adjustment, DataFeed

    from data_engine import ingest_single_symbol

    typed = ingest_single_symbol(
        "AAPL", "2024-01-01", "2024-12-31", base_path="typed", feed=DataFeed[feed], adjustment=Adjustment[adjustment]
    )
    texts = ingest_single_symbol(
        "AAPL", "2024-01-01", "2024-12-31", base_path="texts", feed=feed.lower(), adjustment=adjustment.lower()
    )

    assert typed["bars"] == texts["bars"] == {"AAPL": 80}
    assert content(tmp_path / "typed") == content(tmp_path / "texts")


@pytest.mark.parametrize("timeframe", ["1Min", "15Min", "1Hour", "1Day"])
def test_alpaca_py_itself_gets_the_same_frame(eight: Sandbox, alpaca: ModuleType, timeframe: str) -> None:
    from alpaca.data.enums import DataFeed
    from alpaca.data.historical import StockHistoricalDataClient
    from alpaca.data.requests import StockBarsRequest
    from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

    frames = {
        "1Min": TimeFrame.Minute,
        "15Min": TimeFrame(15, TimeFrameUnit.Minute),
        "1Hour": TimeFrame.Hour,
        "1Day": TimeFrame.Day,
    }
    first, last = datetime(2024, 6, 10, 4, tzinfo=UTC), datetime(2024, 6, 12, 4, tzinfo=UTC)
    theirs = StockHistoricalDataClient("k", "s", url_override=eight.url)
    request = StockBarsRequest(
        symbol_or_symbols=["AAPL", "ARM"], timeframe=frames[timeframe], start=first, end=last, feed=DataFeed.SIP
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas' next version, in alpaca-py's code
        expected: Any = theirs.get_stock_bars(request).df
    expected = expected[expected.index.get_level_values("timestamp") < last]
    expected.index = expected.index.set_levels(expected.index.levels[1].tz_convert(UTC).as_unit("ns"), level=1)

    ours = client_of(eight).fetch_bars(["AAPL", "ARM"], first, last, frames[timeframe])

    assert len(ours) > 1
    pd.testing.assert_frame_equal(ours, expected, check_freq=False)


# -------------------------------------------------------------------------------------------------- B: the fewest requests


def test_500_symbols_of_one_session_take_few_requests_and_none_the_second_time(tmp_path: Path) -> None:
    names, workers = names_of(500), 8
    with Sandbox(SimulatedMarket(), gzip_level=0) as server:
        first = pipeline_of(server, tmp_path, workers=workers).ingest_symbols(names, "2024-06-03", "2024-06-03")
        sent, minimum = len(server.requests), least(server)
        server.forget()
        second = pipeline_of(server, tmp_path, workers=workers).ingest_symbols(names, "2024-06-03", "2024-06-03")

        assert server.requests == []
    print(f"500 x 1 session: {sent} requests, minimum {minimum}")
    assert first["successful"] == second["successful"] == names
    assert sent <= 1.15 * minimum + workers
    assert (first.requests, second.requests) == (sent, 0)


def test_500_symbols_of_years_of_days_take_few_requests_and_none_the_second_time(tmp_path: Path) -> None:
    names, workers, years = names_of(500), 8, ("2021-01-01", "2024-12-31")
    with Sandbox(SimulatedMarket(), gzip_level=0) as server:
        first = pipeline_of(server, tmp_path, workers=workers).ingest_symbols(names, *years, "1Day")
        sent, minimum = len(server.requests), least(server)
        server.forget()
        second = pipeline_of(server, tmp_path, workers=workers).ingest_symbols(names, *years, "1Day")

        assert server.requests == []
    print(f"500 x 4 years of days: {sent} requests, minimum {minimum}")
    assert first["successful"] == second["successful"] == names
    assert sent <= 1.05 * minimum + workers


def test_eight_real_symbols_of_eleven_weeks_take_few_requests(eight_store: tuple[Path, int]) -> None:
    _, sent = eight_store
    print(f"8 x 11 weeks: {sent} requests, minimum {math.ceil(258_824 / 10_000)}")

    assert sent <= 1.10 * math.ceil(258_824 / 10_000) + 8


def test_one_symbol_of_a_year_keeps_all_workers_busy(tmp_path: Path) -> None:
    workers = 4
    meeting = threading.Barrier(workers)

    def all_at_once(record: Record) -> None:
        # The first page of each worker is held until every worker has asked for one: alone, none would get on.
        if record.number <= workers:
            meeting.wait(30)

    with Sandbox(SimulatedMarket(), gzip_level=0, on_request=all_at_once) as server:
        report = pipeline_of(server, tmp_path, workers=workers).ingest_symbols(["AAPL"], "2024-01-01", "2024-12-31")

        sent, minimum = len(server.requests), least(server)
        assert len({record.thread for record in server.requests}) == workers
    print(f"1 x 1 year: {sent} requests, minimum {minimum}")
    assert report.exit_code == 0
    assert not meeting.broken
    assert sent <= 1.25 * minimum + workers


def test_the_same_command_again_asks_nothing(eight: Sandbox, eight_store: tuple[Path, int]) -> None:
    before = len(eight.requests)

    ran = run("ingest", *SYMBOLS, *RANGE, "--base-path", eight_store[0], url=eight.url)

    assert ran.code == 0
    assert "Requests: 0" in ran.out
    assert len(eight.requests) == before


def test_a_range_extended_on_both_sides_asks_only_the_new_parts(eight: Sandbox, tmp_path: Path) -> None:
    pipeline_of(eight, tmp_path).ingest_symbols(SYMBOLS, "2024-06-24", "2024-07-19")
    before = len(eight.requests)

    report = pipeline_of(eight, tmp_path).ingest_symbols(SYMBOLS, "2024-06-03", "2024-08-16")

    new = eight.requests[before:]
    # 2024-06-24 00:00 and 2024-07-20 00:00 in New York.
    inside = [r.query for r in new if r.query["end"] >= "2024-06-24T04:00:00Z" and r.query["start"] < "2024-07-20T04:00:00Z"]
    assert inside == []
    outside = "timestamp < '2024-06-24 04:00:00+00' OR timestamp >= '2024-07-20 04:00:00+00'"
    arrived = duckdb.sql(f"SELECT count(*) FROM ({bars_of(EIGHT)}) WHERE {outside}").fetchall()[0][0]
    assert sum(record.rows for record in new) == arrived == report["bars_written"]
    assert differing(bars_in(tmp_path), bars_of(EIGHT)) == 0


def test_one_malformed_symbol_among_500_costs_at_most_two_requests_a_task(tmp_path: Path) -> None:
    names = names_of(499)
    names.insert(250, "BRK-B")
    with Sandbox(SimulatedMarket(), gzip_level=0) as server:
        pipeline = pipeline_of(server, tmp_path, workers=4)
        plan = pipeline.plan(names, "2024-06-03", "2024-06-03")
        held_it = sum("BRK-B" in task.symbols for task in plan.tasks)
        report = pipeline.ingest_symbols(names, "2024-06-03", "2024-06-03")
        sent, minimum = len(server.requests), least(server)

    assert report["successful"] == [name for name in names if name != "BRK-B"]
    assert report["failed"] == [("BRK-B", "invalid symbol: BRK-B; did you mean BRK.B?")]
    assert held_it >= 1
    assert sent <= 1.15 * minimum + 4 + 2 * held_it


@pytest.mark.parametrize(
    ("how_many", "first", "last", "timeframe"),
    [
        (200, "2024-06-03", "2024-06-04", "1Min"),
        (3, "2024-01-02", "2024-03-28", "1Min"),
        (300, "2022-01-01", "2024-12-31", "1Day"),
    ],
    ids=["two-sessions", "a-quarter", "days"],
)
def test_a_dry_run_touches_nothing_and_foresees_the_requests(
    tmp_path: Path, how_many: int, first: str, last: str, timeframe: str
) -> None:
    words = ("ingest", *names_of(how_many), "--start", first, "--end", last, "--timeframe", timeframe, "--base-path", "store")
    with Sandbox(SimulatedMarket(), gzip_level=0) as server:
        plan = run(*words, "--dry-run", "--json", url=server.url)

        assert server.requests == []
        assert not (tmp_path / "store").exists()

        done = run(*words, "--json", url=server.url)
        sent = len(server.requests)

    print(f"{how_many} x {first}..{last}: estimated {plan.json['requests']}, sent {sent}")
    assert (plan.code, done.code) == (0, 0)
    assert abs(plan.json["requests"] - sent) <= 0.30 * sent
    assert plan.json["least_requests"] <= plan.json["requests"]


def test_a_dry_run_needs_no_keys(tmp_path: Path) -> None:
    words = ("ingest", "AAPL", "--start", "2024-06-03", "--end", "2024-06-03", "--base-path", "store", "--dry-run")
    ran = run(*words, env={"APCA_API_DATA_URL": "http://127.0.0.1:9"})

    assert ran.code == 0, ran.text
    assert not (tmp_path / "store").exists()


# ------------------------------------------------------------------------------------------------------ B: killed, and again


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_again_and_again_the_store_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """Each life is ended when the server has seen its N-th request. A store that became whole is compared; the next begins."""
    dice = random.Random(20240603)
    names, workers = names_of(12), 3
    words = ("ingest", *names, "--start", "2024-05-01", "--end", "2024-07-31", "--workers", workers, "--no-actions")
    most = 30 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 10
    kills, stores = 0, 0
    with Sandbox(SimulatedMarket(), gzip_level=0) as server:
        pipeline_of(server, tmp_path / "undisturbed", workers=workers).ingest_symbols(names, "2024-05-01", "2024-07-31")
        expected = content(tmp_path / "undisturbed")
        wanted_rows = count(tmp_path / "undisturbed")
        while kills < most:
            stores += 1
            base = tmp_path / f"store{stores}"
            lives: list[list[Record]] = []
            while True:
                server.forget()
                at = dice.randint(1, 12) if kills < most else None
                killed = _killed_at(at, server, *words, "--base-path", base)
                lives.append(server.requests)
                if not killed:
                    break
                kills += 1
                _all_bar_files_open(base)
            assert content(base) == expected
            assert count(base) == wanted_rows
            for life, later in itertools.pairwise(lives):
                assert _asked_twice(life, later) <= workers
    print(f"{kills} kills over {stores} stores")


def _killed_at(request: int | None, server: Sandbox, *words: object) -> bool:
    """Run a command and kill it when the server has answered so many requests; return whether it was still alive then."""
    with start(*words, url=server.url) as process:
        while request is not None and process.poll() is None and len(server.requests) < request:
            try:
                process.wait(0.002)
            except subprocess.TimeoutExpired:
                continue
        if request is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        ran = ended(process)
        assert ran.code in (0, -signal.SIGKILL), ran.text
        return ran.code != 0


def _asked_twice(life: list[Record], later: list[Record]) -> int:
    """Count the chains of pages of one life that meet a chain of the next: the same symbol, overlapping ranges."""
    chains = {(r.query["symbols"], r.query["start"], r.query["end"]) for r in life if r.status == 200}
    next_ones = {(r.query["symbols"], r.query["start"], r.query["end"]) for r in later if r.status == 200}
    return sum(
        any(set(a.split(",")) & set(b.split(",")) and s1 <= e2 and s2 <= e1 for b, s2, e2 in next_ones) for a, s1, e1 in chains
    )


def _all_bar_files_open(base: Path) -> None:
    for path in base.glob("equities_*/**/*.parquet"):
        assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{path}')").fetchall()[0][0] > 0


# ------------------------------------------------------------------------------------------------------- B: what is remembered


def test_two_processes_that_ask_for_the_same_end_with_every_bar_once(eight: Sandbox, tmp_path: Path) -> None:
    words = ("--start", "2024-06-03", "--end", "2024-06-28", "--base-path", tmp_path / "store", "--workers", 2)
    before = len(asked(eight))
    with start("ingest", *SYMBOLS, *words, url=eight.url) as one, start("ingest", *SYMBOLS, *words, url=eight.url) as other:
        left, right = ended(one), ended(other)

    assert (left.code, right.code) == (0, 0), left.text + right.text
    inside = f"SELECT * FROM ({bars_of(EIGHT)}) WHERE timestamp < '2024-06-29 04:00:00+00'"
    assert differing(bars_in(tmp_path / "store"), inside) == 0
    # The second found it all there.
    starts = asked(eight)[before:]
    assert len(starts) == len(set(starts))


def test_coverage_says_what_was_asked_and_answered(eight_store: tuple[Path, int]) -> None:
    known = coverage(eight_store[0], "SPCX")

    # New York days, half-open: from midnight of the first to midnight after the last.
    assert known["wanted"] == known["covered"] == [["2024-06-03T04:00:00Z", "2024-08-17T04:00:00Z"]]
    assert known["provisional"] == []
    assert known["bars"] == duckdb.sql(f"SELECT count(*) FROM ({bars_of(EIGHT)}) WHERE symbol = 'SPCX'").fetchall()[0][0]
    assert (known["feed"], known["adjustment"], known["timeframe"]) == ("sip", "raw", "1Min")


def test_the_rows_of_two_stores_can_be_compared_without_this_program(eight_store: tuple[Path, int]) -> None:
    listed = rows(eight_store[0])

    assert len(listed) == len({(symbol, stamp) for symbol, stamp, *_ in listed}) == 258_824
