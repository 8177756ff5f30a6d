"""A store from day to day: update, status and remove."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from data_engine import MetadataStore, ParquetStorage
from data_engine.cli.output import fitted
from data_engine.errors import CredentialsRefused, InputError, Interrupted, StoreBusy, StoreError
from data_engine.ingest.outcome import IngestionReport
from data_engine.ingest.run_log import RunRecord, nights_without
from data_engine.market.exchange_calendar import sessions
from data_engine.sandbox import Faults, Replay, Sandbox, SimulatedMarket
from data_engine.sandbox.server import Record
from data_engine.sandbox.splits import Split
from data_engine.store.bar_store import BarStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.location import open_file_store
from data_engine.store.selection import DatasetFilter
from data_engine.verify.reach import reach_of
from data_engine.verify.status import series_status
from running import (
    Clock,
    asked,
    bars_in,
    client_of,
    content,
    count,
    coverage,
    ended,
    here,
    names_of,
    pipeline_of,
    rows,
    run,
    start,
    write_minutes,
)

# Wednesday, 11:00 in New York.
WEDNESDAY = datetime(2024, 6, 5, 15, tzinfo=UTC)
WEEK = [date(2024, 5, day) for day in (28, 29, 30, 31)]


@pytest.fixture
def clock() -> Clock:
    return Clock(WEDNESDAY)


@pytest.fixture
def server(clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket(), clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def present() -> Iterator[Sandbox]:
    """A server of today, for other processes: their clock is this machine's."""
    with Sandbox(SimulatedMarket()) as sandbox:
        yield sandbox


# ------------------------------------------------------------------------------------------------------------------ update


