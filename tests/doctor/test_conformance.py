"""``doctor --conformance`` against the sandbox, as it is and with one of its facts turned round at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from data_engine.alpaca.credentials import Credentials
from data_engine.doctor import conformance
from data_engine.doctor.facts import FACTS
from data_engine.doctor.probe import Answer, Probe
from data_engine.sandbox import Sandbox, SimulatedMarket
from data_engine.sandbox.connection import Request, Response
from data_engine.sandbox.protocol import Token
from running import KEY, SECRET, here

Twist = Callable[[Request, Response], None]
Ask = Callable[[Request], Request]


class Turned(Sandbox):
    """A sandbox of which one thing is otherwise.

    Attributes:
        ask: changes a request before it is answered.
        twist: changes an answer.
    """

    ask: Ask = staticmethod(lambda request: request)
    twist: Twist = staticmethod(lambda request, response: None)

    def answer(self, request: Request, connection_number: int) -> Response:
        response = super().answer(self.ask(request), connection_number)
        self.twist(request, response)
        return response


# ------------------------------------------------------------------------------------------------------------------ twists


def asking(**changed: Callable[[str], str]) -> Ask:
    """Return what changes parameters of a request."""

    def ask(request: Request) -> Request:
        query = dict(request.query)
        for name, change in changed.items():
            if name in query:
                query[name] = change(query[name])
        return replace(request, query=query)

    return ask


def rewriting(change: Callable[[dict[str, Any], dict[str, str]], None], **only: str) -> Twist:
    """Return what changes the content of answers to requests with these parameters."""

    def twist(request: Request, response: Response) -> None:
        if response.status == 200 and all(request.query.get(name) == value for name, value in only.items()):
            content = json.loads(response.body)
            change(content, request.query)
            response.body = json.dumps(content, separators=(",", ":")).encode()

    return twist


def rows(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], **only: str) -> Twist:
    """Return what changes the bars of each symbol."""

    def every(content: dict[str, Any], _: dict[str, str]) -> None:
        if content.get("bars"):
            content["bars"] = {symbol: change(bars) for symbol, bars in content["bars"].items()}

    return rewriting(every, **only)


def each(change: Callable[[dict[str, Any]], dict[str, Any]], **only: str) -> Twist:
    return rows(lambda bars: [change(bar) for bar in bars], **only)


def refusing(status: int, message: str, **only: str) -> Twist:
    def twist(request: Request, response: Response) -> None:
        if all(request.query.get(name) == value for name, value in only.items()):
            response.status, response.body = status, json.dumps({"message": message}).encode()

    return twist


def headers(*gone: str, **put: str) -> Twist:
    def twist(_: Request, response: Response) -> None:
        for name in gone:
            response.headers.pop(name, None)
        response.headers.update(put)

    return twist


def a_bar_back(text: str) -> str:
    token = Token.parse(text)
    return str(replace(token, start=token.start - 60_000_000_000))


def no_null_token(content: dict[str, Any], _: dict[str, str]) -> None:
    if content["next_page_token"] is None:
        del content["next_page_token"]


def swapped(content: dict[str, Any], _: dict[str, str]) -> None:
    for one in content.get("corporate_actions", {}).get("forward_splits", []):
        one["new_rate"], one["old_rate"] = one["old_rate"], one["new_rate"]


def undated(content: dict[str, Any], _: dict[str, str]) -> None:
    for one in content.get("corporate_actions", {}).get("name_changes", []):
        one["process_date"] = "2022-06-08"


def spaced(request: Request, response: Response) -> None:
    if response.status == 200:
        response.body = json.dumps(json.loads(response.body)).encode()


def plain(_: Request, response: Response) -> None:
    response.content_type = "text/plain"


def other_words(request: Request, response: Response) -> None:
    if request.headers.get("apca-api-key-id", "").startswith("XXX"):
        response.status, response.body = 422, b'{"message":"who are you"}'


def wobble(request: Request, response: Response, seen: list[int] = []) -> None:  # noqa: B006
    if request.query.get("end", "").endswith("T15:00:00Z"):
        seen.append(1)
        each(lambda bar: {**bar, "c": bar["c"] + len(seen)})(request, response)


TURNED: dict[str, tuple[Ask | None, Twist | None]] = {
    "page_fill": (asking(limit=lambda text: "400" if text == "500" else text), None),
    "symbol_order": (None, rows(lambda bars: bars[::-1])),
    "pages_disjoint": (asking(page_token=a_bar_back), None),
    "last_token": (None, rewriting(no_null_token)),
    "full_page": (asking(limit=lambda text: "5000" if text == "10000" else text), None),
    "aggregated_page": (None, rows(lambda bars: bars[::2], timeframe="5Min")),
    "bar_fields": (None, each(lambda bar: {**bar, "x": 1})),
    "field_order": (None, each(lambda bar: dict(reversed(bar.items())))),
    "compact_json": (None, spaced),
    "time_form": (None, each(lambda bar: {**bar, "t": bar["t"].replace("Z", ".000Z")})),
    "whole_numbers": (None, each(lambda bar: {**bar, "v": float(bar["v"]) + 0.5})),
    "start_inclusive": (None, rows(lambda bars: bars[1:], end="2024-06-03T14:00:00Z")),
    "end_inclusive": (None, rows(lambda bars: bars[:-1], end="2024-06-03T14:00:00Z")),
    "end_nanoseconds": (asking(end=lambda text: text.replace("13:59:59.999999999Z", "14:00:00Z")), None),
    "json_type": (None, plain),
    "limit_headers": (None, headers("X-RateLimit-Reset")),
    "wrong_keys": (None, other_words),
    "bad_timeframe": (None, refusing(400, "no such thing", timeframe="3Fortnight")),
    "limit_bound": (asking(limit=lambda text: "10000" if text == "10001" else text), None),
    "start_after_end": (None, refusing(422, "end is too early", start="2024-06-03T19:59:59.999999999Z")),
    "unknown_feed": (asking(feed=lambda text: "sip"), None),
    "malformed_symbol": (asking(symbols=lambda text: text.replace(",BRK-B", "")), None),
    "digit_symbol": (asking(symbols=lambda text: text.replace("3USL", "USL")), None),
    "lower_case": (asking(symbols=str.upper), None),
    "unknown_symbol": (None, refusing(404, "asset not found", symbols="ZZZQXNOTATICKER")),
    "before_history": (None, refusing(422, "too early", end="1990-12-31T00:00:00Z")),
    "asof_mapped": (None, rows(lambda bars: bars[3:], symbols="META")),
    "asof_former": (
        None,
        rewriting(lambda content, _: content.update(bars={"META": content["bars"].get("FB")}), symbols="FB"),
    ),
    "split_prices": (None, each(lambda bar: {**bar, "c": bar["c"] + 0.001}, adjustment="split")),
    "split_volume": (None, each(lambda bar: {**bar, "v": bar["v"] - 1}, adjustment="split")),
    "hours_winter": (None, each(lambda bar: {**bar, "t": bar["t"].replace(":00:00Z", ":30:00Z")}, timeframe="1Hour")),
    "day_winter": (None, each(lambda bar: {**bar, "t": bar["t"].replace("T05", "T00")}, timeframe="1Day")),
    "day_summer": (None, each(lambda bar: {**bar, "t": bar["t"].replace("T04", "T00")}, timeframe="1Day")),
    "week": (None, each(lambda bar: {**bar, "t": bar["t"].replace("06-03", "06-02")}, timeframe="1Week")),
    "month": (None, each(lambda bar: {**bar, "t": bar["t"].replace("06-01", "06-03")}, timeframe="1Month")),
    "finality": (None, wobble),
    "split_record": (None, rewriting(swapped)),
    "rename_record": (None, rewriting(undated)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Turned]:
    with Turned(SimulatedMarket(), keys={KEY: SECRET}, rate=100_000) as one:
        yield one


def differing(server: Turned) -> dict[str, str]:
    """Return what is found to differ, with what was observed."""
    probe = Probe(Credentials(KEY, SECRET, "test"), server.url)
    try:
        answers = conformance.ask(probe, datetime.now(UTC))
    finally:
        probe.close()
    return {one.fact.name: one.observed for one in conformance.judge(answers) if one.state != "as_assumed"}


def test_the_sandbox_is_as_assumed_but_for_what_it_had_to_choose(server):
    assert set(differing(server)) == {"limit_headers_400"}


@pytest.mark.parametrize("name", TURNED)
def test_a_fact_that_is_turned_round_is_named(server, monkeypatch, name):
    ask, twist = TURNED[name]
    if ask is not None:
        monkeypatch.setattr(server, "ask", ask)
    if twist is not None:
        monkeypatch.setattr(server, "twist", twist)

    assert name in differing(server)


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_what_was_not_answered_tells_of_no_fact(server, status):
    probe = Probe(Credentials(KEY, SECRET, "test"), server.url)
    answers = conformance.ask(probe, datetime.now(UTC))
    probe.close()
    none = Answer(status, {}, '{"message": "too many requests"}')

    for name in answers:
        found = conformance.judge({**answers, name: none})
        assert [one.fact.name for one in found if one.state == "differs"] in (["limit_headers_400"], []), name
        assert any(one.state == "unclear" and name in one.observed for one in found), name
    assert {one.state for one in conformance.judge(dict.fromkeys(answers, none))} == {"unclear"}


def test_the_requests_keep_to_the_limit_that_the_first_answer_states(server, monkeypatch):
    class Time:
        """A clock that only sleep moves."""

        now = 1_000.0

        def monotonic(self) -> float:
            return self.now

        def time(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Time()
    monkeypatch.setattr("data_engine.doctor.probe.time", clock)
    monkeypatch.setattr(server, "twist", headers(**{"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "19"}))
    probe = Probe(Credentials(KEY, SECRET, "test"), server.url)
    answers = conformance.ask(probe, datetime.now(UTC))
    probe.close()

    assert clock.now - 1_000.0 > (len(answers) - 20) / 20 * 60


def test_nearly_every_fact_is_turned_round():
    assert {fact.name for fact in FACTS} - TURNED.keys() == {
        "gzip", "date_header", "limit_headers_400", "recent_data", "symbol_twice", "too_long", "four_hours_winter",
    }  # fmt: skip


def test_what_a_user_sends_in_has_no_keys(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "twist", refusing(400, f"invalid key {KEY}", timeframe="3Fortnight"))

    ran = here("doctor", "--conformance", "--json", "--out", "sent.json", "--base-path", "store", url=server.url)
    sent = (tmp_path / "sent.json").read_text()

    assert ran.code == 1, ran.err
    assert ran.json["differ"] == ["bad_timeframe"]
    assert {one["fact"] for one in json.loads(sent)["facts"]} == {fact.name for fact in FACTS}
    assert KEY not in sent + ran.text
    assert SECRET not in sent + ran.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sent.json"], "nothing else is written"
    again = here("doctor", "--conformance", "--out", "sent.json", "--base-path", "store", url=server.url)
    assert again.code == 2
    assert (tmp_path / "sent.json").read_text() == sent
