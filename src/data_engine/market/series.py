"""Define the identity of a series of bars: symbol, timeframe, adjustment and feed.

Bars of the same symbol and minute differ if their feed or adjustment differs. Only `Series` combines all four, and only
`Dataset.name` turns them into the name of a folder, so that feeds and adjustments cannot mix in one file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import Enum
from functools import lru_cache

from data_engine.errors import InputError
from data_engine.market.time_range import NEW_YORK, TimeRange, new_york_midnight

_WORDS = {
    "min": "Min", "minute": "Min", "minutes": "Min", "hour": "Hour", "hours": "Hour", "day": "Day", "days": "Day",
    "week": "Week", "weeks": "Week", "month": "Month", "months": "Month",
}  # fmt: skip

_LETTERS = {"m": "Min", "t": "Min", "h": "Hour", "d": "Day", "w": "Week"}

_ALLOWED = {"Min": range(1, 60), "Hour": range(1, 24), "Day": (1,), "Week": (1,), "Month": (1, 2, 3, 4, 6, 12)}

_GRAMMAR = "1Min to 59Min, 1Hour to 23Hour, 1Day, 1Week, or 1, 2, 3, 4, 6 or 12Month"


_UNITS = {
    "Min": timedelta(minutes=1),
    "Hour": timedelta(hours=1),
    "Day": timedelta(days=1),
    "Week": timedelta(days=7),
    "Month": timedelta(days=31),
}


@dataclass(frozen=True, slots=True)
class Timeframe:
    """The length of a bar as Alpaca names it: ``1Min`` to ``59Min``, ``1Hour`` to ``23Hour``, days, weeks, months.

    Attributes:
        amount: The number of units, at least 1.
        unit: One of ``Min``, ``Hour``, ``Day``, ``Week`` and ``Month``.

    Raises:
        InputError: If Alpaca has no such timeframe.
    """

    amount: int
    unit: str

    def __post_init__(self) -> None:
        if self.amount not in _ALLOWED.get(self.unit, ()):
            raise InputError(f"timeframe {self.amount}{self.unit} does not exist; Alpaca has {_GRAMMAR}")

    @classmethod
    def parse(cls, value: object) -> Timeframe:
        """Return the timeframe in text (``1Min``, ``5m``, ``1Day``, ``1d``, ``day``), a time delta or alpaca-py's ``TimeFrame``.

        Case does not matter, except for ``M``, which is refused: ``m`` is a minute, and a month is ``1Month``.

        Raises:
            InputError: If Alpaca has no such timeframe.
        """
        if isinstance(value, cls):
            return value
        found = parse_length(value)
        if found is None:
            raise InputError(f"timeframe {value!r} does not exist; Alpaca has {_GRAMMAR}")
        return cls(*found)

    def __str__(self) -> str:
        return f"{self.amount}{self.unit}"

    @property
    def intraday(self) -> bool:
        """Whether bars are shorter than a day. They are stored in monthly files, others in yearly ones."""
        return self.unit in ("Min", "Hour")

    @property
    def length(self) -> timedelta:
        """The nominal length of a bar; for a month, the longest it can be."""
        return _UNITS[self.unit] * self.amount

    def floor(self, instant: datetime) -> datetime:
        """Return the start of the bar that contains *instant*, in UTC.

        Minutes and hours are counted from midnight UTC (7-hour bars start at 0, 7, 14 and 21 o'clock); days, weeks (from
        Monday) and months (N-month bars from January) begin at midnight in New York. The server's alignment of amounts
        that do not divide a day is unknown; the sandbox uses this one, too.
        """
        if self.intraday:
            midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
            return midnight + (instant - midnight) // self.length * self.length
        return new_york_midnight(self._first_day(instant.astimezone(NEW_YORK).date()))

    def next(self, start: datetime) -> datetime:
        """Return the end of the bar that starts at *start* (a value of `floor`): the start of the next bar."""
        if self.intraday:
            midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
            return min(start + self.length, midnight + timedelta(days=1))
        day = start.astimezone(NEW_YORK).date()
        if self.unit == "Month":
            months = day.year * 12 + day.month - 1 + self.amount
            return new_york_midnight(date(months // 12, months % 12 + 1, 1))
        return new_york_midnight(day + self.length)

    def ceil(self, instant: datetime) -> datetime:
        """Return the first start of a bar at or after *instant*, in UTC."""
        start = self.floor(instant)
        return start if start == instant else self.next(start)

    def widen(self, span: TimeRange) -> TimeRange:
        """Return *span* extended to whole bars on both sides, so that no bar of a response lacks a part of its trades."""
        return TimeRange(self.floor(span.start), self.ceil(span.end))

    def _first_day(self, day: date) -> date:
        if self.unit == "Week":
            return day - timedelta(days=day.weekday())
        if self.unit == "Month":
            return date(day.year, (day.month - 1) // self.amount * self.amount + 1, 1)
        return day


def parse_length(value: object) -> tuple[int, str] | None:
    """Return the length of a bar as a number and a unit of `Timeframe`, whether or not Alpaca has it; None if it is no length.

    Args:
        value: Text, a ``timedelta`` (pandas' or NumPy's, too) of whole minutes, or alpaca-py's ``TimeFrame``.

    Raises:
        InputError: If the unit is ``M``, which is a minute to some and a month to others.
    """
    if getattr(getattr(value, "dtype", None), "kind", None) == "m":
        value = value.astype("timedelta64[us]").item()  # type: ignore[attr-defined] # NumPy's, which is not imported here
    if isinstance(value, timedelta):
        return _of_delta(value)
    text = getattr(value, "value", value)  # in alpaca-py, .value of a TimeFrame or an enum is the text that is sent
    match = re.fullmatch(r"([0-9]{1,4})?\s*([A-Za-z]+)", text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    amount, word = int(match[1]) if match[1] else 1, match[2]
    if word == "M":
        raise InputError(f"timeframe {text!r}: M is a minute to some and a month to others; write {amount}Min or {amount}Month")
    unit = _LETTERS.get(word.lower()) if len(word) == 1 else _WORDS.get(word.lower())
    return (amount, unit) if unit else None


def _of_delta(value: timedelta) -> tuple[int, str] | None:
    minutes, rest = divmod(value, timedelta(minutes=1))
    if rest or minutes <= 0:
        return None
    days, minutes_of_day = divmod(minutes, 1440)
    if not minutes_of_day:
        return (1, "Week") if days == 7 else (days, "Day")
    return (minutes // 60, "Hour") if minutes % 60 == 0 else (minutes, "Min")


_FEEDS_WITHOUT_BARS = ("overnight",)  # at Alpaca, for the latest bars only


class Feed(Enum):
    """The source of the trades in the bars.

    ``SIP`` is the consolidated tape. ``ACCOUNT`` sends no feed and gets that of the account's plan; it is stored separately,
    since no response names its feed. ``DELAYED_SIP``, which the endpoint refuses, is the consolidated tape up to 16 minutes ago.
    """

    SIP = "sip"
    IEX = "iex"
    OTC = "otc"
    BOATS = "boats"
    ACCOUNT = "account"
    DELAYED_SIP = "delayed_sip"

    @classmethod
    def parse(cls, value: object) -> Feed:
        """Return the feed in a string or in alpaca-py's ``DataFeed``; None is the consolidated tape.

        Raises:
            InputError: If this is not a feed of historical bars.
        """
        if value is None:
            return cls.SIP
        if isinstance(value, cls):
            return value
        text = getattr(value, "value", value)
        try:
            return cls(text.strip().lower() if isinstance(text, str) else text)
        except ValueError:
            fault = "has no historical bars" if text in _FEEDS_WITHOUT_BARS else "does not exist"
            raise InputError(f"feed {text!r} {fault}; choose sip, iex, otc, boats, delayed_sip or account") from None

    @property
    def stored(self) -> Feed:
        """The feed of the bars on disk."""
        return Feed.SIP if self is Feed.DELAYED_SIP else self

    @property
    def wire(self) -> str | None:
        """The value in a request; None if it is not sent."""
        return None if self is Feed.ACCOUNT else self.stored.value


_EVENTS = ("split", "dividend", "spin-off")


@dataclass(frozen=True, slots=True)
class Adjustment:
    """The corporate actions for which the prices are adjusted.

    Attributes:
        value: The text in a request: ``raw``, ``all``, or a comma list of ``split``, ``dividend``, ``spin-off`` in that order.
    """

    value: str = "raw"

    @classmethod
    def parse(cls, value: object) -> Adjustment:
        """Return the adjustment in a string or in alpaca-py's ``Adjustment``; None is raw.

        Raises:
            InputError: If Alpaca has no such adjustment.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        text = getattr(value, "value", value)
        if isinstance(text, str):
            parts = {part.strip().lower().replace("spinoff", "spin-off") for part in text.split(",")}
            if len(parts) == 1 and parts <= {"raw", "all"}:
                return cls(parts.pop())
            if parts <= set(_EVENTS):
                return cls(",".join(event for event in _EVENTS if event in parts))
        raise InputError(f"adjustment {text!r} does not exist; choose raw, all, or a list of {', '.join(_EVENTS)}")

    def __str__(self) -> str:
        return self.value

    @property
    def is_raw(self) -> bool:
        """Whether prices are as traded, so that no later event changes them."""
        return self.value == "raw"


