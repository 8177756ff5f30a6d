"""Decode a page of JSON to columns with a few lines of C, if they could be compiled at installation.

`hatch_build.py` puts the library beside this file. If it is missing (no compiler, another kind of machine) or cannot be trusted
(`native_library`), `page_decoder` decodes without it: the same bars, for six times the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_engine.alpaca.native_library import library as library
from data_engine.alpaca.page_decoder import read_plain
from data_engine.alpaca.page_format import KEYS, LISTS_BEGIN, MOST_UNKNOWN, PAGE_LIMIT, frame, slices_of
from data_engine.market.bars import EMPTY, make_table
from data_engine.market.bars_page import BarsPage

if TYPE_CHECKING:
    import ctypes


_INEXACT = -2  # as in the source

_SHORTEST_ROW = len('{"t":"2024-06-03T08:00:00Z","o":1,"h":1,"l":1,"c":1,"v":1,"n":1,"vw":1},')


def read_compiled(body: bytes, code: ctypes.CDLL) -> BarsPage | None:
    """Return the bars of a page without white space whose values are plain numbers and whole seconds of UTC, else None.

    Unlike `read_plain` it reads each row for itself, so the keys' order is free, and a number has the form that JSON gives it.
    Unknown fields with plain values are passed over.
    The other threads run meanwhile. A page with a number of more than 15 to 18 digits is read by `read_plain`.

    Args:
        body: The page.
        code: The decoder, from `library`.
    """
    framed = frame(body)
    if framed is None:
        return None
    end, token, _ = framed
    if end == LISTS_BEGIN:
        return BarsPage(EMPTY, (), token, len(body))
    # One more than a page can have: `read_page` refuses such a page, and says how many bars it has.
    capacity = min(len(body) // _SHORTEST_ROW, PAGE_LIMIT) + 1
    columns = np.empty((len(KEYS), capacity))
    times = columns[0].view(np.int64)
    heads = np.empty((capacity, 3), np.int64)
    stopped = np.empty(1, np.int64)
    others = np.zeros(1 + 2 * MOST_UNKNOWN, np.int64)
    arrays = (array.ctypes.data for array in (times, columns[1], heads, stopped, others))
    lists = code.read_bars(body, len(body), LISTS_BEGIN, capacity, *arrays)
    if (lists < 0 and lists != _INEXACT) or stopped[0] != end:
        return None
    if lists == _INEXACT:
        return read_plain(body)  # any number of digits, still without an object per bar
    begins, ends, stops = heads[:lists].T.tolist()
    slices = slices_of([body[begin:stop].decode() for begin, stop in zip(begins, ends, strict=True)], stops)
    if slices is None:
        return None
    rows, places = stops[-1], others[1 : 1 + 2 * int(others[0])].reshape(-1, 2).tolist()
    unknown = tuple(sorted(body[begin:stop].decode() for begin, stop in places))
    return BarsPage(make_table(times[:rows], list(columns[1:, :rows])), slices, token, len(body), unknown=unknown)
