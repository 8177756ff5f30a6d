"""Compute when to repeat a request, by one bounded policy. Pure: randomness and time are arguments.

A response 429 is not a failed try: `rate_limit` makes all threads pause as its header says (else 1, 2, 4 up to 30 s) and learns
the limit from it, and the request is sent again until *give_up_after*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LONGEST_WAIT = 120.0  # a server that says "in an hour" gets the next request in two minutes


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, bounded by tries and by time.

    Attributes:
        tries: The maximum number of times that one request is sent. Responses 429 are not counted: the rate limiter handles
            them, and *give_up_after*.
        base: The longest wait before the second try, in seconds.
        cap: The longest wait of all, in seconds.
        give_up_after: The seconds without any usable response, in all threads, after which the service counts as down.
    """

    tries: int = 6
    base: float = 0.5
    cap: float = 30.0
    give_up_after: float = 600.0

    def wait(self, failures: int, jitter: float) -> float:
        """Return the seconds to wait after the *failures*-th failure in a row (from 1); *jitter* is uniform in [0, 1)."""
        return jitter * min(self.cap, self.base * 2.0 ** min(failures - 1, 30))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds until a refusing server wants the next request, or None if it does not say.

    Args:
        headers: The headers by lower-case name: ``retry-after`` (seconds or a date) or ``x-ratelimit-reset`` (unix seconds).
        now: The time in unix seconds.
    """
    text = headers.get("retry-after", "").strip()
    seconds = _seconds(text)
    if seconds is None and (date := _date(text)) is not None:
        seconds = max(0.0, (date - datetime.fromtimestamp(now, UTC)).total_seconds())
    if seconds is None:
        reset = _seconds(headers.get("x-ratelimit-reset", ""))
        seconds = reset - now if reset is not None and reset > now else None
    return None if seconds is None else min(seconds, _LONGEST_WAIT)


def server_time(headers: Mapping[str, str]) -> datetime | None:
    """Return the time of the ``date`` header, in UTC, or None if there is none that can be read."""
    return _date(headers.get("date", ""))


def _date(text: str) -> datetime | None:
    try:
        return _EPOCH + (parsedate_to_datetime(text) - _EPOCH)  # a date without a zone is a TypeError
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e12 else None
