"""Define what can be wrong with a store: the codes of findings, and what `verify --repair` does about each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from data_engine.market.series import Series
from data_engine.store.partitions import Partition, Period

MANUAL = "manual: "
"""How the remedy of a finding begins if `verify --repair` does nothing about it."""

_QUARANTINED = "moved to metadata/set_aside and no longer covered; `data-engine update` fetches it again"

_UNCOVERED = "counted again and no longer covered; `data-engine update` fetches it again"

_CHECK_LISTING = f"{MANUAL}check listing and ticker of the symbol; `data-engine ingest --refetch` requests the range again"

_CHECK_BARS = f"{MANUAL}check these bars; delete false ones with `data-engine remove`"

INCONSISTENCIES = {
    "actions_damaged": f"{MANUAL}delete the file, then run `data-engine actions SYMBOL`",
    "bar_range_differs": "first and last bar taken from the files",
    "bars_damaged": _QUARANTINED,
    "bars_in_future": _QUARANTINED,
    "bars_off_grid": _QUARANTINED,
    "coverage_damaged": "rebuilt from the files; `data-engine update` fetches its ranges again",
    "coverage_not_final": "no longer covered where bars are not final; `data-engine update` fetches it again",
    "file_changed": _QUARANTINED,
    "file_damaged": _QUARANTINED,
    "file_missing": "no longer counted or covered; `data-engine update` fetches it again",
    "file_swapped": _QUARANTINED,
    "file_unreadable": f"{MANUAL}grant read permission, or move the folder that stands in its place; then verify again",
    "index_damaged": f"{MANUAL}store the list again with `data-engine ingest --index NAME` and its source, or correct the file",
    "index_history_missing": f"{MANUAL}restore the file from a backup, or import the past with `data-engine index import`",
    "legacy_bars": f"{MANUAL}run `data-engine import --in-place`, which unites them with the stored bars",
    "requested_damaged": "moved to metadata/set_aside; request with `data-engine ingest` what it was for",
    "rows_differ": _UNCOVERED,
    "ticker_reassigned": f"{MANUAL}delete the bars of the other security with `data-engine remove`, then refetch",
    "unrecognized_bars": "moved to metadata/set_aside, since readers of the whole dataset see its rows",
}
"""Remedies of inconsistencies, by code: files, coverage and calendar disagree."""

WARNINGS = {
    "actions_local": f"{MANUAL}nothing if they are right; `data-engine actions drop SYMBOL --undo` removes them",
    "actions_suspect": f"{MANUAL}check the records; correct them with `data-engine actions set` or `actions drop`",
    "bars_disordered": _CHECK_BARS,
    "bars_outside_sessions": f"{MANUAL}bars are stored as Alpaca sent them; delete false ones with `data-engine remove`",
    "extended_hours_missing": f"{MANUAL}run `data-engine ingest --refetch` to request the sessions again",
    "fill_superseded": f"{MANUAL}nothing; `data-engine remove SYMBOL --fill` removes bars of other sources",
    "gap": f"{MANUAL}run `data-engine ingest --refetch` to request the range again",
    "history_damaged": f"{MANUAL}restore the file from a backup, or drop older states with `data-engine history prune`",
    "history_ends": f"{MANUAL}nothing; another program changed the files, and their earlier states cannot be read",
    "index_differs": f"{MANUAL}store the list again with `data-engine ingest --index NAME` and its source",
    "legacy_layout": f"{MANUAL}run `data-engine import --in-place`",
    "minutes_missing": f"{MANUAL}run `data-engine ingest --refetch` to request the sessions again",
    "minutes_differ_from_days": _CHECK_BARS,
    "not_in_coverage": "added to the coverage; `data-engine update` fetches what is requested of it",
    "price_break": _CHECK_BARS,
    "price_frozen": _CHECK_BARS,
    "price_jump": _CHECK_BARS,
    "price_not_positive": _CHECK_BARS,
    "price_order": _CHECK_BARS,
    "price_spike": _CHECK_BARS,
    "price_wick": _CHECK_BARS,
    "quarantined": f"{MANUAL}delete the files if they are not needed as evidence",
    "range_missing": f"{MANUAL}run `data-engine update`",
    "same_content": f"{MANUAL}fetch ticker changes with `data-engine actions`; delete false bars with `data-engine remove`",
    "series_begins_late": _CHECK_LISTING,
    "series_ends_early": _CHECK_LISTING,
    "session_repeated": _CHECK_BARS,
    "session_sparse": f"{MANUAL}run `data-engine ingest --refetch` to request the sessions again",
    "split_contradicted": f"{MANUAL}check the action and the bars; `data-engine actions SYMBOL --refetch` fetches actions again",
    "temporary_files_left": "removed, as every run that writes does",
    "timestamps_shifted": f"{MANUAL}check the time zone and label of the source; remove the bars and store them again",
    "unrecognized_file": f"{MANUAL}move or delete the file",
    "volume_negative": _CHECK_BARS,
    "volume_unusual": _CHECK_BARS,
    "vwap_outside": _CHECK_BARS,
}
"""Remedies of warnings, by code: unusual, but possible."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An inconsistency or a warning.

    Attributes:
        code: A stable code, a key of `INCONSISTENCIES` or `WARNINGS`.
        message: What was found, with the path or the times.
        series: The series. If None, the finding is about the store.
        period: The period of the bar file. If None, the finding is about no single bar file.
        key: The path in the store. If empty, the finding is about no single file.
    """

    code: str
    message: str
    series: Series | None = None
    period: Period | None = None
    key: str = ""

    @classmethod
    def of_file(cls, code: str, message: str, partition: Partition) -> Finding:
        """Return a finding about a bar file."""
        return cls(code, message, partition.series, partition.period, partition.key)

    def __post_init__(self) -> None:
        if self.code not in INCONSISTENCIES and self.code not in WARNINGS:
            raise ValueError(f"unknown finding code {self.code!r}")

    @property
    def is_inconsistency(self) -> bool:
        """Whether it is an inconsistency, not a warning."""
        return self.code in INCONSISTENCIES

    @property
    def remedy(self) -> str:
        """What `verify --repair` does about it; begins with `MANUAL` if that does nothing."""
        remedy = INCONSISTENCIES.get(self.code) or WARNINGS[self.code]
        if self.series is not None and self.series.dataset.fill:  # Alpaca has not got these bars
            return re.sub("`data-engine (update|ingest --refetch)` .*", "`data-engine import --fill` adds them again", remedy)
        return remedy

    @property
    def repairable(self) -> bool:
        """Whether `verify --repair` does anything about it."""
        return not self.remedy.startswith(MANUAL)

    def to_json(self) -> dict[str, str | None]:
        """Return the fields that ``verify --json`` prints."""
        return {
            "dataset": self.series.dataset.name if self.series else None,
            "symbol": self.series.symbol if self.series else None,
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "file": self.key or None,
        }

    def __str__(self) -> str:
        return f"{self.series}: {self.message}" if self.series else self.message
