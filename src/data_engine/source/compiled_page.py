"""The quickest way from a page of JSON to columns: a few lines of C, where the machine that installed us could compile them.

`hatch_build.py` puts the library beside this file. Where it is missing (no compiler, another kind of machine), or does not fit,
`plain_page` decodes without it: the same bars, for six times the work.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from data_engine.bars import EMPTY, make_table
from data_engine.source.bars_page import KEYS, LISTS_BEGIN, PAGE_LIMIT, Page, frame, runs_of

LIBRARY = "compiled_page.native"
"""The file's name on every system. With the usual ending, Python would take it for the module itself."""

_ABI = 1  # as in compiled_page.c
_SHORTEST_ROW = len('{"t":"2024-06-03T08:00:00Z","o":1,"h":1,"l":1,"c":1,"v":1,"n":1,"vw":1},')


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled decoder; None where there is none that fits this version."""
    try:
        # The whole path: nothing is looked for anywhere else.
        loaded = ctypes.CDLL(str(Path(__file__).resolve().with_name(LIBRARY)))
        if loaded.data_engine_abi() != _ABI:
            return None
        read = loaded.read_bars
    except (OSError, AttributeError):
        return None
    count, array = ctypes.c_int64, ctypes.c_void_p
    read.argtypes = (ctypes.c_char_p, count, count, count, array, array, array, ctypes.POINTER(count))
    read.restype = count
    return loaded


def read_compiled(body: bytes, code: ctypes.CDLL) -> Page | None:
    """Read a page without white space whose values are plain numbers and whole seconds of UTC; None for any other.

    Unlike `plain_page.read_plain` it reads each row for itself, so the keys' order is free, and a number has the form that JSON
    gives it. The other threads run meanwhile.

    Args:
        body: the page.
        code: of `library`.
    """
    framed = frame(body)
    if framed is None:
        return None
    end, token = framed
    if end == LISTS_BEGIN:
        return Page(EMPTY, (), token, len(body))
    # A page of more bars than were asked for is the general decoder's to refuse.
    capacity = min(len(body) // _SHORTEST_ROW, PAGE_LIMIT) + 1
    columns = np.empty((len(KEYS), capacity))
    times = columns[0].view(np.int64)
    heads = np.empty((capacity, 3), np.int64)
    stopped = ctypes.c_int64()
    lists = code.read_bars(
        body,
        len(body),
        LISTS_BEGIN,
        capacity,
        times.ctypes.data,
        columns[1].ctypes.data,
        heads.ctypes.data,
        ctypes.byref(stopped),
    )
    if lists < 0 or stopped.value != end:
        return None
    begins, ends, stops = heads[:lists].T.tolist()
    runs = runs_of([body[begin:stop].decode() for begin, stop in zip(begins, ends, strict=True)], stops)
    if runs is None:
        return None
    rows = stops[-1]
    return Page(make_table(times[:rows], list(columns[1:, :rows])), runs, token, len(body))
