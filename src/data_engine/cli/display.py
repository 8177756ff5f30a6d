"""The live progress display of a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_engine.ingest.outcome import duration
from data_engine.ingest.progress import ProgressState

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live


class LiveDisplay:
    """A few lines at the foot of the terminal that move: a `Progress`."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None

    def note(self, text: str) -> None:
        """Print the sentence above the display."""
        self._console.print(text, markup=False)

    def update(self, standing: ProgressState) -> None:
        """Draw how far the run has come."""
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        self._live.update(_drawing(standing))

    def close(self) -> None:
        """Take the display away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _drawing(standing: ProgressState) -> Group:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    expected = max(standing.pages, standing.pages_expected, 1)
    left = standing.remaining_seconds
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=expected, completed=standing.pages, width=40),
        Text(f"{100 * standing.pages / expected:5.1f} %  {standing.done}/{standing.total} symbols"),
    )
    pace = f"{standing.per_minute:,.0f}/min" + (f" of {standing.allowed:,.0f}" if standing.allowed is not None else "")
    failed = f" | [red]Failed: {standing.failed}[/red]" if standing.failed else ""
    return Group(
        row,
        Text.from_markup(
            f"Pages: {standing.pages:,} of about {expected:,} | {standing.bars:,} bars | {pace}{failed}\n"
            f"Elapsed: {duration(standing.seconds)} | Est. remaining: {'unknown' if left is None else duration(left)}"
        ),
    )
