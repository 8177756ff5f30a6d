"""Compare Alpaca's service with what data-engine assumes of it: some forty requests, each for facts that the code relies on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from data_engine.doctor.facts import FACTS, WALK, WALK_LIMIT, Answers, Fact
from data_engine.doctor.probe import ACTIONS, BARS, Answer, Probe
from data_engine.market.exchange_calendar import is_session
from data_engine.market.time_range import iso, new_york_date
from data_engine.version import __version__

_SESSION = {"start": "2024-06-03T13:30:00Z", "end": "2024-06-03T19:59:59.999999999Z"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was observed of a fact.

    Attributes:
        fact: The fact.
        fits: Whether it is as assumed. None if the answers cannot tell.
        observed: What was observed.
    """

    fact: Fact
    fits: bool | None
    observed: str

    @property
    def state(self) -> str:
        """``as_assumed``, ``differs`` or ``unclear``."""
        return "unclear" if self.fits is None else "as_assumed" if self.fits else "differs"

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        fact = self.fact
        fields = {"fact": fact.name, "state": self.state, "assumed": fact.assumed, "observed": self.observed}
        return {**fields, "established": not fact.open}


def ask(probe: Probe, now: datetime, *, progress: Callable[[int], object] = lambda _: None) -> dict[str, Answer]:
    """Send the requests and return the answers by name. Nothing is stored.

    Args:
        probe: What to ask with.
        now: The current instant.
        progress: A function that is called with the number of answers so far.
    """
    answers: dict[str, Answer] = {}

    def put(name: str, **query: object) -> None:
        standard = {"timeframe": "1Min", "limit": WALK_LIMIT, "adjustment": "raw", "feed": "sip", "sort": "asc"}
        bars = not name.endswith("_action")
        parameters = {**standard, **query} if bars else query
        answers[name] = probe.get(BARS if bars else ACTIONS, parameters, wrong_keys=name == "wrong_keys")
        progress(len(answers))

    token: str | None = None
    for name in WALK:
        put(name, symbols="MSFT,AAPL,NVDA", page_token=token, **_SESSION)
        token = answers[name].token
    put("full_page", symbols="AAPL", start="2024-05-01T04:00:00Z", end="2024-06-01T03:59:59Z", limit=10_000)
    put("five_minutes", symbols="AAPL", timeframe="5Min", start="2024-05-01T04:00:00Z", end="2024-06-01T03:59:59Z")
    put("window", symbols="AAPL", start="2024-06-03T13:30:00Z", end="2024-06-03T14:00:00Z")
    put("window_before", symbols="AAPL", start="2024-06-03T13:30:00Z", end="2024-06-03T13:59:59.999999999Z")
    put("wrong_keys", symbols="AAPL", **_SESSION)
    put("bad_timeframe", symbols="AAPL", **{**_SESSION, "timeframe": "3Fortnight"})
    put("limit_bound", symbols="AAPL", **{**_SESSION, "limit": 10_001})
    put("start_after_end", symbols="AAPL", start=_SESSION["end"], end=_SESSION["start"])
    put("unknown_feed", symbols="AAPL", **{**_SESSION, "feed": "delayed_sip"})
    put("malformed", symbols="AAPL,BRK-B", **_SESSION)
    put("digit_symbol", symbols="3USL", **_SESSION)
    put("lower_case", symbols="aapl", **_SESSION)
    put("unknown_symbol", symbols="ZZZQXNOTATICKER", **_SESSION)
    put("before_history", symbols="AAPL", start="1990-01-02T00:00:00Z", end="1990-12-31T00:00:00Z")
    put("twice", symbols="AAPL,AAPL", start="2024-06-03T13:30:00Z", end="2024-06-03T13:40:00Z")
    put("too_long", symbols=",".join(["AAPL"] * 8000), **_SESSION)
    put("recent", symbols="AAPL", timeframe="1Day", start=iso(now - timedelta(days=7)), end=iso(now))
    days: dict[str, object] = {"timeframe": "1Day", "start": "2022-06-06T04:00:00Z"}
    put("asof_new", symbols="META", **days, end="2022-06-10T04:00:00Z", asof=new_york_date(now))
    put("asof_old", symbols="FB", **days, end="2022-06-08T04:00:00Z", asof="2022-06-08")
    friday: dict[str, object] = {
        "symbols": "NVDA",
        "timeframe": "1Day",
        **dict.fromkeys(("start", "end"), "2024-06-07T04:00:00Z"),
    }
    put("raw_day", **friday)
    put("split_day", **{**friday, "adjustment": "split"})
    winter: dict[str, object] = {"symbols": "AAPL", "start": "2024-01-16T05:00:00Z", "end": "2024-01-17T04:59:59Z"}
    put("hours_winter", **winter, timeframe="1Hour")
    put("four_hours_winter", **winter, timeframe="4Hour")
    put("day_winter", **winter, timeframe="1Day")
    put("week", symbols="AAPL", timeframe="1Week", start="2024-06-03T04:00:00Z", end="2024-06-09T04:00:00Z")
    put("month", symbols="AAPL", timeframe="1Month", start="2024-06-01T04:00:00Z", end="2024-06-30T04:00:00Z")
    session = _past_session(now)
    for name in ("yesterday", "yesterday_again"):
        put(name, symbols="AAPL", start=f"{session}T14:30:00Z", end=f"{session}T15:00:00Z")
    put("split_action", symbols="NVDA", start="2024-06-10", end="2024-06-10", limit=1000)
    put("rename_action", symbols="META", start="2022-06-09", end="2022-06-09", limit=1000)
    return answers


