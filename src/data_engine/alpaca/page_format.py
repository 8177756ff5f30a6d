"""The form of a page of bars: what all who decode one must know.

Source: the OpenAPI file of Alpaca's market data API, and recorded answers (docs/explanation/protocol.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

PAGE_LIMIT = 10_000
"""The most bars that one answer carries, over all symbols together."""

KEYS = {"t": "timestamp", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "n": "trade_count", "vw": "vwap"}
"""The keys of a bar on the wire, each with its column."""

LISTS_BEGIN = len(b'{"bars":{')
"""Where the first symbol stands in a page without white space."""

_TAIL = re.compile(rb'\},"next_page_token":(?:null|"([!#-\[\]-~]+)")\}[ \t\n\r]*')


def frame(body: bytes) -> tuple[int, str | None] | None:
    """Return where the lists of bars end, and the token, of a page without white space; None for any other.

    The end is the place of the brace behind the lists, so what lies from `LISTS_BEGIN` to there is lists and nothing else.
    """
    end = body.rfind(b'},"next_page_token":')
    tail = _TAIL.fullmatch(body, end) if end >= LISTS_BEGIN else None
    if tail is None or not body.startswith(b'{"bars":{'):
        return None
    return end, tail[1].decode() if tail[1] is not None else None


def slices_of(symbols: Sequence[str], stops: Sequence[int]) -> tuple[tuple[str, int, int], ...] | None:
    """Return the runs of lists that follow each other, each up to its stop; None where a symbol stands twice."""
    if len(set(symbols)) < len(symbols):
        return None
    return tuple(sorted((symbol, start, stop) for symbol, (start, stop) in zip(symbols, pairwise((0, *stops)), strict=True)))
