"""Whatever goes wrong on the way, the same bars end in the same files, after a bounded number of requests."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from data_engine.alpaca.rate_limit import RateLimiter
from data_engine.sandbox import Faults
from data_engine.sandbox.faults import KINDS

from .harness import Snapshot, Stage, check_whole, coverage_on, same, served, snapshot, truth_of
from .market import SYMBOLS

WORKERS = 8
LIMIT = 110  # bars per page: about 25 requests without a fault
WAITING = 0.25  # seconds of silence that a stalled answer costs
# With `tries` left untouched, p ** 6 of the requests fail six times in a row; then the chain is cut in halves and asked again.
# A fault costs one request more, an empty or short page too: n requests become n / (1 - p), here with room for bad luck.
ROOM = 2.5


def faulty(kinds: dict[str, float], seed: int) -> Faults:
    # `429_reset` asks for up to a second, `429` alone has the client wait one: nothing else here takes time.
    return Faults(kinds, seed=seed, retry_after=0)


@pytest.fixture(scope="module")
def undisturbed(stage: Stage, tmp_path_factory) -> tuple[Snapshot, int]:
    base = tmp_path_factory.mktemp("undisturbed")
    told = stage.forks.run(replace(stage.job(), base=str(base), workers=WORKERS, limit=LIMIT))
    assert told["code"] == 1, told  # ZZZ has no data
    return snapshot(base), told["requests"]


def seed_that_meets(kinds: dict[str, float], requests: int) -> int:
    """Return the first seed whose faults come within the requests of an undisturbed run: none may be missed.

    None of the first answers is a refusal: then no header would have told the rate yet, and guessing it takes seconds.
    """
    for seed in range(10_000):
        drawn = [faulty(kinds, seed).draw(number) or "" for number in range(1, requests + 1)]
        early = any(fault.startswith("429") for fault in drawn[: 2 * WORKERS])
        if not early and len(set(drawn) - {""}) >= min(len(kinds), 4):
            return seed
    raise AssertionError("no seed")


def run_against(stage: Stage, base, faults: Faults, **named):
    # With limit headers, as the service sends them: without, the first 429 would have the client guess a rate.
    with served(stage.original, faults, rate=600_000) as sandbox:
        job = stage.job(url=sandbox.url, base=str(base), workers=WORKERS, limit=LIMIT, read_seconds=WAITING, **named)
        started = time.monotonic()
        told = stage.forks.run(job)
        return told, sandbox.requests, time.monotonic() - started


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_of_fault_changes_no_byte(stage, undisturbed, tmp_path, kind, share):
    expected, requests = undisturbed
    seed = seed_that_meets({kind: share}, requests)
    told, records, _ = run_against(stage, tmp_path / "store", faulty({kind: share}, seed))

    met = [record.fault for record in records if record.fault]
    assert set(met) == {kind}, f"seed {seed}"
    assert told["code"] == 1, told
    assert [failed["code"] for failed in told["failed"]] == ["no_data"]
    check_whole(tmp_path / "store", [truth_of(stage.original)])
    same(tmp_path / "store", expected)
    assert requests <= len(records) <= ROOM * requests, f"seed {seed}"
    assert told["requests"] == len(records)


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_all_faults_together_change_no_byte(stage, undisturbed, tmp_path, share):
    expected, requests = undisturbed
    kinds = Faults.parse(f"all={share}").probabilities
    seed = seed_that_meets(kinds, requests)
    faults = faulty(kinds, seed)
    told, records, _ = run_against(stage, tmp_path / "store", faults)

    assert len({record.fault for record in records if record.fault}) >= 2, f"seed {seed}"
    assert told["code"] == 1, told
    same(tmp_path / "store", expected)
    assert requests <= len(records) <= ROOM * requests, f"seed {seed}"


def test_more_faults_than_tries_fail_symbols_and_the_next_run_completes_them(stage, undisturbed, tmp_path):
    """At 70 % one request in nine fails six times in a row: symbols fail, what they had is kept and nothing more is claimed."""
    expected, _ = undisturbed
    base = tmp_path / "store"
    told, records, _ = run_against(stage, base, faulty({"500": 0.35, "reset": 0.35}, 1))
    assert told["code"] == 1
    assert "unavailable" in {failed["code"] for failed in told["failed"]} <= {"unavailable", "no_data"}
    assert any(coverage_on(base, symbol)["covered"] for symbol in SYMBOLS)
    assert len(records) <= 6 * 4 * 60
    check_whole(base, [truth_of(stage.original)])
    told = stage.forks.run(replace(stage.job(), base=str(base), workers=WORKERS, limit=LIMIT))

    assert [failed["code"] for failed in told["failed"]] == ["no_data"]
    same(base, expected)


def test_a_stalled_answer_costs_its_time_out_and_no_more(stage, undisturbed, tmp_path):
    _, requests = undisturbed
    kinds = {"stall": 0.2}
    seed = seed_that_meets(kinds, requests)
    _, records, seconds = run_against(stage, tmp_path / "store", faulty(kinds, seed))

    stalls = sum(record.fault == "stall" for record in records)
    assert stalls >= 1
    assert seconds < stalls * WAITING + 5, f"{stalls} stalls, {seconds} s"


@pytest.mark.parametrize("always", [500, 502, 503, 504, "reset", "stall", "cut_gzip"])
def test_a_server_that_fails_for_ever_ends_the_run(stage, tmp_path, always):
    """Every symbol fails, no request is cut in halves though all of them fail, and the exit code says why."""
    symbols = SYMBOLS[:5]  # an answer without a bar is too short to be compressed, and so to be cut
    told, records, _ = run_against(stage, tmp_path / "store", Faults(always=always), tries=3, symbols=symbols)

    assert told["code"] == 6, told
    assert {failed["symbol"] for failed in told["failed"]} == set(symbols)
    assert {failed["code"] for failed in told["failed"]} == {"unavailable"}
    # Each worker sends one request twice three times; or the only one sends its task and up to four symbols three times.
    assert len(records) <= 2 * 3 * WORKERS
    assert all(not coverage_on(tmp_path / "store", symbol)["covered"] for symbol in symbols)
    check_whole(tmp_path / "store", [truth_of(stage.original)])


def test_a_service_that_is_down_is_given_up_after_a_time(stage, tmp_path):
    told, _, seconds = run_against(stage, tmp_path / "store", Faults(always=503), tries=10**6, give_up_after=0.5)

    assert (told["code"], told["kind"]) == (6, "ServiceDown")
    assert "cannot be reached" in told["error"]
    assert seconds < 10
    assert len(told["failed"]) == len(SYMBOLS)
    assert all(not coverage_on(tmp_path / "store", symbol)["covered"] for symbol in SYMBOLS)


def test_a_server_that_refuses_for_ever_is_given_up_after_a_time(stage, tmp_path):
    """429 without end and without a hint: every refusal makes all workers wait, so there are few requests."""
    told, records, seconds = run_against(stage, tmp_path / "store", Faults(always=429), give_up_after=1.5)

    assert (told["code"], told["kind"]) == (6, "ServiceDown")
    assert len(records) <= 4 * WORKERS
    assert seconds < 15


def test_a_refusal_before_any_answer_does_not_stop_the_run_for_minutes():
    """As when the run before has just emptied the account's bucket. 16 workers once waited 20, 40 ... 320 s."""
    pace = RateLimiter()
    for _ in range(16):
        pace.acquire(0.0)
    for _ in range(16):
        pace.answered(0.2, 429, {}, unix=0.0)

    assert max(pace.acquire(0.3) for _ in range(16)) < 30


