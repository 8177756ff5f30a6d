"""Record runs in the run log of a store: one JSON line per run, with what was requested, received and failed.

A line stays short: symbols that failed for the same reason are one entry, and long lists are cut to the first names and a count.
It has no secret: the report that it is made of has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from data_engine.errors import DataEngineError, Failure, Interrupted, StoreError
from data_engine.ingest.outcome import IngestionReport, Outcome
from data_engine.ingest.plan import IngestionPlan
from data_engine.market.exchange_calendar import next_session, regular_hours, sessions
from data_engine.market.time_range import TimeRange, from_iso, iso, new_york_date
from data_engine.store.file_store import FileStore

KEY = "metadata/log/runs.jsonl"

_OLD_KEY = "metadata/history/runs.jsonl"
"""Where earlier versions kept it: read until the first run that is added takes it over."""

FORMAT = 1

KEPT_RUNS = 500

KEPT_BYTES = 1_000_000

_RECENT = timedelta(days=14)

_NAMES = 20  # symbols listed by name, of one dataset or one failure

_FAILURES = 20  # groups of failures

_NOTES = 20

_TEXT = 400  # characters of one message


class RunLog:
    """The run log of a store. It is for users: no run depends on it.

    Args:
        files: The files of the store.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def add(self, run: RunRecord) -> bool:
        """Add a run and remove the oldest; return whether that was possible.

        It raises nothing: a run does not fail because its record cannot be written.
        """
        try:
            return self._files.update(KEY, lambda content: append_record(self._known(content), run))
        except StoreError:
            return False

    def read(self) -> list[RunRecord]:
        """Return the recorded runs, the latest first; none if there is no log. Damaged lines are left out.

        Raises:
            StoreError: If the file cannot be read.
        """
        return parse_records(self._known(self._files.get(KEY)))

    def _known(self, content: bytes | None) -> bytes | None:
        return self._files.get(_OLD_KEY) if content is None else content


@dataclass(frozen=True, slots=True)
class RequestedDataset:
    """What a run requested of one dataset.

    Attributes:
        dataset: The name of the dataset.
        symbols: The number of symbols.
        named: The first of them.
        start: The start of the earliest requested range, UTC.
        end: The end of the latest, excluded.
        complete: The number of symbols that needed no request.
        bars: The expected number of bars.
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
        code: The stable code of the reason.
        message: The reason as text.
        symbols: The number of symbols.
        named: The first of them.
    """

    code: str
    message: str
    symbols: int
    named: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run that fetches bars, or takes over Alpaca's. The names of its attributes are those of the JSON.

    Attributes:
        began: The instant when it began, UTC.
        seconds: Its duration.
        command: ``ingest``, ``refetch`` (an ingest that fetches covered ranges, too), ``update``, ``recheck`` or ``audit``.
        index: The name of the index that it was for. None if symbols were given.
        by: The version of the program.
        asked: What was requested, by dataset.
        requests: The number of requests sent.
        pages: The number of responses.
        added: The number of bars added.
        revised: The number of bars whose values changed.
        vanished: The number of stored bars that Alpaca no longer has and that were kept.
        removed: The number of stored bars that Alpaca no longer has and that were removed.
        succeeded: The number of series that succeeded.
        failures: The failures of series, by reason.
        notes: Notes that are no failure.
        error: Code and message of what ended the run early. None if nothing did.
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
    removed: int = 0
    succeeded: int = 0
    failures: tuple[FailureGroup, ...] = ()
    notes: tuple[str, ...] = ()
    error: tuple[str, str] | None = None

    @property
    def failed(self) -> int:
        """The number of series that failed."""
        return sum(group.symbols for group in self.failures)

    @property
    def state(self) -> str:
        """``interrupted``, ``stopped`` (by an error that concerned all series), ``failed`` (some series) or ``done``."""
        if self.error is not None:
            return "interrupted" if self.error[0] == Interrupted.code else "stopped"
        return "failed" if self.failures else "done"


def nights_without(runs: Iterable[RunRecord], now: datetime) -> list[date]:
    """Return the sessions of the last two weeks after whose close no recorded run began before the next session's close.

    A run that could not begin (without keys, on a locked store) or was killed is not recorded.

    Args:
        runs: The recorded runs. Sessions that closed before the first of them are left out.
        now: The current instant; a night that is not over is left out.
    """
    began = sorted(run.began for run in runs)
    if not began:
        return []
    found = []
    for day in sessions(max(new_york_date(began[0]), new_york_date(now) - _RECENT), new_york_date(now)):
        night = TimeRange(regular_hours(day).end, regular_hours(next_session(day)).end)
        if began[0] < night.end <= now and not any(night.start <= one < night.end for one in began):
            found.append(day)
    return found


