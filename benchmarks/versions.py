"""Two versions of data-engine on the same work, in turn in one run: what a change costs or saves.

    git worktree add /tmp/before VERSION
    python benchmarks/versions.py /tmp/before/src src                     8 symbols x 10 years of minutes
    python benchmarks/versions.py /tmp/before/src src --symbols 1000 --weekdays 1

Each version is the folder that has the package `data_engine`, with the compiled decoder beside its source if it is to be used.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from run import OURS, START, Usage, end_of, environment, measured, origin


def ingest(source: Path, url: str, symbols: Sequence[str], end: str, workers: int) -> Usage:
    """Ingest minutes of symbols into a new store, with one version."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "symbols.txt"
        listed.write_text("\n".join(symbols) + "\n")
        span = ["--start", START, "--end", end, "--workers", str(workers), "--base-path", f"{folder}/store", "--json"]
        command = [sys.executable, "-m", "data_engine", "ingest", "--file", str(listed), *span]
        if (source / "data_engine" / "ingest" / "actions_before.py").exists():
            command.append("--no-actions")  # which the first versions did not fetch
        return measured(command, {**environment(url), "PYTHONPATH": str(source)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--symbols", type=int, default=8)
    parser.add_argument("--weekdays", type=int, default=OURS)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    symbols = ["".join(name) for name in itertools.islice(itertools.product(ascii_uppercase, repeat=4), options.symbols)]
    bars = options.weekdays * 960 * options.symbols
    found: dict[Path, list[Usage]] = {source: [] for source in options.sources}
    with origin(options.weekdays) as server:
        for _ in range(options.rounds):
            for source, used in found.items():
                used.append(ingest(source.resolve(), server.url, symbols, end_of(options.weekdays), options.workers))
    for source, used in found.items():
        cpu = [one.cpu for one in used]
        print(
            f"{source}: {statistics.median(one.wall for one in used):.2f} s, "
            f"CPU {statistics.median(cpu):.2f} s ({min(cpu):.2f} to {max(cpu):.2f}), "
            f"{statistics.median(cpu) / bars * 1e6:.3f} s per million bars, "
            f"{statistics.median(one.memory for one in used):.0f} MB"
        )


if __name__ == "__main__":
    main()