def test_nobody_listens(stage, tmp_path):
    with served(stage.original) as sandbox:
        gone = sandbox.url
    told = stage.forks.run(replace(stage.job(url=gone), base=str(tmp_path / "store"), tries=2))

    assert told["code"] == 6
    assert {failed["code"] for failed in told["failed"]} == {"unavailable"}
    assert "the connection was refused" in told["failed"][0]["message"]


@pytest.mark.parametrize("symbol", ["AAPL", "CON", "NA"])
def test_one_symbol_that_always_fails_does_not_harm_the_others(stage, undisturbed, tmp_path, symbol):
    expected, _ = undisturbed
    base = tmp_path / "store"
    told, records, _ = run_against(stage, base, Faults(fail_symbols={symbol}), tries=3)

    assert told["code"] == 1
    assert {failed["symbol"]: failed["code"] for failed in told["failed"]} == {symbol: "unavailable", "ZZZ": "no_data"}
    check_whole(base, [truth_of(stage.original)])
    assert coverage_on(base, symbol)["covered"] == []
    found = snapshot(base)
    others = {name: data for name, data in expected.files.items() if f"symbol={symbol}" not in name}
    assert {name: found.files[name] for name in others} == others
    # Each halving that holds the symbol is asked three times; the rest once more at most.
    assert len(records) <= 4 * 60
    stage.forks.run(replace(stage.job(), base=str(base), workers=WORKERS, limit=LIMIT))
    same(base, expected)
