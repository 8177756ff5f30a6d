"""Write the parts that messages share: shortened lists, counted nouns, options that name a dataset."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from data_engine.market.series import Dataset, Feed


def and_more(items: Iterable[object], most: int, noun: str = "", *, separator: str = ", ") -> str:
    """Return the first items and the number of the others: ``A, B, C and 4 more``.

    Args:
        items: The items, each written by `str`.
        most: The maximum number of items to write.
        noun: A plural noun for the others, as in ``and 4 more days``.
        separator: The text between two items.
    """
    words = [str(item) for item in items]
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return separator.join(words[:most]) + (f"{more} {noun}" if more and noun else more)


def indented(lines: Sequence[str], most: int) -> str:
    """Return the first lines, indented, and the number of the others on a line of its own.

    Args:
        lines: The lines.
        most: The maximum number of lines to write.
    """
    more = [f"and {len(lines) - most:,} more"] if len(lines) > most else []
    return "\n".join(f"  {line}" for line in [*lines[:most], *more])


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a count with its noun: ``1 request``, ``2,000 requests``.

    Args:
        count: The count.
        noun: The noun in the singular.
        nouns: The noun in the plural. If None, *noun* and an ``s``.
    """
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def did_you_mean(names: Iterable[str], known: Iterable[str]) -> str:
    """Return the known names that unknown ones may be meant for, after a semicolon; empty if none is close.

    Args:
        names: The unknown names.
        known: The names that exist.
    """
    there = sorted(known)
    close = [one for name in names for one in difflib.get_close_matches(name, there, n=1, cutoff=0.7)]
    return f"; did you mean {and_more(dict.fromkeys(close), 10)}?" if close else ""


def dataset_options(dataset: Dataset) -> str:
    """Return the options that name a dataset on the command line, each after a space; those with a default are left out."""
    options = {
        "timeframe": "" if str(dataset.timeframe) == "1Min" else dataset.timeframe,
        "adjustment": "" if dataset.adjustment.is_raw else dataset.adjustment,
        "feed": "" if dataset.feed is Feed.SIP else dataset.feed.value,
    }
    return "".join(f" --{name} {value}" for name, value in options.items() if value)
