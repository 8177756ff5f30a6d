"""``audit``: final sessions fetched again and compared as ``recheck`` does; Alpaca's values are stored only on request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine import ParquetStorage
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.fetch_actions import fetch_actions
from data_engine.errors import CredentialsRefused, Failure, InputError, Interrupted
from data_engine.ingest.audit_plan import plan_audit
from data_engine.ingest.recheck import RecheckReport
from data_engine.ingest.recheck import audit as run_audit
from data_engine.ingest.recheckable import recheckable
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import new_york_date, new_york_days
from data_engine.sandbox import Announcements, Faults, Replay, Sandbox, SimulatedMarket
from data_engine.sandbox.splits import Split
from data_engine.store.coverage import Coverage
from data_engine.store.selection import DatasetFilter
from real_data import real
from running import (
    COLUMNS,
    Clock,
    asked,
    bars_in,
    client_of,
    content,
    coverage,
    differing,
    here,
    pipeline_of,
    rows,
    run,
    write_minutes,
)

MULTIFETCH = "minute/yfinance_rth_8sym_202603_multifetch.parquet"
DAYS = [date(2024, 5, day) for day in (28, 29, 30, 31)]
LATER = datetime(2024, 6, 20, 15, tzinfo=UTC)
RANGE = ("2024-05-28", "2024-05-31")


@pytest.fixture
def clock() -> Clock:
    return Clock(LATER)


def audit(server: Sandbox, base: Path, clock: Clock | None = None, **options: Any) -> RecheckReport:
    """Audit all that a store holds, or a sample of it."""
    sample, seed = options.pop("sample", 1_000_000), options.pop("seed", 1)
    choice, names = options.pop("choice", DatasetFilter()), options.pop("names", None)
    pipeline = pipeline_of(server, base, clock, workers=options.pop("workers", 2), client=options.pop("client", None))
    return run_audit(pipeline, choice, names, sample=sample, seed=seed, **options)


def differences(report: RecheckReport) -> list[dict[str, Any]]:
    """Return a row for each value that differs."""
    return [
        {
            "symbol": one["symbol"],
            "timestamp": one["timestamp"],
            "change": one["change"],
            "field": name,
            "old": one["old"] and one["old"][name],
            "new": one["new"] and one["new"][name],
        }
        for one in report.to_json()["differences"]
        for name in one["new"] or one["old"]
    ]


def altered(path: Path, to: Path, change: Any) -> Path:
    """Write a file of bars with *change* made to its pandas frame."""
    frame = pd.read_parquet(path)
    pq.write_table(pa.Table.from_pandas(change(frame), preserve_index=False), to)
    return to


# ------------------------------------------------------------------------------------------------------------ the real thing


@pytest.fixture(scope="module")
def fetches(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The real bars as they were fetched the first, the second and the third time."""
    frame = pd.read_parquet(real(MULTIFETCH))
    folder = tmp_path_factory.mktemp("fetches")
    made = []
    for number, (_, part) in enumerate(frame.groupby("fetched_at")):
        made.append(folder / f"fetch{number + 1}.parquet")
        part.drop(columns="fetched_at").to_parquet(made[-1])
    return made


def by_pandas(first: Path, second: Path) -> set[tuple[str, pd.Timestamp, str, str, float | None, float | None]]:
    """Return what differs between two fetches on the days that were asked for."""
    frames = []
    for path in (first, second):
        frame = pd.read_parquet(path).astype({"volume": "float64"})
        frame["trade_count"] = np.maximum(1.0, np.floor(frame["volume"] / 100))
        frame["vwap"] = ((frame["high"] + frame["low"] + frame["close"]) / 3).round(4)
        frame["day"] = frame["timestamp"].dt.tz_convert("America/New_York").dt.date
        frames.append(frame)
    both = frames[0].merge(frames[1], on=["symbol", "timestamp", "day"], how="outer", suffixes=("_old", "_new"), indicator=True)
    both = both[(both["day"] >= date(2026, 3, 1)) & (both["day"] <= date(2026, 3, 31))]
    both = both[both["symbol"].isin(set(frames[0]["symbol"]))]
    kinds = both["_merge"].astype(str).map({"left_only": "vanished", "right_only": "appeared", "both": "revised"})
    found = set()
    for column in COLUMNS:
        old, new = both[f"{column}_old"], both[f"{column}_new"]
        compared = [series[old != new] for series in (both["symbol"], both["timestamp"], kinds, old, new)]
        for symbol, timestamp, kind, was, now in zip(*compared, strict=True):
            found.add((symbol, timestamp, kind, column, None if pd.isna(was) else was, None if pd.isna(now) else now))
    return found


