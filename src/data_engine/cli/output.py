"""Write to stdout and stderr: the edge at which text reaches a terminal or a log.

Characters that would move a cursor, reverse or hide text are written as escapes, wherever they come from. A run goes on when
its output cannot be written; a command whose product is its output ends.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click

from data_engine.errors import DataEngineError, InputError
from data_engine.market.clean_text import clean

RUNS = frozenset(
    {
        *("ingest", "import", "update", "actions", "audit", "recheck", "remove", "demo", "verify", "sandbox", "index"),
        *("report", "export"),
    }
)
"""The commands that do more than print: they finish their work, whatever becomes of their output."""


_NARROWEST = 40  # columns: of a terminal that states none, or fewer, lines are broken as if it had these

_GLUE = "\x1f"  # in place of a space at which a line must not be broken


class OutputFailed(InputError):
    """The output cannot be written, and it is the product of the command."""

    code = "output_failed"


class ReaderGone(DataEngineError):
    """The reader of stdout (``| head``) has all that it wants. It ends a command and is no fault."""

    code = "reader_gone"
    exit_code = 0


class Output:
    """A stream like stdout, which writes clean text and remembers what failed.

    Args:
        stream: The stream. If None, it is closed.
        goes_on: Whether writing goes on in silence once it has failed.

    Attributes:
        stream: The stream, to write text as it is.
        failed: The error of the first write that failed, or None.
    """

    def __init__(self, stream: TextIO | None, *, goes_on: bool) -> None:
        self.stream = stream
        self.failed: Exception | None = None
        self._goes_on = goes_on

    def __getattr__(self, name: str) -> Any:
        if name == "buffer" or self.stream is None:  # bytes would pass by
            raise AttributeError(name)
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text whose characters all show."""
        return self.write_raw(clean(text, lines=True))

    def write_raw(self, text: str) -> int:
        """Write a text as it is, but for characters that the encoding of the stream lacks."""
        self._attempt(lambda stream: _encodable(stream, text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt(lambda stream: stream.flush())

    def isatty(self) -> bool:
        """Tell whether a terminal shows the stream."""
        return self.stream is not None and self.stream.isatty()

    def _attempt(self, act: Callable[[TextIO], object]) -> None:
        if self.failed is None:
            try:
                if self.stream is None:
                    raise OSError("it is closed")
                act(self.stream)
            except (OSError, ValueError) as error:  # ValueError: the stream was closed meanwhile
                self.failed = error
                self._discard()
        # Each time: click tries a stream before it writes, and drops the first error.
        if self.failed is not None and not self._goes_on:
            raise output_error(self.failed) from self.failed

    def _discard(self) -> None:
        """Have what the stream still holds go nowhere, so that the end of the process does not fail for it."""
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)

    def lost(self) -> OutputFailed | None:
        """Return why some of what was written did not arrive; None if it did, or if the reader has gone."""
        with suppress(ReaderGone, OutputFailed):
            self.flush()
        error = None if self.failed is None else output_error(self.failed)
        return error if isinstance(error, OutputFailed) else None


def output_error(error: Exception) -> Exception:
    """Return the error of a command whose product cannot be written; a reader that has gone (``| head``) is none."""
    if isinstance(error, BrokenPipeError):
        return ReaderGone()
    reason = getattr(error, "strerror", None) or error
    return OutputFailed(f"cannot write to stdout: {reason}; check where the output goes")


def _encodable(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


@contextmanager
def printing(words: list[str]) -> Iterator[Output]:
    """Replace stdout and stderr by streams that write clean text while a command runs, and yield that of stdout.

    Args:
        words: The words of the command line.
    """
    command = next((word for word in words if not word.startswith("-")), "")
    before = sys.stdout, sys.stderr
    out = Output(_inner(before[0]), goes_on=command in RUNS)
    sys.stdout = out
    sys.stderr = Output(_inner(before[1]), goes_on=True)
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def raw_streams() -> Iterator[None]:
    """Give a command stdin and stdout as they are, for a protocol of bytes."""
    before = sys.stdout, sys.stderr
    out, err = _inner(before[0]), _inner(before[1])
    if out is None:
        raise output_error(OSError("it is closed"))
    sys.stdout, sys.stderr = out, err or before[1]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _inner(stream: Any) -> TextIO | None:
    return stream.stream if isinstance(stream, Output) else stream


def write_exact(text: str) -> None:
    """Write text to stdout as it is: data of the user's own, for another program."""
    out = sys.stdout
    if isinstance(out, Output):
        out.write_raw(text)
        out.flush()
    else:
        out.write(text)


def print_in_color(text: str, words: Mapping[str, str]) -> None:
    """Print a line on stdout; on a terminal, the first of some words that it has is colored, unless ``NO_COLOR`` is set.

    Args:
        text: The line.
        words: The color of each word, as click names it.
    """
    text = fitted(clean(text, lines=True), sys.stdout)
    found = re.search(rf"(?<= )(?:{'|'.join(words)})(?= )", text) if _in_color() else None
    if found is not None:
        text = text[: found.start()] + click.style(found[0], fg=words[found[0]]) + text[found.end() :]
    write_exact(f"{text}\n")


def fitted(text: str, stream: TextIO, *, indent: int = 4) -> str:
    """Return sentences whose lines fit the terminal that shows them: broken between words, commands in backticks not at all.

    Where no terminal shows them (a log, a pipe), they stay as they are.

    Args:
        text: The text; a line that fits is not changed, so that tables stay as they are.
        stream: Where it will be written.
        indent: The indentation of the lines that follow a broken one, beside its own.
    """
    if not stream.isatty():
        return text
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    return "\n".join(line if len(line) <= width else _wrapped(line, width, indent) for line in text.split("\n"))


def _wrapped(line: str, width: int, indent: int) -> str:
    import textwrap

    if line.lstrip().startswith("data-engine "):  # a command to copy
        return line
    own = len(line) - len(line.lstrip())
    whole = re.sub(r"`[^`]*`", lambda command: command[0].replace(" ", _GLUE), line)
    parts = textwrap.wrap(
        whole, width, subsequent_indent=" " * (own + indent), break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
    return "\n".join(parts).replace(_GLUE, " ")


def _in_color() -> bool:
    """Tell whether stdout shows colors: it is a terminal that has some, and the user did not turn them off."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.platform != "win32" and sys.stdout.isatty()


def fill_closed_streams() -> None:
    """Open what the caller closed (``2>&-``), lest a file of the store get its number and with it what is printed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
