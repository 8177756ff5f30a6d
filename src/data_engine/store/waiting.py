"""Wait for other writers of a store: how long a caller may, and the warning that it does."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

from data_engine.errors import InputError

MOST_SECONDS = 31_536_000
"""The longest wait, a year: clocks of locks take no more than some centuries."""


class StoreBusyWarning(UserWarning):
    """Another process has locked the store, or a file of it, and a call waits for it."""


def check_wait(seconds: float) -> float:
    """Return the seconds that a caller wants to wait.

    Raises:
        InputError: If it is no number from 0 to a year.
    """
    if not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_SECONDS:
        raise InputError(f"wait must be a number of seconds from 0 to {MOST_SECONDS:,.0f}, not {seconds!r}")
    return float(seconds)


def warn_waiting(location: str, seconds: float) -> Callable[[], None]:
    """Return a function that warns the caller of the calling function that it waits, each time."""
    caller = sys._getframe(2)

    def warn() -> None:
        text = f"store {location} is locked by another process; waiting up to {seconds:g} s"
        # With a registry of its own: else Python would show the same text once.
        warnings.warn_explicit(text, StoreBusyWarning, caller.f_code.co_filename, caller.f_lineno, registry={})

    return warn
