"""Show the progress of a run where nothing else is asked for: `StderrProgress`, the default of the library."""

from __future__ import annotations

import sys
from contextlib import suppress

from data_engine.ingest.live_display import LiveDisplay
from data_engine.ingest.progress import LogProgress, NoProgress, Progress, ProgressState
from data_engine.market.clean_text import clean


class StderrProgress:
    """The default of the library: a live display on a terminal, else the lines of `LogProgress`, on stderr; then the summary."""

    def __init__(self) -> None:
        stream = sys.stderr
        self._shown: Progress = LogProgress(self._write)
        if stream is not None and stream.isatty():
            self._shown = LiveDisplay(stream)

    def note(self, text: str) -> None:
        """Show the note."""
        self._shown.note(text)

    def update(self, state: ProgressState) -> None:
        """Show how far the run has come."""
        self._shown.update(state)

    def close(self) -> None:
        """Remove the display."""
        self._shown.close()

    def finish(self, summary: str) -> None:
        """Write the summary of a run that has ended."""
        self._write(summary)

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # a run goes on when its progress cannot be shown
            sys.stderr.write(f"{clean(text, lines=True)}\n")


def progress_of(progress: Progress | bool | None) -> Progress:
    """Return the progress in an argument: the default for None (and True), none for False, else the object itself."""
    if progress is None or progress is True:
        return StderrProgress()
    return NoProgress() if progress is False else progress
