"""The reference's runner: ``python run_ingestion.py``.

With no argument it ingests ``sp500-2025.csv`` from the working directory, 2016-01-01 to 2025-01-01, one-minute bars, and stores
the list as ``sp500_2025``. Arguments are those of ``data-engine ingest``.
"""

from __future__ import annotations

import sys
from pathlib import Path

LIST, START, END = "sp500-2025.csv", "2016-01-01", "2025-01-01"


def main() -> int:
    """Run the ingestion and return its exit code."""
    try:
        from data_engine.cli import main as command
    except ModuleNotFoundError:
        # A checkout without an installation: the package lies beside this file; its dependencies may not.
        sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
        try:
            from data_engine.cli import main as command
        except ModuleNotFoundError as error:
            sys.stderr.write(f"Error: {error.name} is not installed; run `make demo` once, or `pip install .` in this folder\n")
            return 2

    arguments = sys.argv[1:]
    if arguments:
        return command(["ingest", *arguments])
    if not Path(LIST).is_file():
        sys.stderr.write(
            f"Error: {LIST} is not in {Path.cwd()}.\n"
            f"Put a CSV file of that name with a column Symbol there, and this ingests its symbols, {START} to {END}, "
            "one-minute bars.\nOr name another list: python run_ingestion.py --csv FILE --start 2024-01-01\n"
            "Or try it without an account: data-engine demo\n"
        )
        return 2
    return command(["ingest", "--csv", LIST, "--index", "sp500_2025", "--start", START, "--end", END])


if __name__ == "__main__":
    sys.exit(main())
