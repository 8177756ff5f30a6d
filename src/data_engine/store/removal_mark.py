"""Mark a file in a bucket as removed: with an object that is no file.

An object that another process may write is never removed unconditionally, so what marks a removed file may stay. A removed bar
file is marked by a Parquet file without rows, so that every program that reads all Parquet files below a folder can read it. All
other files are marked by an empty object. A copy of the bucket on a disk carries the marks, so they are no files there either.
"""

from __future__ import annotations

from base64 import b64decode

_WITHOUT_ROWS = b64decode(
    b"UEFSMRUEGZw1ABgGc2NoZW1hFRAAFQQlABgJdGltZXN0YW1wJRRMjBEcLAAAAAAAFQolABgEb3BlbgAVCiUAGARoaWdoABUKJQAYA2xvdwAVCiUA"
    b"GAVjbG9zZQAVCiUAGAZ2b2x1bWUAFQolABgLdHJhZGVfY291bnQAFQolABgEdndhcAAWABkMKCBwYXJxdWV0LWNwcC1hcnJvdyB2ZXJzaW9uIDI2"
    b"LjAuMRmMHAAAHAAAHAAAHAAAHAAAHAAAHAAAHAAAAMMAAABQQVIx"
)
"""A Parquet file with the columns of a bar file and no row. No file with a bar is that small, so its size tells it."""

LARGEST_MARK = len(_WITHOUT_ROWS)
"""The size in bytes of the largest mark."""


def tombstone(key: str) -> bytes:
    """Return the content that marks a file as removed."""
    return _WITHOUT_ROWS if key.endswith(".parquet") else b""


def is_mark(key: str, size: int) -> bool:
    """Tell whether a file or an object of this size is a mark."""
    return size == (LARGEST_MARK if key.endswith(".parquet") else 0)


def is_file(key: str, size: int) -> bool:
    """Tell whether an object of this size is a file: not a mark, and not empty."""
    return size != 0 and not is_mark(key, size)
