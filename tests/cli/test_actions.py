"""``actions`` as people run it, and what a known rename does to ``ingest``, ``update`` and ``status``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data_engine.market.time_range import new_york_days
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.sandbox import Announcements, Replay, Sandbox, SimulatedMarket
from data_engine.store.coverage_store import CoverageStore
from running import Clock, asked, count, coverage, here, pipeline_of, rows, run, write_minutes

RECORDS: dict[str, list[dict[str, Any]]] = {
    "cash_dividends": [
        {"symbol": "AAPL", "rate": 0.25, "ex_date": "2024-05-10", "process_date": "2024-05-16"},
        {"symbol": "AAPL", "rate": 0.25, "ex_date": "2024-08-12", "process_date": "2024-08-15"},
    ],
    "forward_splits": [{"symbol": "NVDA", "new_rate": 10, "old_rate": 1, "ex_date": "2024-06-10", "process_date": "2024-06-10"}],
    "name_changes": [{"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"}],
}
SPRING = ("--start", "2022-06-01", "--end", "2022-06-17")
RENAME = "FB renamed to META on 2022-06-09"


@pytest.fixture
def server() -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket(), actions=Announcements(RECORDS)) as sandbox:
        yield sandbox


@pytest.fixture
def base(server: Sandbox, tmp_path: Path) -> Path:
    """A store with a week of two symbols."""
    here(
        "ingest",
        "AAPL",
        "NVDA",
        "--start",
        "2024-06-03",
        "--end",
        "2024-06-07",
        "--no-actions",
        "--base-path",
        tmp_path / "store",
        url=server.url,
    )
    server.forget()
    return tmp_path / "store"


def book(base: Path, symbol: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((base / "metadata" / "actions" / f"symbol={symbol}.json").read_text())
    return made


def test_the_actions_of_all_stored_symbols_come_from_their_first_bar_on(server: Sandbox, base: Path) -> None:
    ran = run("actions", "--base-path", base, url=server.url)

    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("Corporate actions of 2 symbols, 2024-06-03 to ")
    assert lines[0].endswith(": 1 request")
    # By process date, a month more is asked for: the dividend of May is held though it is none of these bars'.
    assert [line.split() for line in lines[1:]] == [
        ["cash", "dividend", "2", "2", "new", "or", "changed"],
        ["forward", "split", "1", "1", "new", "or", "changed"],
    ]
    assert [record.query["symbols"] for record in server.requests] == ["AAPL,NVDA"]
    assert [action["type"] for action in book(base, "NVDA")["actions"]] == ["forward_split"]
    assert book(base, "NVDA")["covered"][0][0] == "2024-06-03"


def test_a_stored_symbol_of_which_nothing_can_be_read_is_a_failure_and_not_passed_over(server: Sandbox, base: Path) -> None:
    path = base / "metadata" / "coverage" / "equities_1min" / "symbol=NVDA.json"
    path.write_text("{")
    ran = here("actions", "--json", "--base-path", base, url=server.url)

    assert (ran.code, ran.json["successful"]) == (1, ["AAPL"])
    assert [(one["symbol"], one["code"]) for one in ran.json["failed"]] == [("NVDA", "damaged_file")]
    assert here("actions", "NVDA", "--base-path", base, url=server.url).code == 4
    assert here("actions", "--start", "2024-06-03", "--base-path", base, url=server.url).code == 0
    assert [action["type"] for action in book(base, "NVDA")["actions"]] == ["forward_split"]


def test_json_is_one_object(server: Sandbox, base: Path) -> None:
    ran = here("actions", "META", "--start", "2020-01-01", "--json", "--base-path", base, url=server.url)

    assert ran.code == 0
    assert ran.json == {
        "successful": ["META"],
        "failed": [],
        "added": {"name_change": 1},
        "held": {"name_change": 1},
        "withdrawn": [],
        "renames": [{"old": "FB", "new": "META", "date": "2022-06-09"}],
        "ended": [],
        "further_symbols": ["FB"],
        "local": [],
        "requests": 2,
    }


def test_a_rename_is_said_in_words(server: Sandbox, base: Path) -> None:
    ran = here("actions", "META", "--start", "2020-01-01", "--base-path", base, url=server.url)

    assert ran.out.splitlines()[0].startswith("Corporate actions of 1 symbol (and FB, the same securities), 2020-01-01 to ")
    assert RENAME in ran.out.splitlines()


def test_a_list_names_symbols(server: Sandbox, base: Path) -> None:
    here("ingest", "AAPL", "--index", "one", "--start", "2024-06-03", "--end", "2024-06-07", "--base-path", base, url=server.url)
    ran = here("actions", "--index", "one", "--json", "--base-path", base, url=server.url)

    assert (ran.code, ran.json["successful"]) == (0, ["AAPL"])


def test_a_symbol_that_alpaca_refuses_fails_alone(server: Sandbox, base: Path) -> None:
    ran = here("actions", "AAPL", "BRK-B", "--start", "2024-01-01", "--base-path", base, url=server.url)

    assert ran.code == 1
    assert ran.out.splitlines()[-2:] == ["Failed symbols:", "  - BRK-B: invalid symbol: BRK-B"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("KO",), 2, "KO"),
        (("AAPL", "--index", "one"), 2, "--index"),
        (("--index", "none"), 2, "'none'"),
        (("AAPL", "--start", "soon"), 2, "'soon'"),
        (("AAPL", "--start", "2024-06-03", "--end", "2024-06-02"), 2, "2024-06-02"),
        (("A B",), 2, "A B"),
        (("AAPL", "--requests-per-minute", "many"), 2, "not 'many'"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_sent(server: Sandbox, base: Path, words, code, said) -> None:
    ran = here("actions", *words, "--base-path", base, url=server.url)

    assert (ran.code, said in ran.err) == (code, True), ran.text
    assert server.requests == []
    assert not (base / "metadata" / "actions").exists()


def test_without_a_store_it_says_so(server: Sandbox, tmp_path: Path) -> None:
    ran = here("actions", "AAPL", "--start", "2024-01-01", "--base-path", tmp_path / "none", url=server.url)

    assert (ran.code, "no store at" in ran.err, (tmp_path / "none").exists()) == (4, True, False)


def test_without_keys_it_is_bad_input(base: Path) -> None:
    ran = here("actions", "--base-path", base, env={})

    assert (ran.code, "credentials" in ran.err.lower()) == (2, True)


def test_refused_keys_are_exit_3(base: Path) -> None:
    with Sandbox(SimulatedMarket(), keys={"other": "keys"}) as server:
        assert here("actions", "--base-path", base, url=server.url).code == 3


def test_a_held_store_is_exit_7(server: Sandbox, base: Path) -> None:
    from data_engine.store.local_files import LocalFiles

    with LocalFiles(base).lock("run", seconds=0):
        assert run("actions", "--base-path", base, url=server.url).code == 7


def test_the_sandbox_serves_a_file_of_actions(tmp_path: Path) -> None:
    """The command's option, as the library reads it; a wrong file is bad input before anything listens."""
    (tmp_path / "wrong.json").write_text("[]")
    ran = here("sandbox", "--actions", tmp_path / "wrong.json", env={})

    assert (ran.code, "wrong.json" in ran.err) == (2, True)


