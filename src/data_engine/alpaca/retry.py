"""When to ask again: one bounded policy. Pure: randomness and time come in as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST_HINT = 120.0  # a server that says "in an hour" is asked again in two minutes


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, bounded by tries and by time.

    Attributes:
        tries: how often one request is sent at most. Answers 429 are not counted: pacing handles them, and *give_up_after*.
        base: seconds; before the second try, the wait is somewhere between 0 and this.
        cap: seconds; no wait is longer.
        give_up_after: seconds without any usable answer to anybody, after which the service counts as down.
    """

    tries: int = 6
    base: float = 0.5
    cap: float = 30.0
    give_up_after: float = 600.0

    def wait(self, failures: int, jitter: float) -> float:
        """Return the seconds to wait after the *failures*-th failure in a row (from 1); *jitter* is uniform in [0, 1)."""
        return jitter * min(self.cap, self.base * 2.0 ** min(failures - 1, 30))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a refusing server asks us to wait, or None where it does not say.

    Args:
        headers: by lower-case name: ``retry-after`` (seconds or a date) or ``x-ratelimit-reset`` (unix seconds).
        now: unix seconds.
    """
    text = headers.get("retry-after", "").strip()
    if text:
        seconds = _seconds(text)
        if seconds is None:
            try:
                seconds = (parsedate_to_datetime(text) - datetime.fromtimestamp(now, UTC)).total_seconds()
            except (ValueError, TypeError, OverflowError):
                seconds = None
        if seconds is not None:
            return min(max(seconds, 0.0), _LONGEST_HINT)
    reset = _seconds(headers.get("x-ratelimit-reset", ""))
    if reset is not None and reset > now:
        return min(reset - now, _LONGEST_HINT)
    return None


def server_time(headers: Mapping[str, str]) -> datetime | None:
    """Return the time of an answer's ``date`` header, in UTC, or None where there is none that can be read."""
    try:
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e12 else None
