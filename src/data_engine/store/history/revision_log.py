"""Read the logs of revisions that earlier versions kept, ``metadata/revisions/DATASET.csv``: `logged_revisions`.

They say what Alpaca had otherwise than the store, not what changed in the store. Nothing is added to them any more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_engine.errors import DamagedFile
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, from_iso, iso
from data_engine.store.csv_document import load_rows
from data_engine.store.file_store import FileStore

FOLDER = "metadata/revisions"

_HEADER = ("seen", "symbol", "timestamp", "change", "field", "old", "new")

_CHANGES = ("revised", "appeared", "vanished")


@dataclass(frozen=True, slots=True)
class LoggedRevisions:
    """What one audit saw of a series.

    Attributes:
        series: The series.
        seen: When, UTC, to the second.
        revised: The number of bars that had other values at Alpaca.
        appeared: The number of bars at Alpaca that the store lacked.
        vanished: The number of stored bars that Alpaca lacked.
    """

    series: Series
    seen: datetime
    revised: int
    appeared: int
    vanished: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``history --json`` prints."""
        return {
            "seen": iso(self.seen),
            "dataset": self.series.dataset.name,
            "symbol": self.series.symbol,
            "revised": self.revised,
            "appeared": self.appeared,
            "vanished": self.vanished,
        }


def logged_revisions(files: FileStore, series: Series, span: TimeRange) -> list[LoggedRevisions]:
    """Return what audits of earlier versions saw of the bars of a series in a range, the latest first.

    Raises:
        DamagedFile: If the log of the dataset cannot be read.
    """
    key = f"{FOLDER}/{series.dataset.name}.csv"
    content = files.get(key)
    if content is None:
        return []
    bars: dict[tuple[datetime, datetime], str] = {}  # a bar has a row for each of its fields

    def take(seen: str, symbol: str, timestamp: str, change: str, *_: str) -> None:
        instant, at = from_iso(seen), from_iso(timestamp)
        if symbol == series.symbol and at in span:
            bars[instant, at] = change

    try:
        load_rows(content, _HEADER, take)
    except ValueError as error:
        raise DamagedFile(f"cannot read {files.location}/{key}: {error}; move that file away") from error
    counts = Counter((seen, change) for (seen, _), change in bars.items())
    instants = sorted({seen for seen, _ in bars}, reverse=True)
    return [LoggedRevisions(series, seen, *(counts[seen, change] for change in _CHANGES)) for seen in instants]