# ----------------------------------------------------------------------------------------------------------------- renames


def test_an_ingestion_stops_where_the_security_left_the_ticker(server: Sandbox, base: Path) -> None:
    here("actions", "FB", "--start", "2020-01-01", "--base-path", base, url=server.url)
    server.forget()
    ran = here("ingest", "FB", "META", "AAPL", *SPRING, "--base-path", base, url=server.url)

    assert ran.code == 0
    assert RENAME in ran.out
    ends = {symbols: end for symbols, _, end in asked(server)}
    assert ends["FB"] == "2022-06-09T03:59:59.999999999Z"
    assert [end for symbols, end in ends.items() if "FB" not in symbols] > ["2022-06-17"]
    assert coverage(base, "FB")["wanted"] == [["2022-06-01T04:00:00Z", "2022-06-09T04:00:00Z"]]
    assert max(row[1] for row in rows(base) if row[0] == "FB") < datetime(2022, 6, 9, 4, tzinfo=UTC).timestamp() * 1e6


def test_a_dry_run_says_it_too(server: Sandbox, base: Path) -> None:
    here("actions", "FB", "--start", "2020-01-01", "--base-path", base, url=server.url)
    ran = here("ingest", "FB", *SPRING, "--dry-run", "--base-path", base, url=server.url)

    assert RENAME in ran.out
    assert "2022-06-01T04:00:00Z .. 2022-06-09T04:00:00Z" in ran.out


