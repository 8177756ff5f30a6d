"""One series: what its files hold, and where that contradicts what its coverage claims. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa

from data_engine.errors import DamagedFile, StoreError
from data_engine.market.bars import EMPTY, Int64s, within
from data_engine.market.exchange_calendar import can_hold_bars, final_before
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, difference, intersection, iso
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage, Fingerprint
from data_engine.store.coverage_file import key
from data_engine.store.partitions import Partition, Period
from data_engine.verify.daily_reconciliation import SessionSums
from data_engine.verify.file_check import CheckedFile, check_file, check_footer
from data_engine.verify.findings import Finding
from data_engine.verify.price_checks import SanityCheck
from data_engine.verify.session_checks import described, outside_sessions

_TRIES = 3

_MINUTES, _DAYS = Timeframe.parse("1Min"), Timeframe.parse("1Day")

Catalogue = Callable[[], Mapping[Fingerprint, Sequence[Partition]]]
"""Answers which files of the dataset were counted with which content."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a series' files really hold.

    Attributes:
        rows: bars by file, of those that can be believed.
        first: the earliest bar.
        last: the latest.
        files: their fingerprints; none where footers alone were read.
    """

    rows: dict[Period, int]
    first: datetime | None
    last: datetime | None
    files: dict[Period, Fingerprint] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of looking at one series.

    Attributes:
        series: which.
        known: its coverage; None where that cannot be read.
        held: what its files hold.
        findings: contradictions and warnings.
        times: the stamps of its bars, file by file; none where footers alone were read.
    """

    series: Series
    known: Coverage | None
    held: Held
    findings: list[Finding]
    times: list[Int64s]


def check_series(
    storage: BarStore,
    series: Series,
    *,
    now: datetime,
    quick: bool = False,
    catalogue: Catalogue | None = None,
    ex_dates: Collection[date] = (),
) -> Examined:
    """Return what a series' files hold, and where that contradicts its coverage.

    Args:
        storage: of the series.
        series: which.
        now: bars and claims that lie beyond what is final by then cannot be true.
        quick: read the ends of the files alone; then no single bar is judged.
        catalogue: to name whose bars lie in a file that was swapped.
        ex_dates: days on which a corporate action explains a jump of the price.
    """
    made = _examine(storage, series, now, quick, catalogue, ex_dates)
    for _ in range(_TRIES):
        if not any(finding.is_contradiction for finding in made.findings):
            break
        # A run may have written between our look at the coverage and at the files: then look again.
        again = _examine(storage, series, now, quick, catalogue, ex_dates)
        settled = again.known == made.known and again.findings == made.findings
        made = again
        if settled:
            break
    return made


def unfinished(known: Coverage, now: datetime) -> tuple[TimeRange, ...]:
    """Return the ranges in which a run that was killed, or is under way, may have written more than is counted."""
    owed = difference(known.wanted, known.trusted(now))
    return tuple(piece for piece in owed if can_hold_bars(piece, known.series.dataset))


def _examine(
    storage: BarStore, series: Series, now: datetime, quick: bool, catalogue: Catalogue | None, ex_dates: Collection[date]
) -> Examined:
    findings: list[Finding] = []
    known: Coverage | None = None
    try:
        known = storage.coverage.read(series)
    except DamagedFile as error:
        findings.append(Finding("coverage_damaged", str(error), series, key=key(series)))
    except StoreError as error:
        findings.append(Finding("file_unreadable", str(error), series, key=key(series)))
    sanity = SanityCheck(series.dataset, ex_dates)
    sums = None if known is None or series.dataset.timeframe != _MINUTES else SessionSums(known.covered)

    def notice(table: pa.Table) -> None:
        sanity.look(table)
        if sums is not None:
            sums.look(table)

    looks: dict[Period, CheckedFile] = {}
    for partition in storage.partitions(series.dataset, series.symbol):
        files = storage.files
        look = check_footer(files, partition, now) if quick else check_file(files, partition, now, notice)
        if look is not None:
            looks[partition.period] = look
    wrong = {period: look.finding for period, look in looks.items() if look.finding}
    if known is not None:
        wrong.update(_Claims(storage, known, now, catalogue).against(looks))
    findings += [finding for _, finding in sorted(wrong.items(), key=lambda item: item[0])]
    good = {period: look for period, look in looks.items() if period not in wrong}
    held = Held(
        {period: look.rows for period, look in good.items()},
        min((look.first for look in good.values() if look.first), default=None),
        max((look.last for look in good.values() if look.last), default=None),
        {period: look.fingerprint for period, look in good.items() if look.fingerprint},
    )
    if known is not None:
        findings += _against_itself(known, held, now, whole=not wrong)
        findings += _uncounted(known, good, storage.files.location)
    times = [look.times for _, look in sorted(good.items(), key=lambda item: item[0]) if look.times is not None]
    findings += _oddities(series, sanity, times)
    if sums is not None and not quick:
        findings += _disagreements(storage, series, sums)
    return Examined(series, known, held, findings, times)


