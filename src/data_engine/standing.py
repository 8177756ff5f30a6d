"""What a store holds, and what is wanted and missing: one entry per series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_engine.action_store import ActionStore
from data_engine.bar_files import BarFiles
from data_engine.coverage import Coverage
from data_engine.errors import DamagedFile
from data_engine.partitions import Partition
from data_engine.ranges import TimeRange, iso
from data_engine.renames import Rename, parting, until_parting
from data_engine.series import Series
from data_engine.sessions import can_hold_bars
from data_engine.wishes import Choice, chosen_series


@dataclass(frozen=True, slots=True)
class SeriesStanding:
    """How one series stands.

    Attributes:
        series: which.
        coverage: what is known of it; nothing, where *problem* says why.
        missing: ranges that were wanted and are not held, those that cannot hold a bar left out.
        files: how many there are.
        bytes: that they take.
        problem: why the coverage, or what became of the ticker, cannot be read; else None.
        rename: where its security left the ticker, and the series ends; else None.
    """

    series: Series
    coverage: Coverage
    missing: tuple[TimeRange, ...] = ()
    files: int = 0
    bytes: int = 0
    problem: str | None = None
    rename: Rename | None = None

    @property
    def state(self) -> str:
        """One word: ``damaged``, ``failed``, ``incomplete``, ``empty`` or ``held``."""
        if self.problem:
            return "damaged"
        if self.missing:
            failure = self.coverage.failure
            return "failed" if failure and failure.code != "interrupted" else "incomplete"
        return "held" if self.coverage.bars else "empty"

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``status --json`` prints for a series."""
        known = self.coverage
        dataset = self.series.dataset
        return {
            "dataset": dataset.name,
            "symbol": self.series.symbol,
            "timeframe": str(dataset.timeframe),
            "feed": dataset.feed.value,
            "adjustment": str(dataset.adjustment),
            "state": self.state,
            "wanted": _pairs(known.wanted),
            "covered": _pairs(known.covered),
            "provisional": _pairs(known.provisional),
            "missing": _pairs(self.missing),
            "bars": known.bars,
            "files": self.files,
            "bytes": self.bytes,
            "first_bar": iso(known.first_bar) if known.first_bar else None,
            "last_bar": iso(known.last_bar) if known.last_bar else None,
            "failure": {"code": known.failure.code, "message": known.failure.message} if known.failure else None,
            "problem": self.problem,
            "rename": {"new": self.rename.new, "date": self.rename.day.isoformat()} if self.rename else None,
        }


def stand(storage: BarFiles, choice: Choice, names: Sequence[str] | None = None) -> Iterator[SeriesStanding]:
    """Yield how every chosen series of a store stands, by dataset and symbol. Coverage files and sizes alone are read."""
    renames = ActionStore(storage.files).renames()
    for series in chosen_series(storage.coverage, choice, names):
        try:
            known = storage.coverage.read(series)
        except DamagedFile as error:
            yield SeriesStanding(series, Coverage(series), problem=str(error))
            continue
        owed = known.incomplete(TimeRange(known.wanted[0].start, known.wanted[-1].end)) if known.wanted else ()
        begins = known.wanted[0].start if known.wanted else known.first_bar
        left = parting(series.symbol, renames.of(series.symbol), since=begins, written=known.updated)
        owed = until_parting(owed, left)
        sizes = [storage.files.size(Partition(series, period).key) for period in known.rows]
        held = [size for size in sizes if size is not None]
        missing = tuple(hole for hole in owed if can_hold_bars(hole, series.dataset))
        yield SeriesStanding(series, known, missing, len(held), sum(held), renames.unreadable.get(series.symbol), left)


def _pairs(ranges: Sequence[TimeRange]) -> list[list[str]]:
    return [[iso(part.start), iso(part.end)] for part in ranges]
