"""Check the values of options while the command line is read: in the order typed, before the store is opened.

The text itself is passed on, so that commands hand it to the library as a user of the library would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class Checked(click.types.StringParamType):
    """Text that a function accepts.

    Args:
        check: The function; it raises `InputError` for a text that cannot be used.
    """

    def __init__(self, check: Callable[[str], object]) -> None:
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text as it is.

        Raises:
            InputError: If it cannot be used.
        """
        text = super().convert(value, param, ctx)
        self._check(text)
        return text


def _start(text: str) -> object:
    from data_engine.market.dates import parse_start

    return parse_start(text)


def _end(text: str) -> object:
    from data_engine.market.dates import parse_end

    return parse_end(text)


def _timeframe(text: str) -> object:
    from data_engine.market.series import Timeframe

    return Timeframe.parse(text)


def _feed(text: str) -> object:
    from data_engine.market.series import Feed

    return Feed.parse(text)


def _adjustment(text: str) -> object:
    from data_engine.market.series import Adjustment

    return Adjustment.parse(text)


def _day(name: str) -> Checked:
    def check(text: str) -> object:
        from data_engine.market.dates import parse_day

        return parse_day(text, name)

    return Checked(check)


START = Checked(_start)
"""A day, from its beginning in New York, or an instant."""

END = Checked(_end)
"""A day, to its end in New York, or an instant."""

SESSION, ON, AS_OF, SINCE, EX_DATE = map(_day, ("session", "on", "as-of", "since", "--ex-date"))
"""Days in New York, named for the messages."""

TIMEFRAME = Checked(_timeframe)

FEED = Checked(_feed)

ADJUSTMENT = Checked(_adjustment)
