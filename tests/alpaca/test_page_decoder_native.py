"""The compiled decoder: what it reads is exact, what it does not know it leaves alone, and it stays within its bounds."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.alpaca import native_library, page_decoder_native
from data_engine.alpaca.page_decoder import read_plain
from data_engine.alpaca.page_decoder_native import library, read_compiled
from data_engine.alpaca.page_format import LISTS_BEGIN

SOURCE = Path(page_decoder_native.__file__).with_suffix(".c")
CODE = library()

PURE = os.environ.get("DATA_ENGINE_PURE") == "1"
COMPILER = next(filter(shutil.which, ("cc", "gcc", "clang")), None)

needs_code = pytest.mark.skipif(CODE is None, reason="there is no compiled decoder: no C compiler where this was installed")


def test_where_there_is_a_compiler_there_is_the_decoder():
    """A source that does not compile, or an installation that is older than it, must not pass for a machine without compiler."""
    if COMPILER is None or PURE:
        pytest.skip("no C compiler here")

    assert CODE is not None, "make clean, and again"


def page_with(*rows: str) -> bytes:
    return f'{{"bars":{{"A":[{",".join(rows)}]}},"next_page_token":null}}'.encode()


def row(close: str = "1", time: str = "2024-06-03T08:00:00Z") -> str:
    return f'{{"c":{close},"h":1,"l":1,"n":1,"o":1,"t":"{time}","v":1,"vw":1}}'


def closes(body: bytes) -> list[float] | None:
    assert CODE is not None
    page = read_compiled(body, CODE)
    return None if page is None else page.table.column("close").to_pylist()


# Numbers


@needs_code
@given(st.from_regex(r"(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?", fullmatch=True, alphabet="0123456789."))
def test_a_number_is_the_double_that_python_reads(text):
    assert closes(page_with(row(text))) == [float(text)]


@needs_code
@pytest.mark.parametrize(
    "text",
    ["9007199254740991", "9007199254740992", "9007199254740993", "0.1", "900719925474099.3", "900719925474099.25",
     "0." + "0" * 17 + "1", "0." + "0" * 40 + "1", "18446744073709551617", "1" * 300],
)  # fmt: skip
def test_numbers_at_the_edge_are_exact(text):
    """The last that one division is exact for, and the first that the other decoder has to read."""
    assert closes(page_with(row(text))) == [float(text)]


@needs_code
def test_a_number_of_many_digits_makes_no_objects_of_bars(monkeypatch):
    """It goes to the plain decoder with its page, not to the general one."""
    bodies = []
    monkeypatch.setattr(page_decoder_native, "read_plain", lambda body: bodies.append(body) or read_plain(body))

    assert closes(page_with(row("194.25184573920184"), row("194.25", "2024-06-03T08:01:00Z"))) == [194.25184573920184, 194.25]
    assert len(bodies) == 1


@needs_code
@pytest.mark.parametrize(
    "text",
    [
        "1e5",
        "1E5",
        "-1",
        "+1",
        "01",
        "00",
        "1.",
        ".5",
        "1..2",
        "1.2.3",
        "",
        " 1",
        "1 ",
        "0x1",
        "NaN",
        "null",
        '"1"',
        "1_000",
        "1,000",
    ],
)
def test_a_number_that_is_not_plain_is_left_alone(text):
    assert closes(page_with(row(text))) is None


# Times


@needs_code
def test_every_day_of_five_centuries_is_counted_as_the_standard_library_does():
    days = [date(1700, 1, 1) + timedelta(days) for days in range(365 * 500)]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert CODE is not None
    for at in range(0, len(days), 9000):
        part = days[at : at + 9000]
        page = read_compiled(page_with(*(row(time=f"{day}T23:59:58Z") for day in part)), CODE)
        assert page is not None
        whole = [datetime(day.year, day.month, day.day, 23, 59, 58, tzinfo=UTC) - epoch for day in part]
        assert page.times.tolist() == [span // timedelta(microseconds=1) for span in whole]


@needs_code
@pytest.mark.parametrize(
    "time",
    ["0000-01-01T00:00:00Z", "2024-00-01T00:00:00Z", "2024-13-01T00:00:00Z", "2024-01-00T00:00:00Z", "2024-01-32T00:00:00Z",
     "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2024-02-30T00:00:00Z", "2024-04-31T00:00:00Z", "2024-01-01T24:00:00Z",
     "2024-01-01T00:60:00Z", "2024-01-01T00:00:60Z", "2024-01-01 00:00:00Z", "2024/01/01T00:00:00Z", "2024-01-01T00:00:00z",
     "2024-01-01T00:00:00", "2024-01-01T00:00:0Z", "2024-1-01T00:00:00ZZ", "2024-01-01T00:00:00+00:00", "\0" * 10 + "T00:00:00Z"],
)  # fmt: skip
def test_a_time_that_is_none_is_left_alone(time):
    """Also behind a good one of the same day, whose date is remembered."""
    assert closes(page_with(row(time=time))) is None
    assert closes(page_with(row(time="2024-01-01T00:00:00Z"), row(time=time))) is None


@needs_code
@pytest.mark.parametrize("year", [1, 1600, 2000, 2400, 9996])
def test_leap_days_are_days(year):
    if year == 1:
        assert closes(page_with(row(time="0001-01-01T00:00:00Z"))) == [1.0]
    else:
        assert closes(page_with(row(time=f"{year}-02-29T00:00:00Z"))) == [1.0]


# Bounds

PAGE = (
    '{"bars":{"A":['
    + row("12.5")
    + ","
    + row("13", "2024-06-03T08:01:00Z")
    + '],"BRK.B":['
    + row("7")
    + ']},"next_page_token":null}'
).encode()

READ_AT_THE_EDGE = """
import ctypes, mmap, sys
import numpy as np
from data_engine.alpaca.page_decoder_native import library