class _Claims:
    """What a coverage counts, held against the files."""

    def __init__(self, storage: BarStore, known: Coverage, now: datetime, catalogue: Catalogue | None) -> None:
        self._files = storage.files
        self._known = known
        self._open = unfinished(known, now)
        self._catalogue = catalogue

    def against(self, looks: Mapping[Period, CheckedFile]) -> dict[Period, Finding]:
        """Return what is wrong with which file, the worst of each."""
        found = {}
        for period in {*self._known.rows, *looks}:
            look = looks.get(period)
            finding = self._absent(period) if look is None else look.finding or self._changed(look)
            if finding is not None:
                found[period] = finding
        return found

    def _absent(self, period: Period) -> Finding | None:
        partition = Partition(self._known.series, period)
        try:
            if self._files.get(partition.key) is not None:
                return None  # written since the files were listed
        except StoreError as error:  # a folder stands where the file should be
            return Finding("file_unreadable", str(error), partition.series, period, partition.key)
        counted = self._known.rows[period]
        text = f"{self._files.location}/{partition.key} is not there; the coverage counts {counted:,} bars in it"
        return Finding("file_missing", text, partition.series, period, partition.key)

    def _changed(self, look: CheckedFile) -> Finding | None:
        """Return how a file that can be believed differs from the one that was counted, where that is a contradiction."""
        partition = look.partition
        series, period, path = partition.series, partition.period, f"{self._files.location}/{partition.key}"
        mark, counted = self._known.files.get(period), self._known.rows.get(period)
        if _is_marked(look, mark):
            return None
        owner = self._owner(look)
        if owner is not None:
            text = f"{path} has the content that was counted as {owner.key}: bars of {owner.series.symbol}"
            return Finding("file_swapped", text, series, period, partition.key)
        if counted is not None and look.rows < counted:
            text = f"{path} holds {look.rows:,} bars; the coverage counts {counted:,}"
            return Finding("rows_differ", text, series, period, partition.key)
        if mark is None or any(piece.intersect(period.span) for piece in self._open):
            return None  # more is no false claim: a run that was killed, or is under way, has not counted it yet
        size = f"{look.size:,} bytes, not {mark.size:,}" if look.size != mark.size else f"other bytes, {look.size:,} as before"
        text = f"{path} is not the file that was counted ({size}): another program changed it, or the disk did"
        return Finding("file_changed", text, series, period, partition.key)

    def _owner(self, look: CheckedFile) -> Partition | None:
        """Return whose content a file has, if it is another file's."""
        if look.fingerprint is None or self._catalogue is None:
            return None
        return next((one for one in self._catalogue().get(look.fingerprint, ()) if one != look.partition), None)


def _is_marked(look: CheckedFile, mark: Fingerprint | None) -> bool:
    """Tell whether a file has the content that was counted; where it was not read, whether it has the size."""
    if mark is None:
        return False
    return mark == look.fingerprint if look.fingerprint else mark.size == look.size


