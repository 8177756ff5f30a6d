"""Read requests for historical bars, and refuse them in the words of Alpaca. Pure: the clock is an argument.

Times are integers here: nanoseconds since 1970, UTC, both ends of a request included, as they are sent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from data_engine.errors import DataEngineError, InputError
from data_engine.market.bars import to_micros
from data_engine.market.series import RAW, Adjustment, Timeframe
from data_engine.market.time_range import new_york_date, new_york_midnight

DEFAULT_LIMIT = 1000

MAX_LIMIT = 10_000

DELAY = timedelta(minutes=15)

FEEDS = ("sip", "iex", "otc", "boats")

_SYMBOL = re.compile(r"[A-Z]{1,20}(\.[A-Z]{1,3})?")

_TIMEFRAME = re.compile(r"([1-9][0-9]?)(Min|T|Hour|H|Day|D|Week|W|Month|M)")

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")

_DATE_LAYOUT = (("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"))


class Refusal(DataEngineError):
    """A request is refused.

    Attributes:
        status: The HTTP status.
        message: The ``message`` of the response.
    """

    code = "refusal"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def encode_token(*words: object) -> str:
    """Return words as the token of a page."""
    return base64.b64encode("|".join(map(str, words)).encode()).decode()


def decode_token(text: str) -> list[str]:
    """Undo `encode_token`.

    Raises:
        ValueError: If it is no token.
    """
    return base64.b64decode(text, validate=True).decode().split("|")


@dataclass(frozen=True, slots=True)
class Token:
    """The place where the next page begins.

    Attributes:
        symbol: The symbol of its first bar.
        store: ``M`` for bars made of minutes, ``D`` for bars made of days.
        start: The start of its first bar.
    """

    symbol: str
    store: str
    start: int

    def __str__(self) -> str:
        return encode_token(self.symbol, self.store, self.start)

    @classmethod
    def parse(cls, text: str) -> Token:
        """Undo `str`.

        Raises:
            Refusal: If it is no token of this server.
        """
        try:
            symbol, store, start = decode_token(text)
            if store in ("M", "D"):
                return cls(symbol, store, int(start))
        except ValueError:
            pass
        raise Refusal(400, f"invalid page_token: {text}")


@dataclass(frozen=True, slots=True)
class BarsRequest:
    """A request that the server accepts.

    Attributes:
        symbols: The symbols, ascending, each once.
        timeframe: The timeframe of the bars.
        start: The earliest start of a bar.
        end: The latest start of a bar.
        limit: The maximum number of bars per page, over all symbols.
        adjustment: The corporate actions to be applied to the prices.
        feed: The feed as sent; None if it was not.
        currency: The currency as sent; None if it was not.
        descending: Whether the latest bar of a symbol comes first.
        token: The place where the page begins; None for the first.
        asof: The day whose owners of the symbols are meant. If None, today.
        single: Whether the symbol was in the path.
        end_given: Whether the request named its end.
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
    asof: date | None = None
    single: bool = False
    end_given: bool = True

    @property
    def store(self) -> str:
        """The letter of its tokens."""
        return "M" if self.timeframe.intraday else "D"

    @classmethod
    def parse(cls, query: Mapping[str, str], *, now: datetime, delayed: bool = False, symbol: str | None = None) -> BarsRequest:
        """Return the request that the parameters make.

        Args:
            query: The names and decoded values of the parameters.
            now: The instant that the defaults of start and end are counted from.
            delayed: Whether the plan lacks the latest 15 minutes of the consolidated tape.
            symbol: The symbol in the path, for the single-symbol endpoint. If None, the parameter ``symbols``.

        Raises:
            Refusal: If a parameter is wrong (400); it has the message of the first.
        """
        listed = query.get("symbols") if symbol is None else symbol
        if not listed:
            raise Refusal(400, required("symbols"))
        if not query.get("timeframe"):
            raise Refusal(400, required("timeframe"))
        feed = query.get("feed") or None
        latest = now - DELAY if delayed and feed in (None, "sip") else now
        start = _instant("start", query)
        end = _instant("end", query, last=True)
        limit = read_limit(query.get("limit", ""))
        asof = None if query.get("asof") in (None, "", "-") else read_date("asof", query["asof"])
        timeframe = _timeframe(query["timeframe"])
        request = cls(
            symbols=check_symbols(listed.split(",") if symbol is None else [symbol]),
            timeframe=timeframe,
            start=nanoseconds(min(new_york_midnight(new_york_date(now)), latest)) if start is None else start,
            end=nanoseconds(latest) if end is None else end,
            limit=limit,
            adjustment=_adjustment(query.get("adjustment", "")),
            feed=one_of("feed", query, FEEDS),
            currency=currency_code(query.get("currency", "")),
            descending=one_of("sort", query, ("asc", "desc")) == "desc",
            token=_token(query.get("page_token", ""), timeframe),
            asof=asof,
            single=symbol is not None,
            end_given=end is not None,
        )
        if request.end < request.start:
            raise Refusal(400, "end should not be before start")
        return request

    def check_recency(self, now: datetime) -> None:
        """Check that a plan without the latest 15 minutes permits the request.

        Raises:
            Refusal: If it does not (403).
        """
        if self.feed in (None, "sip") and self.end_given and self.end > nanoseconds(now - DELAY):
            raise Refusal(403, "subscription does not permit querying recent SIP data")