def test_whoever_asks_from_the_rename_on_gets_the_next_owner(server: Sandbox, base: Path) -> None:
    here("actions", "FB", "--start", "2020-01-01", "--base-path", base, url=server.url)
    ran = here("ingest", "FB", "--start", "2022-06-09", "--end", "2022-06-17", "--base-path", base, url=server.url)

    assert (ran.code, RENAME in ran.out) == (0, False)
    assert count(base) > 0


def test_but_not_in_the_series_of_the_one_before(server: Sandbox, base: Path) -> None:
    here("actions", "FB", "--start", "2020-01-01", "--base-path", base, url=server.url)
    here("ingest", "FB", *SPRING, "--base-path", base, url=server.url)
    server.forget()
    ran = here("ingest", "FB", "--start", "2022-06-13", "--end", "2022-06-17", "--json", "--base-path", base, url=server.url)

    assert (ran.code, asked(server)) == (1, [])
    assert ran.json["failed"][0]["code"] == "renamed"
    assert RENAME in ran.json["failed"][0]["message"]
    assert "`data-engine remove FB`" in ran.json["failed"][0]["message"]


def test_nor_the_one_before_in_the_series_of_the_next_owner(server: Sandbox, base: Path) -> None:
    here("actions", "FB", "--start", "2020-01-01", "--base-path", base, url=server.url)
    here("ingest", "FB", "--start", "2022-06-13", "--end", "2022-06-15", "--base-path", base, url=server.url)
    server.forget()
    ran = here("ingest", "FB", *SPRING, "--base-path", base, url=server.url)

    assert (ran.code, RENAME in ran.out) == (0, True)
    assert min(start for _, start, _ in asked(server)) == "2022-06-09T04:00:00Z"
    server.forget()
    ran = here("ingest", "FB", "--start", "2022-06-01", "--end", "2022-06-03", "--json", "--base-path", base, url=server.url)
    assert (ran.code, ran.json["failed"][0]["code"], asked(server)) == (1, "renamed", [])


def test_status_says_it(server: Sandbox, base: Path) -> None:
    here("ingest", "FB", *SPRING, "--no-actions", "--base-path", base, url=server.url)
    before = here("status", "--base-path", base, url=server.url).out
    here("actions", "FB", "--start", "2020-01-01", "--base-path", base, url=server.url)
    ran = here("status", "--base-path", base, url=server.url)

    assert RENAME not in before
    (line,) = [line for line in ran.out.splitlines() if RENAME in line]
    assert "`data-engine remove FB --start 2022-06-09`" in line
    one = here("status", "FB", "--json", "--base-path", base, url=server.url).json["series"][0]
    assert one["ended"] == {"date": "2022-06-09", "reason": "name_change", "new": "META", "into": None}


def test_an_update_never_extends_a_series_with_the_next_owners_bars(tmp_path: Path) -> None:
    """A week before the rename FB and META are ingested; a week after it, updated, the rename being known."""
    days = [date(2022, 6, day) for day in (1, 2, 3, 6, 7, 8, 9, 10, 13, 14)]
    clock = Clock(datetime(2022, 6, 4, 12, tzinfo=UTC))
    bars = Replay(write_minutes(tmp_path / "bars.parquet", ["FB", "META"], days))
    with Sandbox(bars, actions=Announcements(RECORDS), clock=clock) as server:
        pipeline = pipeline_of(server, tmp_path / "store", clock)
        pipeline.ingest_symbols(["FB", "META"], "2022-06-01")
        clock.now = datetime(2022, 6, 15, 12, tzinfo=UTC)
        assert here("actions", "--base-path", tmp_path / "store", url=server.url).code == 0
        server.forget()
        report = pipeline.update()
        ends = {symbols: end for symbols, _, end in asked(server)}

        assert (report["failed"], report["successful"]) == ([], ["FB", "META"])
        assert [note for note in report.notes if note.startswith(RENAME)] != []
        assert ends["FB"] == "2022-06-09T03:59:59.999999999Z"
        found = rows(tmp_path / "store")
        assert {symbol: sum(row[0] == symbol for row in found) for symbol in ("FB", "META")} == {"FB": 6 * 20, "META": 10 * 20}

        server.forget()
        clock.now = datetime(2022, 6, 16, 12, tzinfo=UTC)
        pipeline.update()
        assert [symbols for symbols, _, _ in asked(server)] == ["META"]
    states = {
        one["symbol"]: one["state"] for one in here("status", "--base-path", tmp_path / "store", "--json", env={}).json["series"]
    }
    assert states == {"FB": "ended", "META": "complete"}


