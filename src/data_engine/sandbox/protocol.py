"""What a request for historical bars may say, and how the server words its refusals. Pure: the clock is an argument.

Times are integers here: nanoseconds since 1970, UTC, both ends of a request included, as on the wire.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from data_engine.errors import DataEngineError, InputError
from data_engine.market.series import RAW, Adjustment, Timeframe
from data_engine.market.time_range import new_york_date, new_york_midnight

DEFAULT_LIMIT = 1000

MAX_LIMIT = 10_000

DELAY = timedelta(minutes=15)

FEEDS = ("sip", "iex", "otc", "boats")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_SECOND = 1_000_000_000

_SYMBOL = re.compile(r"[A-Z]{1,20}(\.[A-Z]{1,3})?")

_TIMEFRAME = re.compile(r"([1-9][0-9]?)(Min|T|Hour|H|Day|D|Week|W|Month|M)")

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")

_DATE_LAYOUT = (("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"))


class Refusal(DataEngineError):
    """The server's no.

    Attributes:
        status: the HTTP status.
        message: the text of the answer's ``message``.
    """

    code = "refusal"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Token:
    """Where the next page begins.

    Attributes:
        symbol: the symbol of its first bar.
        store: ``M`` for bars made of minutes, ``D`` for bars made of days.
        start: the start of its first bar.
    """

    symbol: str
    store: str
    start: int

    def __str__(self) -> str:
        return base64.b64encode(f"{self.symbol}|{self.store}|{self.start}".encode()).decode()

    @classmethod
    def parse(cls, text: str) -> Token:
        """Undo `str`.

        Raises:
            Refusal: nothing that this server handed out.
        """
        try:
            symbol, store, start = base64.b64decode(text, validate=True).decode().split("|")
            if store in ("M", "D"):
                return cls(symbol, store, int(start))
        except (binascii.Error, ValueError):
            pass
        raise Refusal(400, f"invalid page_token: {text}")


@dataclass(frozen=True, slots=True)
class BarsRequest:
    """A request that the server accepts.

    Attributes:
        symbols: ascending, each once.
        timeframe: how much time a bar spans.
        start: no bar starts before.
        end: no bar starts after.
        limit: how many bars the page may hold, over all symbols.
        adjustment: what is to be worked into the prices.
        feed: as sent; None when it was not.
        currency: as sent; None when it was not.
        descending: whether the latest bar of a symbol comes first.
        token: where the page begins; None for the first.
        single: whether the symbol came in the path.
        end_given: whether the request named its end.
    """

    symbols: tuple[str, ...]
    timeframe: Timeframe
    start: int
    end: int
    limit: int = DEFAULT_LIMIT
    adjustment: Adjustment = RAW
    feed: str | None = None
    currency: str | None = None
    descending: bool = False
    token: Token | None = None
    single: bool = False
    end_given: bool = True

    @property
    def store(self) -> str:
        """The letter of its tokens."""
        return "M" if self.timeframe.intraday else "D"

    @classmethod
    def parse(cls, query: Mapping[str, str], *, now: datetime, delayed: bool = False, symbol: str | None = None) -> BarsRequest:
        """Read and check a request's parameters.

        Args:
            query: names and decoded values.
            now: what the defaults of start and end are counted from.
            delayed: whether the plan lacks the latest 15 minutes of the consolidated tape.
            symbol: the symbol in the path, for the single-symbol endpoint.

        Raises:
            Refusal: status 400, with the message of the first thing that is wrong.
        """
        listed = query.get("symbols") if symbol is None else symbol
        if not listed:
            raise Refusal(400, _required("symbols"))
        if not query.get("timeframe"):
            raise Refusal(400, _required("timeframe"))
        feed = query.get("feed") or None
        latest = now - DELAY if delayed and feed in (None, "sip") else now
        start = _instant("start", query["start"]) if query.get("start") else None
        end = _instant("end", query["end"], last=True) if query.get("end") else None
        limit = read_limit(query.get("limit", ""))
        if query.get("asof") not in (None, "", "-"):
            read_date("asof", query["asof"])
        timeframe = _timeframe(query["timeframe"])
        request = cls(
            symbols=check_symbols(listed.split(",") if symbol is None else [symbol]),
            timeframe=timeframe,
            start=nanoseconds(min(new_york_midnight(new_york_date(now)), latest)) if start is None else start,
            end=nanoseconds(latest) if end is None else end,
            limit=limit,
            adjustment=_adjustment(query.get("adjustment", "")),
            feed=_one_of("feed", feed, FEEDS),
            currency=_currency(query.get("currency", "")),
            descending=_one_of("sort", query.get("sort") or None, ("asc", "desc")) == "desc",
            token=_token(query.get("page_token", ""), timeframe),
            single=symbol is not None,
            end_given=end is not None,
        )
        if request.end < request.start:
            raise Refusal(400, "end should not be before start")
        return request

    def check_recency(self, now: datetime) -> None:
        """Refuse what a plan without the latest 15 minutes may not ask.

        Raises:
            Refusal: status 403.
        """
        if self.feed in (None, "sip") and self.end_given and self.end > nanoseconds(now - DELAY):
            raise Refusal(403, "subscription does not permit querying recent SIP data")


def nanoseconds(instant: datetime) -> int:
    """Return an aware instant as nanoseconds since 1970."""
    return (instant - _EPOCH) // timedelta(microseconds=1) * 1000


def _required(name: str) -> str:
    return f"Invalid format for parameter {name}: query parameter '{name}' is required"


def _timeframe(text: str) -> Timeframe:
    match = _TIMEFRAME.fullmatch(text)
    if match:
        try:
            return Timeframe.parse(text)
        except InputError:
            pass
    raise Refusal(400, f"invalid timeframe: {text}")


def check_symbols(listed: list[str]) -> tuple[str, ...]:
    """Return symbols in ascending order, each once.

    Raises:
        Refusal: status 400, for the first that is malformed.
    """
    for symbol in listed:
        if not _SYMBOL.fullmatch(symbol):
            raise Refusal(400, f"invalid symbol: {symbol}")
    return tuple(sorted(set(listed)))


def read_limit(text: str, *, default: int = DEFAULT_LIMIT, most: int = MAX_LIMIT) -> int:
    """Return how many rows a page may hold.

    Raises:
        Refusal: status 400.
    """
    if not text:
        return default
    if not re.fullmatch(r"[+-]?\d{1,18}", text):
        problem = f'error binding string parameter: strconv.ParseInt: parsing "{text}": invalid syntax'
        raise Refusal(400, f"Invalid format for parameter limit: {problem}")
    limit = int(text)
    if limit > most:
        raise Refusal(400, f"invalid limit: larger than the allowed maximum of {most}")
    if limit < 1:
        raise Refusal(400, "invalid limit: smaller than the allowed minimum of 1")
    return limit


def _adjustment(text: str) -> Adjustment:
    parts = set(text.split(","))
    if not text or parts in ({"raw"}, {"all"}) or parts <= {"split", "dividend", "spin-off"}:
        return Adjustment.parse(text or None)
    raise Refusal(400, f"invalid adjustment: {text}")


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise Refusal(400, f"invalid {name}: {value}")
    return value


def _currency(text: str) -> str | None:
    if text and not re.fullmatch("[A-Z]{3}", text):
        raise Refusal(400, f"invalid currency: {text}")
    return text or None


def _token(text: str, timeframe: Timeframe) -> Token | None:
    if not text:
        return None
    token = Token.parse(text)
    if token.store != ("M" if timeframe.intraday else "D"):
        raise Refusal(400, f"invalid page_token: {text}")
    return token


def _instant(name: str, text: str, *, last: bool = False) -> int:
    """Read an instant, or a New York day: its first nanosecond, or its *last*."""
    match = _INSTANT.fullmatch(text)
    if match:
        day, clock, fraction, zone = match.groups()
        try:
            whole = datetime.fromisoformat(f"{day}T{clock}{zone}")
            return nanoseconds(whole) + int((fraction or "").ljust(9, "0")[:9])
        except (ValueError, OverflowError):
            pass  # a thirteenth month is reported like any other text
    day_asked = read_date(name, text)
    try:
        return (
            nanoseconds(new_york_midnight(day_asked + timedelta(days=1))) - 1
            if last
            else nanoseconds(new_york_midnight(day_asked))
        )
    except OverflowError:
        raise Refusal(400, _format_problem(name, text, "day out of range")) from None


def read_date(name: str, text: str) -> date:
    """Return a day.

    Raises:
        Refusal: status 400, in the words of Go's time package.
    """
    rest = text
    for word, pattern in _DATE_LAYOUT:
        match = re.match(pattern, rest)
        if not match:
            raise Refusal(400, _format_problem(name, text, f'as "2006-01-02": cannot parse "{rest}" as "{word}"'))
        rest = rest[match.end() :]
    if rest:
        raise Refusal(400, _format_problem(name, text, f'extra text: "{rest}"'))
    try:
        return date.fromisoformat(text)
    except ValueError:
        part = "day" if 1 <= int(text[5:7]) <= 12 else "month"
        raise Refusal(400, _format_problem(name, text, f"{part} out of range")) from None


def _format_problem(name: str, text: str, problem: str) -> str:
    # The wording of Go's time package, which the service hands through.
    separator = " " if problem.startswith("as ") else ": "
    parsing = f'parsing time "{text}"{separator}{problem}'
    return f"Invalid format for parameter {name}: error parsing '{text}' as RFC3339 or 2006-01-02 time: {parsing}"