def actor_of(command: str, began: datetime) -> str:
    """Return whom the history of the store names for a run."""
    return f"{command} of {iso(began.replace(microsecond=0))}"


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
    """Return the record of a run.

    Args:
        command: The command.
        plans: The plans of the run, one per dataset.
        report: The result of the run. If None, it ended before there was one.
        error: What ended it early. If None, nothing did.
        began: The instant when it began, UTC.
        index: The name of the index.
        by: The version of the program.
    """
    result = report or IngestionReport(())
    return RunRecord(
        began=began.replace(microsecond=0),
        seconds=round(result.seconds, 3),
        command=command,
        index=index,
        by=by,
        asked=tuple(
            RequestedDataset(
                dataset=plan.dataset.name,
                symbols=len(plan.symbols),
                named=plan.symbols[:_NAMES],
                start=plan.span.start,
                end=plan.span.end,
                complete=plan.complete,
                bars=plan.bars,
            )
            for plan in plans
        ),
        requests=result.requests,
        pages=result.pages,
        **asdict(result.changes),
        succeeded=sum(outcome.failure is None for outcome in result.outcomes),
        failures=_failure_groups(result.outcomes),
        notes=tuple(_shortened(note) for note in result.notes[:_NOTES]),
        error=None if error is None else (error.code, _shortened(str(error))),
    )


def dump(run: RunRecord) -> bytes:
    """Return a record as one line, its end included."""
    fields = {"format": FORMAT, **asdict(run), "state": run.state, "failed": run.failed}
    return json.dumps(fields, default=_instant, separators=(",", ":")).encode() + b"\n"


def load(line: bytes) -> RunRecord:
    """Return the record that `dump` wrote.

    Raises:
        ValueError: If the line is damaged, or has another format.
    """
    try:
        fields = json.loads(line)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        for derived in ("state", "failed"):
            fields.pop(derived, None)
        fields["began"] = from_iso(fields["began"])
        fields["asked"] = tuple(
            RequestedDataset(**{**_named(one), "start": from_iso(one["start"]), "end": from_iso(one["end"])})
            for one in fields["asked"]
        )
        fields["failures"] = tuple(FailureGroup(**_named(one)) for one in fields["failures"])
        fields["notes"] = _texts(fields["notes"])
        if fields["error"] is not None:
            code, message = _texts(fields["error"])
            fields["error"] = code, message
        return RunRecord(**fields)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{error} is missing" if isinstance(error, KeyError) else str(error)) from error


def append_record(content: bytes | None, run: RunRecord) -> bytes:
    """Return a run log with one more run: the latest `KEPT_RUNS` lines, of at most `KEPT_BYTES`.

    Lines that cannot be read, or have a newer format, are kept as they are until they are too old.
    """
    lines = [line for line in (content or b"").splitlines(keepends=True) if line.strip()]
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    lines = [*lines, dump(run)][-KEPT_RUNS:]
    size = sum(map(len, lines))
    while size > KEPT_BYTES and len(lines) > 1:
        size -= len(lines.pop(0))
    return b"".join(lines)


def parse_records(content: bytes | None) -> list[RunRecord]:
    """Return the runs of a run log, the latest first; lines that cannot be read are left out."""
    runs = []
    for line in reversed((content or b"").splitlines()):
        with suppress(ValueError):
            runs.append(load(line))
    return runs


def _failure_groups(outcomes: Iterable[Outcome]) -> tuple[FailureGroup, ...]:
    """Return the failures by reason, the last ones together: there may be as many reasons as series."""
    reasons: dict[Failure, list[str]] = {}
    for outcome in outcomes:
        if outcome.failure is not None:
            reason = replace(outcome.failure, message=_shortened(outcome.failure.message))
            reasons.setdefault(reason, []).append(outcome.symbol)
    groups = [
        FailureGroup(failure.code, failure.message, len(names), tuple(names[:_NAMES])) for failure, names in reasons.items()
    ]
    if len(groups) <= _FAILURES:
        return tuple(groups)
    rest = groups[_FAILURES - 1 :]
    names = [name for group in rest for name in group.named]
    more = FailureGroup("other", f"{len(rest)} more reasons", sum(group.symbols for group in rest), tuple(names[:_NAMES]))
    return (*groups[: _FAILURES - 1], more)


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 3] + "..."


def _named(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "named": _texts(fields["named"])}


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(str, values))


def _instant(value: Any) -> str:
    if isinstance(value, datetime):
        return iso(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a run log")
