"""All that a page shows of a store, gathered as plain values: coverage by month, findings, runs, candles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from data_engine.errors import DamagedFile, InputError, StoreError
from data_engine.ingest import run_log as runs
from data_engine.ingest.run_log import RunLog, RunRecord
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import iso
from data_engine.report.charts import Chart, charts
from data_engine.report.coverage_months import STATES, Calendar, calendar_of, months_of, reach_of
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.selection import DatasetFilter
from data_engine.verify import verify as verification
from data_engine.verify.findings import Finding
from data_engine.verify.verify import VerificationReport

FINDINGS = 2_000
"""How many findings a page lists; all are counted."""

_TEXT = 600  # characters of one message


@dataclass(frozen=True, slots=True)
class Overview:
    """What a page shows.

    Attributes:
        store: where it is, for people.
        made: when it was looked at, UTC.
        by: which version of the program looked.
        quick: whether the ends of the files alone were read.
        minutes: of how many sessions minutes were wanted.
        coverage: what is known, by dataset and symbol.
        problems: why the coverage of a series cannot be read.
        verdict: what `verify` found.
        runs: the latest first.
        charts: one for each feed and adjustment.
        notes: sentences worth knowing.
    """

    store: str
    made: datetime
    by: str
    quick: bool
    minutes: int
    coverage: dict[Dataset, list[Coverage]]
    problems: dict[Series, str]
    verdict: VerificationReport
    runs: list[RunRecord]
    charts: list[Chart]
    notes: list[str] = field(default_factory=list)

    def head(self) -> dict[str, Any]:
        """Return everything but the candles, as the fields of a JSON object."""
        findings = sorted(self.verdict.findings, key=lambda finding: not finding.is_contradiction)
        return {
            "format": 1,
            "store": self.store,
            "made": iso(self.made.replace(microsecond=0)),
            "by": self.by,
            "quick": self.quick,
            "states": STATES,
            "series": self.verdict.series,
            "bars": sum(known.bars for held in self.coverage.values() for known in held),
            "datasets": [self._dataset(dataset, known) for dataset, known in self.coverage.items()],
            "findings": [_finding(finding) for finding in findings[:FINDINGS]],
            "contradictions": len(self.verdict.contradictions),
            "warnings": len(self.verdict.warnings),
            "holes": None if self.quick else self.verdict.holes,
            "runs": [_run(run) for run in self.runs],
            "charts": [self._chart(chart) for chart in self.charts],
            "notes": [_short(note) for note in self.notes[:50]],
        }

    def candles(self) -> list[list[str]]:
        """Return the packed candles of each chart: one text per symbol, of days and then of minutes."""
        return [[chart.daily.get(symbol, "") for symbol in _symbols(chart)] for chart in self.charts] + [
            [chart.minutes.get(symbol, "") for symbol in _symbols(chart)] for chart in self.charts
        ]

    def _dataset(self, dataset: Dataset, held: Sequence[Coverage]) -> dict[str, Any]:
        calendar = calendar_of(dataset, *reach_of(held, self.made), self.made)
        return {
            "name": dataset.name,
            "timeframe": str(dataset.timeframe),
            "feed": dataset.feed.value,
            "adjustment": str(dataset.adjustment),
            "intraday": dataset.timeframe.intraday,
            "first": list(calendar.months[0]),
            "sessions": calendar.counts.tolist(),
            "series": [self._series(known, calendar) for known in held],
        }

    def _series(self, known: Coverage, calendar: Calendar) -> dict[str, Any]:
        made = months_of(known, calendar)
        return {
            "symbol": known.series.symbol,
            "states": "".join(map(str, made.states.tolist())),
            "held": made.held.tolist(),
            "open": made.provisional.tolist(),
            "lack": made.missing.tolist(),
            "bars": made.bars.tolist(),
            "total": known.bars,
            "first": iso(known.first_bar) if known.first_bar else None,
            "last": iso(known.last_bar) if known.last_bar else None,
            "failure": _short(known.failure.message) if known.failure else None,
            "problem": _short(self.problems[known.series]) if known.series in self.problems else None,
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
        }


def look(
    storage: BarStore,
    choice: DatasetFilter,
    names: Sequence[str] | None = None,
    *,
    now: datetime,
    quick: bool = False,
    minutes: int = 5,
    by: str = "",
) -> Overview:
    """Look at a store. Nothing is changed, and nothing is asked of the vendor.

    Reads every bar file twice: once to judge it, once for the candles.

    Args:
        storage: of the bars.
        choice: of datasets.
        names: of symbols; None is all.
        now: UTC.
        quick: read the ends of the files alone, daily bars, and the last months of minutes.
        minutes: of how many of each symbol's last sessions minutes are kept, for as many symbols as fit.
        by: which version of the program looks.

    Raises:
        InputError: a symbol is in no chosen dataset.
        StoreError: the store cannot be read at all.
    """
    known = list(verification.known_series(storage, choice, names))
    strange = [name for name in names or () if name not in {series.symbol for series in known}]
    if strange:
        raise InputError(f"{', '.join(strange[:10])}: not in the store; `data-engine status` lists what is")
    coverage: dict[Dataset, list[Coverage]] = {}
    problems: dict[Series, str] = {}
    notes: list[str] = []
    for series in known:
        try:
            found = storage.coverage.read(series)
        except (DamagedFile, StoreError) as error:
            found, problems[series] = Coverage(series), str(error)
        coverage.setdefault(series.dataset, []).append(found)
    try:
        history = RunLog(storage.files).read()
    except StoreError as error:
        history = []
        notes.append(f"the history of runs cannot be read: {error}")
    verdict = verification.verify(storage, choice, names, now=now, quick=quick)
    drawn = charts(storage, known, now=now, quick=quick, minutes=minutes, notes=notes)
    return Overview(
        storage.files.location, now, by, quick, minutes, coverage, problems, verdict, history[: runs.KEPT_RUNS], drawn, notes
    )


def _symbols(chart: Chart) -> list[str]:
    return sorted({*chart.daily, *chart.minutes})


def _finding(finding: Finding) -> dict[str, Any]:
    fields = finding.to_json()
    return {**fields, "message": _short(finding.message), "grave": finding.is_contradiction}


def _run(run: RunRecord) -> dict[str, Any]:
    return {
        "began": iso(run.began),
        "seconds": run.seconds,
        "command": run.command,
        "index": run.index,
        "state": run.state,
        "asked": [
            {
                "dataset": one.dataset,
                "symbols": one.symbols,
                "named": one.named[:6],
                "start": iso(one.start),
                "end": iso(one.end),
                "complete": one.complete,
            }
            for one in run.asked
        ],
        "requests": run.requests,
        "added": run.added,
        "revised": run.revised,
        "vanished": run.vanished,
        "succeeded": run.succeeded,
        "failed": run.failed,
        "failures": [
            {"code": one.code, "message": one.message, "symbols": one.symbols, "named": one.named} for one in run.failures
        ],
        "notes": run.notes,
        "error": run.error,
    }


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 3] + "..."
