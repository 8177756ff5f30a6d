"""Parse a request for stored bars: `BarQuery`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal, TypedDict, Unpack

import pyarrow as pa

from data_engine.corporate_actions.adjustment import CONVENTIONS, PRIOR_CLOSE
from data_engine.errors import InputError
from data_engine.market.bars import VALUES
from data_engine.market.dates import DateLike, parse_day, parse_span
from data_engine.market.resampling import Resampling, check_within_sessions
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.session_hours import Hours
from data_engine.market.symbol import check_symbol, ticker_of
from data_engine.market.time_range import TimeRange
from data_engine.store.conflicts import Conflicts
from data_engine.store.filled import Filled

SessionName = Literal["all", "regular", "extended"]

Incomplete = Literal["warn", "raise", "ignore"]

Prices = Literal["computed", "vendor"]

Source = Literal["any", "vendor"]

Conflicting = Literal["stored", "vendor", "raise"]

Unadjustable = Literal["raise", "drop"]

Step = Callable[[str, pa.Table], pa.Table]
"""A change of a symbol's bars: the symbol and its bars (by time; ``timestamp`` and `BarQuery.needed`) in, bars out.

It must give the same for New York days one by one as for all of them at once, since batches are cut at midnight.
"""


class ReadOptions(TypedDict, total=False):
    """The keyword arguments that all ways of reading share; `ParquetStorage.load` documents them and their defaults."""

    index: str | None
    as_of: date | str | None
    convention: str
    prices: Prices | None
    unadjustable: Unadjustable
    timeframe: object
    feed: object
    adjustment: object
    columns: str | Sequence[str] | None
    session: SessionName | None
    resample: object
    incomplete: Incomplete
    final: bool
    source: Source
    conflicting: Conflicting
    fill: bool
    as_stored_on: DateLike | None


@dataclass(frozen=True, slots=True)
class BarQuery:
    """A request for stored bars, parsed.

    Attributes:
        symbols: The symbols, sorted, as in the result.
        dataset: The dataset to read.
        adjustment: The adjustment of the result; it differs from the dataset's if raw bars are adjusted as they are read.
        span: The range in which the bars of the result start.
        open_end: Whether no end was given, so that the range ends now.
        before: The instant before which they start; earlier than the end of *span* if a computed bar has not ended yet.
        columns: The columns of the result, beside symbol and timestamp.
        hours: The hours of the day.
        resampling: The bars to compute from the stored ones. If None, stored bars are returned.
        incomplete: What to do about a missing range.
        final: Whether provisional bars are left out.
        source: Whose bars are requested: ``any``, or those in ranges that Alpaca answered (``vendor``).
        index: The index whose members are requested. If None, symbols are.
        members: The ranges in which each symbol was a member of the index. Its other bars are not in the result.
        as_of: The last day whose corporate actions count. If None, today.
        prices: Where adjusted prices come from: ``computed`` from raw bars, or ``vendor``. If None, by what is stored.
        unadjustable: What to do about symbols that cannot be adjusted: ``raise`` or ``drop``.
        convention: The convention by which a dividend is measured.
        adjust: The step that applies corporate actions to raw bars. If None, prices are as stored.
        left_out: The ranges of each symbol whose bars are left out, for *final* and *source*.
        conflicting: Which values conflicting bars have: as ``stored``, or those of the ``vendor``; ``raise`` refuses them.
        conflicts: The conflicting bars of each symbol that has some.
        fill: Whether bars of other sources are joined in gaps that they fill.
        fills: The filled ranges of each symbol that has some, for *fill*.
    """

    symbols: tuple[str, ...]
    dataset: Dataset
    adjustment: Adjustment
    span: TimeRange
    open_end: bool
    before: datetime
    columns: tuple[str, ...]
    hours: Hours
    resampling: Resampling | None
    incomplete: str
    final: bool
    source: str
    index: str | None
    members: Mapping[str, Sequence[TimeRange]]
    as_of: date | None
    prices: str | None
    unadjustable: str
    convention: str
    adjust: Step | None = field(default=None, compare=False)
    left_out: Mapping[str, Sequence[TimeRange]] = field(default_factory=dict)
    conflicting: str = "stored"
    conflicts: Mapping[str, Conflicts] = field(default_factory=dict)
    fill: bool = False
    fills: Mapping[str, Sequence[Filled]] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        symbols: str | Iterable[str],
        start: DateLike,
        end: DateLike | None,
        *,
        now: datetime,
        members: Mapping[str, Sequence[TimeRange]] | None = None,
        **options: Unpack[ReadOptions],
    ) -> BarQuery:
        """Parse a user's arguments.

        Args:
            symbols: One symbol or several.
            start: A New York day or an aware instant.
            end: A New York day (included) or an aware instant (excluded). If None, *now*.
            now: The current instant, aware.
            members: The ranges of membership by symbol, if an index is given; other symbols are left out.
            **options: The arguments of `ParquetStorage.load`.

        Raises:
            InputError: If an argument cannot be used.
        """
        dataset = parse_dataset(options)
        timeframe = dataset.timeframe
        span = parse_span(start, end, now=now).range
        hours, resampling = _parse_hours(options.get("session"), options.get("resample"), timeframe)
        as_of = _parse_as_of(options.get("as_of"), dataset.adjustment)
        return cls(
            symbols=parse_symbols(symbols, members),
            dataset=dataset,
            adjustment=dataset.adjustment,
            span=span,
            open_end=end is None,
            before=span.end if resampling is None else min(span.end, resampling.before_forming(now)),
            columns=_parse_columns(options.get("columns")),
            hours=hours,
            resampling=resampling,
            incomplete=_parse_choice("incomplete", options.get("incomplete", "warn"), ("warn", "raise", "ignore")),
            final=_parse_flag("final", options.get("final", False)),
            source=_parse_choice("source", options.get("source", "any"), ("any", "vendor")),
            index=options.get("index"),
            members=members or {},
            as_of=as_of,
            prices=_parse_prices(options.get("prices"), dataset.adjustment, as_of),
            unadjustable=_parse_choice("unadjustable", options.get("unadjustable", "raise"), ("raise", "drop")),
            conflicting=_parse_choice("conflicting", options.get("conflicting", "stored"), ("stored", "vendor", "raise")),
            convention=_parse_convention(options.get("convention", PRIOR_CLOSE)),
            fill=_parse_fill(options),
        )

    @property
    def series(self) -> tuple[Series, ...]:
        """The series to read, by symbol."""
        return tuple(Series(symbol, self.dataset) for symbol in self.symbols)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns to read: those of the result, and what they are computed from."""
        return self.columns if self.resampling is None else self.resampling.needs(self.columns)

    @property
    def computed(self) -> str | None:
        """A description of bars that are not stored as Alpaca sent them, or None."""
        words = []
        if self.resampling is not None:
            words.append(f"{self.resampling} bars of {self.hours.value} sessions from {self.dataset.timeframe} bars")
        if self.adjust is not None:
            words.append(f"adjusted ({self.adjustment}) as of {self.as_of}")
        if self.fills:
            words.append("with bars of other sources in gaps")
        return ", ".join(words) or None

    @property
    def reach(self) -> TimeRange:
        """The range to read: the span, and what the last computed bar needs beyond it."""
        if self.resampling is None:
            return self.span
        return TimeRange(self.span.start, max(self.span.end, self.resampling.end_before(self.before)))


