"""Shorten a text from the store, so that no message makes a report large."""

from __future__ import annotations

_MOST = 600  # characters


def short_text(text: str) -> str:
    """Return a text of at most 600 characters."""
    return text if len(text) <= _MOST else text[: _MOST - 3] + "..."
