"""What one run asked, got and failed, as one line of the store's history. Pure.

A line is JSON, short whatever happened: symbols that failed alike are one entry, and of long lists the first names are kept
with how many there are. There is no secret in it: it holds what the report says, and that has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from data_engine.errors import DataEngineError, Failure, Interrupted, StoreError
from data_engine.ingest.outcome import IngestionReport, Outcome
from data_engine.ingest.plan import IngestionPlan
from data_engine.market.time_range import from_iso, iso
from data_engine.store.file_store import FileStore

KEY = "metadata/history/runs.jsonl"


class RunLog:
    """What the runs of a store asked, got and failed. It is for people: no run depends on it.

    Args:
        files: of the store.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def add(self, run: RunRecord) -> bool:
        """Write down a run, and forget the oldest; return whether that could be done.

        A history that cannot be written is no reason for a run to fail, so nothing of it is raised.
        """
        try:
            return self._files.update(KEY, lambda content: appended(content, run))
        except StoreError:
            return False

    def read(self) -> list[RunRecord]:
        """Return the runs that are remembered, the latest first; none where there is no history.

        Raises:
            StoreError: the file is there and cannot be read at all; single damaged lines are left out.
        """
        return parsed(self._files.get(KEY))


FORMAT = 1

KEPT_RUNS = 500

KEPT_BYTES = 1_000_000

_NAMES = 20  # symbols listed by name, of one dataset or one failure

_FAILURES = 20  # kinds of failure

_NOTES = 20

_TEXT = 400  # characters of one message


@dataclass(frozen=True, slots=True)
class RequestedDataset:
    """What a run wanted of one dataset.

    Attributes:
        dataset: its name.
        symbols: how many.
        named: the first of them.
        start: of the earliest wanted range, UTC.
        end: of the latest, excluded.
        complete: how many needed no request.
        bars: that were expected to come.
    """

    dataset: str
    symbols: int
    named: tuple[str, ...]
    start: datetime
    end: datetime
    complete: int = 0
    bars: int = 0


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Symbols that failed for the same reason.

    Attributes:
        code: stable word for why.
        message: for people.
        symbols: how many.
        named: the first of them.
    """

    code: str
    message: str
    symbols: int
    named: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of ``ingest`` or ``update``.

    Attributes:
        began: UTC.
        seconds: how long it took.
        command: ``ingest``, ``refetch`` (an ingest that asks for held ranges, too) or ``update``.
        index: the name of the list that it was about; None where symbols were named.
        by: which version of the program.
        asked: by dataset.
        requests: that were sent.
        pages: that were answered.
        added: bars that are new.
        revised: bars whose values changed.
        vanished: stored bars that the vendor no longer has.
        succeeded: how many series.
        failures: of series, by reason.
        notes: sentences worth knowing that are no failure.
        error: code and message of what ended the whole run early; None where nothing did.
    """

    began: datetime
    seconds: float
    command: str
    index: str | None
    by: str
    asked: tuple[RequestedDataset, ...]
    requests: int = 0
    pages: int = 0
    added: int = 0
    revised: int = 0
    vanished: int = 0
    succeeded: int = 0
    failures: tuple[FailureGroup, ...] = ()
    notes: tuple[str, ...] = ()
    error: tuple[str, str] | None = None

    @property
    def failed(self) -> int:
        """How many series failed."""
        return sum(one.symbols for one in self.failures)

    @property
    def state(self) -> str:
        """One word: ``interrupted``, ``stopped`` (by an error that concerned all), ``failed`` (some series) or ``done``."""
        if self.error is not None:
            return "interrupted" if self.error[0] == Interrupted.code else "stopped"
        return "failed" if self.failures else "done"


