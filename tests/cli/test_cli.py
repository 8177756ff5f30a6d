"""The command line as people and cron run it: what is printed where, exit codes, and signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from data_engine.cli import program
from data_engine.cli.exit_codes import INCONSISTENT, MEANINGS, Command
from data_engine.sandbox import Faults, Sandbox, SimulatedMarket
from running import KEY, account, bars_in, content, count, differing, ended, here, names_of, pipeline_of, run, start

JUNE = ("--start", "2024-06-03", "--end", "2024-06-03")


@pytest.fixture
def server() -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket()) as sandbox:
        yield sandbox


# ------------------------------------------------------------------------------------------------------------ first contact


def test_alone_it_says_where_the_store_is_and_what_to_try(tmp_path: Path) -> None:
    ran = run(env={})

    assert ran.code == 0
    assert ran.out.splitlines()[0] == f"Store: {tmp_path / 'stock_data'} (default)"
    commands = [line.strip() for line in ran.out.splitlines() if line.startswith("  data-engine ")]
    assert len(commands) == 3
    assert commands[0].startswith("data-engine demo")
    assert not (tmp_path / "stock_data").exists()


def test_alone_it_says_what_the_store_holds(server: Sandbox, tmp_path: Path) -> None:
    here("ingest", "AAPL", *JUNE, "--base-path", tmp_path / "stock_data", url=server.url)

    ran = here(env={})

    assert ran.out.splitlines()[1] == f"  equities_1min: 1 series, {count(tmp_path / 'stock_data'):,} bars"


@pytest.mark.parametrize(
    "command",
    [
        *("ingest", "update", "actions", "index", "status", "verify", "audit", "query", "import", "remove", "report"),
        *("sandbox", "demo"),
    ],
)
def test_every_command_of_the_contract_explains_itself(command: str) -> None:
    ran = here(command, "--help")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: data-engine {command} ")
    assert "\nEXIT STATUS:\n  0 " in ran.out


def every_command() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in program.commands.items():
        found[name] = command
        if isinstance(command, click.Group):
            found.update({f"{name} {inner}": one for inner, one in command.commands.items()})
    return found


def test_no_summary_of_a_command_is_cut_off() -> None:
    summaries = {name: (command.help or "").split("\n\n")[0] for name, command in every_command().items()}

    assert {name: text for name, text in summaries.items() if len(text) > 55 or not text.endswith(".")} == {}
    assert "..." not in here("--help").out.split("Commands:")[1].split("EXIT STATUS:")[0]


def test_the_help_of_the_program_has_the_summary_that_each_command_has() -> None:
    listed = re.findall(r"^  (\w+) +(.+)$", here("--help").out.split("Commands:")[1].split("EXIT STATUS:")[0], re.MULTILINE)

    assert dict(listed) == {name: (command.help or "").split("\n\n")[0] for name, command in program.commands.items()}


def test_the_first_sentence_of_an_option_is_short() -> None:
    options = [
        (name, one) for name, command in every_command().items() for one in command.params if isinstance(one, click.Option)
    ]
    firsts = {(name, one.name): re.split(r"(?<=\.) ", (one.help or "").split(" [")[0])[0] for name, one in options}

    assert {name: text for name, text in firsts.items() if not 0 < len(text) <= 70} == {}


def test_exit_codes_of_help_are_those_of_the_table() -> None:
    listed = {name: command.exit_codes for name, command in every_command().items() if isinstance(command, Command)}

    assert listed.keys() == every_command().keys()
    assert all(set(codes) <= set(MEANINGS) and list(codes) == sorted(codes) for codes in listed.values())
    assert {name for name, codes in listed.items() if INCONSISTENT in codes} == {"verify", "snapshot", "snapshot verify"}


def test_the_default_of_wait_is_in_the_help() -> None:
    found = {name: option.default for name, one in every_command().items() for option in one.params if option.name == "wait"}

    assert found == {"ingest": 600, **dict.fromkeys(sorted(found.keys() - {"ingest"}), 0)}
    assert "[default: 600;" in here("ingest", "--help").out
    assert "[default: 0;" in here("update", "--help").out


@pytest.mark.parametrize(
    "command", ["ingest", "update", "actions", "status", "verify", "audit", "query", "import", "remove", "report"]
)
def test_the_stores_options_are_on_every_command_that_touches_one(command: str) -> None:
    text = here(command, "--help").out

    assert "--base-path" in text
    assert "--settings" in text


def test_version() -> None:
    assert re.fullmatch(r"data-engine \d+\.\d+\S*\n", here("--version").out)


def test_the_first_line_on_stderr_names_the_store_and_who_said_so(server: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text(
        "".join(f"[{name}]\nlocal_storage_dir = from_file\n" for name in ("linux", "macos", "windows"))
    )
    words = ("ingest", "AAPL", *JUNE)
    argument = here(*words, "--base-path", "said", url=server.url)
    variable = here(*words, env=account(server.url, DATA_ENGINE_BASE_PATH="named"))
    file = here(*words, url=server.url)
    (tmp_path / "settings.ini").unlink()
    default = here(*words, url=server.url)

    firsts = [ran.err.splitlines()[0] for ran in (argument, variable, file, default)]
    assert firsts[0].startswith(f"Store: {tmp_path / 'said'} (--base-path)")
    assert firsts[1].startswith(f"Store: {tmp_path / 'named'} (DATA_ENGINE_BASE_PATH)")
    assert firsts[2].startswith(f"Store: {tmp_path / 'from_file'} (settings.ini [")
    assert firsts[3].startswith(f"Store: {tmp_path / 'stock_data'} (default)")


@pytest.mark.parametrize(
    "command",
    [
        *(("update",), ("status",), ("query", "SELECT 1"), ("remove", "AAPL"), ("verify",), ("report",)),
        *(("actions",), ("audit",), ("index", "list")),
    ],
)
def test_only_ingest_creates_a_store(tmp_path: Path, command: tuple[str, ...]) -> None:
    ran = here(*command, "--base-path", tmp_path / "nowhere", env={})  # without credentials, too

    assert (ran.code, f"no store at {tmp_path / 'nowhere'}" in ran.err) == (4, True)
    assert ran.err.startswith(f"Store: {tmp_path / 'nowhere'} (--base-path)")
    assert ran.out == ""
    assert not (tmp_path / "nowhere").exists()


# -------------------------------------------------------------------------------------------------------------- the output


def test_an_ingest_ends_with_the_references_summary(server: Sandbox, tmp_path: Path) -> None:
    ran = run("ingest", "AAPL", "ZZZQ", *JUNE, "--base-path", "store", url=server.url)

    lines = ran.out.splitlines()
    assert ran.code == 1
    assert re.fullmatch(r"Total ingestion time: \d+\.\ds", lines[0])
    assert lines[1:5] == ["", "Ingestion Summary:", "  Successful: 1/2", "  Failed: 1/2"]
    assert lines[-3:] == ["", "Failed symbols:", "  - ZZZQ: No data available"]


def test_a_log_gets_the_references_progress_lines(tmp_path: Path) -> None:
    """Nothing here waits for them: they come every five seconds, so the run is held until the first has come."""
    with Sandbox(SimulatedMarket(), latency=0.9) as server:
        words = ("ingest", *names_of(40), "--start", "2024-05-01", "--end", "2024-05-10", "--workers", 2, "--base-path", "store")
        ran = run(*words, url=server.url)

    lines = ran.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Progress: "))
    assert re.fullmatch(r"Progress: \d+/40 \(\d+\.\d%\)", lines[at])
    assert re.fullmatch(r"  Successful: \d+ \| Failed: 0 \| Remaining: \d+", lines[at + 1])
    assert re.fullmatch(r"  Elapsed: \S+ \| Est\. remaining: .+", lines[at + 2])
    assert re.fullmatch(r"  Pages: \d+ of about \d+ \| \d+/min", lines[at + 3])


def test_json_of_every_command_is_one_object(server: Sandbox, tmp_path: Path) -> None:
    base = ("--base-path", "store", "--json")
    ingested = here("ingest", "AAPL", *JUNE, *base, url=server.url)
    for ran in (
        ingested,
        here("ingest", "AAPL", *JUNE, "--dry-run", *base, url=server.url),
        here("update", "--timeframe", "1Min", *base, url=server.url),
        here("status", *base),
        here("query", "SELECT count(*) AS bars FROM bars_1min", *base),
        here("remove", "AAPL", "--dry-run", *base),
        here("verify", *base),
        here("report", *base),
    ):
        assert isinstance(json.loads(ran.out), dict), ran.text

    assert {"successful", "failed", "bars_written", "requests", "elapsed_seconds"} <= set(ingested.json)


def test_a_query_sees_a_view_for_each_dataset_and_changes_nothing(server: Sandbox, tmp_path: Path) -> None:
    for timeframe in ("1Min", "1Day"):
        here("ingest", "AAPL", "NA", *JUNE, "--timeframe", timeframe, "--base-path", "store", url=server.url)
    before = content(tmp_path / "store")

    minutes = here("query", "SELECT symbol, count(*) FROM bars_1min GROUP BY 1 ORDER BY 1", "--json", "--base-path", "store").json
    days = here("query", "SELECT count(*) FROM bars_1day", "--json", "--base-path", "store").json
    covered = here("query", "SELECT DISTINCT dataset FROM coverage ORDER BY 1", "--json", "--base-path", "store").json
    wrong = here("query", "SELEKT 1", "--base-path", "store")
    here("query", "DROP VIEW bars_1min", "--base-path", "store")

    assert [row[0] for row in minutes["rows"]] == ["AAPL", "NA"]
    assert sum(row[1] for row in minutes["rows"]) == count(tmp_path / "store")
    assert days["rows"] == [[2]]
    assert covered["rows"] == [["equities_1day"], ["equities_1min"]]
    assert (wrong.code, "SELEKT" in wrong.err, "Traceback" in wrong.text) == (2, True, False)
    assert content(tmp_path / "store") == before


def test_verify_finds_nothing_wrong_with_a_good_store_and_five_with_a_lie(server: Sandbox, tmp_path: Path) -> None:
    here("ingest", "AAPL", "MSFT", *JUNE, "--base-path", "store", url=server.url)
    good = here("verify", "--base-path", "store")
    next((tmp_path / "store" / "equities_1min" / "symbol=AAPL").rglob("*.parquet")).unlink()

    bad = here("verify", "--base-path", "store")

    assert good.code == 0, good.text
    assert (bad.code, "AAPL" in bad.text) == (5, True), bad.text


# ---------------------------------------------------------------------------------------------------------------- indices


def test_a_list_is_stored_under_the_name_that_is_given_and_read_by_it(server: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("AAPL\nMSFT\n")
    stored = here("ingest", "--file", "list.txt", "--index", "ours", *JUNE, "--base-path", "store", url=server.url)
    read = here(
        "ingest",
        "--index",
        "ours",
        "--start",
        "2024-06-04",
        "--end",
        "2024-06-04",
        "--base-path",
        "store",
        "--json",
        url=server.url,
    )

    assert stored.code == 0
    assert (tmp_path / "store" / "metadata" / "indices" / "ours.csv").read_text().splitlines()[0] == "symbol,added_date"
    assert read.json["successful"] == ["AAPL", "MSFT"]


def test_a_list_that_drops_more_than_a_fifth_needs_force(server: Sandbox, tmp_path: Path) -> None:
    names = names_of(10)
    where = ("--index", "ours", *JUNE, "--base-path", "store")
    here("ingest", *names, *where, url=server.url)
    before = (tmp_path / "store" / "metadata" / "indices" / "ours.csv").read_bytes()
    server.forget()

    refused = here("ingest", *names[:7], *where, url=server.url)
    after = (tmp_path / "store" / "metadata" / "indices" / "ours.csv").read_bytes()
    forced = here("ingest", *names[:7], *where, "--force", url=server.url)

    assert (refused.code, "--force" in refused.err or "force" in refused.err) == (2, True)
    assert after == before
    assert forced.code == 0
    assert here("ingest", *names, *where, url=server.url).code == 0
    assert server.requests == []


def test_an_unknown_index_lists_those_there_are(server: Sandbox) -> None:
    here("ingest", "AAPL", "--index", "ours", *JUNE, "--base-path", "store", url=server.url)

    ran = here("ingest", "--index", "theirs", *JUNE, "--base-path", "store", url=server.url)

    assert (ran.code, "ours" in ran.err) == (2, True)


# -------------------------------------------------------------------------------------------------------- keys and service


def test_keys_may_lie_in_a_dotenv_file_and_in_alpacas_own_variables(server: Sandbox, tmp_path: Path) -> None:
    words = ("ingest", "AAPL", *JUNE, "--base-path", "store")
    theirs = here(*words, env={"APCA_API_DATA_URL": server.url, "APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": "s3"})
    (tmp_path / ".env").write_text(f"ALPACA_API_KEY={KEY}\nALPACA_SECRET_KEY=s3\n")
    file = here(*words, "--refetch", env={"APCA_API_DATA_URL": server.url})

    assert (theirs.code, file.code) == (0, 0)
    assert ".env" in file.err.splitlines()[0]


def test_nobody_at_the_address_is_six_after_bounded_tries(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as gone:
        url = gone.url

    ran = run("ingest", "AAPL", *JUNE, "--base-path", "store", url=url)

    assert ran.code == 6, ran.text
    assert "  - AAPL: " in ran.out
    assert "Traceback" not in ran.text
    assert count(tmp_path / "store") == 0


# ----------------------------------------------------------------------------------------------------------------- signals

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")


def seen(server: Sandbox, requests: int, process: subprocess.Popen[str]) -> None:
    """Wait until a server has answered so many requests."""
    while len(server.requests) < requests:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_ends_the_run_in_order_and_the_next_completes_it(tmp_path: Path, number: signal.Signals) -> None:
    names = names_of(12)
    words = ("ingest", *names, "--start", "2024-05-01", "--end", "2024-06-28", "--workers", 2, "--base-path", tmp_path / "cut")
    with Sandbox(SimulatedMarket(), latency=0.05) as server:
        with start(*words, url=server.url) as process:
            seen(server, 8, process)
            process.send_signal(number)
            ran = ended(process)
        heard = len(server.requests)
        held = count(tmp_path / "cut")
        server.latency = 0.0
        server.forget()
        again = run(*words, "--json", url=server.url)
        pipeline_of(server, tmp_path / "whole").ingest_symbols(names, "2024-05-01", "2024-06-28")

        assert ran.code == 130, ran.text
        assert heard <= 8 + 2 * 2, "no new requests after it"
        assert "Ingestion Summary:" in ran.out
        assert "interrupted" in ran.err
        assert "Traceback" not in ran.text
        assert held > 0
        assert again.code == 0
        assert again.json["bars_written"] == count(tmp_path / "cut") - held
    assert differing(bars_in(tmp_path / "cut"), bars_in(tmp_path / "whole")) == 0
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@needs_signals
def test_an_interrupted_json_run_still_prints_one_object(tmp_path: Path) -> None:
    words = (
        "ingest",
        *names_of(12),
        "--start",
        "2024-05-01",
        "--end",
        "2024-06-28",
        "--workers",
        2,
        "--base-path",
        "cut",
        "--json",
    )
    with Sandbox(SimulatedMarket(), latency=0.05) as server, start(*words, url=server.url) as process:
        seen(server, 4, process)
        process.send_signal(signal.SIGINT)
        ran = ended(process)

    assert ran.code == 130
    assert ran.json["error"]["code"] == "interrupted"
    assert len(ran.json["successful"]) + len(ran.json["failed"]) == 12


@needs_signals
def test_a_second_signal_ends_the_run_at_once_and_the_store_is_whole(tmp_path: Path) -> None:
    words = (
        "ingest",
        *names_of(6),
        "--start",
        "2024-05-01",
        "--end",
        "2024-05-31",
        "--workers",
        3,
        "--base-path",
        tmp_path / "cut",
    )
    with Sandbox(SimulatedMarket()) as server:
        # From the third request on, answers stop half-way: an orderly end has to wait for them, a second signal does not.
        server._on_request = lambda record: setattr(server, "faults", Faults({"stall": 1.0})) if record.number == 2 else None
        with start(*words, url=server.url) as process:
            seen(server, 5, process)
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)  # two signals in the same instant are one
            process.send_signal(signal.SIGINT)
            ran = ended(process)
        server._on_request, server.faults = None, Faults()
        again = run(*words, url=server.url)
        pipeline_of(server, tmp_path / "whole").ingest_symbols(names_of(6), "2024-05-01", "2024-05-31")

    assert ran.code == 130
    assert "Ingestion Summary:" not in ran.out
    assert again.code == 0, again.text
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@needs_signals
def test_the_sandbox_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    with start("sandbox", "--key", f"{KEY}:pair") as process:
        assert process.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline() + process.stdout.readline())
        assert url is not None
        env = {"APCA_API_DATA_URL": url[0], "ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": "pair"}
        good = here("ingest", "AAPL", *JUNE, "--base-path", "store", env=env)
        bad = here("ingest", "MSFT", *JUNE, "--base-path", "store", env={**env, "ALPACA_SECRET_KEY": "other"})
        process.send_signal(signal.SIGINT)
        ran = ended(process)

    assert (good.code, bad.code, ran.code) == (0, 3, 0), good.text + bad.text + ran.text
    assert "Stopped after 3 requests" in ran.err  # of corporate actions by both runs, of bars by the first


def test_a_reader_that_goes_away_is_no_error(server: Sandbox, tmp_path: Path) -> None:
    here("ingest", *names_of(20), *JUNE, "--base-path", "store", url=server.url)

    with start("status", "--all", "--base-path", "store") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(60)
        assert process.stderr is not None
        said = process.stderr.read()

    assert "Traceback" not in said
    assert "BrokenPipe" not in said


@pytest.mark.slow
def test_the_demo_shows_the_main_job_without_an_account(tmp_path: Path) -> None:
    ran = run("demo", env={})

    assert ran.code == 0, ran.text
    assert "SIMULATED" in ran.text
    assert "  Successful: 32/32" in ran.out
    assert count(tmp_path / "demo_data") > 500_000
    assert "time_bucket" in ran.out


# --------------------------------------------------------------------------------------------- what must not read as all well


@pytest.fixture
def small(server: Sandbox, tmp_path: Path) -> Path:
    """A store with one session of minutes of AAPL."""
    pipeline_of(server, tmp_path / "small").ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")
    return tmp_path / "small"


@pytest.mark.parametrize("command", ["verify", "status", "report", "remove"])
def test_a_mistyped_symbol_is_bad_input(small: Path, command: str) -> None:
    ran = here(command, "AAAPL", "--base-path", small)

    assert ran.code == 2
    assert "AAAPL" in ran.err


@pytest.mark.parametrize(
    "words", [("ingest", "AAPL", "--bogus"), ("report", "--minutes", 999), ("update", "--wait", -1), ("remove",), ("nosuch",)]
)
def test_bad_usage_is_an_object_for_scripts_too(words: tuple[object, ...]) -> None:
    ran = here(*words, "--json")

    assert ran.code == 2
    assert ran.json["error"]["code"] == "bad_usage"
    assert ran.json["error"]["message"] in ran.err


def test_numbers_that_json_has_no_word_for_are_null(small: Path) -> None:
    ran = here("query", "SELECT 'nan'::DOUBLE AS a, 1 / 0 AS b, 0.5::DOUBLE AS c", "--base-path", small, "--json")

    assert ran.json == {"columns": ["a", "b", "c"], "rows": [[None, None, 0.5]]}


def test_the_demo_keeps_out_of_stores_that_it_did_not_make(small: Path) -> None:
    before = content(small)
    ran = here("demo", "--base-path", small)

    assert (ran.code, content(small)) == (2, before)
    assert str(small) in ran.err
    assert "--base-path" in ran.err


def test_what_lies_between_two_ranges_is_not_shown_as_held(server: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_of(server, tmp_path / "gap")
    for month in ("2024-01", "2024-04"):
        pipeline.ingest_symbols(["AAPL"], f"{month}-02", f"{month}-12", "1Day")
    ran = here("status", "--base-path", tmp_path / "gap")
    spoken = here("status", "--base-path", tmp_path / "gap", "--json").json

    (line,) = [line for line in ran.out.splitlines() if "not requested" in line]
    assert line.split()[-3::2] == ["2024-01-13", "2024-04-01"]
    assert spoken["series"][0]["not_requested"] == [["2024-01-13T05:00:00Z", "2024-04-02T04:00:00Z"]]


def test_a_plan_is_printed_as_it_is(small: Path) -> None:
    ran = here("query", "SELECT count(*) FROM bars_1min WHERE symbol = 'AAPL'", "--explain", "--base-path", small)

    assert ran.code == 0
    assert "\\n" not in ran.out
    assert max(map(len, ran.out.splitlines())) < 120


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_a_query_that_computes_for_long(small: Path) -> None:
    sql = "SELECT sum(a.range * b.range % 7) FROM range(300000) a, range(300000) b"
    with start("query", sql, "--base-path", small, env={}) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the store is named: what follows is the query
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        ran = ended(process, seconds=30)

    assert ran.code == 130
    assert "interrupted" in ran.err


def test_a_command_has_the_same_help_whether_or_not_it_was_parsed_below_the_program() -> None:
    for name, command in every_command().items():
        alone = command.get_help_option(command.make_context(name, [], resilient_parsing=True))

        assert alone is not None
        assert alone.opts == ["-h", "--help"]