code, body, size = library(), sys.stdin.buffer.read(), mmap.PAGESIZE
place = mmap.mmap(-1, 2 * size)
start = ctypes.addressof(ctypes.c_char.from_buffer(place))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(start + size), ctypes.c_size_t(size), 0) == 0
pointer, number = ctypes.c_void_p, ctypes.c_int64
read = ctypes.CFUNCTYPE(number, *(pointer, number, number, number, *[pointer] * 5))(
    ctypes.cast(code.read_bars, pointer).value
)
columns, heads, stopped, others = np.empty((8, 9)), np.empty((9, 3), np.int64), np.zeros(1, np.int64), np.zeros(17, np.int64)
arrays = [array.ctypes.data for array in (columns, columns[1:], heads, stopped, others)]
found = []
for cut in range(len(body) + 1):
    ctypes.memmove(start + size - cut, body, cut)
    found.append(read(start + size - cut, cut, 9, 9, *arrays))
print(found)
"""


@needs_code
@pytest.mark.parametrize(("count", "taken"), [(8, True), (9, False)])
def test_a_few_unknown_fields_are_passed_over_and_many_are_left_alone(count, taken):
    """Nothing is written behind the array of their names."""
    fields = "".join(f'"x{number}":{number},' for number in range(count)).encode()
    body = PAGE.replace(b'{"c"', b"{" + fields + b'"c"')
    others = np.full(40, 777, np.int64)
    columns, heads, stopped = np.empty((8, 9)), np.empty((9, 3), np.int64), np.zeros(1, np.int64)
    arrays = (array.ctypes.data for array in (columns, columns[1:], heads, stopped, others))

    assert (CODE.read_bars(body, len(body), LISTS_BEGIN, 9, *arrays) == 2) == taken
    assert (others[17:] == 777).all()
    assert [body[begin:end].decode() for begin, end in others[1:17].reshape(-1, 2)] == [f"x{number}" for number in range(8)]


@needs_code
@pytest.mark.skipif(sys.platform == "win32", reason="memory that may not be read is made with mprotect")
@pytest.mark.parametrize(
    ("there", "instead"),
    [
        (b"", b""),
        (b"12.5", b"1" * 60),
        (b"12.5", b"1." + b"1" * 60),
        (b"BRK.B", b"B" * 60),
        (b'{"c"', b'{"another":-1.5e-10,"some_text":"a b","n_1":null,"yes":true,"no":false,"c"'),
    ],
    ids=["page", "digits", "fraction", "symbol", "unknown-fields"],
)
def test_nothing_is_read_behind_the_end_of_the_text(there, instead):
    """The text ends where memory ends that may be read, at each of its bytes in turn: one byte too far kills the process."""
    body = PAGE.replace(there, instead, 1)
    assert len(body) < mmap.PAGESIZE
    done = subprocess.run([sys.executable, "-c", READ_AT_THE_EDGE], input=body, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()[-500:]
    found = json.loads(done.stdout)
    if there == b"12.5":
        assert set(found) == {-1, -2}  # a number of sixty digits is none of its own
        return
    lists_end = body.rindex(b'},"next_page_token"')
    assert set(found[: lists_end + 1]) == {-1}
    assert found[-1] == 2  # and where only the token is cut off, either: it looks ahead for a whole field


def call(body: bytes, capacity: int, room: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Call the code as it is, with arrays that are longer than it is given, filled with a mark."""
    assert CODE is not None
    columns, heads, stopped = (
        np.full(8 * capacity + room, 777.0),
        np.full(3 * capacity + room, 777, np.int64),
        np.zeros(1, np.int64),
    )
    others = np.zeros(17, np.int64)
    arrays = (array.ctypes.data for array in (columns, columns[capacity:], heads, stopped, others))
    lists = CODE.read_bars(body, len(body), LISTS_BEGIN, capacity, *arrays)
    return lists, columns, heads


