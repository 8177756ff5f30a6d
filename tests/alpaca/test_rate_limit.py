"""The rate limiter against simulated servers: many workers share one `RateLimiter`, and minutes pass in virtual time.

The servers here are written from the facts of the protocol (a token bucket that holds a minute's allowance), not from the
model inside `RateLimiter`. Nothing sleeps, and no clock is read.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.alpaca.rate_limit import Bucket, RateLimiter

UNIX = 1_717_400_000.0  # the time of day at virtual second 0

# Servers


class Server(Protocol):
    def respond(self, now: float) -> tuple[int, dict[str, str]]: ...


@dataclass
class TokenBucketServer:
    """Holds a minute's allowance, which comes back evenly."""

    limit: int
    headers: bool = True
    tokens: float | None = None  # full
    at: float = 0.0

    def respond(self, now: float) -> tuple[int, dict[str, str]]:
        tokens = self.limit if self.tokens is None else self.tokens
        self.tokens, self.at = min(self.limit, tokens + (now - self.at) * self.limit / 60), now
        if self.tokens < 1:
            return 429, {}  # the recorded ones carry neither Retry-After nor X-RateLimit-*
        self.tokens -= 1
        full_at = UNIX + now + (self.limit - self.tokens) * 60 / self.limit
        return 200, _limit_headers(self.limit, int(self.tokens), full_at) if self.headers else {}