def real_store(fetch: Path, base: Path) -> None:
    with Sandbox(Replay(fetch)) as server:
        frame = pd.read_parquet(fetch)
        pipeline_of(server, base).ingest_symbols(sorted(set(frame["symbol"])), "2026-03-01", "2026-03-31")


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2)])
def test_real_revisions_are_what_pandas_finds(fetches: list[Path], tmp_path: Path, first: int, second: int) -> None:
    real_store(fetches[first], tmp_path)
    before = {row[:2]: row for row in rows(tmp_path)}
    with Sandbox(Replay(fetches[second])) as server:
        report = audit(server, tmp_path)

    expected = by_pandas(fetches[first], fetches[second])
    found = {
        (row["symbol"], pd.Timestamp(row["timestamp"]), row["change"], row["field"], row["old"], row["new"])
        for row in differences(report)
    }
    assert found <= expected  # a thousand bars of each symbol are listed, and all are counted
    vanished = {(symbol, timestamp) for symbol, timestamp, kind, *_ in expected if kind == "vanished"}
    assert report.total.vanished == len(vanished)
    revised = {(symbol, timestamp) for symbol, timestamp, kind, *_ in expected if kind == "revised"}
    appeared = {(symbol, timestamp) for symbol, timestamp, kind, *_ in expected if kind == "appeared"}
    assert (report.total.revised, report.added, report.exit_code) == (len(revised), len(appeared), 0)
    assert revised
    after = {row[:2]: row for row in rows(tmp_path)}
    assert {key: after[key] for key in before} == before


def test_accepting_real_revisions_makes_the_store_what_a_refetch_makes_it(fetches: list[Path], tmp_path: Path) -> None:
    real_store(fetches[0], tmp_path / "audited")
    real_store(fetches[0], tmp_path / "refetched")
    with Sandbox(Replay(fetches[1])) as server:
        report = audit(server, tmp_path / "audited", accept=True)
        symbols = sorted(set(pd.read_parquet(fetches[0])["symbol"]))
        pipeline_of(server, tmp_path / "refetched").ingest_symbols(symbols, "2026-03-01", "2026-03-31", refetch=True)

    assert report.accepted is not None
    assert report.accepted.total.revised == report.total.revised == 25
    assert differing(bars_in(tmp_path / "audited"), bars_in(tmp_path / "refetched")) == 0
    assert content(tmp_path / "audited") == content(tmp_path / "refetched")
    checked = here("verify", "--json", "--base-path", tmp_path / "audited")
    assert (checked.code, checked.json["inconsistencies"]) == (0, [])


# ------------------------------------------------------------------------------------------------------------- what differs