@needs_code
@pytest.mark.parametrize("capacity", range(5))
def test_nothing_is_written_behind_the_end_of_the_arrays(capacity):
    lists, columns, heads = call(PAGE, capacity, room=100)

    assert lists == (2 if capacity >= 3 else -1)
    assert (columns[8 * capacity :] == 777).all()
    assert (heads[3 * capacity :] == 777).all()


@needs_code
def test_a_start_outside_the_text_is_refused():
    assert CODE is not None
    for start in (-1, len(PAGE) + 1):
        assert CODE.read_bars(PAGE, len(PAGE), start, 0, None, None, None, None, None) == -1


@needs_code
def test_a_page_of_more_bars_than_a_page_has_is_left_alone():
    times = (datetime(2024, 6, 3, tzinfo=UTC) + timedelta(minutes=at) for at in range(10_002))

    assert closes(page_with(*(row(time=f"{time:%Y-%m-%dT%H:%M:%SZ}") for time in times))) is None


# Where there is none


def test_without_the_library_there_is_none(tmp_path):
    assert loaded_in(tmp_path) == "None"


def test_a_file_that_is_no_library_is_none(tmp_path):
    (tmp_path / native_library.LIBRARY).write_bytes(b"not a library")

    assert loaded_in(tmp_path) == "None"


@pytest.mark.parametrize(
    "source",
    ["unsigned data_engine_source(void) { return 999; }", "unsigned something_else(void) { return 1; }"],
    ids=["of-another-source", "of-another-kind"],
)
def test_a_library_that_was_made_of_something_else_is_none(tmp_path, source):
    if COMPILER is None:
        pytest.skip("no C compiler")
    made = tmp_path / native_library.LIBRARY
    (tmp_path / "other.c").write_text(source)
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", str(made), str(tmp_path / "other.c")], check=True)

    assert loaded_in(tmp_path) == "None"


@needs_code
@pytest.mark.parametrize("changed", [b"", b"\n"], ids=["as-it-was", "changed"])
def test_a_library_is_taken_with_its_own_source_alone(tmp_path, changed):
    """After an update that did not compile again, a corrected fault must not live on in the old library."""
    copy_library(tmp_path)

    assert (loaded_in(tmp_path, changed) == "None") == bool(changed)


