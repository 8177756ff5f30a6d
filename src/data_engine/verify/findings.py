"""What can be wrong with a store, as values: `Finding`, and the words for it.

A *contradiction* is something that cannot be true together with what the store claims, or with what every reader of its files
takes for granted. A *warning* is something that may be true, and that a person should know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data_engine.market.series import Series
from data_engine.store.partitions import Period

_ASIDE = "set aside under metadata/set_aside; no longer covered; `update` asks for it again"

_AGAIN = "counted anew; no longer covered; `update` asks for it again"

_PERSON = "nothing: a person must look"

CONTRADICTIONS = {
    "actions_damaged": "nothing: remove the file; `data-engine actions` brings that symbol's actions anew",
    "bars_damaged": _ASIDE,
    "bars_in_future": _ASIDE,
    "bars_off_grid": _ASIDE,
    "claims_too_much": "no longer covered beyond what is final; `update` asks for it again",
    "coverage_damaged": "rebuilt from the files; its ranges are asked for again by `update`",
    "file_changed": _ASIDE,
    "file_damaged": _ASIDE,
    "file_missing": "no longer counted or covered; `update` asks for it again",
    "file_swapped": _ASIDE,
    "file_unreadable": "nothing: give this user the right to read it, or move away what stands in its place, and verify again",
    "foreign_bars": "set aside under metadata/set_aside: readers that take every Parquet file of the dataset see its rows",
    "index_damaged": "nothing: store the list again with `data-engine ingest --index NAME` and its source, or mend it by hand",
    "reach_differs": "first and last bar are taken from the files",
    "rows_differ": _AGAIN,
}
"""Every contradiction, by its code, and what a repair does about it."""

WARNINGS = {
    "bars_outside_sessions": "nothing: bars are kept as the vendor sent them; `remove` takes them out, if they are false",
    "drafts_left": "removed, as every run does that writes",
    "foreign_file": _PERSON,
    "hole": "nothing: the vendor answered; `ingest --refetch` asks once more",
    "minutes_differ_from_days": _PERSON,
    "not_counted": "counted; what is wanted of it is asked for by `update`",
    "not_held": "nothing: `update` asks for it",
    "price_jump": _PERSON,
    "price_not_positive": _PERSON,
    "price_order": _PERSON,
    "price_spike": _PERSON,
    "reference_layout": "nothing: `import` brings such bars into a store",
    "set_aside": "nothing: they are evidence; delete them when nobody needs them",
    "volume_negative": _PERSON,
    "vwap_outside": _PERSON,
}
"""Every warning, by its code, and what a repair does about it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or strange.

    Attributes:
        code: stable word, a key of `CONTRADICTIONS` or of `WARNINGS`.
        message: for people; it names the file, or the times.
        series: whose; None where it is about no series.
        period: of the bar file that it is about; None where it is about none.
        key: the path below the store, where it is about one file.
    """

    code: str
    message: str
    series: Series | None = None
    period: Period | None = None
    key: str = ""

    def __post_init__(self) -> None:
        if self.code not in CONTRADICTIONS and self.code not in WARNINGS:
            raise ValueError(f"{self.code!r} is no code of a finding")

    @property
    def is_contradiction(self) -> bool:
        """Whether it is a contradiction."""
        return self.code in CONTRADICTIONS

    @property
    def remedy(self) -> str:
        """What a repair does about it."""
        return CONTRADICTIONS.get(self.code) or WARNINGS[self.code]

    @property
    def repairable(self) -> bool:
        """Whether a repair does anything about it."""
        return not self.remedy.startswith("nothing")

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


def contradictions(findings: Iterable[Finding]) -> list[Finding]:
    """Return those that are contradictions."""
    return [finding for finding in findings if finding.is_contradiction]


def warnings(findings: Iterable[Finding]) -> list[Finding]:
    """Return those that are none."""
    return [finding for finding in findings if not finding.is_contradiction]
