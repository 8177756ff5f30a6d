"""Define the warnings of the calls that store and load bars."""

from __future__ import annotations


class IncompleteWarning(UserWarning):
    """The store does not hold all that a call asks for."""


class AdjustmentWarning(UserWarning):
    """Adjusted bars are not what they seem: a record is doubtful, two price bases meet, or a symbol was left out."""


class ConflictWarning(UserWarning):
    """Alpaca has revised or dropped bars that a call returns as they are stored."""


class FrameWarning(UserWarning):
    """A DataFrame to store does not say which bars it has, or has two rows of one bar that differ."""
