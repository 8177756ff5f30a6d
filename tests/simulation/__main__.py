"""Replay seeds: ``python -m tests.simulation SEED [SEED ...] [--count N] [--minutes M] [--no-shrink | --tries N]``."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from itertools import chain, count

from .seeds import run, shrink


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", nargs="+", type=int)
    parser.add_argument("--count", type=int, default=1, help="how many seeds from the last one on")
    parser.add_argument("--minutes", type=float, help="go on with the seeds that follow for so long")
    parser.add_argument("--no-shrink", action="store_true", help="print one line per violated seed")
    parser.add_argument("--tries", type=int, default=120, help="the most runs in which a violated seed is shrunk")
    options = parser.parse_args()
    last = options.seeds[-1]
    seeds = chain(options.seeds[:-1], range(last, last + options.count) if options.minutes is None else count(last))
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # worlds make much that lives on, and little garbage in rings
    violated = done = 0
    begin = time.monotonic()
    spent = time.process_time()
    for seed in seeds:
        if options.minutes is not None and time.monotonic() - begin > 60 * options.minutes:
            break
        done += 1
        failed = run(seed)
        if failed is not None:
            violated += 1
            print(failed.line if options.no_shrink else shrink(failed, options.tries), flush=True)
        if done % 100 == 0:
            print(f"{done} seeds, {violated} violated, up to {seed}", flush=True)
    print(f"{done} seeds, {violated} violated, {time.monotonic() - begin:.1f} s, {time.process_time() - spent:.1f} s of CPU")
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
