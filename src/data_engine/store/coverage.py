"""What is known of one series: which ranges were wanted, which were answered in full, and what may still change. Pure.

A range is *covered* when it was asked for and answered in full, bars or none. What can still change (the tail) is never
covered: it is *provisional*, and asked again. What failed is simply not covered. Emptiness is covered too, but for a week it
is not relied on where a renamed symbol's earlier bars may yet appear (`trusted`).

Of an adjusted series, what came in several responses is *unconfirmed* until its first bars, fetched again, are the same: a split
or dividend that the vendor works in between two responses leaves prices of two bases. Nothing unconfirmed is claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce

from data_engine.market.finality import final_before, recent_since
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, intersection, unanswered, union
from data_engine.store.dated_ranges import Seen, Tentative, Unconfirmed, without
from data_engine.store.file_count import FileCount, Fingerprint
from data_engine.store.filled import Filled, outside
from data_engine.store.partitions import Period
from data_engine.store.storing import Storing
from data_engine.store.tentative import counted_tentative, tentative_after


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
class Coverage:
    """What is known of one series.

    Attributes:
        series: The series.
        wanted: Every range that was requested; a new request is added to the old ones.
        covered: Ranges that were answered in full and are final.
        provisional: Ranges that were answered and can still change; disjoint from *covered*.
        tentative: Parts of *covered* without bars that a renamed symbol's earlier bars may yet fill.
        imported: Parts of *covered* that the user claimed for imported bars, and that Alpaca never answered.
        unconfirmed: Ranges of an adjusted series that are stored, and not claimed; disjoint from *covered* and *provisional*.
        filled: Of a dataset of fill bars, the ranges that have bars of another source, each with its name; disjoint, in order.
        seen: Ranges that were fetched again since they were covered, each with when; what has left *covered* may still be in it.
        conflicting: The number of stored bars that Alpaca revised or dropped and that were kept, when they were last compared.
        basis_checked: When the first bars of an adjusted series were last found to be as they are stored, UTC.
        rows: The number of bars in each file.
        files: The fingerprints of files as they were counted; not every file has one, nor each one a digest.
        changing: The files that a run was about to change other than by growing. Their counts are not to be believed.
        storing: The marks of users who were about to store bars in files. Each takes back its own marks.
        first_bar: The first stored bar, UTC.
        last_bar: The last stored bar.
        empty_since: When the source first answered without any bar while none was stored; None once there are bars.
        failure: The failure of the last run, if it failed.
        begun: When the first of it was written, UTC: whoever had the ticker then is whose bars these are.
        updated: When this was last written, UTC.
        by: The version of the program that wrote it.
    """

    series: Series
    wanted: tuple[TimeRange, ...] = ()
    covered: tuple[TimeRange, ...] = ()
    provisional: tuple[TimeRange, ...] = ()
    tentative: tuple[Tentative, ...] = ()
    imported: tuple[TimeRange, ...] = ()
    unconfirmed: tuple[Unconfirmed, ...] = ()
    filled: tuple[Filled, ...] = ()
    seen: tuple[Seen, ...] = ()
    conflicting: int = 0
    basis_checked: datetime | None = None
    rows: Mapping[Period, int] = field(default_factory=dict)
    files: Mapping[Period, Fingerprint] = field(default_factory=dict)
    changing: frozenset[Period] = frozenset()
    storing: tuple[Storing, ...] = ()
    first_bar: datetime | None = None
    last_bar: datetime | None = None
    empty_since: datetime | None = None
    failure: Failure | None = None
    begun: datetime | None = None
    updated: datetime | None = None
    by: str = ""

    def fingerprint(self, period: Period) -> Fingerprint | None:
        """Return the fingerprint of a file that is as it was counted, if nobody has changed it; None if that cannot be told."""
        mark = self.files.get(period)
        return mark if mark is not None and mark.digest else None

    @property
    def uncounted(self) -> frozenset[Period]:
        """The files whose counts are not to be believed: somebody was about to change them."""
        return self.changing.union(one.period for one in self.storing) if self.storing else self.changing

    def counted_files(self, span: TimeRange) -> list[Period]:
        """Return the files that *span* touches and whose counts are to be believed, in order of time."""
        return sorted(period for period in self.rows.keys() - self.uncounted if period.span.intersect(span))

    @property
    def bars(self) -> int:
        """How many bars the files hold."""
        return sum(self.rows.values())

    @property
    def since(self) -> datetime | None:
        """The start of what was requested, else of what is claimed, else of the bars: whoever had the ticker then is meant."""
        ranges = self.wanted or self.covered or self.provisional
        return ranges[0].start if ranges else self.first_bar

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is stored, requested or claimed, and nobody has announced to change a file."""
        claimed = self.covered or self.provisional or self.unconfirmed
        return not (self.rows or self.wanted or claimed or self.filled or self.changing or self.storing)

    @property
    def trusted(self) -> tuple[TimeRange, ...]:
        """What need not be requested again: *covered* without what is tentative."""
        return difference(self.covered, (one.range for one in self.tentative)) if self.tentative else self.covered

    @property
    def claimed_until(self) -> datetime | None:
        """The end of the last claim: bars that start earlier had ended when it was made. None without claims."""
        return max((one.end for one in (*self.covered, *self.provisional)), default=None)

    def missing(self, wanted: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
        """Return the parts of *wanted* that have to be requested; what is unconfirmed and final is only compared.

        Of a session that was recent then, only the run that was answered could tell whether it was missing at the vendor.
        """
        at = ((one.range, one.answered) for one in self.unconfirmed)
        limits = ((span, min(final_before(self.series.dataset, answered), recent_since(answered))) for span, answered in at)
        final = (part for span, limit in limits if (part := span.before(limit)))
        return difference(wanted, (*self.trusted, *final))

    def wanting(self, *ranges: TimeRange) -> Coverage:
        """Return the same with more requested ranges."""
        wanted = union((*self.wanted, *ranges))
        return self if wanted == self.wanted else replace(self, wanted=wanted)

    def answered(self, span: TimeRange, *, final_before: datetime, now: datetime, counts: Mapping[Period, FileCount]) -> Coverage:
        """Return the same after *span* was answered in full and its bars are on disk.

        Args:
            span: The range that was answered.
            final_before: Bars that start earlier no longer change.
            now: When it was requested.
            counts: What is now in the files that were touched, and in those that hold the first and the last bar.
        """
        final, open_ = span.before(final_before), span.after(final_before)
        covered = union((*self.covered, final)) if final else self.covered
        provisional = union((*self.provisional, open_)) if open_ else self.provisional
        made = self.counted(counts)
        adjusted = not self.series.dataset.adjustment.is_raw
        first = adjusted and made.rows and not (self.covered or self.provisional or self.unconfirmed)
        made = replace(
            made,
            covered=covered,
            provisional=difference(provisional, covered),
            imported=difference(self.imported, (span,)),
            unconfirmed=without(self.unconfirmed, span),
            basis_checked=now if first else self.basis_checked,
            empty_since=None if made.first_bar else (self.empty_since or now),
        )
        return replace(made, tentative=tentative_after(self, made, final, now))

    def reopened(self, ranges: Iterable[TimeRange]) -> Coverage:
        """Return the same where what is covered inside *ranges* is provisional."""
        parts = intersection(self.covered, ranges)
        if not parts:
            return self
        return replace(
            self,
            covered=difference(self.covered, parts),
            provisional=union((*self.provisional, *parts)),
            imported=difference(self.imported, parts),
            tentative=without(self.tentative, *parts),
        )

    def closed(self, ranges: Iterable[TimeRange], *, now: datetime, counts: Mapping[Period, FileCount]) -> Coverage:
        """Return the same where what is provisional inside *ranges* is covered, after bars of it were removed.

        Args:
            ranges: The ranges.
            now: When they were requested.
            counts: What is now in the files that were touched, and in those that hold the first and the last bar.
        """
        parts = intersection(self.provisional, ranges)
        made = self.counted(counts) if counts else self
        made = replace(
            made,
            covered=union((*self.covered, *parts)),
            provisional=difference(self.provisional, parts),
            empty_since=None if made.first_bar else (self.empty_since or now),
        )
        for part in parts:
            made = replace(made, tentative=tentative_after(made, made, part, now))
        return made

    def with_unconfirmed(self, span: TimeRange, *, now: datetime, counts: Mapping[Period, FileCount]) -> Coverage:
        """Return the same after *span* was answered in full, its bars are on disk, and their price base is unconfirmed.

        Args:
            span: The range that was answered.
            now: When it was requested.
            counts: What is now in the files that were touched, and in those that hold the first and the last bar.
        """
        made = self.counted(counts).unclaimed(span)
        unconfirmed = (*made.unconfirmed, Unconfirmed(span, now))
        return replace(made, unconfirmed=tuple(sorted(unconfirmed, key=lambda one: one.range)), empty_since=None)

    def unclaimed(self, span: TimeRange) -> Coverage:
        """Return the same without any claim inside *span*, before bars of another price base may be moved there."""
        return replace(
            self,
            covered=difference(self.covered, (span,)),
            provisional=difference(self.provisional, (span,)),
            imported=difference(self.imported, (span,)),
            tentative=without(self.tentative, span),
            unconfirmed=without(self.unconfirmed, span),
            filled=outside(self.filled, (span,)),
        )

    def claimed(self, ranges: Iterable[TimeRange]) -> Coverage:
        """Return the same where some ranges are covered by the user's word: Alpaca was not asked for what is new of them.

        Args:
            ranges: The ranges, whose bars are stored and final.
        """
        new = difference(ranges, (*self.covered, *self.provisional))
        covered = union((*self.covered, *new))
        return replace(self, wanted=union((*self.wanted, *new)), covered=covered, imported=union((*self.imported, *new)))

    def without_files(self, lost: Iterable[Period], counts: Mapping[Period, FileCount]) -> Coverage:
        """Return the same after files were found to be gone: their ranges are requested, and not claimed any more.

        Args:
            lost: The files.
            counts: What is now in them, and in those that hold the first and the last bar.
        """
        spans = [period.span for period in lost]
        made = reduce(Coverage.unclaimed, spans, self.counted(counts))
        claims = intersection((*self.covered, *self.provisional, *(one.range for one in self.unconfirmed)), spans)
        return made.wanting(*claims) if claims else made

    def confirmed(self, now: datetime) -> Coverage:
        """Return the same after the first bars of the series, and those of all that is unconfirmed, came again as they are.

        Args:
            now: When they were requested.
        """
        made = replace(self, unconfirmed=(), basis_checked=now)
        for one in self.unconfirmed:
            limit = final_before(self.series.dataset, one.answered)
            made = made.answered(one.range, final_before=limit, now=one.answered, counts={})
        return replace(made, basis_checked=now).succeeded()

    def counted(self, counts: Mapping[Period, FileCount]) -> Coverage:
        """Return the same with files counted anew, and the first and the last bar read from that.

        Where another bar is the first one, emptiness before it may not be final any more.

        Args:
            counts: What is in some files, those with the first and the last bar among them if they are not as they were.
        """
        made = self._with_counts(counts)
        return replace(made, tentative=counted_tentative(self, made))

    def _with_counts(self, counts: Mapping[Period, FileCount]) -> Coverage:
        rows = {**self.rows, **{period: count.rows for period, count in counts.items()}}
        rows = {period: rows[period] for period in sorted(rows) if rows[period]}
        files = {period: mark for period, mark in self.files.items() if period in rows and period not in counts}
        files |= {period: count.fingerprint for period, count in counts.items() if count.fingerprint and period in rows}
        first, last = (counts.get(edge) for edge in (min(rows), max(rows))) if rows else (None, None)
        return replace(
            self,
            rows=rows,
            files=files,
            changing=self.changing - counts.keys(),
            first_bar=None if not rows else first.first if first else self.first_bar,
            last_bar=None if not rows else last.last if last else self.last_bar,
            empty_since=None if rows else self.empty_since,
        )

    def recounted(self, counts: Mapping[Period, FileCount]) -> Coverage:
        """Return the same with files counted anew that killed writers were changing; nothing is claimed of those that are gone.

        Not so of those from which a run was removing bars.

        Args:
            counts: What is in some files, those with the first and the last bar among them if they are not as they were.
        """
        return self.without_files(self._gone(counts), counts)

    def _gone(self, counts: Mapping[Period, FileCount]) -> list[Period]:
        # What a killed run was changing may be gone because it was being removed.
        counted = self.rows.keys() - self.changing
        return [period for period, count in counts.items() if period in counted and not count.rows]

    def with_storing(self, marks: Collection[Storing]) -> Coverage:
        """Return the same with the marks of a user who is about to store bars."""
        made = self.without_fingerprints(one.period for one in marks)
        return replace(made, storing=tuple(sorted({*self.storing, *marks})))

    def with_stored(self, counts: Mapping[Period, FileCount], marks: Collection[Storing] = ()) -> Coverage:
        """Return the same after a user stored bars in the files of *counts*: they make no earlier emptiness final.

        Args:
            counts: The files. What a run is changing stays marked: that run, or the next one, counts it.
            marks: The marks of this user, which are taken back.
        """
        left = tuple(one for one in self.storing if one not in marks)
        made = reduce(Coverage.unclaimed, (period.span for period in self._gone(counts)), self._with_counts(counts))
        made = replace(made, empty_since=None, changing=self.changing, storing=left)
        since = self.empty_since or self.begun
        return made if since is None else replace(made, tentative=tentative_after(self, made, None, since))

    def edges(self, touched: Iterable[Period], rows: Mapping[Period, int]) -> frozenset[Period]:
        """Return the files that must be counted so that the first and the last bar are known after some files were touched.

        Args:
            touched: The files that are counted anyway.
            rows: The number of bars in those files.
        """
        known = set(touched)
        left = sorted({period for period, count in {**self.rows, **rows}.items() if count})
        dataset = self.series.dataset
        asked = set()
        for edge, bar in ((left[0], self.first_bar), (left[-1], self.last_bar)) if left else ():
            if edge not in known and (bar is None or Period.of(bar, dataset) != edge):
                asked.add(edge)
        return frozenset(asked)

    def without(self, span: TimeRange, counts: Mapping[Period, FileCount]) -> Coverage:
        """Return the same after the bars inside *span* were removed: neither covered nor requested any more.

        Args:
            span: The range whose bars were removed.
            counts: What is now in the files that were touched, and in those that hold the first and the last bar.
        """
        made = self.counted(counts)
        return replace(
            made,
            wanted=difference(self.wanted, (span,)),
            covered=difference(self.covered, (span,)),
            provisional=difference(self.provisional, (span,)),
            imported=difference(self.imported, (span,)),
            tentative=without(made.tentative, span),
            unconfirmed=without(self.unconfirmed, span),
            filled=outside(self.filled, (span,)),
            files={period: mark for period, mark in made.files.items() if not period.span.intersect(span)},
        )

    def with_changing(self, periods: Iterable[Period]) -> Coverage:
        """Return the same with files that are about to change other than by growing."""
        gone = frozenset(periods)
        files = {period: mark for period, mark in self.files.items() if period not in gone}
        return replace(self, changing=self.changing | gone, files=files)

    def without_fingerprints(self, periods: Iterable[Period]) -> Coverage:
        """Return the same without the fingerprints of some files, which are about to change while their range stays covered."""
        gone = frozenset(periods)
        return replace(self, files={period: mark for period, mark in self.files.items() if period not in gone})

    def cleared(self) -> Coverage:
        """Return the same with nothing claimed, before files of another price base are moved into place."""
        changing = self.changing | self.rows.keys()
        return replace(self, covered=(), provisional=(), imported=(), tentative=(), unconfirmed=(), files={}, changing=changing)

    def failed(self, code: str, message: str, at: datetime) -> Coverage:
        """Return the same with the reason why it is not complete."""
        return replace(self, failure=Failure(code, message, at))

    def succeeded(self) -> Coverage:
        """Return the same without an old failure, once nothing that was wanted is left."""
        left = self.failure and difference(self.wanted, (*self.covered, *self.provisional))
        return self if left else replace(self, failure=None)

    def incomplete(self, span: TimeRange, now: datetime) -> tuple[TimeRange, ...]:
        """Return the parts of *span* that were requested and are neither covered nor provisional.

        Nothing from the bar on that contains *now* is: it has not ended.
        """
        ended = span.before(self.series.dataset.timeframe.floor(now))
        return unanswered(ended, self.wanted, (*self.covered, *self.provisional)) if ended else ()
