"""Run ``data-engine ingest`` from a checkout: ``python run_ingestion.py``.

Without arguments it ingests ``sp500-2025.csv`` from the working directory, 2016-01-01 to 2025-01-01, one-minute bars, and stores
the list as ``sp500_2025``. Its arguments are those of ``data-engine ingest``.

``from run_ingestion import ingest_from_csv`` works, too, and so do ``ingest_symbol_list`` and ``ingest_single_symbol``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

LIST, START, END = "sp500-2025.csv", "2016-01-01", "2025-01-01"

_FUNCTIONS = ("ingest_single_symbol", "ingest_symbol_list", "ingest_from_csv")


def _package(module: str) -> Any:
    """Return a module of the package, which is beside this file if it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
        return import_module(module)


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(_package("data_engine"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main() -> int:
    """Run the ingestion and return its exit code."""
    try:
        command = _package("data_engine.cli").main
    except ModuleNotFoundError as error:
        sys.stderr.write(f"Error: cannot run: {error.name} is not installed; run `pip install .` in this folder\n")
        return 2

    arguments = sys.argv[1:]
    if arguments:
        return int(command(["ingest", *arguments]))
    if not Path(LIST).is_file():
        sys.stderr.write(
            f"Error: cannot ingest {LIST}: no such file in {Path.cwd()}\n"
            f"Add a CSV file of that name with a column Symbol to ingest one-minute bars, {START} to {END}.\n"
            "To ingest another list, run `python run_ingestion.py --csv FILE --start 2024-01-01`.\n"
            "To try it without an account, run `data-engine demo`.\n"
        )
        return 2
    return int(command(["ingest", "--csv", LIST, "--index", "sp500_2025", "--start", START, "--end", END]))


if __name__ == "__main__":
    sys.exit(main())
