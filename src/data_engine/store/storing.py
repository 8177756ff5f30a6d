"""Mark the files in which somebody who does not hold the store is about to store bars: `Storing`. Pure.

Such writers are not alone. If one mark stood for all of them, the first that counts its bars would take back what another has
marked, and if that one is killed then, nothing tells that its bars are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from data_engine.store.partitions import Period

KEPT = timedelta(days=1)
"""How long a mark of a writer that does not take it back stays: it was killed, and its bars have been counted since."""


@dataclass(frozen=True, slots=True, order=True)
class Storing:
    """A mark.

    Attributes:
        period: The file.
        since: When the writer made it, UTC.
        writer: Which one.
    """

    period: Period
    since: datetime
    writer: str


def begun(periods: Iterable[Period], since: datetime, writer: str) -> tuple[Storing, ...]:
    """Return the marks of a writer."""
    return tuple(sorted(Storing(period, since, writer) for period in periods))


def without_old(marks: Iterable[Storing], now: datetime) -> tuple[Storing, ...]:
    """Return the marks whose writers may still be at work."""
    return tuple(one for one in marks if now - one.since < KEPT)
