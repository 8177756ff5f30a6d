"""The server for agents, asked by the SDK's own client over stdio: adversarial questions get no answer that reads as whole."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.agents.scope import plain_value
from data_engine.agents.store_tools import StoreTools
from data_engine.errors import DataEngineError, InputError, StoreError
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import new_york_days

pytest.importorskip("mcp", reason="the extra mcp is not installed")

SRC = Path(__file__).resolve().parents[2] / "src"
WEEK = {"symbols": ["AAPL"], "start": "2024-06-03", "end": "2024-06-07", "timeframe": "1Day"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A store that holds two weeks of June 2024 of AAPL and MSFT whole, but lacks one day of MSFT."""
    storage = ParquetStorage(tmp_path_factory.mktemp("agents") / "store")
    days = pd.bdate_range("2024-06-03", "2024-06-14", tz="America/New_York").tz_convert("UTC")
    june = new_york_days(date(2024, 6, 3), date(2024, 6, 14))
    for symbol in ("AAPL", "MSFT"):
        index = pd.MultiIndex.from_product([[symbol], days], names=["symbol", "timestamp"])
        prices = {name: [100.0 + at for at in range(10)] for name in ("open", "high", "low", "close", "vwap")}
        storage.store(pd.DataFrame({**prices, "volume": 1000.0, "trade_count": 7.0}, index=index), timeframe="1Day")
        series, now = Series(symbol, Dataset(Timeframe.parse("1Day"))), datetime.now(UTC)
        storage.bars.coverage.update(
            series, lambda known, now=now: known.wanting(june).answered(june, final_before=now, now=now, counts={})
        )
    hole = new_york_days(date(2024, 6, 5), date(2024, 6, 5))
    storage.bars.coverage.update(Series("MSFT", series.dataset), lambda known: known.unclaimed(hole))
    return Path(str(storage.files.folder))


def ask(base: Path, *questions: tuple[str, dict[str, Any]]) -> list[Any]:
    """Return the answers to some questions: a dict, or the text of an error."""
    import anyio
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def talk() -> list[Any]:
        paths = ":".join([str(SRC), *(path for path in sys.path if path.endswith("site-packages"))])
        words = ["-m", "data_engine", "mcp", "--base-path", str(base)]
        server = StdioServerParameters(command=sys.executable, args=words, env={"PYTHONPATH": paths})
        async with Client(stdio_client(server)) as client:
            tools = (await client.list_tools()).tools
            assert all(tool.annotations.read_only_hint for tool in tools)
            results = [await client.call_tool(name, arguments) for name, arguments in questions]
            return [one.content[0].text if one.is_error else one.structured_content for one in results]

    return anyio.run(talk)


def test_what_is_held_whole_is_answered_with_its_state_and_digest(base):
    held, bars, again, sessions, query, findings = ask(
        base,
        ("held", {}),
        ("bars", WEEK),
        ("bars", {**WEEK, "limit": 2}),
        ("sessions", WEEK),
        ("query", {"sql": "SELECT max(close) AS top FROM bars_1day", **{k: WEEK[k] for k in ("symbols", "start", "end")}}),
        ("findings", {"symbols": ["AAPL"]}),
    )

    assert [row[5] for row in bars["rows"]] == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert (bars["complete"], bars["sessions"]["final"], bars["sessions"]["missing"]) == (True, 5, 0)
    assert (again["truncated"], len(again["rows"]), again["digest"]) == (True, 2, bars["digest"])
    assert [row[2] for row in sessions["rows"]] == ["final"] * 5
    assert (query["rows"], query["complete"], query["digest"]) == ([[104.0]], True, bars["digest"])
    assert (held["complete"], "MSFT" in held["missing"], findings["complete"]) == (False, True, True)
    assert all(len(one["digest"]) == 32 for one in (held, bars, sessions, query, findings))


