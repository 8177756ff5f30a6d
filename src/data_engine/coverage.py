"""What is known of one series: which ranges were wanted, which were answered in full, and what may still change. Pure.

A range is *covered* when it was asked for and answered in full, bars or none. What can still change (the tail) is never
covered: it is *provisional*, and asked again. What failed is simply not covered. Emptiness is covered too, but for a week it
is not relied on where a renamed symbol's earlier bars may yet appear (`settled`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from data_engine.partitions import Period
from data_engine.ranges import TimeRange, difference, from_iso, intersection, iso, union
from data_engine.series import Dataset, Series

FORMAT = 1
TENTATIVE = timedelta(days=7)
"""How long emptiness without bars before it is asked again: the vendor maps a renamed symbol's bars from the next day on."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last run could not complete the series.

    Attributes:
        code: stable, for machines.
        message: for people.
        at: when, UTC.
    """

    code: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one file's content from every other: how `verify` sees that a file was swapped, changed or put back.

    Attributes:
        size: in bytes.
        digest: the first 16 hexadecimal digits of its SHA-256, which processors compute faster than any other.
    """

    size: int
    digest: str

    @classmethod
    def of(cls, content: bytes) -> Fingerprint:
        """Return the fingerprint of a file's content."""
        return cls(len(content), sha256(content).hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of one series.

    Attributes:
        series: whose coverage this is.
        wanted: every range that was asked to be ingested; a new wish is added to the old ones.
        covered: answered in full and final.
        provisional: answered, but able to change; disjoint from *covered*.
        rows: how many bars each file holds.
        files: fingerprints of those files whose content was counted as it was written; not every file has one.
        first_bar: the earliest bar that ever came, UTC.
        last_bar: the latest.
        empty_since: when the vendor first answered with no bar at all while none was held; None once there are bars.
        failure: of the last run, if it failed.
        begun: when the first of it was written, UTC: whoever had the ticker then is whose bars these are.
        updated: when this was last written, UTC.
        by: which version of the program wrote it.
    """

    series: Series
    wanted: tuple[TimeRange, ...] = ()
    covered: tuple[TimeRange, ...] = ()
    provisional: tuple[TimeRange, ...] = ()
    rows: Mapping[Period, int] = field(default_factory=dict)
    files: Mapping[Period, Fingerprint] = field(default_factory=dict)
    first_bar: datetime | None = None
    last_bar: datetime | None = None
    empty_since: datetime | None = None
    failure: Failure | None = None
    begun: datetime | None = None
    updated: datetime | None = None
    by: str = ""

    @property
    def bars(self) -> int:
        """How many bars the files hold."""
        return sum(self.rows.values())

    def settled(self, now: datetime) -> tuple[TimeRange, ...]:
        """Return what need not be asked again: *covered*, without emptiness that is less than a week old.

        Emptiness before the first bar counts once that bar is more than a week old; that of a series without any bar, a
        week after it was first met.
        """
        if self.first_bar is None:
            old = self.empty_since is not None and now - self.empty_since > TENTATIVE
            return self.covered if old else ()
        if now - self.first_bar > TENTATIVE:
            return self.covered
        return tuple(piece for part in self.covered if (piece := part.after(self.first_bar)))

    def missing(self, wanted: Iterable[TimeRange], now: datetime) -> tuple[TimeRange, ...]:
        """Return the parts of *wanted* that have to be asked for."""
        return difference(wanted, self.settled(now))

    def wanting(self, span: TimeRange) -> Coverage:
        """Return the same with one more wish."""
        return replace(self, wanted=union((*self.wanted, span)))

    def answered(
        self,
        span: TimeRange,
        *,
        final_before: datetime,
        now: datetime,
        rows: Mapping[Period, int],
        first: datetime | None,
        last: datetime | None,
        files: Mapping[Period, Fingerprint] | None = None,
    ) -> Coverage:
        """Return the same after *span* was answered in full and its bars are on disk.

        Args:
            span: what was answered.
            final_before: bars that start earlier no longer change.
            now: when it was asked.
            rows: the bars now in each file that was touched.
            first: the earliest bar of the answer, None where it had none.
            last: the latest.
            files: the fingerprints of files that were touched.
        """
        final, open_ = span.before(final_before), span.after(final_before)
        covered = union((*self.covered, final)) if final else self.covered
        provisional = union((*self.provisional, open_)) if open_ else self.provisional
        firsts = [stamp for stamp in (self.first_bar, first) if stamp is not None]
        lasts = [stamp for stamp in (self.last_bar, last) if stamp is not None]
        held = {period: count for period, count in {**self.rows, **rows}.items() if count}
        empty_since = None if firsts else (self.empty_since or now)
        return replace(
            self,
            covered=covered,
            provisional=difference(provisional, covered),
            rows=held,
            files={period: mark for period, mark in {**self.files, **(files or {})}.items() if period in held},
            first_bar=min(firsts, default=None),
            last_bar=max(lasts, default=None),
            empty_since=empty_since,
        )

    def without(self, span: TimeRange, rows: Mapping[Period, int], first: datetime | None, last: datetime | None) -> Coverage:
        """Return the same after the bars inside *span* were taken out: neither covered nor wanted any more.

        Args:
            span: what was taken out.
            rows: the bars left in each file that was touched.
            first: the earliest bar that is left.
            last: the latest.
        """
        held = {period: count for period, count in {**self.rows, **rows}.items() if count}
        return replace(
            self,
            wanted=difference(self.wanted, (span,)),
            covered=difference(self.covered, (span,)),
            provisional=difference(self.provisional, (span,)),
            rows=held,
            files={period: mark for period, mark in self.files.items() if not period.span.intersect(span)},
            first_bar=first,
            last_bar=last,
        )

    def unmarked(self, periods: Iterable[Period]) -> Coverage:
        """Return the same without the fingerprints of some files, which are about to change while their range stays covered."""
        gone = frozenset(periods)
        return replace(self, files={period: mark for period, mark in self.files.items() if period not in gone})

    def withdrawn(self) -> Coverage:
        """Return the same with nothing claimed, before files of another price base are moved into place."""
        return replace(self, covered=(), provisional=(), files={})

    def failed(self, code: str, message: str, at: datetime) -> Coverage:
        """Return the same with the reason why it is not complete."""
        return replace(self, failure=Failure(code, message, at))

    def succeeded(self) -> Coverage:
        """Return the same without an old failure, once nothing that was wanted is left."""
        left = self.failure and difference(self.wanted, (*self.covered, *self.provisional))
        return self if left else replace(self, failure=None)

    def incomplete(self, span: TimeRange) -> tuple[TimeRange, ...]:
        """Return the parts of *span* that were wanted and are neither covered nor provisionally there."""
        return difference(intersection((span,), self.wanted), (*self.covered, *self.provisional))


# ------------------------------------------------------------------------------------------------------- as a JSON file


def key(series: Series) -> str:
    """Return the path of a series' coverage file below the store."""
    from data_engine.partitions import encode_symbol

    return f"{folder(series.dataset)}/symbol={encode_symbol(series.symbol)}.json"


def folder(dataset: Dataset) -> str:
    """Return the folder of a dataset's coverage files below the store."""
    return f"metadata/coverage/{dataset.name}"


def dump(coverage: Coverage) -> bytes:
    """Write coverage as the bytes of its JSON file: one interval a line, for people too."""
    dataset = coverage.series.dataset
    failure = coverage.failure
    fields: list[tuple[str, Any]] = [
        ("format", FORMAT),
        ("symbol", coverage.series.symbol),
        ("timeframe", str(dataset.timeframe)),
        ("feed", dataset.feed.value),
        ("adjustment", str(dataset.adjustment)),
        ("wanted", _pairs(coverage.wanted)),
        ("covered", _pairs(coverage.covered)),
        ("provisional", _pairs(coverage.provisional)),
        ("bars", coverage.bars),
        ("first_bar", _stamp(coverage.first_bar)),
        ("last_bar", _stamp(coverage.last_bar)),
        ("empty_since", _stamp(coverage.empty_since)),
        ("failure", {"code": failure.code, "message": failure.message, "at": iso(failure.at)} if failure else None),
        ("rows", {_period(period): count for period, count in sorted(coverage.rows.items())}),
        ("files", {_period(period): [mark.size, mark.digest] for period, mark in sorted(coverage.files.items())}),
        ("begun", _stamp(coverage.begun)),
        ("updated", _stamp(coverage.updated)),
        ("by", coverage.by),
    ]
    return ("{\n" + ",\n".join(f"  {json.dumps(name)}: {_lines(value)}" for name, value in fields) + "\n}\n").encode()


def load(data: bytes, series: Series) -> Coverage:
    """Undo `dump`.

    Raises:
        ValueError: damaged, of a newer format, or of another series.
    """
    try:
        fields = json.loads(data)
        if fields["format"] != FORMAT:
            raise ValueError(f"its format is {fields['format']!r}, this program knows {FORMAT}")
        dataset = series.dataset
        found = (fields["symbol"], fields["timeframe"], fields["feed"], fields["adjustment"])
        if found != (series.symbol, str(dataset.timeframe), dataset.feed.value, str(dataset.adjustment)):
            raise ValueError(f"it is the coverage of {' '.join(map(str, found))}")
        failure = fields["failure"]
        return Coverage(
            series,
            wanted=_ranges(fields["wanted"]),
            covered=_ranges(fields["covered"]),
            provisional=_ranges(fields["provisional"]),
            rows=_rows(fields["rows"], dataset),
            files=_files(fields.get("files", {})),  # older files have none
            first_bar=_instant(fields["first_bar"]),
            last_bar=_instant(fields["last_bar"]),
            empty_since=_instant(fields["empty_since"]),
            failure=Failure(failure["code"], failure["message"], from_iso(failure["at"])) if failure else None,
            begun=_instant(fields.get("begun", fields["updated"])),  # older files have none
            updated=_instant(fields["updated"]),
            by=fields["by"],
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it lacks {error}" if isinstance(error, KeyError) else str(error)) from error


def _pairs(ranges: Iterable[TimeRange]) -> list[list[str]]:
    return [[iso(piece.start), iso(piece.end)] for piece in ranges]


def _ranges(pairs: list[list[str]]) -> tuple[TimeRange, ...]:
    made = tuple(TimeRange(from_iso(start), from_iso(end)) for start, end in pairs)
    if union(made) != made:
        raise ValueError("its ranges overlap or are not in order")
    return made


def _stamp(instant: datetime | None) -> str | None:
    return None if instant is None else iso(instant)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else from_iso(text)


def _period(period: Period) -> str:
    return f"{period.year:04d}" if period.month is None else f"{period.year:04d}-{period.month:02d}"


def _period_of(text: str) -> Period:
    year, _, month = text.partition("-")
    return Period(int(year), int(month) if month else None)


def _rows(fields: Mapping[str, Any], dataset: Dataset) -> dict[Period, int]:
    rows = {_period_of(text): count for text, count in fields.items()}
    for period, count in rows.items():
        month = period.month
        if (month is not None) != dataset.timeframe.intraday or month not in (None, *range(1, 13)):
            raise ValueError(f"it counts bars in {_period(period)}, which is no file of {dataset.name}")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ValueError(f"it counts {count!r} bars in {_period(period)}")
    return rows


def _files(fields: Mapping[str, Any]) -> dict[Period, Fingerprint]:
    files = {_period_of(text): Fingerprint(size, digest) for text, (size, digest) in fields.items()}
    for period, mark in files.items():
        if type(mark.size) is not int or not isinstance(mark.digest, str):
            raise ValueError(f"it has {mark.size!r} and {mark.digest!r} for the fingerprint of {_period(period)}")
    return files


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
    return json.dumps(value)
