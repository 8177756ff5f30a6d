"""What is known of one series: which ranges were wanted, which were answered in full, and what may still change. Pure.

A range is *covered* when it was asked for and answered in full, bars or none. What can still change (the tail) is never
covered: it is *provisional*, and asked again. What failed is simply not covered. Emptiness is covered too, but for a week it
is not relied on where a renamed symbol's earlier bars may yet appear (`settled`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256

from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, intersection, union
from data_engine.store.partitions import Period

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

    def trusted(self, now: datetime) -> tuple[TimeRange, ...]:
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
        return difference(wanted, self.trusted(now))

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

    def without_fingerprints(self, periods: Iterable[Period]) -> Coverage:
        """Return the same without the fingerprints of some files, which are about to change while their range stays covered."""
        gone = frozenset(periods)
        return replace(self, files={period: mark for period, mark in self.files.items() if period not in gone})

    def cleared(self) -> Coverage:
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
