"""Parse the location of a store, a folder or an ``s3://`` URL, and open its files."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from data_engine.errors import ConfigError, InputError
from data_engine.store.file_store import FileStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.s3.bucket import parts_of

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
"""The start of an absolute Windows path."""


def parse_location(value: object, home: Path | None, start: Path) -> Path | str:
    """Return the location of a store: an absolute path, or an ``s3://`` URL without a slash at its end.

    Args:
        value: The text or path that the user gave.
        home: The folder that ``~`` stands for. If None, ``~`` cannot be used.
        start: The folder that a relative path is relative to.

    Raises:
        ConfigError: If it is no location; the message has the reason, not the setting that the value came from.
    """
    if not isinstance(value, str | Path):
        raise ConfigError(f"must be text or a path, not {value!r}")
    text = str(value).strip()
    if not text:
        raise ConfigError("is empty; pass a folder or s3://BUCKET/PREFIX")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ConfigError(f"{text!r} contains a control character")
    if text.startswith("s3:") and "@" in text:
        raise ConfigError("an s3:// URL must not contain credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if re.fullmatch(r"s3://[^/]+(/.*)?", text):
        parts_of(text)
        return text.rstrip("/")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ConfigError(f"{text!r} is not supported; pass a folder or s3://BUCKET/PREFIX")
    if text.startswith("~"):
        if text[1:2] not in ("", "/", "\\"):
            raise ConfigError(f"{text!r} names another user's home; use ~, ~/FOLDER or an absolute path")
        if home is None:
            raise ConfigError(f"{text!r} needs a home folder and HOME is not set; pass an absolute path")
        return home / text[1:].lstrip("/\\")
    return Path(text) if DRIVE.match(text) else start / text


def is_below_file(path: Path | str) -> bool:
    """Tell whether a path, or a path above it, is a file."""
    with suppress(OSError):
        for place in (path, *path.parents) if isinstance(path, Path) else ():
            if place.exists():
                return not place.is_dir()
    return False


def open_file_store(location: Path | str) -> FileStore:
    """Return the files of a store, without reading, writing or sending anything.

    Args:
        location: The location that `parse_location` returned.

    Raises:
        ConfigError: If a URL cannot be used, or the package for it is not installed.
    """
    if isinstance(location, str):
        from data_engine.store.s3.s3_files import S3Files

        return S3Files(location)
    return LocalFiles(location)


def check_out(out: Path, store: Path | None) -> None:
    """Check that ``--out`` names a file that can be written, outside the store.

    Args:
        out: The file.
        store: The folder of the store, or None if it is in a bucket.

    Raises:
        InputError: If its folder does not exist, it is a folder itself, or it is inside the store.
    """
    if out.is_dir():
        raise InputError(f"cannot write --out {out}: it is a folder; pass a file in it")
    if not out.parent.is_dir():
        raise InputError(f"cannot write --out {out}: no folder {out.parent}; create it or pass another file")
    if store is not None and out.resolve().is_relative_to(store.resolve()):
        raise InputError(f"cannot write --out {out}: it is inside the store; pass a file elsewhere")
