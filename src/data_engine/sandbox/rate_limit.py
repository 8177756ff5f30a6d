"""Count requests against the rate limit of an account, with a token bucket."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class TokenBucket:
    """Admits *rate* requests per minute, and *burst* of them at once.

    Args:
        rate: The requests per minute.
        burst: The number of tokens in the full bucket.
        monotonic: The seconds on a clock that never goes back.
    """

    def __init__(self, rate: float, burst: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = burst
        self._monotonic = monotonic
        self._tokens = float(burst)
        self._refilled_at = monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take a token, and return whether there was one."""
        with self._lock:
            self._refill()
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def headers(self, wall: float) -> dict[str, str]:
        """Return the three limit headers; *wall* is the time in unix seconds, the reset is when the bucket is full again."""
        with self._lock:
            self._refill()
            seconds = (self.burst - self._tokens) * 60 / self.rate
            return {
                "X-RateLimit-Limit": f"{self.rate:.0f}",
                "X-RateLimit-Remaining": str(int(self._tokens)),
                "X-RateLimit-Reset": str(math.ceil(wall + seconds)),
            }

    def _refill(self) -> None:
        now = self._monotonic()
        self._tokens = min(float(self.burst), self._tokens + (now - self._refilled_at) * self.rate / 60)
        self._refilled_at = now
