"""Report the progress of a run to a `Progress`, which may draw a live display, write lines to a log or do nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from data_engine.ingest.outcome import duration

_FIRST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ProgressState:
    """How far a run has come.

    Attributes:
        total: The number of symbols.
        successful: The number of symbols that are complete.
        failed: The number of symbols that cannot be completed.
        pages: The number of pages received.
        pages_expected: The approximate number of pages in all; not more than *pages* if symbols are left and all pages that
            were planned have come, so that how many are left is not known.
        bars: The number of bars received.
        seconds: The time since the start.
        per_minute: The requests per minute since the start.
        allowed: The requests per minute that are kept to. None if nothing limits.
    """

    total: int
    successful: int
    failed: int
    pages: int
    pages_expected: int
    bars: int
    seconds: float
    per_minute: float
    allowed: float | None

    @property
    def done(self) -> int:
        """The number of symbols that are complete or failed."""
        return self.successful + self.failed

    @property
    def remaining_seconds(self) -> float | None:
        """The approximate time that the rest will take; None before the first page, and once all planned pages have come.

        It is what the rest takes at the mean pace so far, or what the account's limit needs for it, whichever is longer: a run
        begins with a burst of the requests that were left unused before it.
        """
        left = max(0, self.pages_expected - self.pages)
        if not self.pages or not self.seconds or (not left and self.done < self.total):
            return None
        limit = left * 60.0 / self.allowed if self.allowed else 0.0
        return max(left * self.seconds / self.pages, limit)

    @property
    def share(self) -> float:
        """The share of the work that is done, 0 to 1: by pages, and 1 only if every symbol is done."""
        if self.done >= self.total:
            return 1.0
        return min(self.pages / max(self.pages, self.pages_expected, 1), 0.99)

    @property
    def rate(self) -> str:
        """The requests per minute so far, and what they are kept to; more than that is a burst."""
        rate = f"{self.per_minute:,.0f}/min"
        if self.allowed is None:
            return rate
        return (
            f"{rate}, a burst; limit {self.allowed:,.0f}" if self.per_minute > self.allowed else f"{rate} of {self.allowed:,.0f}"
        )


class Progress(Protocol):
    """The receiver of the progress of a run. Only the thread that runs the pipeline calls it."""

    def note(self, text: str) -> None:
        """Show a note that is no failure, such as a truncated end."""

    def update(self, state: ProgressState) -> None:
        """Show how far the run has come; called several times a second."""

    def close(self) -> None:
        """Remove any live display; called once, also if the run fails."""


class NoProgress:
    """A `Progress` that does nothing: ``progress=False``."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def update(self, state: ProgressState) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class LogProgress(NoProgress):
    """A `Progress` that writes lines for a log: those of the legacy pipeline, and one of pages.

    The first lines come a second after the run has begun.

    Args:
        write: The function that is called with each line, without its end.
        every: The minimum number of seconds between two reports.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self, write: Callable[[str], object], *, every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._every = every
        self._clock = clock
        self._next: float | None = None

    def note(self, text: str) -> None:
        """Write the note as a line."""
        self._write(text)

    def update(self, state: ProgressState) -> None:
        """Write the lines if the last ones are old enough."""
        now = self._clock()
        if self._next is None:
            self._next = now + min(_FIRST_SECONDS, self._every)
        if now >= self._next:
            self._next = now + self._every
            self._write(lines(state))


def lines(state: ProgressState) -> str:
    """Return how far a run has come, in the form of the legacy pipeline."""
    share = 100 * state.done / state.total if state.total else 100.0
    left = state.remaining_seconds
    return (
        f"Progress: {state.done}/{state.total} ({share:.1f}%)\n"
        f"  Successful: {state.successful} | Failed: {state.failed} | Remaining: {state.total - state.done}\n"
        f"  Elapsed: {duration(state.seconds)} | Est. remaining: {'unknown' if left is None else duration(left)}\n"
        f"  Pages: {state.pages:,} of about {max(state.pages, state.pages_expected):,} | {state.rate}"
    )