@pytest.fixture
def base(tmp_path: Path, clock: Clock) -> Path:
    """A store of two symbols on four days; ``bars.parquet`` beside it is what the server sent."""
    path = write_minutes(tmp_path / "bars.parquet", ["AAA", "BBB"], DAYS)
    with Sandbox(Replay(path), clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAA", "BBB"], *RANGE)
    return tmp_path / "store"


@pytest.fixture
def same(base: Path, clock: Clock) -> Iterator[Sandbox]:
    with Sandbox(Replay(base.parent / "bars.parquet"), clock=clock) as server:
        yield server


@pytest.fixture
def revised(base: Path, clock: Clock) -> Iterator[Sandbox]:
    """A server that has revised a close, dropped a bar and added one."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[5, "close"] += 0.25
        rest = frame.drop(index=7)
        added = frame.loc[[9]].assign(timestamp=frame.loc[9, "timestamp"] + pd.Timedelta(hours=1))
        return pd.concat([rest, added])

    path = altered(base.parent / "bars.parquet", base.parent / "revised.parquet", change)
    with Sandbox(Replay(path), clock=clock) as server:
        yield server


def test_where_nothing_differs_no_bar_is_written_and_the_sessions_are_dated(base: Path, same: Sandbox, clock: Clock) -> None:
    before = content(base)

    report = audit(same, base, clock, accept=True)

    assert (report.total.bars, differences(report), report.conflicting, report.exit_code) == (160, [], {}, 0)
    assert content(base) == before
    assert [row[2] for row in coverage(base, "AAA")["seen"]] == ["2024-06-20T15:00:00Z"]


def test_revised_vanished_and_appeared_bars_are_named_with_both_values(base: Path, revised: Sandbox, clock: Clock) -> None:
    found = differences(audit(revised, base, clock))

    close = [row for row in found if row["field"] == "close"]
    first = {"symbol": "AAA", "timestamp": "2024-05-28T14:05:00Z", "change": "revised", "field": "close"}
    assert close == [
        {**first, "old": 100.175, "new": 100.425},
        {**first, "timestamp": "2024-05-28T14:07:00Z", "change": "vanished", "old": 100.195, "new": None},
        {**first, "timestamp": "2024-05-28T15:09:00Z", "change": "appeared", "old": None, "new": 100.215},
    ]
    # The sandbox makes the average of high, low and close; every column of a bar that came or went has its line.
    assert len(found) == 2 + 7 + 7


def test_with_accept_alpacas_values_are_stored_and_dropped_bars_are_kept(base: Path, revised: Sandbox, clock: Clock) -> None:
    stored = {row[:2]: row for row in rows(base)}

    report = audit(revised, base, clock, accept=True)

    now = {row[:2]: row for row in rows(base)}
    changed = {key for key in stored if now.get(key) != stored[key]}
    assert report.accepted is not None
    assert (report.added, report.accepted.total.written, len(changed), len(now) - len(stored)) == (1, 1, 1, 1)
    assert [now[key][5] for key in changed] == [100.425]
    assert list(report.conflicting.values()) == [1]  # the dropped one
    assert [row["change"] for row in differences(audit(revised, base, clock)) if row["field"] == "close"] == ["vanished"]
    checked = here("verify", "--json", "--base-path", base)
    assert (checked.code, checked.json["inconsistencies"]) == (0, [])


def test_damaged_conflicting_bars_are_named(base: Path, revised: Sandbox, clock: Clock) -> None:
    path = base / "metadata/conflicts/equities_1min/symbol=AAA.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"format": 1, "what": 2}')

    report = audit(revised, base, clock)

    assert [(one.code, path.name in one.message) for one in report.failed.values()] == [("damaged_file", True)]
    assert report.exit_code == 1


# -------------------------------------------------------------------------------------------------- the sample and requests


def test_symbols_of_one_session_share_a_request(base: Path, same: Sandbox, clock: Clock) -> None:
    report = audit(same, base, clock, sample=2)

    assert (report.sample.sessions, report.sample.available, len(same.requests)) == (2, 8, 1)
    assert [symbols for symbols, _, _ in asked(same)] == ["AAA,BBB"]


def test_sessions_that_follow_one_another_share_a_request_too(base: Path, same: Sandbox, clock: Clock) -> None:
    report = audit(same, base, clock)

    assert (report.sample.sessions, len(same.requests), report.requests) == (8, 1, 1)


def test_provisional_sessions_are_not_fetched(tmp_path: Path) -> None:
    clock = Clock(datetime(2024, 5, 31, 19, tzinfo=UTC))  # in the session
    path = write_minutes(tmp_path / "bars.parquet", ["AAA"], DAYS)
    with Sandbox(Replay(path), clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAA"], *RANGE)
        report = audit(server, tmp_path / "store", clock)

    assert (report.sample.available, report.total.bars) == (3, 60)


def test_days_and_weeks_are_audited_too(tmp_path: Path, clock: Clock) -> None:
    with Sandbox(SimulatedMarket(), clock=clock) as server:
        for timeframe in ("1Day", "1Week"):
            pipeline_of(server, tmp_path, clock).ingest_symbols(["AAPL"], "2024-05-01", "2024-05-31", timeframe)
        report = audit(server, tmp_path, clock)

    # 22 sessions in May 2024; four weeks of them from Monday to Friday, and the first of the month is a Wednesday.
    assert report.sample.available == 22 + 4
    assert (differences(report), report.exit_code) == ([], 0)


# ----------------------------------------------------------------------------------------------------------- what can go wrong


def test_an_adjusted_series_is_audited_only_by_name_and_never_mixed(tmp_path: Path, clock: Clock) -> None:
    path = write_minutes(tmp_path / "bars.parquet", ["AAA"], DAYS)
    with Sandbox(Replay(path), clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock, adjustment="split").ingest_symbols(["AAA"], *RANGE)
    split = {"AAA": (Split(date(2024, 6, 10), 2.0),)}
    choice = DatasetFilter.parse(adjustment="split")
    with Sandbox(Replay(path, splits=split), clock=clock) as server:
        assert audit(server, tmp_path / "store", clock).sample.sessions == 0
        report = audit(server, tmp_path / "store", clock, choice=choice)
        with pytest.raises(InputError, match="--refetch"):
            audit(server, tmp_path / "store", clock, choice=choice, accept=True)

    assert {round(one["old"] / one["new"], 2) for one in differences(report) if one["field"] == "close"} == {2.0}


def test_of_a_security_that_left_the_ticker_only_its_own_days_are_fetched_as_of_its_last(tmp_path: Path, clock: Clock) -> None:
    """As of today Alpaca would respond for the security that has the ticker now, and --accept would mix two securities."""
    path = write_minutes(tmp_path / "bars.parquet", ["AAA", "BBB"], DAYS)
    left = {"name_changes": [{"old_symbol": "AAA", "new_symbol": "ZZZ", "process_date": DAYS[2].isoformat()}]}
    with Sandbox(Replay(path), actions=Announcements(left), clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAA", "BBB"], *RANGE)
        ranges = {"AAA": new_york_days(DAYS[0], DAYS[-1])}
        fetch_actions(ActionStore(ParquetStorage(tmp_path / "store").files), client_of(server, clock), ranges, now=clock.now)
        server.forget()
        report = audit(server, tmp_path / "store", clock)

        last: dict[tuple[str, str | None], str] = {}
        for one in server.requests:
            for name in one.query["symbols"].split(","):
                last[name, one.query.get("asof")] = max(one.query["end"], last.get((name, one.query.get("asof")), ""))
    assert last == {("AAA", "2024-05-29"): "2024-05-30T03:59:59.999999999Z", ("BBB", None): "2024-06-01T03:59:59.999999999Z"}
    assert report.sample.sessions == 2 + len(DAYS)
    assert differences(report) == []


def test_one_symbols_failure_leaves_its_neighbours_alone(base: Path, revised: Sandbox, clock: Clock) -> None:
    damaged = base / "equities_1min/symbol=BBB/year=2024/month=05/data.parquet"
    damaged.write_bytes(b"no parquet")

    report = audit(revised, base, clock)

    series = Series("BBB", Dataset(Timeframe.parse("1Min")))
    assert ({one: failure.code for one, failure in report.failed.items()}, report.exit_code) == ({series: "damaged_file"}, 1)
    assert len(differences(report)) == 16


def test_a_symbol_that_alpaca_no_longer_accepts_fails_alone(base: Path, same: Sandbox, clock: Clock) -> None:
    storage = ParquetStorage(base)
    series, odd = (Series(name, Dataset(Timeframe.parse("1Min"))) for name in ("AAA", "A-B"))
    for period in storage.bars.coverage.read(series).rows:
        storage.bars.write(odd, period, storage.bars.read(series, period))
    storage.bars.coverage.update(odd, lambda _: replace(storage.bars.coverage.read(series), series=odd))

    report = audit(same, base, clock)

    assert report.failed == {odd: Failure("invalid_symbol", "invalid symbol: A-B; did you mean A.B?")}
    assert (report.total.bars, differences(report), report.exit_code) == (160, [], 1)


def test_coverage_that_cannot_be_read_is_in_the_report(base: Path, same: Sandbox, clock: Clock) -> None:
    (base / "metadata/coverage/equities_1min/symbol=BBB.json").write_text("{}")

    report = audit(same, base, clock)

    assert ([failure.code for failure in report.failed.values()], report.total.bars, report.exit_code) == (
        ["damaged_file"],
        80,
        1,
    )


def test_no_server_ends_with_six(base: Path, clock: Clock) -> None:
    with Sandbox(SimulatedMarket(), clock=clock) as server:
        pass

    report = audit(server, base, clock, sample=2)

    assert ({failure.code for failure in report.failed.values()}, report.exit_code) == ({"unavailable"}, 6)


def test_a_stop_ends_it_and_what_was_compared_is_dated(base: Path, revised: Sandbox, clock: Clock) -> None:
    known = recheckable(ParquetStorage(base).bars, DatasetFilter(), ["AAA"], now=clock.now).known
    client = client_of(revised, clock)
    seed = next(seed for seed in range(99) if draws(known, seed, DAYS[0]))
    revised._on_request = lambda record: client.stop() if record.number == 1 else None
    client.begin = lambda: client  # type: ignore[method-assign]

    with pytest.raises(Interrupted):
        audit(revised, base, clock, client=client, names=["AAA"], sample=3, seed=seed, workers=1)

    assert coverage(base, "AAA")["conflicting"] == 2


def draws(known: list[Coverage], seed: int, day: date) -> bool:
    """Tell whether a sample of three has a day in its first task, and more tasks after it."""
    tasks = plan_audit(known, 3, seed=seed).tasks
    starts = [task.range.start for task in tasks]
    return len(tasks) > 1 and new_york_date(starts[0]) == day and tasks[0].range.length == timedelta(days=1)


def test_refused_keys_end_it(base: Path, clock: Clock) -> None:
    with Sandbox(SimulatedMarket(), clock=clock, keys={"other": "keys"}) as server, pytest.raises(CredentialsRefused):
        audit(server, base, clock)


def test_faults_of_the_connection_are_survived(base: Path, clock: Clock) -> None:
    path = base.parent / "bars.parquet"
    with Sandbox(Replay(path), clock=clock, faults=Faults.parse("reset=0.3,429=0.2")) as server:
        report = audit(server, base, clock, sample=6)

    assert (report.failed, differences(report), report.exit_code) == ({}, [], 0)


# ---------------------------------------------------------------------------------------------------------------- the command


def test_the_command_says_what_differs_and_ends_with_zero(base: Path, revised: Sandbox) -> None:
    words = ("audit", "--base-path", base)
    with Sandbox(Replay(base.parent / "revised.parquet")) as server:  # it is today
        ran = run(*words, url=server.url)
        again = here(*words, "--json", url=server.url)

        assert ran.code == again.code == 0, ran.text
        day = next(line for line in ran.out.splitlines() if "2024-05-28" in line)
        assert [word in day for word in ("AAA", "equities_1min", "1 revised", "1 appeared", "1 vanished", "close", "vwap")] == [
            True
        ] * 7
        assert re.search(r"\b8 of 8\b", ran.out)
        assert "--accept" in ran.out
        shown = again.json
        assert (shown["revised"], shown["appeared"], shown["vanished"], shown["held_sessions"]) == (1, 0, 1, 8)
        first = shown["differences"][0]
        assert (first["symbol"], first["timestamp"], first["change"]) == ("AAA", "2024-05-28T14:05:00Z", "revised")
        assert (first["old"]["close"], first["new"]["close"]) == (100.175, 100.425)
        accepted = here(*words, "--accept", "--json", url=server.url).json
        assert (accepted["accepted"], accepted["removed"], accepted["conflicting"]) == (1, 0, 1)


def test_the_same_seed_draws_the_same_and_a_dry_run_sends_nothing(base: Path, same: Sandbox) -> None:
    words = ("audit", "--sample", "3", "--base-path", base, "--json")
    plans = [json.dumps(here(*words, "--dry-run", "--seed", seed, env={}).json["tasks"]) for seed in (1, 1, 2, 3, 4)]

    assert plans[0] == plans[1]
    assert len(set(plans)) > 1
    assert same.requests == []
    assert "seen" not in coverage(base, "AAA")


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("ZZZ",), 2, "ZZZ"),
        (("--seed", "x"), 2, "not 'x'"),
        (("--sample", "0"), 2, "--sample"),
        (("--accept", "--adjustment", "split"), 2, "--refetch"),
        (("--base-path", "nowhere"), 4, "nowhere"),
    ],
    ids=["not-stored", "seed", "no-sample", "adjusted", "no-store"],
)
def test_arguments_that_cannot_be_used(base: Path, same: Sandbox, words: tuple[str, ...], code: int, named: str) -> None:
    where = () if "--base-path" in words else ("--base-path", base)
    ran = here("audit", *words, *where, url=same.url)

    assert (ran.code, named in ran.err, ran.out, same.requests) == (code, True, "", [])


def test_another_writer_is_waited_for_no_longer_than_wait(base: Path, same: Sandbox) -> None:
    with ParquetStorage(base).files.lock("run", seconds=0):
        ran = here("audit", "--base-path", base, url=same.url)

    assert (ran.code, same.requests) == (7, [])