def test_no_adversarial_question_is_answered_as_if_it_were_whole(base):
    hole = {"symbols": ["MSFT"], "start": "2024-06-03", "end": "2024-06-07"}
    sql = "SELECT count(*) FROM bars_1day"
    refused = ask(
        base,
        ("bars", {**hole, "timeframe": "1Day"}),
        ("bars", {**WEEK, "symbols": ["AAPPL"]}),
        ("bars", {**WEEK, "start": "2019-06-03"}),
        ("bars", {**WEEK, "timeframe": "1Min"}),
        ("bars", {**WEEK, "feed": "iex"}),
        ("bars", {**WEEK, "start": "2024-02-30"}),
        ("query", {"sql": sql, **hole}),
        ("query", {"sql": sql, "start": "2024-06-03", "end": "2024-06-07"}),
        ("query", {"sql": f"{sql} WHERE symbol = 'AAPPL'", **hole, "symbols": ["AAPL"]}),
        ("query", {"sql": f"{sql} WHERE symbol = 'aapl'", **hole, "symbols": ["AAPL"]}),
        ("query", {"sql": f"{sql} WHERE year(timestamp) = 2019", **hole, "symbols": ["AAPL"]}),
        ("query", {"sql": f"{sql} WHERE timestamp > '2019-01-01'", **hole, "symbols": ["AAPL"]}),
        ("query", {"sql": "DROP VIEW bars_1day", **hole, "symbols": ["AAPL"]}),
        ("query", {"sql": "SELECT * FROM bars_1day, read_csv('/etc/passwd')", **hole, "symbols": ["AAPL"]}),
        ("findings", {"symbols": ["AAPPL"]}),
        ("held", {"symbols": ["AAPPL"]}),
    )
    assert [one for one in refused if not isinstance(one, str)] == []
    assert "did you mean AAPL?" in refused[1]

    bars, query, sessions = ask(
        base,
        ("bars", {**hole, "timeframe": "1Day", "allow_incomplete": True}),
        ("query", {"sql": sql, **hole, "symbols": ["MSFT"], "allow_incomplete": True}),
        ("sessions", {**hole, "timeframe": "1Day"}),
    )
    assert [one["complete"] for one in (bars, query, sessions)] == [False] * 3
    assert all("MSFT" in one["missing"] for one in (bars, query, sessions))
    assert [row[2] for row in sessions["rows"]].count("final") == 4