RAW = Adjustment()

_FILL = "fill"


@dataclass(frozen=True, slots=True)
class Dataset:
    """All series of one timeframe, adjustment and feed: one folder of the store.

    Attributes:
        timeframe: The length of a bar.
        adjustment: The adjustment of the prices.
        feed: The feed as stored (never ``DELAYED_SIP``).
        fill: Whether it has bars of other sources for gaps of the dataset with the same timeframe and feed. Such bars are raw.
        name: The folder's name: ``equities_1min``, ``equities_1day_split``, ``equities_1min_iex``, ``equities_5min_all_boats``,
            ``equities_1min_fill``.

    Raises:
        InputError: If a dataset of fill bars is adjusted.
    """

    timeframe: Timeframe
    adjustment: Adjustment = RAW
    feed: Feed = Feed.SIP
    fill: bool = False
    name: str = field(init=False, repr=False, compare=False)  # a part of every path: it is not made anew for each file

    def __post_init__(self) -> None:
        if self.feed is not self.feed.stored:
            object.__setattr__(self, "feed", self.feed.stored)
        parts = ["equities", str(self.timeframe).lower()]
        if not self.adjustment.is_raw:
            parts += self.adjustment.value.split(",")
        if self.feed is not Feed.SIP:
            parts.append(self.feed.value)
        if self.fill:
            if not self.adjustment.is_raw:
                raise InputError(f"cannot fill bars that are adjusted ({self.adjustment}): bars of other sources are raw")
            parts.append(_FILL)
        object.__setattr__(self, "name", "_".join(parts))

    def __hash__(self) -> int:
        return hash(self.name)  # no two datasets have the same one

    @classmethod
    @lru_cache(maxsize=256)  # it is in the path of each file
    def from_name(cls, name: str) -> Dataset:
        """Undo `name`.

        Raises:
            ValueError: If no dataset has that name.
        """
        head, *parts = name.split("_")
        fill = len(parts) > 1 and parts[-1] == _FILL
        if fill:
            parts.pop()
        if head == "equities" and parts:
            feed = Feed(parts.pop()) if parts[-1] in {feed.value for feed in Feed} else Feed.SIP
            if parts:
                dataset = cls(Timeframe.parse(parts[0]), Adjustment.parse(",".join(parts[1:]) or None), feed, fill)
                if dataset.name == name:
                    return dataset
        raise ValueError(f"not the name of a dataset: {name!r}")


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of one symbol in one dataset.

    Attributes:
        symbol: The symbol as Alpaca writes it, upper case.
        dataset: The timeframe, adjustment and feed.
    """

    symbol: str
    dataset: Dataset

    def __str__(self) -> str:
        return f"{self.symbol} in {self.dataset.name}"


def parse_currency(value: str | None) -> str | None:
    """Return a currency as three capital letters (ISO 4217), or None for the vendor's choice.

    Raises:
        InputError: If the value is neither three letters nor None.
    """
    if value is None:
        return None
    if not (isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha()):
        raise InputError(f"currency {value!r} is not a three-letter code (ISO 4217)")
    return value.upper()
