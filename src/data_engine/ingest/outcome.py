"""Report the result of a run: `IngestionReport`, with one `Outcome` per symbol."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_engine.errors import Failure, Interrupted, SourceUnavailable, StoreBusy
from data_engine.market.bars import NO_CHANGES, Changes
from data_engine.market.wording import and_more, plural

NO_DATA = "No data available"


class LastingNote(str):
    """A note on a state that lasts, such as a rename: it is news once, and true of every run.

    Any other note tells of an event of its run. Its text may be that of an earlier event, and it is news each time.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one symbol.

    Attributes:
        symbol: The symbol as it was given, in upper case.
        failure: The reason why it failed. None if it did not.
        bars: The number of bars stored of this series after the run.
        written: The number of bars that the run added or revised.
        vanished: The number of stored bars that Alpaca's complete response lacked and that were kept: dropped since, or put
            there by `store` or an import.
        ended: Whether the security of the series has left the ticker, so that there is nothing newer to request.
        silent: Whether Alpaca has had no bar of the series for more than 30 days, though nothing says that it has ended.
        conflicting: The number of stored bars that Alpaca has revised or dropped, as `recheck` found.
    """

    symbol: str
    failure: Failure | None = None
    bars: int = 0
    written: int = 0
    vanished: int = 0
    ended: bool = False
    silent: bool = False
    conflicting: int = 0


class IngestionReport(dict[str, Any]):
    """The result of a run: a ``dict`` that ``json.dumps`` takes, with more as attributes.

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

    def __init__(
        self,
        outcomes: tuple[Outcome, ...],
        requests: int = 0,
        pages: int = 0,
        seconds: float = 0.0,
        changes: Changes = NO_CHANGES,
        notes: tuple[str, ...] = (),
        interrupted: bool = False,
        unreachable: bool = False,
    ) -> None:
        failures = [(outcome.symbol, outcome.failure) for outcome in outcomes if outcome.failure is not None]
        super().__init__(
            successful=[outcome.symbol for outcome in outcomes if outcome.failure is None],
            failed=[(symbol, failure.message) for symbol, failure in failures],
            codes={symbol: failure.code for symbol, failure in failures},
            bars={outcome.symbol: outcome.bars for outcome in outcomes},
            bars_written=changes.written,
            bars_revised=changes.revised,
            bars_vanished=changes.vanished,
            vanished={outcome.symbol: outcome.vanished for outcome in outcomes if outcome.vanished},
            bars_removed=changes.removed,
            conflicting={outcome.symbol: outcome.conflicting for outcome in outcomes if outcome.conflicting},
            ended=[outcome.symbol for outcome in outcomes if outcome.ended and outcome.failure is None],
            silent=[outcome.symbol for outcome in outcomes if outcome.silent and outcome.failure is None],
            requests=requests,
            pages=pages,
            elapsed_seconds=round(seconds, 3),
            notes=list(notes),
        )
        self.outcomes = outcomes
        self.requests = requests
        self.pages = pages
        self.seconds = seconds
        self.changes = changes
        self.notes = notes
        self.interrupted = interrupted
        self.unreachable = unreachable

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
        fields = dict(self)
        codes = fields.pop("codes")
        fields["failed"] = [{"symbol": symbol, "code": codes[symbol], "message": text} for symbol, text in fields["failed"]]
        return fields

    def line(self, *, said: Collection[str] = ()) -> str:
        """Return one line, and one per note and failed symbol, for the log of a nightly run.

        Args:
            said: Notes that earlier runs have said already; of these, `LastingNote` are left out.
        """
        failed: Sequence[tuple[str, str]] = self["failed"]
        total, changes = len(self.outcomes), self.changes
        others = {word: count for word in ("ended", "silent") if (count := len(self[word]))}
        text = (
            f"{total - len(failed) - sum(others.values())} of {total} series up to date, "
            f"{''.join(f'{count} {word}, ' for word, count in others.items())}{len(failed)} failed, "
            f"{plural(changes.added, 'bar')} new, "
            f"{changes.revised:,} revised, {changes.vanished:,} dropped, {changes.removed:,} removed, "
            f"{plural(self.requests, 'request')}, {duration(self.seconds)}"
        )
        news = [note for note in self.notes if not (isinstance(note, LastingNote) and note in said)]
        notes = (f"  Note: {note}" for note in (*news, *self._vanished(), *self._conflicting()))
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
        for word, named in (("Ended", self["ended"]), ("Silent", self["silent"])):
            if named:
                lines.append(f"  {word}: {len(named)}/{total} ({and_more(named, 10)}), which `data-engine status` explains")
        if self.changes.removed:
            lines.append(f"  Dropped by Alpaca: {self.changes.removed:,} bars, removed")
        lines += [f"  {text}" for text in (*self._vanished(), *self._conflicting())]
        lines += [f"  Note: {note}" for note in self.notes]
        if failed:
            lines += ["", "Failed symbols:", *self._failed_lines()]
        return "\n".join(lines)

    def _conflicting(self) -> list[str]:
        """Return how many stored bars Alpaca has revised or dropped, with the symbols; empty if none."""
        return [conflicts_text(self["conflicting"])] if self["conflicting"] else []

    def _vanished(self) -> list[str]:
        """Return how many stored bars complete responses lacked, with the symbols; empty if none."""
        if not self.changes.vanished:
            return []
        named = and_more([f"{symbol} ({count:,})" for symbol, count in self["vanished"].items()], 10)
        kept = f"Not in Alpaca's responses: {plural(self.changes.vanished, 'stored bar')}, kept"
        return [f"{kept}: {named}; `data-engine ingest --refetch --accept-removals` removes such bars"]


def conflicts_text(counts: Mapping[str, int]) -> str:
    """Return how many stored bars Alpaca has revised or dropped, with the series, and what to do about it."""
    named = and_more([f"{name} ({count:,})" for name, count in counts.items()], 10)
    bars = plural(sum(counts.values()), "stored bar")
    return f"Conflicting with Alpaca: {bars} of {named}; `data-engine recheck --accept` applies Alpaca's values"


def duration(seconds: float) -> str:
    """Return a duration as text: ``5m 30s``, ``1h 02m 05s``, ``0.4s``."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02d}m {rest:02d}s"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