def test_the_store_as_it_was_is_answered_and_what_changed_since(base, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(base, copy)
    storage, then = ParquetStorage(copy), datetime.now(UTC).isoformat()
    bars = storage.load("AAPL", "2024-06-03", "2024-06-07", timeframe="1Day")
    storage.store(bars.iloc[:2].assign(close=1.0))
    sql = {"sql": "SELECT min(close) AS low FROM bars_1day", **{k: WEEK[k] for k in ("symbols", "start", "end")}}
    now, was, query, sessions, held, findings, history, unknown, early = ask(
        copy,
        ("bars", WEEK),
        ("bars", {**WEEK, "as_stored_on": then}),
        ("query", {**sql, "as_stored_on": then}),
        ("sessions", {**WEEK, "as_stored_on": then}),
        ("held", {"as_stored_on": then}),
        ("findings", {"symbols": ["AAPL"], "as_stored_on": then}),
        ("history", {"symbols": ["aapl"], "end": "2024-06-07"}),
        ("history", {"symbols": ["AAPPL"]}),
        ("bars", {**WEEK, "as_stored_on": "2020-01-01"}),
    )

    assert [row[5] for row in now["rows"]] == [1.0, 1.0, 102.0, 103.0, 104.0]
    assert [row[5] for row in was["rows"]] == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert (query["rows"], [row[2] for row in sessions["rows"]]) == ([[100.0]], ["final"] * 5)
    assert all(datetime.fromisoformat(one["as_stored_on"]) == datetime.fromisoformat(then) for one in (was, held, findings))
    assert [(one["added"], one["revised"], one["actor"]) for one in history["changes"]] == [(0, 2, "store"), (5, 0, "store")]
    assert (history["complete"], "AAPL" in unknown, "history begins" in early) == (True, True, True)


@pytest.fixture(scope="module")
def tools(base) -> StoreTools:
    """The questions themselves, without a process around them."""
    return StoreTools(ParquetStorage(base))


@pytest.mark.parametrize(
    "condition",
    [
        "WHERE year(timestamp) = '2019'",
        "WHERE year >= 2019",
        "WHERE month(timestamp) = 1",
        "WHERE strftime(timestamp, '%m/%d/%Y') = '06/03/2019'",
        "WHERE timestamp < '2019/06/03'",
        "WHERE timestamp < make_date(2024, 5, 1)",
        "WHERE timestamp BETWEEN '2024-06-03' AND '2024-06-14'",
        "WHERE symbol LIKE 'NVD%'",
        "WHERE symbol ILIKE '%tsla%'",
        "WHERE regexp_matches(symbol, '^ts')",
        "WHERE symbol IN ('AAPL', 'nvda')",
        "WHERE symbol = 'TSLA '",
        "WHERE lower(symbol) = 'tsla'",
        "WHERE symbol = $$TSLA$$",
        "/* it's one */ WHERE symbol = 'TSLA'",
        "-- don't\nWHERE symbol = 'TSLA'",
        "JOIN (VALUES ('TSLA')) v(s) ON symbol = s",
        "WHERE list_contains(['nvda'], lower(symbol))",
        "WHERE (symbol, year) = ('AAPL', 2019)",
        "WHERE timestamp >= now() - INTERVAL 10 YEAR",
        "WHERE timestamp >= to_timestamp(1546300800)",
        "WHERE timestamp::DATE > current_date - 3000",
        "WHERE year(timestamp) >= year(now()) - 10",
        "WHERE date_diff('year', timestamp, now()) < 10",
        ", all_bars_1day",
        ", (WITH all_bars_1day AS (SELECT 1) FROM all_bars_1day), all_bars_1day",
        ", query_table('all_bars_1' || 'day')",
        ", information_schema.tables",
    ],
)
def test_a_count_of_what_lies_outside_of_the_question_is_no_zero(tools, condition):
    with pytest.raises(InputError):
        tools.query(f"SELECT count(*) FROM bars_1day {condition}", "2024-06-03", "2024-06-07", ["AAPL"])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM (SELECT *, year(timestamp) AS y FROM bars_1day) WHERE y = 2019",
        "SELECT year(timestamp) AS y, count(*) FROM bars_1day GROUP BY y HAVING y = 2019",
        "SELECT count(*) FILTER (WHERE d < make_date(2020, 1, 1)) FROM (SELECT timestamp::DATE AS d FROM bars_1day)",
        "SELECT count(*) FROM (SELECT lower(symbol) AS s FROM bars_1day) WHERE s = 'nvda'",
        "SELECT count(*) FROM (SELECT symbol AS S FROM bars_1day) t WHERE T.s LIKE 'NV%'",
        "WITH c(a, b) AS (SELECT symbol, timestamp FROM bars_1day) SELECT count(*) FROM c WHERE lower(a) IN ('aapl', 'nvda')",
        "WITH c AS (FROM bars_1day) SELECT count(*) FROM c AS d(x, y) WHERE year(d.y) = 2019",
        "SELECT count(*) FROM bars_1day b(s, t) WHERE month(t) = 1",
        "SELECT count(*) FROM (FROM bars_1day) b(s, t) WHERE lower(s) = 'nvda'",
        "SELECT count(*) FROM (SELECT * RENAME (symbol AS s) FROM bars_1day) WHERE s = 'nvda'",
        "SELECT count(*) FROM (SELECT * REPLACE (lower(symbol) AS symbol) FROM bars_1day) WHERE symbol = 'nvda'",
        "WITH a AS (SELECT timestamp AS t FROM bars_1day), b AS (SELECT year(t) AS t FROM a) FROM b WHERE t < 2020",
        "WITH p AS (SELECT make_date(2019, 1, 1) AS since) SELECT min(close) FROM bars_1day, p WHERE timestamp >= since",
        "WITH u AS (SELECT 0 AS y UNION ALL SELECT year(timestamp) FROM bars_1day) SELECT count(*) FROM u WHERE y = 2019",
        "SELECT count(*) FROM (SELECT min(timestamp) AS f FROM bars_1day) WHERE year(f) = 2019",
        "SELECT timestamp AS t FROM bars_1day QUALIFY year(lag(t) OVER (PARTITION BY symbol ORDER BY t)) = 2019",
    ],
)
def test_another_name_of_a_column_makes_no_zero_of_what_lies_outside(tools, sql):
    with pytest.raises(InputError, match=r"cannot run the SQL: (it names|none of its|no time)"):
        tools.query(sql, "2024-06-03", "2024-06-07", ["AAPL"])


