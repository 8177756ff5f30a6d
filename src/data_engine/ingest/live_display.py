"""Draw the live progress display of a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TextIO

from data_engine.ingest.outcome import duration
from data_engine.ingest.progress import ProgressState
from data_engine.market.clean_text import clean

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live


class LiveDisplay:
    """A `Progress` in a few lines at the bottom of the terminal, which it redraws.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO | None) -> None:
        from rich.console import Console

        # The display moves the cursor; notes are cleaned below.
        self._console = Console(file=stream, highlight=False)
        self._live: Live | None = None

    def note(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(clean(text, lines=True), markup=False)

    def update(self, state: ProgressState) -> None:
        """Draw the state of the run."""
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        self._live.update(_drawing(state))

    def close(self) -> None:
        """Remove the display."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _drawing(state: ProgressState) -> Group:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    expected = max(state.pages, state.pages_expected, 1)
    left = state.remaining_seconds
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=1.0, completed=state.share, width=40),
        Text(f"{math.floor(100 * state.share):3d} %  {state.done}/{state.total} symbols"),
    )
    failed = f" | [red]Failed: {state.failed}[/red]" if state.failed else ""
    return Group(
        row,
        Text.from_markup(
            f"Pages: {state.pages:,} of about {expected:,} | {state.bars:,} bars{failed}\n"
            f"Elapsed: {duration(state.seconds)} | Est. remaining: {'unknown' if left is None else duration(left)} | {state.rate}"
        ),
    )