@dataclass
class FixedWindowServer:
    """Counts within clock minutes, the first of which began 17 seconds before the run."""

    limit: int
    headers: bool = True
    counts: dict[int, int] = field(default_factory=dict)

    def respond(self, now: float) -> tuple[int, dict[str, str]]:
        window = int((now + 17) // 60)
        count = self.counts[window] = self.counts.get(window, 0) + 1
        headers = _limit_headers(self.limit, max(0, self.limit - count), UNIX + (window + 1) * 60 - 17) if self.headers else {}
        return (200 if count <= self.limit else 429), headers


@dataclass
class UnlimitedServer:
    """Lets everything through, except that the *refused*-th request has to wait so many seconds."""

    refused: int = 0
    retry_after: int = 0
    count: int = 0

    def respond(self, now: float) -> tuple[int, dict[str, str]]:
        self.count += 1
        return (429, {"retry-after": str(self.retry_after)}) if self.count == self.refused else (200, {})


def _limit_headers(limit: int, remaining: int, reset: float) -> dict[str, str]:
    return {"x-ratelimit-limit": str(limit), "x-ratelimit-remaining": str(remaining), "x-ratelimit-reset": str(int(reset) + 1)}


# Workers


@dataclass
class Run:
    """What happened: when each request reached the server and how it was answered, and how long workers waited in all."""

    responses: list[tuple[float, int]] = field(default_factory=list)
    waited: float = 0.0

    def passed(self, start: float = 0.0, end: float = float("inf")) -> int:
        return sum(1 for at, status in self.responses if status == 200 and start <= at < end)

    @property
    def refused(self) -> float:
        """The share of responses 429."""
        return sum(1 for _, status in self.responses if status == 429) / len(self.responses)

    @property
    def ended(self) -> float:
        return max(at for at, _ in self.responses)

    @property
    def busiest_minute(self) -> int:
        """The most requests in any sixty seconds."""
        times = sorted(at for at, _ in self.responses)
        start = most = 0
        for stop, at in enumerate(times):
            while at - times[start] >= 60:
                start += 1
            most = max(most, stop - start + 1)
        return most


def simulate(
    limiter: RateLimiter,
    server: Server,
    *,
    workers: int,
    seconds: float = float("inf"),
    most: float = float("inf"),
    latency: tuple[float, float] = (0.05, 0.3),
    seed: int = 0,
) -> Run:
    """Let *workers* send one request after the other, as `AlpacaClient` does, until *seconds* are over or *most* have passed."""
    done, chance, number, passed = Run(), random.Random(seed), itertools.count(), 0
    events: list[tuple[float, int, str, tuple[float, int, Mapping[str, str]]]] = []

    def at(now: float, what: str, response: tuple[float, int, Mapping[str, str]] = (0.0, 0, {})) -> None:
        heapq.heappush(events, (now, next(number), what, response))

    for _ in range(workers):
        at(chance.random() * 0.05, "claim")
    while events:
        now, _, what, (back, status, headers) = heapq.heappop(events)
        if now > seconds:
            break
        if what == "claim" and passed < most:
            wait = limiter.acquire(now)
            done.waited += wait
            at(now + wait, "send")
        elif what == "send":
            if left := limiter.pause_left(now):
                done.waited += left
                at(now + left, "send")
            else:
                trip = chance.uniform(*latency)
                at(now + trip / 2, "arrive", (trip / 2, 0, {}))
        elif what == "arrive":
            status, headers = server.respond(now)
            done.responses.append((now, status))
            passed += status == 200
            at(now + back, "receive", (0.0, status, headers))
        elif what == "receive":
            limiter.answered(now, status, headers, unix=UNIX + now)
            at(now, "claim")
    return done


# The account's limit is stated

# Workers and their round trips, chosen so that they could ask for more than is allowed.
CREWS = {200: (8, (0.05, 0.3)), 600: (8, (0.05, 0.3)), 1000: (16, (0.2, 0.8)), 10_000: (16, (0.02, 0.06))}


@pytest.mark.parametrize("limit", CREWS)
def test_with_headers_the_allowance_is_used_and_hardly_anything_refused(limit):
    workers, latency = CREWS[limit]

    run = simulate(limiter := RateLimiter(), TokenBucketServer(limit), workers=workers, latency=latency, seconds=240)

    assert limit == limiter.limit
    assert run.passed(180, 240) >= 0.95 * limit
    assert run.refused <= 0.01


@pytest.mark.parametrize("workers", [1, 4, 16, 32])
@pytest.mark.parametrize("latency", [(0.01, 0.02), (0.2, 1.0)], ids=["near", "far"])
def test_any_crew_keeps_to_a_stated_limit_of_600(workers, latency):
    run = simulate(RateLimiter(), TokenBucketServer(600), workers=workers, latency=latency, seconds=240)

    could = workers / (sum(latency) / 2) * 60
    assert run.passed(180, 240) >= 0.95 * min(600, could * 0.9)
    assert run.refused <= 0.01


def test_the_whole_bucket_is_spent_before_any_request_waits():
    run = simulate(RateLimiter(), TokenBucketServer(600), workers=8, seconds=60)

    assert run.passed() >= 1.9 * 600


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1), workers=st.integers(1, 32), seed=st.integers(0, 9))
def test_whatever_an_earlier_run_left_in_the_bucket_few_are_refused(share, workers, seed):
    """Those whose first requests are under way together cannot know; after them the bucket is overdrawn by no more than a few."""
    run = simulate(RateLimiter(), TokenBucketServer(200, tokens=200 * share), workers=workers, seconds=120, seed=seed)

    assert sum(status == 429 for _, status in run.responses) <= workers + 2


def test_a_fixed_window_with_headers_is_used_well_and_hardly_overdrawn():
    run = simulate(RateLimiter(), FixedWindowServer(600), workers=16, seconds=300)

    assert run.passed(180, 300) >= 0.95 * 2 * 600
    assert run.refused <= 0.01


def test_a_limit_that_changes_is_taken_over():
    limiter = RateLimiter()
    for limit in (200, 1000):
        limiter.acquire(0.0)
        limiter.answered(0.1, 200, {"x-ratelimit-limit": str(limit), "x-ratelimit-remaining": "150"}, unix=UNIX)

        assert limit == limiter.limit
        assert limiter.allowed == pytest.approx(limit, rel=0.02)