def test_the_series_of_a_fund_stays_the_funds_when_another_company_takes_its_ticker(tmp_path: Path) -> None:
    """META was a fund until 2022-01-31, and Facebook took it on 2022-06-09; the store never mixes the two."""
    records = {
        "name_changes": [
            {"old_symbol": "META", "new_symbol": "METV", "process_date": "2022-01-31"},
            {"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"},
        ]
    }
    days = [date(2022, 1, 26), date(2022, 1, 27), date(2022, 1, 28), date(2022, 6, 9), date(2022, 6, 10), date(2022, 6, 13)]
    clock = Clock(datetime(2022, 1, 28, 12, tzinfo=UTC))
    bars = Replay(write_minutes(tmp_path / "bars.parquet", ["META"], days))
    with Sandbox(bars, actions=Announcements(records), clock=clock) as server:
        pipeline = pipeline_of(server, tmp_path / "store", clock)
        pipeline.storage.bars.coverage = CoverageStore(pipeline.storage.files, now=clock)
        pipeline.ingest_symbols(["META"], "2022-01-26")
        clock.now = datetime(2022, 6, 15, 12, tzinfo=UTC)
        assert here("actions", "--base-path", tmp_path / "store", url=server.url).code == 0

        server.forget()
        pipeline.update()
        # As of today, Alpaca would answer for Facebook, whatever the days that are asked about.
        # What lies before the first bar was answered within a week of it: it is asked for once more.
        ends = {(one.query["end"][:10], one.query.get("asof")) for one in server.requests}
        assert ends == {("2022-01-31", "2022-01-30")}
        assert len(rows(tmp_path / "store")) == 3 * 20

        clock.now = datetime(2022, 6, 16, 12, tzinfo=UTC)
        server.forget()
        report = pipeline.update()
        assert (server.requests, len(rows(tmp_path / "store"))) == ([], 3 * 20)
        assert [note for note in report.notes if note.startswith("META renamed to METV on 2022-01-31")] != []

        pipeline.ingest_symbols(["META"], "2022-01-26", "2022-01-28", refetch=True)
        assert {one.query.get("asof") for one in server.requests} == {"2022-01-30"}


def test_a_rename_that_is_announced_changes_nothing_before_its_day(tmp_path: Path) -> None:
    clock = Clock(datetime(2022, 6, 4, 12, tzinfo=UTC))
    bars = Replay(write_minutes(tmp_path / "bars.parquet", ["FB"], [date(2022, 6, day) for day in (1, 2, 3, 6, 7, 8)]))
    with Sandbox(bars, actions=Announcements(RECORDS), clock=clock) as server:
        pipeline = pipeline_of(server, tmp_path / "store", clock)
        pipeline.storage.bars.coverage = CoverageStore(pipeline.storage.files, now=clock)
        pipeline.ingest_symbols(["FB"], "2022-06-01")
        here("actions", "--base-path", tmp_path / "store", url=server.url)
        for day, asof in ((7, None), (8, None), (9, "2022-06-08")):
            clock.now = datetime(2022, 6, day, 12, tzinfo=UTC)
            server.forget()
            report = pipeline.update()
            assert {one.query.get("asof") for one in server.requests} == {asof}
            assert (report["failed"], report.notes == ()) == ([], day < 9)
    assert len(rows(tmp_path / "store")) == 6 * 20


