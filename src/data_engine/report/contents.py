"""Collect the contents of a report as plain values: coverage by month, findings, history, runs, candles."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import TickerChange, end_of_series
from data_engine.errors import InputError, StoreError
from data_engine.ingest import run_log
from data_engine.ingest.bar_source import DEMO
from data_engine.ingest.run_log import RunLog, RunRecord
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import iso, new_york_date
from data_engine.market.wording import and_more, dataset_options
from data_engine.report.charts import Chart, charts
from data_engine.report.coverage_months import STATES, Calendar, calendar_of, months_of, reach_of
from data_engine.report.later import Later, later_of
from data_engine.report.short_text import short_text
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.selection import DatasetFilter
from data_engine.universe.delisted import Delisted
from data_engine.verify import verify as verification
from data_engine.verify.findings import Finding
from data_engine.verify.status import sized_coverage
from data_engine.verify.verify import VerificationReport

FINDINGS = 2_000
"""The maximum number of findings listed; all are counted."""

_REAL = "data-engine ingest AAPL MSFT --start 2024-01-01"
"""What to try after the demo: its store is not updated, since Alpaca's bars must not meet simulated ones."""

_COMMANDS = {"repair": "verify --repair", "update": "update", "status": "status"}

_LEGACY = ("legacy_bars", "legacy_layout")  # findings: files of the legacy pipeline are in the store

_MOST_IN_COMMAND = 40  # symbols

_NOTES = 50


@dataclass(frozen=True, slots=True)
class Overview:
    """The contents of a report.

    Attributes:
        store: The location of the store.
        made: The time of the report, UTC.
        by: The program and its version.
        quick: Whether only file metadata was read.
        minutes: The number of sessions whose minutes were requested.
        coverage: The coverage of the series, by dataset.
        problems: Why the coverage of a series cannot be read.
        verification: The result of `verify`.
        runs: The runs, the latest first.
        charts: The charts, one per feed and adjustment.
        notes: Messages to the user.
        ended: The changes at which series end.
        simulated: Whether `data-engine demo` made the store.
        later: What changed after it was final.
        selection: What of the store the report is about, if it is not all of it.
    """

    store: str
    made: datetime
    by: str
    quick: bool
    minutes: int
    coverage: dict[Dataset, list[Coverage]]
    problems: dict[Series, str]
    verification: VerificationReport
    runs: list[RunRecord]
    charts: list[Chart]
    notes: list[str] = field(default_factory=list)
    ended: dict[Series, TickerChange] = field(default_factory=dict)
    simulated: bool = False
    later: Later = field(default_factory=Later)
    selection: str | None = None

    def head(self) -> dict[str, Any]:
        """Return the fields of the JSON object in the report, without candles."""
        findings = sorted(self.verification.findings, key=lambda finding: not finding.is_inconsistency)
        return {
            "format": 1,
            "store": self.store,
            "selection": self.selection,
            "made": iso(self.made.replace(microsecond=0)),
            "by": self.by,
            "quick": self.quick,
            "states": STATES,
            "series": self.verification.series,
            "bars": sum(known.bars for of_dataset in self.coverage.values() for known in of_dataset),
            "datasets": [self._dataset(dataset, known) for dataset, known in self.coverage.items()],
            "findings": [_finding(finding) for finding in findings[:FINDINGS]],
            "inconsistencies": len(self.verification.inconsistencies),
            "warnings": len(self.verification.warnings),
            "gaps": None if self.quick else self.verification.gaps,
            "history": self.later.to_json(),
            "runs": [json.loads(run_log.dump(run)) for run in self.runs],
            "charts": [self._chart(chart) for chart in self.charts],
            "notes": [short_text(note) for note in self.notes[:_NOTES]] + self._more_notes(),
            "commands": {
                **{name: f"data-engine {words} --base-path {shlex.quote(self.store)}" for name, words in self._commands()},
                **({"real": _REAL} if self.simulated else {}),
                **({"cover": cover} if (cover := self._cover()) else {}),
            },
        }

    def candles(self) -> list[list[str]]:
        """Return the packed candles per chart: one text per symbol, first those of all charts' days, then of minutes."""
        return [[chart.daily.get(symbol, "") for symbol in _symbols(chart)] for chart in self.charts] + [
            [chart.minutes.get(symbol, "") for symbol in _symbols(chart)] for chart in self.charts
        ]

    def _more_notes(self) -> list[str]:
        left = len(self.notes) - _NOTES
        return [f"and {left:,} more"] if left > 0 else []

    def _commands(self) -> Iterator[tuple[str, str]]:
        """Yield the names and the words of commands to run next."""
        yield from _COMMANDS.items()
        if any(one.code in _LEGACY for one in self.verification.findings):
            yield "unite", "import --in-place"

    def _cover(self) -> str | None:
        """Return the command that covers the series of a dataset of which nothing was requested; None if there is none."""
        for dataset, coverages in self.coverage.items():
            if dataset.fill:
                continue
            left = [one for one in coverages if not one.wanted and one.first_bar is not None and one.last_bar is not None]
            if left:
                first = new_york_date(min(one.first_bar for one in left if one.first_bar is not None))
                last = new_york_date(max(one.last_bar for one in left if one.last_bar is not None))
                names = " ".join(one.series.symbol for one in left) if len(left) <= _MOST_IN_COMMAND else "--file FILE"
                where = f"--base-path {shlex.quote(self.store)}"
                return f"data-engine ingest {names} --start {first} --end {last}{dataset_options(dataset)} {where}"
        return None

    def _dataset(self, dataset: Dataset, coverages: Sequence[Coverage]) -> dict[str, Any]:
        calendar = calendar_of(dataset, *reach_of(coverages, self.made), self.made)
        return {
            "name": dataset.name,
            "timeframe": str(dataset.timeframe),
            "feed": dataset.feed.value,
            "adjustment": str(dataset.adjustment),
            "intraday": dataset.timeframe.intraday,
            "first": list(calendar.months[0]),
            "sessions": calendar.counts.tolist(),
            "series": [self._series(known, calendar) for known in coverages],
        }

    def _series(self, known: Coverage, calendar: Calendar) -> dict[str, Any]:
        months = months_of(known, calendar)
        later = self.later.months(known.series)
        return {
            "symbol": known.series.symbol,
            "states": "".join(map(str, months.states.tolist())),
            "final": months.final.tolist(),
            "provisional": months.provisional.tolist(),
            "missing": months.missing.tolist(),
            "bars": months.bars.tolist(),
            "later": [[number, *later[month]] for number, month in enumerate(calendar.months) if month in later],
            "total": known.bars,
            "first": iso(known.first_bar) if known.first_bar else None,
            "last": iso(known.last_bar) if known.last_bar else None,
            "failure": short_text(known.failure.message) if known.failure else None,
            "ended": str(self.ended[known.series]) if known.series in self.ended else None,
            "problem": short_text(self.problems[known.series]) if known.series in self.problems else None,
        }

    def _chart(self, chart: Chart) -> dict[str, Any]:
        return {
            "feed": chart.feed.value,
            "adjustment": str(chart.adjustment),
            "intraday": str(chart.intraday.timeframe) if chart.intraday else None,
            "days": [day - before for day, before in zip(chart.days, [0, *chart.days], strict=False)],
            "symbols": _symbols(chart),
            "hours": chart.hours,
            "from_minutes": chart.from_minutes,
            "rounded": chart.rounded,
            "cut": chart.cut.isoformat() if chart.cut else None,
            "minutes": self.minutes,
            "left_out": chart.left_out,
            "splits": chart.splits,
        }


