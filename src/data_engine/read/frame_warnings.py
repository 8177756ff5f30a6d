"""Define the warnings of the calls that store and load bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_engine.market.bar_frame import Folded
    from data_engine.market.series import Dataset


class IncompleteWarning(UserWarning):
    """The store does not hold all that a call asks for."""


class AdjustmentWarning(UserWarning):
    """Adjusted bars are not what they seem: a record is doubtful, two price bases meet, or a symbol was left out."""


class ConflictWarning(UserWarning):
    """Alpaca has revised or dropped bars that a call returns as they are stored."""


class FrameWarning(UserWarning):
    """A DataFrame to store does not say which bars it has, or has two rows of one bar that differ."""


def unmarked(dataset: Dataset) -> str:
    """Return the warning of a frame that does not say which bars it has."""
    return f"nothing says which bars these are: stored in {dataset.name}; pass timeframe='1Min' if that is right"


def differing(folded: Folded) -> str:
    """Return the warning of a frame with two rows of one bar that differ."""
    return f"{folded.differing:,} of {folded.rows:,} rows differ from a later row of the same bar; the last one was stored"