def parse_dataset(options: ReadOptions) -> Dataset:
    """Return the dataset that a user's arguments name.

    Raises:
        InputError: If an argument cannot be used.
    """
    timeframe = Timeframe.parse(options.get("timeframe", "1Min"))
    return Dataset(timeframe, Adjustment.parse(options.get("adjustment")), Feed.parse(options.get("feed")))


def parse_symbols(symbols: object, members: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return symbols as stored, sorted, each once.

    Args:
        symbols: One symbol or several.
        members: The series to keep; a ticker stands for all of them that have it (``S@DATE``). If None, all symbols are.

    Raises:
        InputError: If one cannot be a symbol.
    """
    if not isinstance(symbols, Iterable):
        raise InputError(f"symbols must be text or several texts, not {symbols!r}")
    names = {check_symbol(name) for name in ([symbols] if isinstance(symbols, str) else symbols)}
    return tuple(sorted(names if members is None else (one for one in members if one in names or ticker_of(one) in names)))


def _parse_hours(session: object, computed: object, timeframe: Timeframe) -> tuple[Hours, Resampling | None]:
    if session is None:
        session = "all" if computed is None else "regular"
    hours = Hours.parse(session)
    resampling = None if computed is None else Resampling.parse(computed, hours, timeframe)
    if hours is not Hours.ALL and not timeframe.intraday:
        raise InputError(f"session={hours.value!r} has no effect on {timeframe} bars; use session='all' or an intraday timeframe")
    if resampling is None:
        check_within_sessions(timeframe, hours)
    return hours, resampling


def _parse_columns(columns: str | Sequence[str] | None) -> tuple[str, ...]:
    if columns is None:
        return VALUES
    if isinstance(columns, str):
        columns = [columns]
    if not set(columns) <= set(VALUES):
        raise InputError(f"columns={columns!r} are not all known; choose from {', '.join(VALUES)}")
    return tuple(dict.fromkeys(columns))


def _parse_choice(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise InputError(f"{name}={value!r} does not exist; choose one of {', '.join(choices)}")
    return value


def _parse_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name}={value!r} is neither True nor False")
    return value


def _parse_fill(options: ReadOptions) -> bool:
    fill = _parse_flag("fill", options.get("fill", False))
    if fill and options.get("source") == "vendor":
        raise InputError("cannot use fill=True with source='vendor', which leaves out bars of other sources; omit one of them")
    return fill


def _parse_convention(value: str) -> str:
    if value not in CONVENTIONS:
        raise InputError(f"convention={value!r} does not exist; choose one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[value]


def _parse_prices(value: str | None, adjustment: Adjustment, as_of: date | None) -> str | None:
    if value is None:
        return None
    chosen = _parse_choice("prices", value, ("computed", "vendor"))
    if adjustment.is_raw:
        raise InputError(f"prices={value!r} has no effect on raw bars; add adjustment='split', 'dividend', 'spin-off' or 'all'")
    if chosen == "vendor" and as_of is not None:
        raise InputError(f"prices='vendor' cannot be as of {as_of}: Alpaca adjusts as of its answer; omit one of them")
    return chosen


def _parse_as_of(value: date | str | None, adjustment: Adjustment) -> date | None:
    day = None if value is None else parse_day(value, "as_of")
    if day is not None and adjustment.is_raw:
        raise InputError(f"as_of={value!r} has no effect on raw bars; add adjustment='split', 'dividend', 'spin-off' or 'all'")
    return day