def overview_of(
    storage: BarStore,
    choice: DatasetFilter,
    names: Sequence[str] | None = None,
    *,
    now: datetime,
    quick: bool = False,
    minutes: int = 5,
    by: str = "",
) -> Overview:
    """Return the contents of a report. Nothing is changed, and no request is sent.

    Every bar file is read up to four times: for the candles, and to check it, its history, and what that says of final bars.
    Every record of the history is read once.

    Args:
        storage: The store.
        choice: The datasets.
        names: The symbols. If None, all.
        now: The current time, UTC.
        quick: Whether to read only file metadata, daily bars, and the last months of minutes.
        minutes: The number of last sessions whose minutes are shown, for as many symbols as fit.
        by: The program and its version.

    Raises:
        InputError: If a symbol is in no selected dataset.
        StoreError: If the store cannot be read.
    """
    known = list(verification.known_series(storage, choice, names))
    unknown = [name for name in names or () if name not in {series.symbol for series in known}]
    if unknown:
        raise InputError(f"no such series: {and_more(unknown, 10)}; run `data-engine status` to list them")
    coverage: dict[Dataset, list[Coverage]] = {}
    problems: dict[Series, str] = {}
    ended: dict[Series, TickerChange] = {}
    notes: list[str] = []
    changes, delisted = ActionStore(storage.files).ticker_changes().until(now), Delisted(storage.files)
    for series in known:
        try:
            found, _ = sized_coverage(storage, series)
        except StoreError as error:
            found, problems[series] = _coverage_alone(storage, series), str(error)
        coverage.setdefault(series.dataset, []).append(found)
        if (change := end_of_series(found, changes.of) or delisted.change_of(found)) is not None:
            ended[series] = change
    try:
        runs = RunLog(storage.files).read()
    except StoreError as error:
        runs = []
        notes.append(f"cannot read the run log: {error}")
    history = StoreHistory(storage.files)
    checked = verification.verify(storage, choice, names, now=now, quick=quick, history=history)
    drawn = charts(storage, known, now=now, quick=quick, minutes=minutes, notes=notes)
    simulated = storage.files.get(DEMO) is not None
    return Overview(
        storage.files.location,
        now,
        by,
        quick,
        minutes,
        coverage,
        problems,
        checked,
        runs[: run_log.KEPT_RUNS],
        drawn,
        notes,
        ended,
        simulated,
        later_of(storage, history, choice, names, [one for every in coverage.values() for one in every], quick=quick),
        _selection(choice, names),
    )


def _coverage_alone(storage: BarStore, series: Series) -> Coverage:
    """Return what is requested and covered of a series with a file that cannot be read; nothing if its coverage cannot be."""
    try:
        return storage.coverage.read(series, fingerprints=False)
    except StoreError:
        return Coverage(series)


def _selection(choice: DatasetFilter, names: Sequence[str] | None) -> str | None:
    """Return in words what of a store was selected; None if that is all of it."""
    chosen = (choice.timeframe, choice.feed and choice.feed.value, choice.adjustment)
    words = [str(one) for one in chosen if one is not None]
    if names is not None:
        words.insert(0, and_more(list(names), 10))
    return ", ".join(words) or None


def _symbols(chart: Chart) -> list[str]:
    return sorted({*chart.daily, *chart.minutes})


def _finding(finding: Finding) -> dict[str, Any]:
    fields = finding.to_json()
    return {**fields, "message": short_text(finding.message), "inconsistency": finding.is_inconsistency}
