"""``doctor``: what is said of a machine, and the exit code of the first check that fails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from data_engine.doctor import checks
from data_engine.doctor.checks import Check, exit_code
from data_engine.doctor.facts import offset_seconds
from data_engine.sandbox import Sandbox, SimulatedMarket
from page_blocks import free_port
from running import KEY, SECRET, here


def states(ran):
    return {one["check"]: one["state"] for one in ran.json["checks"]}


def test_a_machine_that_is_ready_passes_every_check_and_nothing_is_written(tmp_path):
    with Sandbox(SimulatedMarket(), keys={KEY: SECRET}, rate=200) as server:
        ran = here("doctor", "--json", "--base-path", tmp_path / "store", url=server.url)

    assert ran.code == 0, ran.text
    assert set(states(ran).values()) == {"ok"}
    assert {one["check"]: one["text"] for one in ran.json["checks"]}["limit"].startswith("200 requests per minute")
    assert len(server.requests) == 1
    assert KEY not in ran.text
    assert SECRET not in ran.text
    assert list(tmp_path.iterdir()) == []


def test_each_trouble_has_its_exit_code_and_what_comes_before_it_is_said(tmp_path):
    away = here("doctor", "--json", "--base-path", tmp_path / "s", url=f"http://127.0.0.1:{free_port()}")
    assert (away.code, states(away)["request"], states(away)["keys"]) == (6, "failed", "ok")

    with Sandbox(SimulatedMarket(), keys={"other": "pair"}) as server:
        refused = here("doctor", "--json", "--base-path", tmp_path / "s", url=server.url)
    assert (refused.code, states(refused)["request"]) == (3, "failed")

    with Sandbox(SimulatedMarket(), clock=lambda: datetime.now(UTC) - timedelta(hours=2)) as server:
        ahead = here("doctor", "--json", "--base-path", tmp_path / "s", url=server.url)
    assert (ahead.code, states(ahead)["clock"]) == (2, "failed")

    none = here("doctor", "--json", "--base-path", tmp_path / "s", env={"DATA_ENGINE_THREADS": "9"})
    assert (none.code, states(none)["keys"], states(none)["store"]) == (2, "failed", "ok")

    settings = tmp_path / "settings.ini"
    settings.write_text("[linux]\napi_threads = none\n[macos]\napi_threads = none\n[windows]\napi_threads = none\n")
    wrong = here("doctor", "--json", "--settings", settings, env={})
    assert (wrong.code, states(wrong)["settings"]) == (2, "failed")
    assert "api_threads" in wrong.text


@pytest.mark.parametrize(("codes", "first"), [((2, 3), 3), ((6, 4), 4), ((2, 6), 6), ((1, 2), 2), ((), 0)])
def test_the_exit_code_is_the_first_of_the_contract_s_order(codes, first):
    assert exit_code([Check("x", "failed", "", code) for code in codes] + [Check("y", "warning", "", 3)]) == first


@pytest.mark.parametrize(("ahead", "state", "code"), [(30, "ok", 0), (90, "warning", 0), (150, "failed", 2), (-90, "warning", 0)])
def test_a_clock_fails_only_where_a_run_would_refuse_it(tmp_path, ahead, state, code):
    words = ("AAPL", "--timeframe", "1Day", "--start", "2024-06-03", "--end", "2024-06-03", "--no-actions")
    with Sandbox(SimulatedMarket(), clock=lambda: datetime.now(UTC) - timedelta(seconds=ahead)) as server:
        told = here("doctor", "--json", "--base-path", tmp_path / "s", url=server.url)
        ran = here("ingest", *words, "--base-path", tmp_path / "s", url=server.url)

    assert (told.code, states(told)["clock"]) == (code, state)
    assert ran.code == code


def test_time_that_passes_meanwhile_is_not_an_offset():
    noon = datetime(2024, 6, 3, 12, tzinfo=UTC)
    date = "Mon, 03 Jun 2024 12:00:00 GMT"

    def offset(before, after):
        return offset_seconds(date, noon + timedelta(seconds=before), noon + timedelta(seconds=after))

    assert offset(-62, 1) == 0
    assert offset(-1, 62) == 0
    assert offset(70, 130) == 70
    assert offset(-130, -70) == -70


def test_slow_checks_of_the_store_do_not_make_a_right_clock_wrong(tmp_path, monkeypatch):
    """The clock jumps by more than the bound while the store is looked at, and the server's with it."""
    passed = [timedelta(0)]

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + passed[0]

    local = checks.local_checks

    def slow(settings):
        yield from local(settings)
        passed[0] = timedelta(minutes=5)

    monkeypatch.setattr(checks, "local_checks", slow)
    monkeypatch.setattr("datetime.datetime", Later)
    with Sandbox(SimulatedMarket(), clock=lambda: datetime.now(UTC) + passed[0]) as server:
        told = here("doctor", "--json", "--base-path", tmp_path / "s", url=server.url)

    assert states(told)["clock"] == "ok", told.text


def test_each_setting_is_said_with_where_it_came_from(tmp_path):
    file = tmp_path / "settings.ini"
    file.write_text("".join(f"[{system}]\nrequests_per_minute = 50\nfeed = iex\n" for system in ("linux", "macos", "windows")))
    env = {"DATA_ENGINE_FEED": "sip", "DATA_ENGINE_THREADS": "3"}
    ran = here("doctor", "--json", "--base-path", tmp_path / "s", "--settings", file, env=env)
    told = ran.json["settings"]

    assert {name: one["source"] for name, one in told.items() if name != "requests_per_minute"} == {
        "base_path": "--base-path",
        "api_threads": "DATA_ENGINE_THREADS",
        "feed": "DATA_ENGINE_FEED",
        "history_bases": "default",
        "data_url": "default",
    }
    assert told["requests_per_minute"]["value"] == 50
    assert told["requests_per_minute"]["source"].endswith(str(file))
    assert "feed = sip (DATA_ENGINE_FEED)" in ran.err
