"""What one bar file holds, and what tells its content from every other. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple


class Fingerprint(NamedTuple):
    """What tells one file's content from every other: how `verify` sees that a file was swapped, changed or put back.

    A tuple, since a command may make one for each of 100,000 files.

    Attributes:
        size: in bytes.
        digest: the first 16 hexadecimal digits of its SHA-256, which processors compute faster than any other. Empty if others
            may have changed the file since: then its size only tells that it must be counted anew.
    """

    size: int
    digest: str

    @classmethod
    def of(cls, content: bytes) -> Fingerprint:
        """Return the fingerprint of a file's content."""
        return cls(len(content), sha256(content).hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class FileCount:
    """What one file holds, as counted when it was written or read.

    Attributes:
        rows: The number of bars; 0 if there is no file.
        first: The first bar, UTC; None if there is none.
        last: The last bar.
        fingerprint: The content's fingerprint, without a digest if others may have changed it since; None if nothing is known.
    """

    rows: int
    first: datetime | None = None
    last: datetime | None = None
    fingerprint: Fingerprint | None = None

    def unsure(self) -> FileCount:
        """Return the same of a file that others may have changed since: of its fingerprint, the size is left."""
        return self if self.fingerprint is None else replace(self, fingerprint=self.fingerprint._replace(digest=""))
