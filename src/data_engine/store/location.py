"""Where a store is: a folder on this machine, or an address of an object store; and how either is opened."""

from __future__ import annotations

import re
from pathlib import Path

from data_engine.errors import ConfigError, InputError
from data_engine.store.file_store import FileStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.s3.bucket import parts_of

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
"""How a path of Windows begins."""


def parse_location(value: object, home: Path | None, start: Path) -> Path | str:
    """Return where a store is: an absolute path, or an ``s3://`` address without a slash at its end.

    Args:
        value: what was said, text or path.
        home: what ``~`` is.
        start: the folder where a relative path begins.

    Raises:
        ConfigError: it names no place; the message says why, and not whose value it was.
    """
    if not isinstance(value, str | Path):
        raise ConfigError(f"a path is text, was {value!r}")
    text = str(value).strip()
    if not text:
        raise ConfigError("is empty; name a folder")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ConfigError(f"{text!r} contains a control character")
    if text.startswith("s3:") and "@" in text:
        raise ConfigError("an s3:// address holds no credentials; they come from the AWS variables")
    if re.fullmatch(r"s3://[^/]+(/.*)?", text):
        parts_of(text)
        return text.rstrip("/")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ConfigError(f"{text!r} is neither a folder nor an s3://bucket/prefix address")
    if text.startswith("~"):
        if text[1:2] not in ("", "/", "\\"):
            raise ConfigError(f"{text!r}: of the paths with ~, only ~ and ~/... are understood")
        if home is None:
            raise ConfigError(f"{text!r}: this user has no home folder (HOME is not set); name the folder")
        return home / text[1:].lstrip("/\\")
    return Path(text) if DRIVE.match(text) else start / text


def open_file_store(place: Path | str) -> FileStore:
    """Return the files of a store. Nothing is read, written or sent.

    Args:
        place: what `parse_location` returns.

    Raises:
        ConfigError: an address that cannot be used, or the package for it is not installed.
    """
    if isinstance(place, str):
        from data_engine.store.s3.s3_files import S3Files

        return S3Files(place)
    return LocalFiles(place)


def check_out(out: Path, store: Path | None) -> None:
    """Check, before anything is computed, that a file may be written there.

    Args:
        out: the file.
        store: the folder of the store, where it is one.

    Raises:
        InputError: its folder is not there, it is a folder itself, or it lies in the store.
    """
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file in it")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    if store is not None and out.resolve().is_relative_to(store.resolve()):
        raise InputError(f"--out {out} lies in the store, whose files are its own; name a file elsewhere")