def test_names_that_stand_for_too_much_are_refused(tools):
    sql = "SELECT symbol AS a0 FROM bars_1day"
    for level in range(30):
        sql = f"SELECT a{level} || a{level} AS a{level + 1} FROM ({sql})"
    with pytest.raises(InputError, match="too many expressions"):
        tools.query(f"SELECT count(*) FROM ({sql}) WHERE a30 = 'x'", "2024-06-03", "2024-06-07", ["AAPL"])


@pytest.mark.parametrize(
    "sql",
    [
        "WITH d AS (SELECT symbol AS s, timestamp::DATE AS d, close FROM bars_1day) SELECT sum(close) FROM d WHERE s = 'AAPL' "
        "AND d >= DATE '2024-06-04'",
        "SELECT count(*) FROM bars_1day a JOIN bars_1day b ON a.symbol < b.symbol AND a.timestamp = b.timestamp",
        "SELECT count(*) FROM (SELECT symbol AS s1, timestamp AS t1 FROM bars_1day) JOIN (SELECT symbol AS s2, timestamp AS t2 "
        "FROM bars_1day) ON s1 <> s2 AND t1 < t2",
        "SELECT count(*) FROM (SELECT *, row_number() OVER (ORDER BY timestamp) AS n FROM bars_1day) WHERE n <= 2000",
        "SELECT month(timestamp) AS m, count(timestamp) AS n FROM bars_1day GROUP BY m HAVING n < 2000 AND m = 6",
        "SELECT count(*) FROM (SELECT timestamp, lag(timestamp) OVER (PARTITION BY symbol ORDER BY timestamp) AS p "
        "FROM bars_1day) WHERE timestamp - p > INTERVAL 20 HOUR",
        "SELECT sum(close) FROM bars_1day WHERE timestamp = (SELECT max(timestamp) FROM bars_1day)",
        "SELECT year(timestamp) - 2000, date_trunc('month', max(timestamp)) FROM bars_1day GROUP BY 1",
        "SELECT max(timestamp) AS timestamp, arg_max(close, timestamp) AS close FROM bars_1day WHERE close < 2000 GROUP BY "
        "symbol ORDER BY symbol",
        "SELECT sum(CASE WHEN dayofweek(timestamp) = 1 THEN close END) FROM bars_1day b WHERE b.year = 2024",
        "SELECT count(*) FROM bars_1day a LEFT JOIN bars_1day b ON b.symbol = a.symbol AND b.timestamp < a.timestamp WHERE "
        "b.timestamp IS NULL",
        "SELECT sum(w * close) FROM bars_1day b JOIN (VALUES ('AAPL', 2.0), ('MSFT', 1.0)) v(symbol, w) ON b.symbol = v.symbol",
    ],
)
def test_names_of_what_is_inside_are_answered_as_duckdb_does(base, tools, sql):
    answer = tools.query(sql, "2024-06-03", "2024-06-04", ["AAPL", "MSFT"])
    files = f"read_parquet('{base}/equities_1day/**/*.parquet', hive_partitioning = true)"
    view = f"SELECT symbol, timestamp, close, year FROM {files} WHERE timestamp < '2024-06-05 04:00Z'"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE VIEW bars_1day AS {view}")
        assert answer["rows"] == [[plain_value(one) for one in row] for row in connection.sql(sql).fetchall()]


