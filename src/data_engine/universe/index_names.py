"""Check the names of indices, and derive them from file names."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from data_engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


_LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".list")

_MAX_NAME = 64

_RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})


def check_index_name(name: str) -> str:
    """Return *name* if an index, and a file on every system, can have it.

    Raises:
        InputError: If they cannot; the message has the reason.
    """
    fault = name_fault(name)
    if fault is not None:
        raise InputError(f"index name {name!r} {fault}")
    return name


def index_name_of(path: str | Path) -> str:
    """Return the name of the index for a file of symbols: ``sp500_2025`` for ``sp500-2025.csv``.

    Lower case; every run of other characters than letters and digits becomes one ``_``.

    Raises:
        InputError: If nothing of the file's name is left.
    """
    file = re.split(r"[/\\]", str(path))[-1]
    stem, dot, suffix = file.rpartition(".")
    if not dot or f".{suffix.lower()}" not in _LIST_SUFFIXES:
        stem = file
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower())[:_MAX_NAME].strip("_")
    if not name:
        raise InputError(f"cannot derive an index name from {str(path)!r}; pass --index NAME (index_name=...)")
    return name if name.upper() not in _RESERVED else f"{name}_list"


def derived_name(path: str | Path) -> str | None:
    """Return what `index_name_of` returns, or None if no name can be derived: a list is then not stored."""
    with suppress(InputError):
        return index_name_of(path)
    return None


def name_fault(name: object) -> str | None:
    """Return why an index cannot have *name*, or None if it can."""
    if not isinstance(name, str):
        return "is not a string"
    if not 1 <= len(name) <= _MAX_NAME:
        return f"must have 1 to {_MAX_NAME} characters"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return "must begin with a letter or digit and contain only letters, digits, '_', '-' and '.'"
    if name.endswith("."):
        return "must not end with '.'"
    if name.split(".")[0].upper() in _RESERVED:
        return "is the name of a device on Windows"
    return None