@needs_code
@pytest.mark.parametrize("damage", ["cut", "cut-to-a-page", "zeros", "one-bit", "no-sum", "sum-of-another"])
def test_a_damaged_library_is_none_and_does_not_end_the_process(tmp_path, damage):
    copy_library(tmp_path)
    made, digest = tmp_path / native_library.LIBRARY, tmp_path / native_library.SUM
    content = made.read_bytes()
    at = content.index(b"data_engine_source")
    changed = {
        "cut": content[: len(content) // 2],
        "cut-to-a-page": content[:4096],
        "zeros": content[:1000] + bytes(len(content) - 1000),
        "one-bit": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :],
    }
    made.write_bytes(changed.get(damage, content))
    if damage == "no-sum":
        digest.unlink()
    elif damage == "sum-of-another":
        digest.write_text("0" * 64)

    assert loaded_in(tmp_path) == "None"


def copy_library(folder: Path) -> None:
    for name in (native_library.LIBRARY, native_library.SUM):
        shutil.copy(Path(native_library.__file__).with_name(name), folder)


WRONG = {
    "nothing": "return -1;",
    "no-digits": "*stopped = size - 1; heads[0] = 10; heads[1] = 11; heads[2] = 2; return 1;",
    "crash": "return *(volatile int *)0;",
    "end": "__builtin_trap();",
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_a_decoder_that_reads_wrong_is_not_installed(tmp_path, monkeypatch, body):
    """The build tries it in a process of its own: here one that says it was made of the source, and is something else."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    crc = __import__("zlib").crc32(SOURCE.read_bytes())
    arguments = "const char *b, int64_t size, int64_t s, int64_t c, int64_t *t, double *v, int64_t *heads, int64_t *stopped, "
    arguments += "int64_t *others"
    (tmp_path / "other.c").write_text(
        f"#include <stdint.h>\nuint32_t data_engine_source(void) {{ return {crc}u; }}\n"
        f"int64_t read_bars({arguments}) {{ {body} }}\n"
    )
    made = tmp_path / native_library.LIBRARY
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", str(made), str(tmp_path / "other.c")], check=True)
    tried = subprocess.run([sys.executable, native_library.__file__, str(made), str(SOURCE)], capture_output=True, check=False)

    assert tried.returncode != 0


@needs_code
def test_flags_that_change_the_arithmetic_of_the_process_do_not(tmp_path):
    """`-ffast-math` where it links has start files that set flush-to-zero; they are left out."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    made = tmp_path / "made.native"
    command = [COMPILER, "-std=c99", "-O3", "-shared", "-fPIC", f"-DSOURCE_CRC={__import__('zlib').crc32(SOURCE.read_bytes())}u"]
    flags = ["-funsafe-math-optimizations", "-fno-fast-math", "-fno-unsafe-math-optimizations", "-nostartfiles"]
    subprocess.run([*command, *flags, "-o", str(made), str(SOURCE)], check=True)
    tried = subprocess.run([sys.executable, native_library.__file__, str(made), str(SOURCE)], capture_output=True, check=False)

    assert tried.returncode == 0, tried.stderr


@pytest.mark.parametrize("without", ["ctypes", "_ctypes"])
def test_a_python_without_ctypes_has_none_and_works(without):
    code = f"import sys; sys.modules[{without!r}] = None; from data_engine.alpaca.bars_protocol import library; print(library())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.returncode) == ("None", 0), done.stderr


def loaded_in(folder: Path, changed: bytes = b"") -> str:
    """Return what `library` finds for a copy of the module in *folder*, whose source is *changed*."""
    import hashlib

    shutil.copy(native_library.__file__, folder / "copy_of_it.py")
    (folder / SOURCE.name).write_bytes(SOURCE.read_bytes() + changed)
    made, digest = folder / native_library.LIBRARY, folder / native_library.SUM
    if made.exists() and not any(folder.glob("*.sum.native")) and (folder / "other.c").exists():
        digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest())  # whole, and of another source
    done = subprocess.run(
        [sys.executable, "-c", "import copy_of_it; print(copy_of_it.library())"], cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()