def run_record(
    command: str,
    plans: Iterable[IngestionPlan],
    report: IngestionReport | None,
    error: DataEngineError | None = None,
    *,
    began: datetime,
    index: str | None = None,
    by: str = "",
) -> RunRecord:
    """Return what is worth keeping of a run.

    Args:
        command: what was run.
        plans: what it wanted, by dataset.
        report: what came of it; None where it did not come to that.
        error: what ended it early, if anything did.
        began: UTC.
        index: name of the list.
        by: which version of the program.
    """
    asked = tuple(
        RequestedDataset(
            plan.dataset.name,
            len(plan.symbols),
            plan.symbols[:_NAMES],
            plan.span.start,
            plan.span.end,
            plan.complete,
            plan.bars,
        )
        for plan in plans
    )
    told = report or IngestionReport(())
    return RunRecord(
        began.replace(microsecond=0),
        round(told.seconds, 3),
        command,
        index,
        by,
        asked,
        told.requests,
        told.pages,
        told.changes.added,
        told.changes.revised,
        told.changes.vanished,
        sum(outcome.failure is None for outcome in told.outcomes),
        _alike(told.outcomes),
        tuple(_short(note) for note in told.notes[:_NOTES]),
        None if error is None else (error.code, _short(str(error))),
    )


def dump(run: RunRecord) -> bytes:
    """Write a run as one line, its end included."""
    fields = {"format": FORMAT, **asdict(run), "state": run.state, "failed": run.failed}
    return json.dumps(fields, default=_plain, separators=(",", ":")).encode() + b"\n"


def load(line: bytes) -> RunRecord:
    """Undo `dump`.

    Raises:
        ValueError: damaged, or of another format.
    """
    try:
        fields = json.loads(line)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        asked = tuple(
            RequestedDataset(
                **{**one, "named": _texts(one["named"]), "start": from_iso(one["start"]), "end": from_iso(one["end"])}
            )
            for one in fields["asked"]
        )
        failures = tuple(FailureGroup(**{**one, "named": _texts(one["named"])}) for one in fields["failures"])
        error = None if fields["error"] is None else (str(fields["error"][0]), str(fields["error"][1]))
        known = {name: value for name, value in fields.items() if name not in ("state", "failed")}
        made = {"began": from_iso(fields["began"]), "asked": asked, "failures": failures, "error": error}
        return RunRecord(**{**known, **made, "notes": _texts(fields["notes"])})
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"it lacks {error}" if isinstance(error, KeyError) else str(error)) from error


def appended(content: bytes | None, run: RunRecord) -> bytes:
    """Return the history with one more run: the latest `KEPT_RUNS` lines, of at most `KEPT_BYTES`.

    Lines that cannot be read, or are of a newer format, are kept as they are until they are too old.
    """
    lines = [line for line in (content or b"").splitlines(keepends=True) if line.strip()]
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    lines = [*lines, dump(run)][-KEPT_RUNS:]
    size = sum(map(len, lines))
    while size > KEPT_BYTES and len(lines) > 1:
        size -= len(lines.pop(0))
    return b"".join(lines)


def parsed(content: bytes | None) -> list[RunRecord]:
    """Return the runs of a history, the latest first; lines that cannot be read are left out."""
    runs = []
    for line in reversed((content or b"").splitlines()):
        try:
            runs.append(load(line))
        except ValueError:
            continue
    return runs


def _alike(outcomes: Iterable[Outcome]) -> tuple[FailureGroup, ...]:
    """Return the failures by reason: as many series may fail alike as there are."""
    reasons: dict[Failure, list[str]] = {}
    for outcome in outcomes:
        if outcome.failure is not None:
            reasons.setdefault(replace(outcome.failure, message=_short(outcome.failure.message)), []).append(outcome.symbol)
    listed = [
        FailureGroup(failure.code, failure.message, len(names), tuple(names[:_NAMES])) for failure, names in reasons.items()
    ]
    if len(listed) <= _FAILURES:
        return tuple(listed)
    rest = listed[_FAILURES - 1 :]
    names = [name for one in rest for name in one.named]
    more = FailureGroup("other", f"{len(rest)} more reasons", sum(one.symbols for one in rest), tuple(names[:_NAMES]))
    return (*listed[: _FAILURES - 1], more)


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 3] + "..."


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return iso(value)
    raise TypeError(f"{type(value).__name__} has no place in a history")
