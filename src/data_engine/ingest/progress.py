"""Progress as a collaborator that may do nothing.

The pipeline tells a `Progress` what happens; whether that becomes a live display, plain lines in a log or nothing at all is
not the pipeline's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from data_engine.ingest.outcome import duration


@dataclass(frozen=True, slots=True)
class ProgressState:
    """How far a run has come.

    Attributes:
        total: symbols in all.
        successful: symbols that are whole.
        failed: symbols that cannot be completed.
        pages: answers so far.
        pages_expected: about how many there will be.
        bars: that arrived so far.
        seconds: since the start.
        per_minute: requests in the last minute or since the start.
        allowed: requests per minute that are kept to; None where nothing limits.
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
        """Symbols that are finished, one way or the other."""
        return self.successful + self.failed

    @property
    def remaining_seconds(self) -> float | None:
        """About how long the rest will take, by pages; None before the first."""
        if not self.pages or not self.seconds:
            return None
        return max(0.0, self.pages_expected - self.pages) * self.seconds / self.pages


class Progress(Protocol):
    """What a run tells while it goes on. Called from the thread that runs the pipeline only."""

    def note(self, text: str) -> None:
        """Say a sentence that is no failure: what was found, what was clamped, who is waited for."""

    def update(self, standing: ProgressState) -> None:
        """Show how far the run has come; called several times a second."""

    def close(self) -> None:
        """Take any live display away; called once, also when the run fails."""


class NoProgress:
    """Progress that nobody watches: the default of the library."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def update(self, standing: ProgressState) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class LogProgress:
    """Progress as lines for a log: the reference's three, and one of pages, at most once every *every* seconds.

    Args:
        write: takes a line without its end.
        every: seconds between two reports.
        clock: seconds that only grow.
    """

    def __init__(
        self, write: Callable[[str], object], *, every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._every = every
        self._clock = clock
        self._next = clock() + every

    def note(self, text: str) -> None:
        """Write the sentence as a line."""
        self._write(text)

    def update(self, standing: ProgressState) -> None:
        """Write the four lines, if the last ones are old enough."""
        if self._clock() >= self._next:
            self._next = self._clock() + self._every
            self._write(lines(standing))

    def close(self) -> None:
        """Do nothing: lines stay."""


def lines(standing: ProgressState) -> str:
    """Return how far a run has come, in the reference's form."""
    share = 100 * standing.done / standing.total if standing.total else 100.0
    left = standing.remaining_seconds
    pace = f"{standing.per_minute:.0f}/min"
    if standing.allowed is not None:
        pace += f" of {standing.allowed:.0f}"
    return (
        f"Progress: {standing.done}/{standing.total} ({share:.1f}%)\n"
        f"  Successful: {standing.successful} | Failed: {standing.failed} | Remaining: {standing.total - standing.done}\n"
        f"  Elapsed: {duration(standing.seconds)} | Est. remaining: {'unknown' if left is None else duration(left)}\n"
        f"  Pages: {standing.pages:,} of about {max(standing.pages, standing.pages_expected):,} | {pace}"
    )
