"""Load the compiled decoder, if it is whole, was made of the source beside it and reads a page with a known answer right.

A library that was cut short ends the process that loads it, so its checksum is compared first. This module is light: `--version`
says by it which decoder runs. `hatch_build.py` runs it as a program, in a process of its own, to try a library that it has made.
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes


LIBRARY = "page_decoder_native.native"
"""The file's name on every system. With the usual ending, Python would take it for a module."""

SOURCE = "page_decoder_native.c"

SUM = "page_decoder_native.sum.native"
"""The file with the SHA-256 of the library, as `hatch_build.py` made it."""

_PAGE = (
    b'{"bars":{"A":[{"t":"2024-02-29T23:59:59Z","o":0.1,"h":194.2518,"l":0,"c":90071992547409.91,"v":9007199254740991,"n":7,'
    b'"vw":0.000001,"vw2":-1.5e3},{"vw":3,"n":1,"v":2,"c":1.1,"l":2.2,"h":123456.789,"o":0.3,"t":"1999-12-31T00:00:00Z"}]}'
)

_LISTS_BEGIN = len(b'{"bars":{')

_TIMES = (1709251199_000000, 946598400_000000)

_VALUES = ((0.1, 0.3), (194.2518, 123456.789), (0.0, 2.2), (90071992547409.91, 1.1), (9007199254740991.0, 2.0), (7.0, 1.0),
           (0.000001, 3.0))  # fmt: skip


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled decoder, or None if there is none that can be trusted."""
    folder = Path(__file__).resolve().parent
    try:
        content = (folder / LIBRARY).read_bytes()
        if hashlib.sha256(content).hexdigest() != (folder / SUM).read_text("ascii").strip():
            return None
        # The whole path: nothing is looked for anywhere else.
        return load(folder / LIBRARY, folder / SOURCE)
    except (OSError, ValueError):
        return None


def load(path: Path, source: Path) -> ctypes.CDLL | None:
    """Return the decoder in a library, or None if it was not made of *source*, or does not read as it must."""
    try:
        import ctypes  # which needs a library that not every Python was built with

        loaded = ctypes.CDLL(str(path))
        made_of = loaded.data_engine_source
        made_of.restype = ctypes.c_uint32
        if made_of() != zlib.crc32(source.read_bytes()):
            return None
        read = loaded.read_bars
    except (OSError, AttributeError, ImportError):
        return None
    count, array = ctypes.c_int64, ctypes.c_void_p
    read.argtypes = (ctypes.c_char_p, count, count, count, array, array, array, array, array)
    read.restype = count
    return loaded if _reads_right(loaded) else None


def _reads_right(loaded: ctypes.CDLL) -> bool:
    """Tell whether a decoder reads a page as it must, and leaves the arithmetic of the process as it was."""
    import ctypes

    room = 3
    times, values = (ctypes.c_int64 * room)(), (ctypes.c_double * (7 * room))()
    heads, stopped = (ctypes.c_int64 * (3 * room))(), ctypes.c_int64(0)
    others = (ctypes.c_int64 * 17)()
    places = (ctypes.addressof(one) for one in (times, values, heads, stopped, others))
    lists = loaded.read_bars(_PAGE, len(_PAGE), _LISTS_BEGIN, room, *places)
    found = tuple((values[column * room], values[column * room + 1]) for column in range(7))
    begin = _LISTS_BEGIN + 1
    return (
        lists == 1
        and (times[0], times[1]) == _TIMES
        and found == _VALUES
        and (others[0], _PAGE[others[1] : others[2]]) == (1, b"vw2")
        and (heads[0], heads[1], heads[2], stopped.value) == (begin, begin + 1, 2, len(_PAGE) - 1)
        # Start files of `-funsafe-math-optimizations` set flush-to-zero, for the whole process.
        and sys.float_info.min / 2 * 2 == sys.float_info.min
        and sys.float_info.min / 2 > 0
    )


if __name__ == "__main__":
    sys.exit(0 if load(Path(sys.argv[1]), Path(sys.argv[2])) is not None else 1)