def _against_itself(known: Coverage, held: Held, now: datetime, *, whole: bool) -> list[Finding]:
    """Return what a coverage says that cannot be true.

    Args:
        known: what it says.
        held: what the files hold.
        now: of the look.
        whole: whether every file is as it was counted; else its first and last bar may be in one that is not.
    """
    series, found = known.series, []
    both = intersection(known.covered, known.provisional)
    if both:
        text = f"the coverage of {series} says of {both[0]} that it is final, and that it may change"
        found.append(Finding("coverage_damaged", text, series, key=key(series)))
    limits = [(part, final_before(series.dataset, now)) for part in known.covered] + [(part, now) for part in known.provisional]
    beyond = [piece for part, limit in limits if (piece := part.after(limit))]
    if beyond:
        text = f"the coverage of {series} claims {beyond[-1]}, which cannot be final at {iso(now.replace(microsecond=0))}"
        found.append(Finding("claims_too_much", text, series, key=key(series)))
    for name, said, really in (("first", known.first_bar, held.first), ("last", known.last_bar, held.last)):
        if said != really and whole and _claims_reach(known, held, said, really, first=name == "first"):
            words = ["none" if one is None else iso(one) for one in (said, really)]
            text = f"the coverage of {series} says that its {name} bar is {words[0]}; by the files it is {words[1]}"
            found.append(Finding("reach_differs", text, series, key=key(series)))
    return found


def _claims_reach(known: Coverage, held: Held, said: datetime | None, really: datetime | None, *, first: bool) -> bool:
    """Tell whether a first or last bar that differs is a false claim: in a range that is claimed, or in a counted file."""
    dataset = known.series.dataset
    if said is not None and (really is None or (said < really if first else said > really)):
        claimed = any(said in piece for piece in (*known.covered, *known.provisional))
        return claimed or Period.of(said, dataset) in known.rows or not held.rows
    if really is None:
        return False
    period = Period.of(really, dataset)
    return known.rows.get(period) == held.rows.get(period)


def _uncounted(known: Coverage, good: Mapping[Period, CheckedFile], location: str) -> list[Finding]:
    """Return which files the coverage does not count as they are: bars first, coverage second, so a kill leaves such."""
    files = []
    for period, look in sorted(good.items(), key=lambda item: item[0]):
        mark = known.files.get(period)
        if look.rows != known.rows.get(period) or (mark is not None and not _is_marked(look, mark)):
            files.append(look)
    if not files:
        return []
    what = "bars that no coverage counts" if not known.rows else "bars that its coverage does not count yet"
    more = f" and {len(files) - 1} more files hold" if len(files) > 1 else " holds"
    text = f"{location}/{files[0].partition.key}{more} {what}: a run was killed or is under way, or its coverage was lost"
    return [Finding("not_counted", text, known.series, key=files[0].partition.key)]


def _oddities(series: Series, sanity: SanityCheck, times: Sequence[Int64s]) -> list[Finding]:
    """Return the warnings about single bars."""
    found = [Finding(flag.code, str(flag), series) for flag in sanity.flags]
    stray = [outside for piece in times if (outside := outside_sessions(piece, series.dataset)).size]
    if stray:
        count = sum(piece.size for piece in stray)
        days = "; ".join(described(piece, series.dataset.timeframe) for piece in stray[:3])
        found.append(Finding("bars_outside_sessions", f"{count:,} bars outside every session of the exchange: {days}", series))
    return found


def _disagreements(storage: BarStore, series: Series, sums: SessionSums) -> list[Finding]:
    """Return where the minutes differ from daily bars, if both are held, by more than they do where nothing is wrong."""
    twin = Series(series.symbol, Dataset(_DAYS, series.dataset.adjustment, series.dataset.feed))
    tables = []
    try:
        final = storage.coverage.read(twin).covered
        for partition in storage.partitions(twin.dataset, twin.symbol):
            days = storage.read(twin, partition.period)
            tables += [within(days, shared) for piece in final if (shared := piece.intersect(partition.period.span))]
    except StoreError:
        return []  # what is wrong with the daily bars is said of them
    differences = sums.against(pa.concat_tables([EMPTY, *tables]))
    if not differences:
        return []
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    text = f"minutes and daily bars differ: {'; '.join(map(str, differences[:3]))}{more}"
    return [Finding("minutes_differ_from_days", text, series)]
