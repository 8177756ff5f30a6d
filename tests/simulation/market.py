"""The truth: what the vendor knows of every security at any time, from one seed.

Minutes are few, so that a year of them is quick to make. All longer bars are made of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from data_engine.market.exchange_calendar import extended_hours, is_half_day, next_session, sessions
from data_engine.market.series import Adjustment, Timeframe

NEW_YORK = ZoneInfo("America/New_York")
SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND

Values = tuple[float, float, float, float, float, float, float]
"""Open, high, low, close, volume, trade count, vwap."""


_Told = list[tuple[int, int, tuple[Values, frozenset[int]]]]
"""Minutes: when they begin, the start of the bar that each belongs to, and its values with the actions they are adjusted by."""


@lru_cache(maxsize=200_000)
def micros(instant: datetime) -> int:
    delta = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


@lru_cache(maxsize=200_000)
def instant(stamp: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=stamp)


def at(day: date, hour: int, minute: int = 0) -> int:
    """Return a time of day in New York."""
    return micros(datetime.combine(day, time(hour, minute), NEW_YORK).astimezone(UTC))


@lru_cache(maxsize=100_000)
def midnight(day: date) -> int:
    return at(day, 0)


@lru_cache(maxsize=100_000)
def floor(stamp: int, timeframe: Timeframe) -> int:
    """Return the start of the bar that contains an instant: by arithmetic of its own for minutes and hours."""
    if timeframe.intraday:
        start = stamp - stamp % DAY
        step = timeframe.amount * (MINUTE if timeframe.unit == "Min" else HOUR)
        return start + (stamp - start) // step * step
    return micros(timeframe.floor(instant(stamp)))


@lru_cache(maxsize=100_000)
def next_bar(start: int, timeframe: Timeframe) -> int:
    if timeframe.intraday:
        step = timeframe.amount * (MINUTE if timeframe.unit == "Min" else HOUR)
        return min(start + step, start - start % DAY + DAY)
    return micros(timeframe.next(instant(start)))


@dataclass(frozen=True)
class Action:
    """A corporate action.

    Attributes:
        kind: ``split`` or ``dividend``.
        day: The ex-date.
        factor: Of earlier prices.
        known: When the vendor begins to adjust by it.
    """

    kind: str
    day: date
    factor: float
    known: int

    def adjusts(self, adjustment: Adjustment) -> bool:
        return self.kind in adjustment.value or adjustment.value == "all"


@dataclass
class Security:
    """What trades under a symbol.

    Attributes:
        symbol: Its ticker.
        per_session: The bounds of its number of minutes a session.
        quiet: The share of sessions without any.
        first: The first session.
        last: The last session; None if it still trades.
        renamed: The day from which on it has this ticker; earlier bars come from the day after on.
        actions: In order of their ex-dates.
        only: Its minutes, in place of random ones.
        restless: The share of its sessions of which something changes later.
        settled: Whether nothing of it changes once it is final.
        like: The symbol whose bars it has: that of the same security at another time.
    """

    symbol: str
    per_session: tuple[int, int] = (4, 9)
    quiet: float = 0.0
    first: date = date(2000, 1, 1)
    last: date | None = None
    renamed: date | None = None
    actions: list[Action] = field(default_factory=list)
    only: list[int] | None = None
    restless: float = 0.2
    settled: bool = False
    like: str | None = None


@dataclass(frozen=True)
class Listing:
    """The sessions in which a security has a ticker.

    Attributes:
        ticker: The ticker; another security may have had it before, or take it later.
        security: The symbol of the security.
        first: The first day.
        last: The last day; None if it has the ticker still.
    """

    ticker: str
    security: str
    first: date
    last: date | None = None


@dataclass(frozen=True)
class Trade:
    """One minute: its values over time.

    Attributes:
        stamp: When it begins.
        day: The session.
        versions: When which values came; None is absence.
    """

    stamp: int
    day: date
    versions: tuple[tuple[int, Values | None], ...]

    def values(self, now: int) -> Values | None:
        found = None
        for since, values in self.versions:
            if since <= now:
                found = values
        return found


class Market:
    """All securities.

    Args:
        seed: Of everything.
        securities: By any order; symbols are distinct.
        listings: Who has which ticker when; a ticker without any is a security of its own.
        records: The vendor's records of corporate actions, by kind, with the day from which on it has them.
    """

    def __init__(
        self,
        seed: object,
        securities: list[Security],
        listings: tuple[Listing, ...] = (),
        records: tuple[tuple[date, str, dict[str, str]], ...] = (),
    ) -> None:
        self.seed = seed
        self.listings = listings
        self.records = records
        self.securities = {one.symbol: one for one in securities}
        self._sessions: dict[tuple[str, date], tuple[Trade, ...]] = {}
        self._answers: dict[object, dict[int, tuple[Values, frozenset[int]]]] = {}
        self._settled: dict[object, tuple[int, _Told]] = {}
        self.overrides: dict[tuple[str, int], list[tuple[int, Values | None]]] = {}

    def change(self, symbol: str, stamp: int, since: int, values: Values | None) -> None:
        """Have a minute change; for scripted worlds."""
        self.overrides.setdefault((symbol, stamp), []).append((since, values))
        self._sessions.clear()
        self._answers.clear()
        self._settled.clear()

    def owner(self, symbol: str, asof: date | None, now: int) -> str | None:
        """Return the security that the vendor answers for, as of a day, by default today; None if it has another ticker then."""
        ticker, _, named = symbol.partition("@")
        ours = [one for one in self.listings if one.ticker == ticker]
        if not ours:
            return ticker
        today = instant(now).astimezone(NEW_YORK).date()
        day = min(date.fromisoformat(named) if named else asof or today, today)
        begun = max((one for one in ours if one.first <= day), key=lambda one: one.first, default=None)
        if begun is None:
            return None
        elsewhere = any(one.security == begun.security and one.first > begun.first for one in self.listings)
        return None if elsewhere and begun.last is not None and begun.last < day else begun.security

    def first_owner(self, symbol: str, stamp: int, now: int) -> str:
        """Return the security that had a ticker at an instant, or else the one that had it next."""
        day = instant(stamp).astimezone(NEW_YORK).date()
        later = (one for one in self.listings if one.ticker == symbol.partition("@")[0] and one.first > day)
        following = min(later, key=lambda one: one.first, default=None)
        return self.owner(symbol, day, now) or (following.security if following else symbol)

    def end(self, symbol: str, security: str, now: int) -> int | None:
        """Return when a security left a ticker, if it does not have it now."""
        ours = [one for one in self.listings if one.ticker == symbol.partition("@")[0] and one.security == security]
        begun = [one for one in ours if midnight(one.first) <= now]
        if not begun or begun[-1].last is None:
            return None
        free = midnight(begun[-1].last + timedelta(days=1))
        return free if free <= now else None

    def session(self, security: Security, day: date) -> tuple[Trade, ...]:
        """Return the minutes of a session, in order of time."""
        key = (security.symbol, day)
        if key not in self._sessions:
            self._sessions[key] = tuple(self._trades(security, day))
        return self._sessions[key]

    def _trades(self, security: Security, day: date) -> Iterator[Trade]:
        draw = random.Random(f"{self.seed}|{security.like or security.symbol}|{day}")
        hours = extended_hours(day)
        start, end = micros(hours.start), micros(hours.end)
        if security.only is not None:
            stamps = [stamp for stamp in security.only if start <= stamp < end]
        elif draw.random() < security.quiet:
            stamps = []
        else:
            count = draw.randint(*security.per_session)
            close = at(day, 13 if is_half_day(day) else 16)
            open_ = at(day, 9, 30)
            regular = {open_ + draw.randrange((close - open_) // MINUTE) * MINUTE for _ in range(count - count // 3)}
            stamps = sorted(regular | {start + draw.randrange((end - start) // MINUTE) * MINUTE for _ in range(count // 3)})
        changes = self._changes(draw, security, day, len(stamps)) if draw.random() < security.restless else {}
        for number, stamp in enumerate(stamps):
            base = (2000 + draw.randrange(2000)) / 100  # of few digits, as the vendor's are
            close_ = round(base + draw.randrange(-20, 21) / 100, 2)
            volume = float(draw.randrange(1, 50) * 100)
            values: Values = (
                base,
                round(max(base, close_) + 0.01, 2),
                round(min(base, close_) - 0.01, 2),
                close_,
                volume,
                3.0,
                base,
            )
            versions: list[tuple[int, Values | None]] = [(stamp, values)]
            if number in changes:
                kind, when = changes[number]
                revised: Values = (base, round(values[1] + 0.5, 2), values[2], round(close_ + 0.25, 2), volume + 7, 4.0, base)
                versions = {
                    "late": [(max(when, stamp), values)],
                    "withdrawn": [(stamp, values), (max(when, stamp + MINUTE), None)],
                    "revised": [(stamp, values), (max(when, stamp + MINUTE), revised)],
                }[kind]
            versions += self.overrides.get((security.symbol, stamp), [])
            yield Trade(stamp, day, tuple(sorted(versions, key=lambda one: one[0])))
        for (symbol, stamp), more in self.overrides.items():
            if symbol == security.symbol and start <= stamp < end and stamp not in stamps:
                yield Trade(stamp, day, tuple(more))

    def _changes(self, draw: random.Random, security: Security, day: date, count: int) -> dict[int, tuple[str, int]]:
        if not count:
            return {}
        following = next_session(day)
        times = [at(day, 18), at(day, 20, 20)]
        if not security.settled:
            times += [at(day, 20, 40), at(following, 9), at(following, 9, 45), midnight(day + timedelta(days=9))]
        return {
            draw.randrange(count): (draw.choice(("late", "withdrawn", "revised")), draw.choice(times))
            for _ in range(draw.randint(1, 2))
        }

    def known_actions(self, symbol: str, now: int, adjustment: Adjustment) -> tuple[int, ...]:
        """Return the numbers of the actions by which the vendor adjusts now."""
        security = self.securities.get(symbol)
        if security is None or adjustment.is_raw:
            return ()
        return tuple(number for number, one in enumerate(security.actions) if one.known <= now and one.adjusts(adjustment))

    def bars(
        self, symbol: str, timeframe: Timeframe, adjustment: Adjustment, start: int, end: int, now: int, base: int | None = None
    ) -> dict[int, tuple[Values, frozenset[int]]]:
        """Return the bars that start inside a range, as the vendor has them now, with the actions that they are adjusted by.

        Args:
            symbol: The symbol.
            timeframe: The timeframe.
            adjustment: The adjustment.
            start: The first instant, the start of a bar.
            end: The last.
            now: The vendor's time.
            base: The time by which actions are known; None is *now*.
        """
        security = self.securities.get(symbol)
        if security is None or start >= end:
            return {}
        question = (symbol, timeframe, adjustment, start, end, now, base)
        if question not in self._answers:
            self._answers[question] = self._bars(security, timeframe, adjustment, start, end, now, base)
        return self._answers[question]

    def _bars(
        self, security: Security, timeframe: Timeframe, adjustment: Adjustment, start: int, end: int, now: int, base: int | None
    ) -> dict[int, tuple[Values, frozenset[int]]]:
        known = self.known_actions(security.symbol, now if base is None else base, adjustment)
        made: dict[int, list[tuple[Values, frozenset[int]]]] = {}
        first = floor(start, timeframe)
        last = end if timeframe.intraday else max(end, next_bar(floor(end - 1, timeframe), timeframe))
        for day in self._days(security, first, last, now):
            for stamp, key, told in self._told(security, day, timeframe, known, now):
                if first <= stamp < last and start <= key < end:
                    made.setdefault(key, []).append(told)
        return {key: _joined(minutes) for key, minutes in sorted(made.items())}

    def _days(self, security: Security, start: int, end: int, now: int) -> Iterator[date]:
        """Yield the sessions of which the vendor may have minutes inside a range."""
        first = max(instant(start).astimezone(NEW_YORK).date() - timedelta(days=1), security.first)
        last = min(instant(min(end, now)).astimezone(NEW_YORK).date(), security.last or date(2100, 1, 1))
        if security.renamed is not None and now < at(security.renamed + timedelta(days=1), 4):
            first = max(first, security.renamed)
        return sessions(first, last) if first <= last else iter(())

    def _told(self, security: Security, day: date, timeframe: Timeframe, known: tuple[int, ...], now: int) -> _Told:
        """Return the minutes of a session as the vendor has them now, with the bars that they belong to."""
        question = (security.symbol, day, timeframe, known)
        since, told = self._settled.get(question, (None, []))
        if since is not None and since <= now:
            return told
        trades = self.session(security, day)
        told = []
        for trade in trades:
            values = trade.values(now) if trade.stamp <= now else None
            if values is not None:
                if now < trade.stamp + MINUTE:
                    values = (*values[:4], values[4] - 50, values[5], values[6])
                key = floor(trade.stamp if timeframe.intraday else midnight(trade.day), timeframe)
                told.append((trade.stamp, key, self._adjusted(security, trade.day, values, known)))
        since = max((max(one.stamp + MINUTE, *(when for when, _ in one.versions)) for one in trades), default=0)
        if since <= now:
            self._settled[question] = since, told
        return told

    @staticmethod
    def _adjusted(security: Security, day: date, values: Values, known: tuple[int, ...]) -> tuple[Values, frozenset[int]]:
        if not known:
            return values, _NONE
        applied = frozenset(number for number in known if security.actions[number].day > day)
        factor = size = 1.0
        for number in sorted(applied):
            factor *= security.actions[number].factor
            size *= security.actions[number].factor if security.actions[number].kind == "split" else 1.0
        if not applied:
            return values, applied
        o, h, l, c, volume, count, vwap = values  # noqa: E741
        prices = [round(price * factor, 4) for price in (o, h, l, c)]
        return (prices[0], prices[1], prices[2], prices[3], round(volume / size), count, round(vwap * factor, 4)), applied


_NONE: frozenset[int] = frozenset()


def _joined(minutes: list[tuple[Values, frozenset[int]]]) -> tuple[Values, frozenset[int]]:
    values = [one for one, _ in minutes]
    if len(values) == 1:
        return minutes[0]
    applied = frozenset[int]().union(*(one for _, one in minutes))
    volume = sum(one[4] for one in values)
    joined: Values = (
        values[0][0],
        max(one[1] for one in values),
        min(one[2] for one in values),
        values[-1][3],
        volume,
        sum(one[5] for one in values),
        round(sum(one[6] * one[4] for one in values) / volume, 4) if volume else values[0][6],
    )
    return joined, applied