@pytest.mark.parametrize("text", ["", "many", "-5", "1.5", "0", "²"])
def test_a_header_that_is_no_number_teaches_nothing(text):
    limiter = RateLimiter()
    limiter.acquire(0.0)
    limiter.answered(0.1, 200, {"x-ratelimit-limit": text, "x-ratelimit-remaining": text}, unix=UNIX)

    assert (limiter.limit, limiter.allowed, limiter.acquire(0.2)) == (None, None, 0.0)


# Nothing is stated


@pytest.mark.parametrize("limit", CREWS)
def test_without_headers_the_run_completes_with_few_refusals(limit):
    workers, latency = CREWS[limit]

    run = simulate(RateLimiter(), TokenBucketServer(limit, headers=False), workers=workers, latency=latency, most=4 * limit)

    assert run.passed() >= 4 * limit
    assert run.refused <= 0.10
    assert run.ended <= 1.25 * 3 * 60  # the first minute's worth lies ready, the rest comes back in three


@pytest.mark.parametrize("share", [0, 0.3], ids=["empty", "a third is left"])
def test_without_headers_a_bucket_that_another_run_emptied_is_no_reason_to_crawl(share):
    server = TokenBucketServer(600, headers=False, tokens=600 * share)

    run = simulate(RateLimiter(), server, workers=8, most=4 * 600, seconds=1200)

    assert run.passed() >= 4 * 600
    assert run.ended <= 1.5 * (4 - share) * 60
    assert run.refused <= 0.10


def test_a_fixed_window_without_headers_is_survived():
    run = simulate(RateLimiter(), FixedWindowServer(600, headers=False), workers=16, most=3000)

    assert run.passed() >= 3000
    assert run.refused <= 0.10
    assert run.ended <= 2.5 * 5 * 60


@settings(max_examples=20, deadline=None)
@given(workers=st.integers(1, 64), seed=st.integers(0, 99))
def test_an_unlimited_server_is_never_waited_for(workers, seed):
    run = simulate(limiter := RateLimiter(), UnlimitedServer(), workers=workers, seconds=5, seed=seed)

    assert (run.waited, limiter.allowed) == (0.0, None)


# The user's bound


@settings(max_examples=40, deadline=None)
@given(bound=st.integers(1, 3000), workers=st.integers(1, 32), seed=st.integers(0, 99))
def test_no_minute_holds_more_than_the_users_bound_and_one_seconds_worth(bound, workers, seed):
    run = simulate(RateLimiter(bound), UnlimitedServer(), workers=workers, latency=(0.1, 0.1), seconds=150, seed=seed)

    assert run.busiest_minute <= bound + max(1, bound / 60)


def test_the_users_bound_is_used():
    run = simulate(RateLimiter(600), UnlimitedServer(), workers=8, seconds=120)

    assert run.passed(60, 120) >= 0.98 * 600


def test_the_lower_of_bound_and_limit_counts():
    run = simulate(limiter := RateLimiter(300), TokenBucketServer(600), workers=8, latency=(0.1, 0.1), seconds=180)

    assert (limiter.limit, limiter.allowed) == (600, 300.0)
    assert run.busiest_minute <= 305
    assert run.refused == 0


def test_the_users_bound_holds_after_a_pause_too():
    run = simulate(RateLimiter(600), UnlimitedServer(refused=1000, retry_after=30), workers=32, latency=(0.1, 0.1), seconds=240)

    assert run.busiest_minute <= 610


# Refusals


def refuse(limiter: RateLimiter, now: float, **headers: str) -> None:
    limiter.answered(now, 429, {name.replace("_", "-"): text for name, text in headers.items()}, unix=UNIX + now)


def limiter_of(claims: int, answered: int = 100) -> RateLimiter:
    """Return a limiter that received *answered* good responses in ten seconds, with *claims* requests in flight at second 10."""
    limiter = RateLimiter()
    for number in range(answered):
        limiter.acquire(number * 10 / answered)
        limiter.answered(number * 10 / answered, 200, {}, unix=UNIX)
    for _ in range(claims):
        limiter.acquire(10.0)
    return limiter


