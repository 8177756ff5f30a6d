"""The version, as installed."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("data-engine")


def written_by() -> str:
    """Return the name and version of the program, as it is written into what it writes."""
    return f"data-engine {__version__}"
