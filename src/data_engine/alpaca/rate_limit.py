"""Compute when requests may be sent: the account's rate limit, learned from the responses and shared by all threads.

Alpaca counts requests per account with a token bucket: it holds a minute's allowance and refills evenly. Ordinary responses
have ``X-RateLimit-Limit`` and ``X-RateLimit-Remaining``; a refusal (429) often has neither. `RateLimiter` keeps a model of the
bucket that never has more tokens than the server's:

* With headers, the model's tokens are spent freely, then refilled at the learned rate, so requests leave evenly spaced.
* Without headers, no request waits before the first 429. It tells how large the bucket was, if it was full; perhaps it was not
  (another program, an earlier run), so the estimate is raised quickly until the next 429. Between two 429s the bucket was empty
  twice: the requests let through are the tokens refilled, and that is the rate, for all threads together. It still grows slowly
  until the next 429.

The class is arithmetic under a lock: time is an argument, and it never sleeps.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from data_engine.alpaca.retry import retry_after

_FILL = 0.99  # of the learned rate: clocks differ a little, and a 429 costs more than a hundredth

_SLACK = 0.01  # of the bucket is left in it, for responses that overtake each other

_GROWTH = 1.03  # of an estimated rate, per ten seconds without a 429

_SHRINK = 0.85  # of an estimated rate, at a 429

_PROBE, _PROBE_SECONDS = 1.5, 3.0  # the first estimate grows by this factor, this often, until the second 429

_LEAST_ESTIMATE = 60.0  # requests per minute: no account has less, a bucket that was nearly empty looks like it

_MEASURED = 10  # responses between two 429s are enough to measure a rate

_SMALLEST_RATE = 0.05  # requests per second: three per minute


@dataclass(slots=True)
class Bucket:
    """A token bucket that may be overdrawn: a request that overdraws it waits.

    Attributes:
        rate: The tokens refilled per second.
        size: The maximum number of tokens.
        tokens: The number of tokens at *at*.
        at: The seconds on the caller's clock.
    """

    rate: float
    size: float
    tokens: float
    at: float

    def refill(self, now: float) -> None:
        """Add the tokens refilled since *at*."""
        if now > self.at:
            self.tokens = min(self.size, self.tokens + (now - self.at) * self.rate)
            self.at = now

    def take(self, now: float) -> float:
        """Take one token; return the seconds until it is refilled."""
        self.refill(now)
        self.tokens -= 1
        return 0.0 if self.tokens >= 0 else -self.tokens / self.rate


class RateLimiter:
    """The account's rate limit. Safe to share between threads.

    Args:
        requests_per_minute: The user's upper bound. If None, there is none.
    """

    def __init__(self, requests_per_minute: int | None = None) -> None:
        self._lock = threading.Lock()
        # A small bucket: in no minute are more than the bound and one second's worth sent.
        self._bound = _evenly(requests_per_minute) if requests_per_minute else None
        self._bucket: Bucket | None = None
        self._learned: int | None = None
        self._estimated = False
        self._grown_at = 0.0
        self._pause_until = 0.0
        self._refused_at = float("-inf")
        self._refusals = 0
        self._in_flight = 0
        self._first_at = float("inf")
        self._answered = 0
        self._answered_since_429 = 0
        self._excused = -1  # requests in flight at the last 429, which may still meet one of the same event
        self._probing = False

    @property
    def limit(self) -> int | None:
        """The account's requests per minute as the server states them; None until it does."""
        return self._learned

    @property
    def allowed(self) -> float | None:
        """The requests per minute that are kept to: stated, estimated or the user's bound; None if nothing limits."""
        with self._lock:
            return min((bucket.rate * 60 for bucket in self._buckets()), default=None)

    def acquire(self, now: float) -> float:
        """Claim the next request; return the seconds from *now* until it may be sent. Every claim needs an `answered`."""
        with self._lock:
            self._first_at = min(self._first_at, now)
            self._in_flight += 1
            start = max(now, self._pause_until)
            return start - now + max((bucket.take(start) for bucket in self._buckets()), default=0.0)

    def pause_left(self, now: float) -> float:
        """Return the seconds that all requests must still wait, because a 429 came meanwhile."""
        with self._lock:
            return max(0.0, self._pause_until - now)

    def answered(self, now: float, status: int | None, headers: Mapping[str, str], *, unix: float) -> None:
        """Learn from a response.

        Args:
            now: The seconds on the clock of `acquire`.
            status: The HTTP status. If None, there was no response.
            headers: The headers by lower-case name.
            unix: The time in unix seconds, for headers that state one.
        """
        with self._lock:
            self._in_flight -= 1
            self._excused -= 1
            if status is None:
                return
            if status == 429:
                self._refused(now, headers, unix)
                return
            self._answered += 1
            self._refusals = 0
            limit, remaining = (_count(headers.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining"))
            if limit:
                self._state(now, limit, limit if remaining is None else remaining)
            elif self._estimated and self._bucket is not None:
                self._answered_since_429 += 1
                after, factor = (_PROBE_SECONDS, _PROBE) if self._probing else (10.0, _GROWTH)
                if now - self._grown_at > after:
                    self._bucket.rate *= factor
                    self._grown_at = now

    def _buckets(self) -> list[Bucket]:
        return [bucket for bucket in (self._bound, self._bucket) if bucket is not None]

    def _state(self, now: float, limit: int, remaining: int) -> None:
        """Adopt what the server says of its bucket."""
        slack = max(1.0, limit * _SLACK)
        # Requests in flight are not in its count yet.
        available = remaining - self._in_flight - slack
        if self._bucket is None or self._learned != limit:
            self._bucket = Bucket(limit / 60 * _FILL, limit, available, now)
            self._learned, self._estimated = limit, False
            return
        self._bucket.refill(now)
        self._bucket.tokens = min(self._bucket.tokens, available)

    def _refused(self, now: float, headers: Mapping[str, str], unix: float) -> None:
        """Take a 429 into account: all threads pause as its header says, else 1, 2, 4 up to 30 s, and the limit is learned."""
        # Refusals of requests that left before the first of them was received are one event, not many.
        same_event = self._excused >= 0 or now < self._pause_until
        pause = retry_after(headers, unix)
        if not same_event:
            self._refusals += 1
            if pause is None:
                pause = min(30.0, 2.0 ** (self._refusals - 1))
        if pause is not None:
            self._pause_until = max(self._pause_until, now + pause)
        self._charge_pending()
        if same_event:
            return
        before, self._refused_at = self._refused_at, now
        self._excused = self._in_flight
        if self._bucket is None:
            # The bucket was full at the start, and refilled while it was emptied.
            minutes = max(0.0, now - self._first_at) / 60
            limit = max(_LEAST_ESTIMATE, self._answered / (1 + minutes))
            self._bucket = Bucket(limit / 60 * 0.95, limit, 0.0, now)
            self._estimated = self._probing = True
        else:
            self._bucket.refill(now)
            self._bucket.tokens = min(self._bucket.tokens, 0.0)
            if self._estimated:
                # The server's bucket was empty at the last refusal and is empty now: what it let through was refilled.
                rate = self._bucket.rate * _SHRINK
                if self._answered_since_429 >= _MEASURED:
                    rate = min(self._bucket.rate, self._answered_since_429 / (now - before)) * 0.97
                self._bucket.rate = max(_SMALLEST_RATE, rate)
                self._probing = False
        self._answered_since_429 = 0
        self._grown_at = now

    def _charge_pending(self) -> None:
        """Charge the user's bound with the requests that will all leave when the pause ends."""
        if self._bound is not None:
            self._bound.tokens = self._bound.size - self._in_flight
            self._bound.at = self._pause_until


def _evenly(per_minute: int) -> Bucket:
    rate = per_minute / 60
    return Bucket(rate, max(1.0, rate), max(1.0, rate), 0.0)


_MOST_DIGITS = 18


def _count(text: str | None) -> int | None:
    # Python turns no more than 4,300 digits into a number; a time in seconds has ten.
    return int(text) if text is not None and len(text) <= _MOST_DIGITS and text.strip().isdecimal() else None