def test_an_update_brings_a_series_from_its_end_to_now(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-31")
    server.forget()
    report = pipeline_of(server, tmp_path / "store", clock).update()
    pipeline_of(server, tmp_path / "whole", clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-06-05")

    assert report["successful"] == ["AAPL"]
    assert min(start for _, start, _ in asked(server) if start) >= "2024-05-01"
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_what_is_final_is_not_asked_again(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    clock.now = datetime(2024, 6, 8, 15, tzinfo=UTC)  # a Saturday: Friday can still change, Thursday not
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-01", "2024-06-06")
    server.forget()

    report = pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-01", "2024-06-06")

    assert report.exit_code == 0
    assert server.requests == []
    pipeline_of(server, tmp_path, clock).update()
    assert [begin for _, begin, _ in asked(server)] == ["2024-06-07T04:00:00Z"]


def test_the_provisional_tail_is_asked_again(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01")
    server.forget()
    clock.now += timedelta(hours=1)

    report = pipeline_of(server, tmp_path, clock).update()

    # From Wednesday's midnight in New York, where the final part ends.
    assert [begin for _, begin, _ in asked(server)] == ["2024-06-05T04:00:00Z"]
    assert report.changes.added == 60
    assert report.changes.revised == 0


def test_an_interrupted_backfill_is_finished(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    names = names_of(8)
    client = client_of(server, clock)
    server._on_request = lambda record: client.stop() if record.number == 5 else None
    with pytest.raises(Interrupted):
        pipeline_of(server, tmp_path / "store", clock, workers=2, client=client).ingest_symbols(names, "2024-04-01", "2024-05-31")
    server._on_request = None
    clock.now += timedelta(days=1)

    report = pipeline_of(server, tmp_path / "store", clock).update()

    assert report["successful"] == names
    pipeline_of(server, tmp_path / "whole", clock).ingest_symbols(names, "2024-04-01", "2024-06-06")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_what_is_still_owed_comes_before_what_is_new(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    server.faults = Faults(fail_symbols=["MSFT"])
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT", "NVDA"], "2024-05-01", "2024-05-10")
    server.faults = Faults()
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT", "NVDA"], "2024-05-13", "2024-05-31")
    server.forget()

    pipeline_of(server, tmp_path, clock, workers=1).update()

    # The hole of one symbol first, then the days since, for all three together.
    assert next((symbols, begin[:10]) for symbols, begin, _ in asked(server)) == ("MSFT", "2024-05-01")
    assert {symbols for symbols, begin, _ in asked(server) if begin > "2024-05-31"} == {"AAPL,MSFT,NVDA"}


def test_a_symbol_that_failed_is_tried_again(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    server.faults = Faults(fail_symbols=["MSFT"])
    first = pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-01", "2024-05-10")
    server.faults = Faults()

    report = pipeline_of(server, tmp_path, clock).update()

    assert first["codes"] == {"MSFT": "unavailable"}
    assert report["successful"] == ["AAPL", "MSFT"]
    assert coverage(tmp_path, "MSFT")["failure"] is None
    assert min(stamp for symbol, stamp, *_ in rows(tmp_path) if symbol == "MSFT") < 1_714_622_400_000_000  # 2024-05-02


def test_new_members_start_only_where_half_of_the_index_is_held(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    """One stock of which the days are held, too, does not make its index an index of days."""
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-30", "2024-05-31", index_name="ours")
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-30", "2024-05-31", "1Day")
    MetadataStore(tmp_path).store("ours", ["AAPL", "MSFT", "NVDA", "INTC"])

    pipeline_of(server, tmp_path, clock).update(index_name="ours")

    held = {dataset: {symbol for symbol, *_ in rows(tmp_path, dataset)} for dataset in ("equities_1min", "equities_1day")}
    assert held == {"equities_1min": {"AAPL", "MSFT", "NVDA", "INTC"}, "equities_1day": {"AAPL"}}


def test_members_that_an_update_does_not_begin_are_failures_and_not_passed_over(
    server: Sandbox, clock: Clock, tmp_path: Path
) -> None:
    """Where fewer than half are stored, nothing says that the index is to be held like that: but they were asked for."""
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-30", "2024-05-31")
    MetadataStore(tmp_path).store("ours", ["AAPL", "MSFT", "NVDA", "INTC"])

    report = pipeline_of(server, tmp_path, clock).update(index_name="ours")

    assert (report["successful"], report.exit_code) == (["AAPL"], 1)
    assert [symbol for symbol, _ in report["failed"]] == ["MSFT", "NVDA", "INTC"]
    assert set(report["codes"].values()) == {"never_ingested"}
    assert {"data-engine ingest" in message and "--start" in message for _, message in report["failed"]} == {True}
    assert not (tmp_path / "metadata/coverage/equities_1min/symbol=MSFT.json").exists()


def test_a_new_member_of_an_index_starts_where_the_index_starts(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-01", "2024-05-31", index_name="ours")
    MetadataStore(tmp_path).store("ours", ["AAPL", "MSFT", "NVDA"])

    report = pipeline_of(server, tmp_path, clock).update(index_name="ours")

    assert report["successful"] == ["AAPL", "MSFT", "NVDA"]
    assert coverage(tmp_path, "NVDA")["wanted"] == [["2024-05-01T04:00:00Z", "2024-06-05T15:00:00Z"]]
    firsts = duckdb.sql(
        f"SELECT symbol, min(timestamp)::DATE::VARCHAR FROM ({bars_in(tmp_path)}) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert firsts == [(name, "2024-05-01") for name in ("AAPL", "MSFT", "NVDA")]


def test_an_update_of_some_symbols_leaves_the_others(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-01", "2024-05-31")
    server.forget()

    report = pipeline_of(server, tmp_path, clock).update(["msft"])

    assert report["successful"] == ["MSFT"]
    assert {symbols for symbols, _, _ in asked(server)} == {"MSFT"}


def test_an_update_brings_every_dataset_and_a_choice_only_its_own(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    for options, timeframe in (({}, "1Min"), ({}, "1Day"), ({"feed": "iex"}, "1Min")):
        pipeline_of(server, tmp_path, clock, **options).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-31", timeframe)
    server.forget()
    pipeline_of(server, tmp_path, clock).update(timeframe="1Day")
    days = [(record.query["timeframe"], record.query["feed"]) for record in server.requests]
    server.forget()
    pipeline_of(server, tmp_path, clock).update()
    rest = {(record.query["timeframe"], record.query["feed"]) for record in server.requests}

    assert set(days) == {("1Day", "sip")}
    assert rest >= {("1Min", "sip"), ("1Min", "iex")}


def test_an_update_of_strangers_is_refused(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-10")
    server.forget()

    with pytest.raises(InputError, match="MSFT"):
        pipeline_of(server, tmp_path, clock).update(["AAPL", "MSFT"])
    with pytest.raises(KeyError, match="nobody"):
        pipeline_of(server, tmp_path, clock).update(index_name="nobody")
    assert server.requests == []


def test_an_update_without_a_store_creates_none(server: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        pipeline_of(server, tmp_path / "nowhere").update()

    assert not (tmp_path / "nowhere").exists()


def test_an_update_is_quiet_for_cron_and_says_how_many_series_hold_the_latest_session(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        here(
            "ingest",
            "AAPL",
            "--start",
            "2024-06-03",
            "--end",
            "2024-06-04",
            "--timeframe",
            "1Day",
            "--base-path",
            "s",
            url=server.url,
        )
        ran = run("update", "--quiet", "--base-path", "s", url=server.url)

    assert ran.code == 0, ran.text
    line, gate = ran.out.splitlines()
    when, store, said = line.split(" ", 2)
    assert datetime.now(UTC) - datetime.fromisoformat(when) < timedelta(minutes=5)
    assert store == f"{Path.cwd() / 's'}:"
    assert said.startswith("1 of 1 series up to date, 0 failed, ")
    assert re.search(r"; equities_1day to 20\d\d-\d\d-\d\d$", said)
    day = gate.split()[1].rstrip(":")
    assert here("status", "--session", day, "--base-path", "s").out.splitlines() == [gate]
    assert "held by 1 of 1 series" in gate
    assert ran.err == ""


def test_a_quiet_run_says_each_note_once_names_who_is_behind_and_where_a_settings_file_put_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for section in ("linux", "macos", "windows"):
        with (tmp_path / "settings.ini").open("a") as file:
            file.write(f"[{section}]\nlocal_storage_dir = {tmp_path / 'moved'}\n")
    days = ("--start", "2022-06-01", "--end", "2022-06-15", "--timeframe", "1Day")
    with Sandbox(SimulatedMarket()) as server:
        here("ingest", "FB", "KO", *days, "--no-actions", url=server.url)
        here("actions", "FB", "--start", "2022-06-01", url=server.url)
        first, second = (here("update", "FB", "--quiet", url=server.url) for _ in range(2))
    states = {one["symbol"]: one["state"] for one in here("status", "--json", env={}).json["series"]}
    runs = here("status", "--runs", "--json", env={}).json

    assert first.code == second.code == 0, first.text + second.text
    assert first.out.count("FB renamed to META on 2022-06-09") == 1
    assert "renamed" not in second.out, "it is news once"
    assert all(ran.err.startswith(f"Store: {tmp_path / 'moved'} (settings.ini") for ran in (first, second))
    assert states == {"FB": "ended", "KO": "complete"}
    assert [run["command"] for run in runs["runs"]] == ["update", "update", "ingest"]


def test_silent_series_are_counted_apart_and_once_alpaca_lists_them_as_inactive_they_have_ended_and_are_asked_weekly(
    tmp_path: Path,
) -> None:
    """Delisted without an action, nothing says so: each night asks, in the request of the others, so that no day is unknown."""
    live, gone = ["A", "B"], names_of(20)
    days = list(sessions(date(2024, 4, 1), date(2024, 6, 14)))
    both = write_minutes(tmp_path / "both.parquet", [*live, *gone], days[:3], per_day=3)
    later = write_minutes(tmp_path / "later.parquet", live, days[3:], per_day=3)
    again = write_minutes(tmp_path / "again.parquet", gone[:1], [date(2024, 6, 7)], per_day=3)
    market = tmp_path / "market.parquet"
    of_all = " UNION ALL ".join(f"FROM '{path}'" for path in (both, later, again))
    duckdb.sql(f"COPY (SELECT * FROM ({of_all}) ORDER BY symbol, timestamp) TO '{market}' (FORMAT PARQUET)")
    clock, base = Clock(WEDNESDAY - timedelta(days=1)), tmp_path / "store"

    def states() -> dict[str, set[str]]:
        found = series_status(BarStore(LocalFiles(base)), DatasetFilter(), now=clock.now)
        by_state: dict[str, set[str]] = {}
        for one in found:
            by_state.setdefault(one.state, set()).add(one.series.symbol)
        return by_state

    def load(symbol: str, end: str) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing of it is unknown
            return len(ParquetStorage(base).load(symbol, "2024-04-01", end))

    with Sandbox(Replay(market), clock=clock) as server:

        def update() -> tuple[IngestionReport, set[str]]:
            server.forget()
            report = pipeline_of(server, base, clock).update()
            asked_for = [set(one.query["symbols"].split(",")) for one in server.requests if one.path.endswith("/bars")]
            assert 4 * len(asked_for) <= 22, "not one request for each"
            return report, set().union(*asked_for)

        pipeline_of(server, base, clock).ingest_symbols([*live, *gone], "2024-04-01", "2024-06-03")
        clock.now = WEDNESDAY
        report, asked_for = update()
        assert (report["silent"], report["failed"], asked_for) == (sorted(gone), [], {*live, *gone})
        assert report.line().startswith("2 of 22 series up to date, 20 silent, 0 failed, ")
        assert states() == {"complete": set(live), "silent": set(gone)}
        assert load(gone[0], "2024-06-03") == 9

        MetadataStore(base).store("us_active", live)
        MetadataStore(base).store("us_inactive", gone)
        asked_on = []
        for night in (6, 11, 12, 13):
            clock.now = WEDNESDAY.replace(day=night)
            report, asked_for = update()
            asked_on += [night] if asked_for & set(gone[1:]) else []
            assert (report["silent"], report["failed"]) == ([], [])
            if not asked_on:
                assert (report["ended"], states()) == (sorted(gone), {"complete": set(live), "ended": set(gone)})
                assert load(gone[1], clock.now.date().isoformat()) == 9
    assert asked_on == [12], "a week after the last final answer"
    assert states() == {"complete": {*live, gone[0]}, "ended": set(gone[1:])}, "one of them trades again"
    assert load(gone[0], "2024-06-07") == 12


def test_a_series_that_was_not_fetched_to_the_last_session_is_behind(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        for symbol, end in (("AAPL", "2024-06-07"), ("KO", "2024-06-05")):
            days = ("--start", "2024-06-03", "--end", end, "--timeframe", "1Day")
            here("ingest", symbol, *days, "--base-path", tmp_path / "s", url=server.url)
    (held,) = reach_of(BarStore(open_file_store(tmp_path / "s")), DatasetFilter(), now=datetime.now(UTC))

    assert (str(held), held.behind) == ("equities_1day to 2024-06-07", ("KO",))


def on_a_terminal(*words: object, **more: str) -> str:
    """Return what a command prints on a terminal."""
    import pty  # not on Windows

    ours, its = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", **more}
    with subprocess.Popen([sys.executable, "-m", "data_engine", *map(str, words)], env=env, stdout=its, stderr=its) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal says on Linux that nobody writes to it any more
            while data := os.read(ours, 65536):
                shown += data
    os.close(ours)
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
def test_on_a_terminal_of_80_columns_states_have_a_color_and_no_line_is_broken(tmp_path: Path) -> None:
    names = ("AAPL", "ZZZQ", "BRK.B", "AAPL@2020-03-31")
    span = ("--start", "2020-03-03T15:00:00Z", "--end", "2020-03-05T16:00:00Z", "--no-actions")
    with Sandbox(SimulatedMarket()) as server:
        here("ingest", *names, *span, "--base-path", tmp_path / "s", url=server.url)
    status = "status", "--base-path", tmp_path / "s"
    shown, runs = on_a_terminal(*status), on_a_terminal(*status, "--runs")
    plain = [on_a_terminal(*status, NO_COLOR="1"), on_a_terminal(*status, TERM="dumb"), here(*status, env={}).text]

    colored = re.sub(r"\x1b\[[0-9;]*m", "", shown + runs)
    assert (shown.count("\x1b[32mcomplete\x1b[0m"), shown.count("\x1b[36mempty\x1b[0m")) == (2, 1)
    assert runs.count("\x1b[31mfailed\x1b[0m") == 1
    assert len({tuple(sorted(text.split())) for text in plain}) == 1  # a long path is broken on a terminal
    assert "\x1b" not in plain[0]
    lines = [line for line in colored.splitlines() if not line.startswith("Store: ")]
    assert max(map(len, lines)) <= 80
    assert len({line.index(" bars  2020-03-03 .. 2020-03-05") for line in lines if " .. " in line}) == 1


def test_a_sentence_is_broken_between_words_where_a_terminal_ends_and_a_command_to_copy_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "60")
    rows = ["  MSFT  complete  12 bars", f"  data-engine ingest {'A ' * 30}--start 2024-01-01"]
    sentence = f"  equities_1min has 3 files of another program ({'x' * 70}); run `data-engine import --in-place` to go on"
    shown = fitted("\n".join([*rows, sentence]), Terminal())

    assert shown.split("\n")[:2] == rows
    assert " ".join(shown.split()) == " ".join("\n".join([*rows, sentence]).split()), "nothing but spaces has changed"
    assert [len(line) <= 60 for line in shown.split("\n")[2:]] == [True, False, True]
    assert "`data-engine import --in-place`" in shown
    assert fitted(sentence, io.StringIO()) == sentence, "a log has lines as they are"


def test_the_nights_without_a_run_are_those_after_a_session() -> None:
    """From Friday to the second Monday: nothing ran after Monday's, Thursday's and Friday's session."""
    ran = [datetime(2024, 6, day, 1, tzinfo=UTC) for day in (1, 5, 6)]
    records = [RunRecord(began, 1.0, "update", None, "", ()) for began in ran]

    assert nights_without(records, datetime(2024, 6, 10, 23, tzinfo=UTC)) == [date(2024, 6, day) for day in (3, 6, 7)]
    assert nights_without([], datetime(2024, 6, 10, 23, tzinfo=UTC)) == []


_OTHERS = ("recheck", "audit", "actions", "report")


def test_what_is_wrong_with_a_command_comes_before_a_missing_store_and_missing_keys(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        here("ingest", "AAPL", "--start", "2024-06-03", "--end", "2024-06-03", "--base-path", tmp_path / "s", url=server.url)
    misspelt = here("update", "AAPLE", "--base-path", tmp_path / "s", env={})

    assert misspelt.code == 2
    assert "AAPLE; did you mean AAPL?" in misspelt.err
    for command in ("update", "status", "verify", "recheck", "audit", "report", "import --in-place", "ingest A"):
        wrong = here(*command.split(), "--timeframe", "9x", "--base-path", tmp_path / "none", env={})
        assert (wrong.code, "'9x'" in wrong.err) == (2, True), "before the store that is not there"
    for command in ("query 1 --start", "remove A --end", "actions A --start", "export d --to qlib --end", "status --session"):
        wrong = here(*command.split(), "2024-13-01", "--base-path", tmp_path / "none", env={})
        assert (wrong.code, "2024-13-01" in wrong.err) == (2, True)
    for words in (("status", "AAPLE"), ("verify", "APL"), ("remove", "AAPLL"), *((one, "AAPLE") for one in _OTHERS)):
        ran = here(*words, "--base-path", tmp_path / "s", env={})
        assert ran.code == 2
        assert "did you mean AAPL?" in ran.err


# ------------------------------------------------------------------------------------------------------- adjusted series


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Four sessions of AAPL and MSFT, and the same with two more."""
    names = ["AAPL", "MSFT"]
    return (
        write_minutes(tmp_path / "four.parquet", names, WEEK),
        write_minutes(tmp_path / "six.parquet", names, [*WEEK, date(2024, 6, 3), date(2024, 6, 4)]),
    )


def first_four(source: Path, clock: Clock, base: Path, adjustment: str) -> None:
    with Sandbox(Replay(source), clock=clock) as server:
        report = pipeline_of(server, base, clock, adjustment=adjustment).ingest_symbols(
            ["AAPL", "MSFT"], "2024-05-28", "2024-05-31"
        )
    assert report.exit_code == 0


@pytest.mark.parametrize("adjustment", ["split", "dividend", "all"])
def test_an_adjusted_series_whose_overlap_is_equal_is_only_extended(
    files: tuple[Path, Path], clock: Clock, tmp_path: Path, adjustment: str
) -> None:
    first_four(files[0], clock, tmp_path / "store", adjustment)
    with Sandbox(Replay(files[1]), clock=clock) as server:
        report = pipeline_of(server, tmp_path / "store", clock).update()
        # The last held session again, in the same request as the new ones.
        assert [begin for _, begin, _ in asked(server)] == ["2024-05-31T04:00:00Z"]
        assert server.counts["rows"] == 2 * 3 * 20

    assert report.exit_code == 0
    assert (report.changes.added, report.changes.revised) == (2 * 2 * 20, 0)
    assert not any("again in full" in note for note in report["notes"])


def test_after_a_split_the_series_is_fetched_again_in_full_and_the_report_says_so(
    files: tuple[Path, Path], clock: Clock, tmp_path: Path
) -> None:
    first_four(files[0], clock, tmp_path / "store", "split")
    splits = {"AAPL": [Split(date(2024, 6, 3), 4)]}
    with Sandbox(Replay(files[1], splits=splits), clock=clock) as server:
        report = pipeline_of(server, tmp_path / "store", clock).update()
        whole = pipeline_of(server, tmp_path / "whole", clock, adjustment="split")
        whole.ingest_symbols(["AAPL", "MSFT"], "2024-05-28", "2024-06-05")

    assert report.exit_code == 0
    said = [note for note in report["notes"] if "again in full" in note]
    assert len(said) == 1
    assert "AAPL" in said[0]
    assert "MSFT" not in said[0]
    assert said[0] in report.line(said=frozenset(report.notes)), "an event is told each time, also in the words of an earlier one"
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert report.changes.revised == 4 * 20
    prices = duckdb.sql(
        f"SELECT max(open) FROM ({bars_in(tmp_path / 'store', 'equities_1min_split')}) "
        "WHERE symbol = 'AAPL' AND timestamp < '2024-06-03'"
    ).fetchall()[0][0]
    assert prices < 104 / 4


def test_a_raw_series_is_not_touched_by_a_split(files: tuple[Path, Path], clock: Clock, tmp_path: Path) -> None:
    first_four(files[0], clock, tmp_path / "store", "raw")
    with Sandbox(Replay(files[1], splits={"AAPL": [Split(date(2024, 6, 3), 4)]}), clock=clock) as server:
        report = pipeline_of(server, tmp_path / "store", clock).update()

    assert (report.changes.added, report.changes.revised) == (2 * 2 * 20, 0)
    assert report["notes"] == []


def test_an_adjusted_series_extended_backwards_is_compared_as_well(
    files: tuple[Path, Path], clock: Clock, tmp_path: Path
) -> None:
    with Sandbox(Replay(files[1]), clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock, adjustment="split").ingest_symbols(["AAPL"], "2024-05-31", "2024-06-04")
    with Sandbox(Replay(files[1], splits={"AAPL": [Split(date(2024, 6, 3), 4)]}), clock=clock) as server:
        for base, first in (("store", "2024-05-28"), ("whole", "2024-05-28")):
            pipeline_of(server, tmp_path / base, clock, adjustment="split").ingest_symbols(["AAPL"], first, "2024-06-04")

    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_rebase_that_breaks_off_claims_nothing_and_the_next_run_ends_it(
    files: tuple[Path, Path], clock: Clock, tmp_path: Path
) -> None:
    first_four(files[0], clock, tmp_path / "store", "split")
    with Sandbox(Replay(files[1], splits={"AAPL": [Split(date(2024, 6, 3), 4)]}), clock=clock) as server:

        def revoke(record: Record) -> None:
            server.faults = Faults(always=401)

        server._on_request = revoke
        with pytest.raises(CredentialsRefused):
            pipeline_of(server, tmp_path / "store", clock).update()
        server._on_request, server.faults = None, Faults()
        covered = coverage(tmp_path / "store", "AAPL", "equities_1min_split")["covered"]
        report = pipeline_of(server, tmp_path / "store", clock).update()
        whole = pipeline_of(server, tmp_path / "whole", clock, adjustment="split")
        whole.ingest_symbols(["AAPL", "MSFT"], "2024-05-28", "2024-06-05")

    assert covered == []
    assert report.exit_code == 0
    assert content(tmp_path / "store") == content(tmp_path / "whole")


# ------------------------------------------------------------------------------------------------------------- two at once


@pytest.mark.parametrize("command", ["ingest", "update", "remove"])
def test_a_second_process_that_may_not_wait_ends_with_seven(present: Sandbox, tmp_path: Path, command: str) -> None:
    base = tmp_path / "store"
    pipeline_of(present, base).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")
    present.forget()
    before = content(base)
    dates = ("--start", "2024-06-04", "--end", "2024-06-04") if command == "ingest" else ()

    with LocalFiles(base).lock("run", seconds=0):
        ran = run(command, "AAPL", *dates, "--wait", 0, "--base-path", base, url=present.url)

    assert ran.code == 7, ran.text
    assert str(base) in ran.err
    assert "Traceback" not in ran.text
    assert present.requests == []
    assert content(base) == before


def test_a_second_process_that_waits_says_so_and_goes_on(present: Sandbox, tmp_path: Path) -> None:
    base = tmp_path / "store"
    pipeline_of(present, base).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")
    words = ("ingest", "AAPL", "--start", "2024-06-04", "--end", "2024-06-04", "--wait", 60, "--base-path", base)

    with start(*words, url=present.url) as process:
        with LocalFiles(base).lock("run", seconds=60):
            pass
        ran = ended(process)

    assert ran.code == 0, ran.text


def test_readers_need_no_lock(present: Sandbox, tmp_path: Path) -> None:
    base = tmp_path / "store"
    pipeline_of(present, base).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    with LocalFiles(base).lock("run", seconds=0):
        assert here("status", "--base-path", base).code == 0
        assert here("query", "SELECT count(*) FROM bars_1min", "--base-path", base).code == 0


# ------------------------------------------------------------------------------------------------------------------- status


def status(base: Path, *words: object) -> dict[str, Any]:
    ran = here("status", "--json", "--base-path", base, *words)
    assert ran.code == 0, ran.text
    return dict(json.loads(ran.out))


def test_status_says_what_is_held_and_what_is_missing(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    server.faults = Faults(fail_symbols=["MSFT"])
    names = ["AAPL", "MSFT", "ZZZQ"]
    pipeline_of(server, tmp_path, clock).ingest_symbols(names, "2024-05-01", "2024-05-10")

    said = status(tmp_path)

    by_symbol = {one["symbol"]: one for one in said["series"]}
    assert {name: one["state"] for name, one in by_symbol.items()} == {"AAPL": "complete", "MSFT": "failed", "ZZZQ": "empty"}
    assert by_symbol["MSFT"]["missing"] == [["2024-05-01T04:00:00Z", "2024-05-11T04:00:00Z"]]
    assert by_symbol["MSFT"]["failure"]["code"] == "unavailable"
    assert by_symbol["AAPL"]["missing"] == []
    assert said["bars"] == by_symbol["AAPL"]["bars"] == count(tmp_path)
    assert said["bytes"] == sum(len(data) for data in content(tmp_path).values())
    first, last = duckdb.sql(f"SELECT min(epoch_us(timestamp)), max(epoch_us(timestamp)) FROM ({bars_in(tmp_path)})").fetchall()[
        0
    ]
    shown = [datetime.fromisoformat(by_symbol["AAPL"][name]).timestamp() * 1e6 for name in ("first_bar", "last_bar")]
    assert shown == [first, last]


def test_status_names_an_interior_hole(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-03")
    server.faults = Faults(always=500)
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-06", "2024-05-07")
    server.faults = Faults()
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-08", "2024-05-10")

    one = status(tmp_path)["series"][0]

    assert one["missing"] == [["2024-05-06T04:00:00Z", "2024-05-08T04:00:00Z"]]
    text = here("status", "--base-path", tmp_path).out
    assert "missing 2024-05-06 .. 2024-05-07" in text


def test_status_chooses_and_lists(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-01", "2024-05-03")
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-03", "1Day")

    assert [one["dataset"] for one in status(tmp_path, "--timeframe", "1Day")["series"]] == ["equities_1day"]
    assert [(one["dataset"], one["symbol"]) for one in status(tmp_path, "aapl")["series"]] == [
        ("equities_1day", "AAPL"),
        ("equities_1min", "AAPL"),
    ]


def test_status_of_a_damaged_series_says_which_file(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-01", "2024-05-03")
    (tmp_path / "metadata" / "coverage" / "equities_1min" / "symbol=AAPL.json").write_text("not json")

    states = {one["symbol"]: one["state"] for one in status(tmp_path)["series"]}

    assert states == {"AAPL": "damaged", "MSFT": "complete"}


def test_status_says_how_many_incomplete_series_it_does_not_list(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    names = names_of(62)
    server.faults = Faults(fail_symbols=names[:60])
    pipeline_of(server, tmp_path, clock).ingest_symbols(names, "2024-05-01", "2024-05-01", "1Day")

    lines = here("status", "--base-path", tmp_path).out.splitlines()
    every = here("status", "--all", "--base-path", tmp_path).out.splitlines()

    assert len([line for line in lines if " failed " in line and line.startswith("  ")]) == 40
    assert [line.split()[1:3] for line in lines if line.startswith("  and ")] == [["20", "more"], ["2", "other"]]
    assert [name for name in names if not any(line.startswith(f"  {name} ") for line in every)] == []


# -------------------------------------------------------------------------------------------------------------------- remove


def test_remove_takes_bars_and_coverage_out_and_an_ingest_brings_them_back(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    words = (["AAPL", "MSFT"], "2024-05-01", "2024-05-10")
    pipeline_of(server, tmp_path, clock).ingest_symbols(*words)
    before = content(tmp_path)
    inside = "timestamp >= '2024-05-06 04:00:00+00' AND timestamp < '2024-05-08 04:00:00+00'"
    gone = duckdb.sql(f"SELECT count(*) FROM ({bars_in(tmp_path)}) WHERE symbol = 'AAPL' AND {inside}").fetchall()[0][0]

    ran = here("remove", "AAPL", "--start", "2024-05-06", "--end", "2024-05-07", "--json", "--base-path", tmp_path)

    assert ran.code == 0, ran.text
    assert ran.json["removed"] == [{"symbol": "AAPL", "dataset": "equities_1min", "bars": gone}]
    left = duckdb.sql(f"SELECT symbol, count(*) FROM ({bars_in(tmp_path)}) WHERE {inside} GROUP BY 1").fetchall()
    assert [symbol for symbol, _ in left] == ["MSFT"]
    assert coverage(tmp_path, "AAPL")["covered"] == [
        ["2024-05-01T04:00:00Z", "2024-05-06T04:00:00Z"],
        ["2024-05-08T04:00:00Z", "2024-05-11T04:00:00Z"],
    ]
    assert status(tmp_path)["series"][0]["missing"] == []

    report = pipeline_of(server, tmp_path, clock).ingest_symbols(*words)

    assert report.changes.added == gone
    assert content(tmp_path) == before


def test_what_was_removed_an_update_does_not_bring_back(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-31")
    here("remove", "AAPL", "--end", "2024-05-10", "--base-path", tmp_path)

    pipeline_of(server, tmp_path, clock).update()

    first = duckdb.sql(f"SELECT min(timestamp)::DATE::VARCHAR FROM ({bars_in(tmp_path)})").fetchall()[0][0]
    assert first == "2024-05-13"


def test_a_series_removed_whole_is_forgotten(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-01", "2024-05-03")

    ran = here("remove", "AAPL", "--base-path", tmp_path)

    assert ran.code == 0, ran.text
    assert {row[0] for row in rows(tmp_path)} == {"MSFT"}
    assert [one["symbol"] for one in status(tmp_path)["series"]] == ["MSFT"]
    assert not (tmp_path / "metadata" / "coverage" / "equities_1min" / "symbol=AAPL.json").exists()


def test_a_removal_in_a_dry_run_removes_nothing(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-03")
    before, known = content(tmp_path), coverage(tmp_path, "AAPL")

    ran = here("remove", "AAPL", "--dry-run", "--base-path", tmp_path)

    assert ran.out.startswith(f"Would remove {count(tmp_path):,} bars of AAPL ")
    assert content(tmp_path) == before
    assert coverage(tmp_path, "AAPL") == known


def test_removing_a_stranger_removes_nothing(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-03")
    before = content(tmp_path)

    ran = here("remove", "AAPL", "MSFT", "--base-path", tmp_path)

    assert (ran.code, "MSFT" in ran.err) == (2, True)
    assert content(tmp_path) == before


def test_removing_one_dataset_leaves_the_others(server: Sandbox, clock: Clock, tmp_path: Path) -> None:
    for timeframe in ("1Min", "1Day"):
        pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-03", timeframe)

    here("remove", "AAPL", "--timeframe", "1Min", "--base-path", tmp_path)

    assert (count(tmp_path), count(tmp_path, "equities_1day")) == (0, 3)


# ----------------------------------------------------------------------------------------------- what a reader is told


def test_a_range_that_was_wanted_and_is_not_held_is_named_when_it_is_loaded(
    server: Sandbox, clock: Clock, tmp_path: Path
) -> None:
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-03")
    server.faults = Faults(always=500)
    pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-06", "2024-05-07")
    storage = ParquetStorage(tmp_path)

    with pytest.warns(UserWarning, match=r"2024-05-04T04:00:00Z .*data-engine update AAPL"):
        storage.load("AAPL", "2024-05-01", "2024-05-07")
    with pytest.raises(StoreError, match=r"AAPL.*2024-05-04"):
        storage.load("AAPL", "2024-05-01", "2024-05-07", incomplete="raise")
    assert len(storage.load("AAPL", "2024-05-01", "2024-05-10", incomplete="ignore")) == count(tmp_path)
    storage.load("AAPL", "2024-05-01", "2024-05-03")  # that part is whole: no warning


def test_a_split_after_an_update_on_a_monday_is_noticed_though_what_is_final_ends_on_a_sunday(tmp_path: Path) -> None:
    """At noon on Monday everything up to Sunday is final: a Sunday has no bar that could tell of another price base."""
    path = write_minutes(tmp_path / "bars.parquet", ["AAA"], [date(2024, 5, 28), *(date(2024, 6, day) for day in (6, 7, 10, 11))])
    clock = Clock(datetime(2024, 6, 10, 16, tzinfo=UTC))
    with Sandbox(Replay(path), clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock, adjustment="split").ingest_symbols(["AAA"], "2024-05-28")
    assert coverage(tmp_path / "store", "AAA", "equities_1min_split")["covered"][-1][1] == "2024-06-10T04:00:00Z"
    clock.now = datetime(2024, 6, 11, 16, tzinfo=UTC)
    with Sandbox(Replay(path, splits={"AAA": (Split(date(2024, 6, 11), 2),)}), clock=clock) as server:
        report = pipeline_of(server, tmp_path / "store", clock, adjustment="split").update()
        pipeline_of(server, tmp_path / "fresh", clock, adjustment="split").ingest_symbols(["AAA"], "2024-05-28")

    assert [note for note in report.notes if "adjusted anew" in note] != []
    assert content(tmp_path / "store") == content(tmp_path / "fresh")


def test_an_update_is_told_whatever_ends_the_recheck_after_it(
    present: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may take the store between the two."""
    days = ("--start", "2024-06-03", "--end", "2024-06-05", "--timeframe", "1Day")
    here("ingest", "AAPL", *days, "--base-path", tmp_path, url=present.url)

    def busy(*_: object, **__: object) -> None:
        raise StoreBusy("store is locked by another process")

    monkeypatch.setattr("data_engine.ingest.recheck.recheck", busy)
    told = here("update", "--recheck", "1", "--base-path", tmp_path, "--json", url=present.url)

    assert told.code == 7
    assert json.loads(told.out)["successful"] == ["AAPL"]