def test_a_damaged_book_fails_its_series_alone(server: Sandbox, base: Path) -> None:
    """What became of the ticker is not known: nothing is asked for it. The others go on."""
    here("actions", "--base-path", base, url=server.url)
    path = base / "metadata" / "actions" / "symbol=NVDA.json"
    path.write_bytes(path.read_bytes()[:-9])
    server.forget()
    ran = here(
        "ingest", "AAPL", "NVDA", "--start", "2024-06-10", "--end", "2024-06-10", "--json", "--base-path", base, url=server.url
    )

    assert (ran.code, ran.json["successful"]) == (1, ["AAPL"])
    assert [(one["symbol"], one["code"]) for one in ran.json["failed"]] == [("NVDA", "damaged_file")]
    assert [symbols for symbols, _, _ in asked(server)] == ["AAPL"]
    shown = here("status", "--base-path", base, env={}).out
    assert "metadata/actions/symbol=NVDA.json" in shown
    assert "`data-engine actions" in shown


# ------------------------------------------------------------------------------------------------------- local changes


def local(base: Path, *words: str) -> Any:
    return here("actions", *words, "--base-path", base)


INVERTED = {
    "forward_splits": [{"symbol": "NVDA", "new_rate": 1, "old_rate": 10, "ex_date": "2024-06-10", "process_date": "2024-06-10"}]
}


def factor(base: Path) -> float:
    """Return what a price before the split is multiplied by."""
    storage = ParquetStorage(base)
    options: dict[str, Any] = {"adjustment": "split", "as_of": "2024-06-10", "columns": "close"}
    adjusted, raw = (storage.load("NVDA", "2024-06-03", "2024-06-07", **more) for more in (options, {"columns": "close"}))
    return float((adjusted["close"] / raw["close"]).iloc[0])


def test_a_local_record_replaces_alpacas_and_is_kept_by_a_refetch(base: Path) -> None:
    with Sandbox(SimulatedMarket(), actions=Announcements(INVERTED)) as server:
        assert here("actions", "NVDA", "--start", "2024-06-03", "--base-path", base, url=server.url).code == 0
        assert factor(base) == pytest.approx(10)
        made = local(base, "set", "nvda", "--ex-date", "2024-06-10", "--split", "10:1", "--because", "inverted at Alpaca")
        assert (made.code, made.err) == (0, f"Store: {base} (--base-path)\n")
        assert "NVDA: 10-for-1 split on 2024-06-10 (local since " in made.out
        assert "inverted at Alpaca" in made.out
        assert factor(base) == pytest.approx(1 / 10)

        again = here("actions", "NVDA", "--start", "2024-06-03", "--refetch", "--base-path", base, url=server.url)
        assert "inverted at Alpaca" in again.out
    assert factor(base) == pytest.approx(1 / 10)
    stored = book(base, "NVDA")
    assert [one["new_rate"] for one in stored["actions"]] == [1]
    assert [(one["ex_date"], one["kinds"], one["because"]) for one in stored["local"]] == [
        ("2024-06-10", ["split"], "inverted at Alpaca")
    ]


