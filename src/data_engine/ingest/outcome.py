"""Report the result of a run: `IngestionReport`, with one `Outcome` per symbol."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_engine.errors import Failure, Interrupted, SourceUnavailable, StoreBusy
from data_engine.market.bars import NO_CHANGES, Changes
from data_engine.market.wording import plural

NO_DATA = "No data available"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one symbol.

    Attributes:
        symbol: The symbol as it was given, in upper case.
        failure: The reason why it failed. None if it did not.
        bars: The number of bars stored of this series after the run.
        written: The number of bars that the run added or revised.
    """

    symbol: str
    failure: Failure | None = None
    bars: int = 0
    written: int = 0


@dataclass(frozen=True, slots=True)
class IngestionReport(Mapping[str, Any]):
    """The result of a run. It is a read-only mapping and does not change.

    Example:
        >>> report = ingest_single_symbol("AAPL", "2024-01-02")
        >>> report["successful"], report["failed"]
        (['AAPL'], [])

    Attributes:
        outcomes: The result of each symbol, in the order given.
        requests: The number of requests sent.
        pages: The number of responses, with bars or without.
        seconds: The duration of the run.
        changes: The numbers of bars that were added, revised and vanished (kept, unless removals were accepted).
        notes: Notes that are no failure, such as a truncated end.
        interrupted: Whether the run was interrupted.
        unreachable: Whether no request got a response.
    """

    outcomes: tuple[Outcome, ...]
    requests: int = 0
    pages: int = 0
    seconds: float = 0.0
    changes: Changes = NO_CHANGES
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    unreachable: bool = False
    _fields: Mapping[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        failures = [(outcome.symbol, outcome.failure) for outcome in self.outcomes if outcome.failure is not None]
        fields = {
            "successful": [outcome.symbol for outcome in self.outcomes if outcome.failure is None],
            "failed": [(symbol, failure.message) for symbol, failure in failures],
            "codes": {symbol: failure.code for symbol, failure in failures},
            "bars": {outcome.symbol: outcome.bars for outcome in self.outcomes},
            "bars_written": self.changes.written,
            "bars_revised": self.changes.revised,
            "bars_vanished": self.changes.vanished,
            "bars_removed": self.changes.removed,
            "requests": self.requests,
            "pages": self.pages,
            "elapsed_seconds": round(self.seconds, 3),
            "notes": list(self.notes),
        }
        object.__setattr__(self, "_fields", fields)

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    @property
    def exit_code(self) -> int:
        """The exit code of the command line: the first that applies of 130, 7, 6, 1, 0."""
        codes = set(self["codes"].values())
        if self.interrupted:
            return Interrupted.exit_code
        if StoreBusy.code in codes:
            return StoreBusy.exit_code
        if self.unreachable:
            return SourceUnavailable.exit_code
        return 1 if codes else 0

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        fields = dict(self._fields)
        codes = fields.pop("codes")
        fields["failed"] = [{"symbol": symbol, "code": codes[symbol], "message": text} for symbol, text in fields["failed"]]
        return fields

    def line(self, *, said: Collection[str] = ()) -> str:
        """Return one line, and one per note and failed symbol, for the log of a nightly run.

        Args:
            said: Notes that earlier runs have said already; they are left out.
        """
        failed: Sequence[tuple[str, str]] = self["failed"]
        total, changes = len(self.outcomes), self.changes
        text = (
            f"{total - len(failed)} of {total} series up to date, {len(failed)} failed, {plural(changes.added, 'bar')} new, "
            f"{changes.revised:,} revised, {changes.vanished:,} dropped, {changes.removed:,} removed, "
            f"{plural(self.requests, 'request')}, {duration(self.seconds)}"
        )
        notes = (f"  Note: {note}" for note in self.notes if note not in said)
        return "\n".join([text, *notes, *self._failed_lines()])

    def _failed_lines(self) -> list[str]:
        """Return a line per failed symbol; those that an interrupt left are counted in one."""
        codes: Mapping[str, str] = self["codes"]
        left = [symbol for symbol, _ in self["failed"] if codes[symbol] == Interrupted.code]
        lines = [f"  - {symbol}: {message}" for symbol, message in self["failed"] if codes[symbol] != Interrupted.code]
        return [*lines, *([f"  {len(left)} series not finished: the run was interrupted"] if left else [])]

    def summary(self) -> str:
        """Return the summary: totals, notes, and every failed symbol."""
        total = len(self.outcomes)
        failed: Sequence[tuple[str, str]] = self["failed"]
        lines = [f"Total ingestion time: {duration(self.seconds)}", "", "Ingestion Summary:"]
        lines += [f"  Successful: {total - len(failed)}/{total}", f"  Failed: {len(failed)}/{total}"]
        lines.append(f"  Bars: {self.changes.added:,} new, {self.changes.revised:,} revised | Requests: {self.requests:,}")
        if self.changes.removed:
            lines.append(f"  Dropped by Alpaca: {self.changes.removed:,} bars, removed")
        if self.changes.vanished:
            lines.append(f"  Dropped by Alpaca: {self.changes.vanished:,} bars, kept (--accept-removals removes them)")
        lines += [f"  Note: {note}" for note in self.notes]
        if failed:
            lines += ["", "Failed symbols:", *self._failed_lines()]
        return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration as text: ``5m 30s``, ``1h 02m 05s``, ``0.4s``."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02d}m {rest:02d}s"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
