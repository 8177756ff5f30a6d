"""Read and write when and with which budget all series of a store were last rechecked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from data_engine.market.time_range import from_iso, iso, new_york_date
from data_engine.store.document import Document
from data_engine.store.file_store import FileStore

KEY = "metadata/recheck.json"

FORMAT = 1


@dataclass(frozen=True, slots=True)
class RecheckRecord:
    """The last recheck of all series of a store.

    Attributes:
        began: When it began, UTC.
        minutes: The minutes that it was given.
        requests: The number of requests that these are.
        nights: The number of further runs like it within which everything has been fetched again, as it was then.
    """

    began: datetime
    minutes: float
    requests: int
    nights: int

    def all_seen(self, now: datetime) -> date:
        """Return the New York day by which everything has been fetched again with one such run every night."""
        return new_york_date(max(self.began, now - timedelta(days=1))) + timedelta(days=self.nights)

    def to_json(self, now: datetime) -> dict[str, object]:
        """Return the fields that ``status --json`` prints."""
        return {
            "began": self.began,
            "minutes": self.minutes,
            "requests_per_night": self.requests,
            "nights": self.nights,
            "all_seen": self.all_seen(now),
        }


def recheck_record(files: FileStore) -> Document[RecheckRecord | None]:
    """Return the file with the last recheck of a store; its value is None if there was none."""
    remedy = "remove that file; the next `data-engine recheck` writes a new one"
    empty: RecheckRecord | None = None
    return Document(files, KEY, "the last recheck", remedy, empty, load=_load, dump=_dump)


def _dump(record: RecheckRecord | None) -> bytes:
    if record is None:
        return b""
    numbers = {"minutes": record.minutes, "requests": record.requests, "nights": record.nights}
    fields = {"format": FORMAT, "began": iso(record.began), **numbers}
    return json.dumps(fields).encode() + b"\n"


def _load(content: bytes) -> RecheckRecord | None:
    try:
        fields = json.loads(content)
        if fields["format"] != FORMAT:
            raise ValueError(f"its format is {fields['format']!r}, this program knows {FORMAT}")
        return RecheckRecord(from_iso(fields["began"]), float(fields["minutes"]), int(fields["requests"]), int(fields["nights"]))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it lacks {error}" if isinstance(error, KeyError) else str(error)) from error