def test_refusals_of_requests_that_were_under_way_together_are_one_event():
    alone, crowd = limiter_of(1), limiter_of(32)
    refuse(alone, 10.2)
    for number in range(32):
        refuse(crowd, 10.2 + number * 0.9 / 32)

    assert alone.allowed == crowd.allowed
    assert alone.pause_left(10.2) == crowd.pause_left(10.2)


def test_they_are_one_event_however_slow_the_responses_are():
    alone, crowd = limiter_of(1), limiter_of(32)
    refuse(alone, 10.2)
    for number in range(32):
        refuse(crowd, 10.2 + number * 0.1)

    assert alone.allowed == crowd.allowed


def test_a_refusal_makes_all_requests_wait():
    limiter = limiter_of(8)
    refuse(limiter, 10.2)

    left = limiter.pause_left(10.2)
    assert left > 0
    assert all(limiter.acquire(10.2) >= left for _ in range(8))


def test_refusals_one_after_the_other_lengthen_the_pause_up_to_half_a_minute():
    limiter, now, pauses = limiter_of(1), 10.0, []
    for _ in range(8):
        refuse(limiter, now)
        pauses.append(limiter.pause_left(now))
        now += pauses[-1] + 2
        limiter.acquire(now)

    assert sorted(pauses) == pauses
    assert (pauses[0], pauses[-1]) == (1.0, 30.0)


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": "7"},
        {"retry_after": format_datetime(datetime.fromtimestamp(UNIX + 17, UTC), usegmt=True)},
        {"x_ratelimit_reset": f"{UNIX + 17:.0f}"},
    ],
    ids=["seconds", "date", "reset"],
)
def test_the_wait_that_a_refusal_asks_for_binds_all_workers(headers):
    limiter = limiter_of(4)
    refuse(limiter, 10.0, **headers)

    assert limiter.pause_left(10.0) == pytest.approx(7)
    assert min(limiter.acquire(10.0) for _ in range(4)) >= 6.999
    assert limiter.pause_left(17.0) == pytest.approx(0, abs=1e-6)


def test_a_later_refusal_may_lengthen_the_pause_and_never_shortens_it():
    limiter = limiter_of(3)
    for text in ("5", "20", "1"):
        refuse(limiter, 10.0, retry_after=text)

    assert limiter.pause_left(10.0) == 20.0


@pytest.mark.parametrize("status", [None, 500, 503, 400])
def test_other_failures_slow_nothing_down(status):
    limiter = RateLimiter()
    for _ in range(100):
        limiter.acquire(0.0)
        limiter.answered(0.1, status, {}, unix=UNIX)

    assert (limiter.acquire(0.2), limiter.pause_left(0.2), limiter.allowed) == (0.0, 0.0, None)


def test_an_estimate_grows_while_all_goes_well_and_shrinks_at_a_refusal():
    limiter = limiter_of(1)
    refuse(limiter, 10.0)
    first = limiter.allowed
    for now in range(15, 100):
        limiter.acquire(now)
        limiter.answered(now, 200, {}, unix=UNIX)
    grown = limiter.allowed
    limiter.acquire(101.0)
    refuse(limiter, 101.0)

    assert grown > first
    assert limiter.allowed < grown


# The bucket


@settings(max_examples=200)
@given(
    rate=st.floats(0.05, 200),
    size=st.floats(1, 10_000),
    steps=st.lists(st.floats(0, 30), min_size=1, max_size=60),
)
def test_a_bucket_never_lets_more_through_than_its_tokens_and_the_refill(rate, size, steps):
    """The k-th taker of a full bucket leaves when k tokens have been there, by any path of time."""
    bucket, now, leaves = Bucket(rate, size, size, 0.0), 0.0, []
    for step in steps:
        now += step
        leaves.append(now + bucket.take(now))

    for number, leave in enumerate(leaves, start=1):
        assert number <= size + rate * leave + 1e-6 * (1 + rate * leave)
    assert sorted(leaves) == pytest.approx(leaves)