def _past_session(now: datetime) -> object:
    """Return the latest day before yesterday on which the exchange was open."""
    day = new_york_date(now) - timedelta(days=2)
    while not is_session(day):
        day -= timedelta(days=1)
    return day


def judge(answers: Answers, facts: Sequence[Fact] = FACTS) -> list[Finding]:
    """Return what the answers say of each fact. An answer of another shape than any that is known is a difference."""
    return [_judge(fact, answers) for fact in facts]


class _Reading(Mapping[str, Answer]):
    """Answers, and which of them a judge has read by name. What goes through all of them looks at each status itself.

    Args:
        answers: The answers by name.

    Attributes:
        read: The names.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.read: dict[str, None] = {}

    def __getitem__(self, name: str) -> Answer:
        self.read[name] = None
        return self._answers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    def values(self) -> ValuesView[Answer]:
        """Return all answers, which counts as reading none."""
        return self._answers.values()


def _judge(fact: Fact, answers: Answers) -> Finding:
    reading = _Reading(answers)
    try:
        fits, observed = fact.judge(reading)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        fits, observed = False, f"an answer of another shape ({type(error).__name__}: {error})"
    lacking = [f"{name}: {answers[name].status or 'no response'}" for name in reading.read if not answers[name].is_answer]
    return Finding(fact, None, f"not answered: {', '.join(lacking)}") if lacking else Finding(fact, fits, observed)


def record(findings: Sequence[Finding], answers: Answers, probe: Probe, now: datetime) -> dict[str, Any]:
    """Return what a user can send in: facts, requests, statuses and headers of answers; no keys, and no bars."""
    shown = ("content-type", "content-encoding", "date", "x-ratelimit-limit", "server")
    return {
        "data_engine": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "at": iso(now.replace(microsecond=0)),
        "host": probe.base_url,
        "facts": [one.to_json() for one in findings],
        "requests": [
            {
                "name": name,
                "request": target[:300],
                "status": answer.status,
                "headers": {key: answer.headers[key] for key in shown if key in answer.headers},
                "bars": len(answer.rows),
                "message": answer.message if answer.status != 200 else "",
            }
            for (name, answer), target in zip(answers.items(), probe.sent, strict=True)
        ],
    }
