"""Say what a task requests, chain by chain. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum

from data_engine.ingest.plan import FetchTask
from data_engine.market.time_range import TimeRange

_NEAR = timedelta(days=4)  # and four times as much, and so on


class Phase(Enum):
    """What a chain of pages is for."""

    COMPARE = "compare"
    PROBE = "probe"
    FETCH = "fetch"


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain of pages to request.

    Attributes:
        symbols: The symbols to request, ascending.
        range: The range to request.
        phase: Whether its bars are compared only, tell only which symbols have any, or are stored.
    """

    symbols: tuple[str, ...]
    range: TimeRange
    phase: Phase


def extension(symbols: tuple[str, ...], span: TimeRange, overlap: TimeRange | None) -> Iterator[Chain]:
    """Yield the chains that bring a range, and before it the held session that its bars are joined to."""
    if overlap is not None and overlap.start >= span.end:
        # It lies after the range, where its bars would come too late: they are requested first.
        yield Chain(symbols, overlap, Phase.COMPARE)
        overlap = None
    start = span.start if overlap is None else min(overlap.start, span.start)
    yield Chain(symbols, TimeRange(start, span.end), Phase.FETCH)


def extensions(task: FetchTask, symbols: Iterable[str]) -> Iterator[Iterator[Chain]]:
    """Yield the chains for symbols with sessions of their own to compare, those whose sessions are about as far away together.

    A request reaches to the farthest session of its symbols; each is compared by its own.
    """
    groups: dict[tuple[bool, int], list[str]] = {}
    for symbol in symbols:
        overlap = task.own_overlaps[symbol]
        behind = overlap.start >= task.range.end
        away = overlap.start - task.range.end if behind else task.range.start - overlap.start
        distance = 0
        while away > _NEAR * 4**distance:
            distance += 1
        groups.setdefault((behind, distance), []).append(symbol)
    for together in groups.values():
        overlaps = [task.own_overlaps[symbol] for symbol in together]
        widest = TimeRange(min(one.start for one in overlaps), max(one.end for one in overlaps))
        yield extension(tuple(sorted(together)), task.range, widest)


def remaining_tasks(task: FetchTask, left: dict[str, TimeRange]) -> Iterator[FetchTask]:
    """Yield what is left of a task that broke off: symbols with the same rest together."""
    by_rest: dict[TimeRange, list[str]] = {}
    for symbol, rest in left.items():
        by_rest.setdefault(rest, []).append(symbol)
    for rest, symbols in by_rest.items():
        share = rest.length / task.range.length * len(symbols) / len(task.symbols)
        part = replace(task.with_symbols(sorted(symbols), estimate=task.estimate * share), range=rest)
        # A symbol that has not begun is still to be compared; one that broke off in the middle was.
        yield part if rest == task.range else replace(part, overlap=None, own_overlaps={})