def test_a_dropped_action_does_not_count_until_that_is_undone(server: Sandbox, base: Path) -> None:
    here("actions", "NVDA", "--start", "2024-06-03", "--base-path", base, url=server.url)
    assert factor(base) == pytest.approx(1 / 10)
    words = ("drop", "NVDA", "--ex-date", "2024-06-10", "--because", "never happened")
    assert local(base, *words, "--kind", "dividend").code == 0
    assert factor(base) == pytest.approx(1 / 10)
    made = local(base, *words, "--json")
    assert [row["action"] for row in json.loads(made.out)["local"]] == [None]
    assert factor(base) == 1
    assert local(base, *words, "--undo").out == "NVDA: no local changes\n"
    assert factor(base) == pytest.approx(1 / 10)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--dividend", "0.25"), "dividend of 0.25 USD"),
        (("--stock-dividend", "0.05"), "stock dividend of 0.05"),
        (("--spin-off", "solv:0.25"), "spin-off of SOLV"),
        (("--split", "1:15"), "1-for-15 split"),
    ],
)
def test_every_kind_can_be_recorded(base: Path, words: tuple[str, ...], named: str) -> None:
    made = local(base, "set", "AAPL", "--ex-date", "2024-06-10", *words, "--because", "by hand")

    assert made.code == 0
    assert made.out.startswith(f"AAPL: {named} on 2024-06-10 (local since ")
    assert local(base, "set", "AAPL", "--ex-date", "2024-06-10", *words, "--because", "by hand").out.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("set", "AAPL", "--ex-date", "2024-06-10", "--because", "x"), "--split, --dividend"),
        (("set", "AAPL", "--ex-date", "2024-06-10", "--split", "10:1", "--dividend", "1", "--because", "x"), "one of"),
        (("set", "AAPL", "--ex-date", "2024-06-10", "--split", "10", "--because", "x"), "'10'"),
        (("set", "AAPL", "--ex-date", "2024-06-10", "--split", "ten:1", "--because", "x"), "'ten'"),
        (("set", "AAPL", "--ex-date", "2024-06-10", "--split", "0:1", "--because", "x"), "'0'"),
        (("set", "AAPL", "--ex-date", "someday", "--split", "10:1", "--because", "x"), "someday"),
        (("set", "A B", "--ex-date", "2024-06-10", "--split", "10:1", "--because", "x"), "'A B'"),
        (("set", "AAPL", "--ex-date", "2024-06-10", "--split", "10:1", "--because", " "), "--because"),
        (("drop", "AAPL", "--ex-date", "2024-06-10"), "--because"),
        (("drop", "AAPL", "--ex-date", "2024-06-10", "--kind", "merger", "--because", "x"), "merger"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused_and_nothing_is_written(base: Path, words: tuple[str, ...], named: str) -> None:
    made = local(base, *words)

    assert (made.code, named in made.err) == (2, True)
    assert not (base / "metadata" / "actions").exists()
    assert local(base.parent / "none", "drop", "AAPL", "--ex-date", "2024-06-10", "--because", "x").code == 4


@pytest.mark.parametrize("before", [("--json",), ("--base-path", "{base}", "--json"), ("--ex-date", "2024-06-10", "--json")])
def test_options_may_stand_before_set_and_drop(base: Path, before: tuple[str, ...]) -> None:
    first = [word.format(base=base) for word in before]
    made = here(
        "actions", *first, "set", "AAPL", "--ex-date", "2024-06-10", "--split", "2:1", "--because", "x", "--base-path", base
    )

    assert (made.code, [one["kinds"] for one in made.json["local"]]) == (0, [["split"]])


def rename_fetched(base: Path) -> None:
    """Store what is known of META, and of FB before it: renamed on 2022-06-09, and a split of 10 on the Monday before."""
    earlier = {"symbol": "FB", "new_rate": 10, "old_rate": 1, "ex_date": "2022-06-06", "process_date": "2022-06-06"}
    renamed = {"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"}
    with Sandbox(SimulatedMarket(), actions=Announcements({"name_changes": [renamed], "forward_splits": [earlier]})) as server:
        assert here("actions", "META", "--start", "2022-01-03", "--base-path", base, url=server.url).code == 0


@pytest.mark.parametrize("words", [("set", "--split", "2:1"), ("drop",), ("drop", "--kind", "split")])
@pytest.mark.parametrize(
    ("symbol", "day", "ticker"),
    [
        pytest.param("META", "2022-06-03", "FB", id="before-the-rename"),
        pytest.param("META@2023-01-03", "2022-06-08", "FB", id="as-of-a-later-day"),
        pytest.param("FB@2022-06-08", "2022-07-05", "META", id="after-the-rename"),
    ],
)
def test_a_change_that_could_not_count_names_the_ticker_of_that_day(
    base: Path, words: tuple[str, ...], symbol: str, day: str, ticker: str
) -> None:
    rename_fetched(base)
    before = (base / "metadata" / "actions" / "symbol=META.json").read_bytes()
    made = local(base, words[0], symbol, "--ex-date", day, *words[1:], "--because", "x")

    assert (made.code, f" had the ticker {ticker} then" in made.err) == (2, True)
    assert (base / "metadata" / "actions" / "symbol=META.json").read_bytes() == before
    assert local(base, words[0], ticker, "--ex-date", day, *words[1:], "--because", "x").code == 0


@pytest.mark.parametrize("symbol", ["FB", "META"])
def test_both_tickers_had_the_security_on_the_day_of_a_rename(base: Path, symbol: str) -> None:
    rename_fetched(base)

    assert local(base, "set", symbol, "--ex-date", "2022-06-09", "--split", "2:1", "--because", "x").code == 0


def test_another_owner_of_a_ticker_is_named_by_a_day(base: Path) -> None:
    """META was a fund's ticker before."""
    rename_fetched(base)

    assert local(base, "set", "META@2021-06-30", "--ex-date", "2021-05-10", "--split", "2:1", "--because", "x").code == 0
    assert [one["ex_date"] for one in book(base, "META")["local"]] == ["2021-05-10"]


def test_a_stored_series_tells_which_security_is_meant(base: Path) -> None:
    """FB of before the rename is stored: a change of FB after it would be META's. The next owner's is not stored."""
    rename_fetched(base)
    stamps = pd.DatetimeIndex(["2022-06-08T15:00:00Z"])
    index = pd.MultiIndex.from_arrays([["FB"], stamps], names=["symbol", "timestamp"])
    frame = pd.DataFrame(
        {name: [100.0] for name in ("open", "high", "low", "close", "vwap", "volume", "trade_count")}, index=index
    )
    words = ("set", "FB", "--ex-date", "2022-07-05", "--split", "2:1", "--because", "x")
    assert local(base, *words).code == 0
    ParquetStorage(base).store(frame, timeframe="1Min")

    made = local(base, *words)
    assert (made.code, " had the ticker META then" in made.err) == (2, True)
    assert local(base, "set", "FB", "--ex-date", "2022-06-03", "--split", "2:1", "--because", "x").code == 0


def test_a_drop_says_what_it_leaves_out_and_if_that_is_nothing(base: Path) -> None:
    rename_fetched(base)
    words = ("drop", "FB", "--because", "x", "--ex-date")
    assert local(base, *words, "2022-06-06", "--json").json["replaced"] == ["FB: 10-for-1 split on 2022-06-06"]
    assert local(base, *words, "2022-06-09", "--json").json["replaced"] == ["FB renamed to META on 2022-06-09"]
    assert local(base, *words, "2022-06-07", "--json").json["replaced"] == []
    assert "No such action of FB on 2022-06-07" in local(base, *words, "2022-06-07").out
    assert "No such action" not in local(base, *words, "2022-06-06").out


# --------------------------------------------------------------------------------------------------- what a query lacks


def test_a_query_names_the_datasets_of_which_something_is_missing(base: Path) -> None:
    from data_engine.store.bar_store import BarStore
    from data_engine.store.local_files import LocalFiles

    store = BarStore(LocalFiles(base))
    sql = "SELECT count(*) FROM Bars_1Min WHERE symbol = 'NVDA'"
    whole = here("query", sql, "--strict", "--base-path", base)
    assert (whole.code, "Warning" in whole.err) == (0, False)

    (nvda,) = (
        series for dataset in store.coverage.datasets() for series in store.coverage.series(dataset) if series.symbol == "NVDA"
    )
    more = new_york_days(date(2024, 6, 10), date(2024, 6, 11))
    store.coverage.update(nvda, lambda known: known.wanting(more))
    for words, code in (((), 0), (("--strict",), 1), (("--strict", "--json"), 1)):
        ran = here("query", sql, *words, "--base-path", base)
        assert ran.code == code
        (line,) = [one for one in ran.err.splitlines() if one.startswith("Warning")]
        assert "bars_1min misses requested ranges of 1 symbol (NVDA); run `data-engine update`" in line
    week = here("query", sql, "--start", "2024-06-03", "--end", "2024-06-07", "--strict", "--base-path", base)
    other = here("query", "SELECT 'bars', count(*) FROM coverage", "--strict", "--base-path", base)
    assert (week.code, other.code) == (0, 0)