def nanoseconds(instant: datetime) -> int:
    """Return an aware instant as nanoseconds since 1970."""
    return to_micros(instant) * 1000


def required(name: str) -> str:
    """Return the message for a parameter that is not given."""
    return f"Invalid format for parameter {name}: query parameter '{name}' is required"


def _timeframe(text: str) -> Timeframe:
    match = _TIMEFRAME.fullmatch(text)
    if match:
        try:
            # Of Alpaca's short names, `M` alone is not read by `Timeframe`, where it could be meant for a minute.
            return Timeframe.parse(f"{text}onth" if text.endswith("M") else text)
        except InputError:
            pass
    raise Refusal(400, f"invalid timeframe: {text}")


def check_symbols(listed: list[str]) -> tuple[str, ...]:
    """Return symbols in ascending order, each once.

    Raises:
        Refusal: If one is malformed (400).
    """
    for symbol in listed:
        if not _SYMBOL.fullmatch(symbol):
            raise Refusal(400, f"invalid symbol: {symbol}")
    return tuple(sorted(set(listed)))


def read_limit(text: str, *, default: int = DEFAULT_LIMIT, most: int = MAX_LIMIT) -> int:
    """Return the maximum number of rows per page.

    Raises:
        Refusal: If it is not a number within the bounds (400).
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


def one_of(name: str, query: Mapping[str, str], allowed: Collection[str]) -> str | None:
    """Return the value of a parameter, or None if it is not given.

    Raises:
        Refusal: If it is not one of those allowed (400).
    """
    value = query.get(name) or None
    if value is not None and value not in allowed:
        raise Refusal(400, f"invalid {name}: {value}")
    return value


def currency_code(text: str) -> str | None:
    """Return the currency of a request; None if it names none.

    Raises:
        Refusal: If it has not three capital letters (400).
    """
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


def _instant(name: str, query: Mapping[str, str], *, last: bool = False) -> int | None:
    """Return an instant, or of a New York day the first nanosecond, or the *last*; None if it is not given."""
    text = query.get(name)
    if not text:
        return None
    if match := _INSTANT.fullmatch(text):
        day, clock, fraction, zone = match.groups()
        try:
            whole = datetime.fromisoformat(f"{day}T{clock}{zone}")
            return nanoseconds(whole) + int((fraction or "").ljust(9, "0")[:9])
        except (ValueError, OverflowError):
            pass  # a thirteenth month is reported like any other text
    try:
        return nanoseconds(new_york_midnight(read_date(name, text) + timedelta(days=last))) - last
    except OverflowError:
        raise Refusal(400, _format_problem(name, text, "day out of range")) from None


def read_date(name: str, text: str) -> date:
    """Return a day.

    Raises:
        Refusal: If it is none (400), in the words of Go's time package.
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
    # The wording of Go's time package, which Alpaca passes on.
    separator = " " if problem.startswith("as ") else ": "
    parsing = f'parsing time "{text}"{separator}{problem}'
    return f"Invalid format for parameter {name}: error parsing '{text}' as RFC3339 or 2006-01-02 time: {parsing}"