@pytest.mark.parametrize(
    ("sql", "first"),
    [
        ("SELECT count(*) FROM BARS_1DAY WHERE lower(symbol) = 'aapl' AND symbol LIKE 'AA%' AND symbol IN ('AAPL')", 5),
        ("SELECT sum(volume) FROM bars_1day b WHERE volume < 2000 AND b.timestamp >= '2024-06-04' LIMIT 2000", 4000),
        (
            "WITH d AS (FROM bars_1day) SELECT count(*) FROM d WHERE year = 2024 AND timestamp < TIMESTAMPTZ '2024-06-08 00:00Z'",
            5,
        ),
        ("SELECT CASE WHEN date_part('dow', timestamp) = 1 THEN 'second' END FROM bars_1day ORDER BY timestamp", "second"),
        ("SELECT count(*) FROM bars_1day HAVING max(timestamp) > '2024-06-04'", 5),
        ("SELECT 0.0 / 0.0 FROM bars_1day", "nan"),
    ],
)
def test_sql_about_the_question_is_answered(tools, sql, first):
    assert tools.query(sql, "2024-06-03", "2024-06-07", ["AAPL"])["rows"][0] == [first]


def test_an_answer_is_bounded(tools, monkeypatch):
    week = ("2024-06-03", "2024-06-07", ["AAPL"])
    many = tools.query("SELECT unnest(range(3000)) FROM bars_1day", *week)
    assert (len(many["rows"]), many["truncated"]) == (1000, True)
    with pytest.raises(InputError, match="bytes"):
        tools.query("SELECT repeat('x', 9_000_000) FROM bars_1day LIMIT 1", *week)
    with pytest.raises(InputError, match="0 rows"):
        tools.bars(["AAPL"], "2024-06-03", "2024-06-07", "1Day", limit=0)
    monkeypatch.setattr("data_engine.agents.store_tools._SECONDS", 0.2)
    with pytest.raises(InputError, match="seconds"):
        tools.query("SELECT count(*) FROM bars_1day, range(1_000_000_000_000)", *week)


@pytest.mark.parametrize("tool", ["held", "findings"])
@pytest.mark.parametrize("question", [{"symbols": ["AAPL"], "timeframe": "1Min"}, {"timeframe": "5Min"}, {"symbols": []}])
def test_nothing_is_not_whole(tools, tool, question):
    with pytest.raises(InputError):
        getattr(tools, tool)(**question)


def test_a_weekend_of_an_unknown_symbol_is_not_whole(tools):
    with pytest.raises(DataEngineError, match="AAPPL"):
        tools.bars(["AAPPL"], "2024-06-08", "2024-06-09", "1Day")
    assert not tools.sessions(["AAPPL"], "2024-06-08", "2024-06-09", "1Day")["complete"]
    assert tools.bars(["AAPL"], "2024-06-08", "2024-06-09", "1Day")["complete"]


def test_a_store_that_changes_while_it_is_read_gives_no_answer(tmp_path, base, monkeypatch):
    storage = ParquetStorage(tmp_path)
    bars = ParquetStorage(base).load("AAPL", "2024-06-03", "2024-06-07", timeframe="1Day")
    storage.store(bars)
    real = ParquetStorage.load

    def meanwhile(self: ParquetStorage, *arguments: Any, **options: Any) -> pd.DataFrame:
        found = real(self, *arguments, **options)
        storage.store(bars.assign(close=1.0))
        return found

    monkeypatch.setattr(ParquetStorage, "load", meanwhile)
    with pytest.raises(StoreError, match="changed"):
        StoreTools(storage).bars(["AAPL"], "2024-06-03", "2024-06-07", "1Day", allow_incomplete=True)


def test_nothing_is_written(base):
    before = {path: path.stat().st_mtime_ns for path in base.rglob("*")}
    ask(base, ("held", {}), ("bars", WEEK), ("findings", {"quick": False}))
    assert {path: path.stat().st_mtime_ns for path in base.rglob("*")} == before
