"""Tell what is ours in a settings file that other programs share, what is only nearly ours, and which numbers can be used."""

from __future__ import annotations

import configparser
import difflib
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

from data_engine.errors import ConfigError

_HEADER = re.compile(r"\[(?P<name>.+)\]\s*")

_NEARLY = 0.86  # of the letters in order: ``api_thread`` and ``local_storage`` are, ``fee`` and ``storage_dir`` are not


def near_miss(word: str, words: Sequence[str]) -> str | None:
    """Return the word that was meant by one that is nearly the same, or None: it is another program's."""
    letters = re.sub(r"[^a-z]", "", word)
    close = [known for known in words if letters == known.replace("_", "")]
    close += difflib.get_close_matches(word, words, n=1, cutoff=_NEARLY)
    return close[0] if close and word not in words else None


def own_sections(text: str, names: Iterable[str]) -> str:
    """Return the text of a settings file with blank lines in the sections of other programs, whose form may be another.

    Args:
        text: The text.
        names: The names of our sections; those that are nearly one of them are kept, too.
    """
    known = ("default", *names)
    lines, ours = [], True
    for line in text.splitlines():
        header = _HEADER.fullmatch(line)
        if header is not None:
            name = header["name"].strip().lower()
            ours = name in known or near_miss(name, known) is not None
        lines.append(line if ours or header is not None else "")
    return "\n".join(lines)


def read_sections(text: str, problems: list[str]) -> configparser.ConfigParser:
    """Return what a settings file has, and add to *problems* what is wrong with its form."""
    parser = configparser.ConfigParser(interpolation=None)  # its messages quote lines, which may be credentials
    try:
        parser.read_string(text)
    except configparser.DuplicateOptionError as error:
        problems.append(f"line {error.lineno}: [{error.section}] {error.option} appears twice; remove one")
    except configparser.DuplicateSectionError as error:
        problems.append(f"line {error.lineno}: section [{error.section}] appears twice; merge them")
    except configparser.MissingSectionHeaderError as error:
        problems.append(f"line {error.lineno}: text outside a section; start the file with [linux], [macos] or [windows]")
        return parser
    except configparser.ParsingError as error:
        problems += [f"line {line}: is neither 'key = value' nor a [section]" for line, _ in error.errors]
        return parser
    else:
        return parser
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with suppress(configparser.Error):  # report the problems of the rest, too
        parser.read_string(text)
    return parser


class OutOfBounds(ConfigError):
    """A number cannot be used. The message begins with "must be", so that the name of the setting goes before it."""


def whole_number(value: object, most: int, least: int = 1) -> int:
    """Return a whole number of a setting.

    Raises:
        OutOfBounds: If it is none, or not from *least* to *most*.
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise OutOfBounds(f"must be a whole number from {least} to {most:,}, not {value!r}")
    return value
