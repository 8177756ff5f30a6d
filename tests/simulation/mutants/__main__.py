"""Run the worlds against each mutant: ``python -m tests.simulation.mutants [NAME ...] [--seeds 200] [--minutes M]``.

A mutant is the engine with one deliberate break (`*.patch` beside this file). Seeds 1, 2, 3 ... run on a copy of the engine with
that break, in a process of its own, until one of them is violated. Seeds whose world never calls what is broken are passed over:
what only reads and writes buckets, or only disks, is run where there are some. A seed that the engine as it is violates does not
count. It ends with 1 if a mutant survives.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

from .patches import ROOT, Mutant, broken, mutants

_HANGS_SECONDS = 900.0
"""Longer than any seed takes: after that a mutant counts as caught, since it does not end."""


@dataclass(frozen=True)
class Caught:
    """How a mutant fared.

    Attributes:
        seed: The seed that was violated; None if it survived, or if a test caught it.
        why: The violation; None if it survived.
        done: The number of seeds that ran.
        seconds: How long that took.
    """

    seed: int | None
    why: str | None
    done: int
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the mutants; all if none is named")
    parser.add_argument("--seeds", type=int, default=200, help="the most seeds that a mutant is run on")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--minutes", type=float, help="begin no other mutant, and no other seed, after so long")
    parser.add_argument(
        "--unchanged", action="store_true", help="run the same seeds on the engine as it is: none may be violated"
    )
    parser.add_argument("--child", choices=("", "bucket", "disk"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        return _child(options.first, options.seeds, options.child)
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    known = {mutant.name: mutant for mutant in mutants()}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no mutant {', '.join(unknown)}; there are {', '.join(known)}")
    if options.unchanged:
        result = _run(None, options.first, options.seeds, end)
        print(f"unchanged: {result.done} seeds, {result.why or 'none violated'}")
        return 1 if result.why else 0
    return _all([known[name] for name in options.names or known], options.first, options.seeds, end)


def _all(chosen: list[Mutant], first: int, seeds: int, end: float) -> int:
    found: list[Caught] = []
    ran = 0
    print(f"{'mutant':34} {'row':5} {'blind':5} caught")
    for mutant in chosen:
        if time.monotonic() > end:
            break
        ran += 1
        result = _test(mutant) if mutant.caught_by else _run(mutant, first, seeds, end)
        found.append(result)
        print(f"{mutant.name:34} {mutant.row:5} {'yes' if mutant.blind else 'no':5} {_text(result)}", flush=True)
    survived = sum(result.why is None for result in found)
    numbers = [result.seed for result in found if result.seed is not None]
    middle = f", median seed {median(numbers):g}" if numbers else ""
    print(f"{ran} of {len(chosen)} mutants ran, {survived} survived{middle}")
    return 1 if survived else 0


def _text(result: Caught) -> str:
    if result.why is None:
        return f"survived {result.done} seeds ({result.seconds:.0f} s)"
    where = "" if result.seed is None else f"at seed {result.seed} by "
    return f"{where}{' '.join(result.why.split())[:180]} ({result.seconds:.0f} s)"


def _run(mutant: Mutant | None, first: int, seeds: int, end: float) -> Caught:
    """Run seeds on a broken engine until one is violated."""
    begin = time.monotonic()
    done = 0
    with broken(mutant) as source:
        for seed, why in _seeds(source, first, seeds, "" if mutant is None else mutant.place):
            done += 1
            if why is not None and is_kept(seed):
                return Caught(seed, why, done, time.monotonic() - begin)
            if time.monotonic() > end:
                break
    return Caught(None, None, done, time.monotonic() - begin)


@lru_cache
def is_kept(seed: int) -> bool:
    """Tell whether the engine as it is does not violate a seed: else that it is violated tells nothing of a mutant."""
    with broken(None) as source:
        return next((why for _, why in _seeds(source, seed, 1, "")), None) is None


def _seeds(source: Path, first: int, seeds: int, place: str) -> Iterator[tuple[int, str | None]]:
    """Yield the seeds that a process has run on an engine, each with its violation."""
    words = [sys.executable, "-m", f"{__package__}", "--child", place, "--first", str(first), "--seeds", str(seeds)]
    # From the folder where this package was found: `tests.simulation` and `simulation` both name it.
    place = Path(__file__).parents[__package__.count(".") + 1]
    with subprocess.Popen(words, cwd=place, env=environ(source), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        hung = threading.Event()

        def kill() -> None:
            hung.set()
            child.kill()

        try:
            last = first - 1
            while True:
                timer = threading.Timer(_HANGS_SECONDS, kill)
                timer.start()
                line = child.stdout.readline()
                timer.cancel()
                if hung.is_set():
                    yield last + 1, f"it does not end within {_HANGS_SECONDS:g} s"
                    return
                if not line:
                    raise SystemExit(f"the process that ran the seeds after {last} ended with {child.wait()}")
                last, why = json.loads(line)
                if last is None:
                    return
                yield last, why
        finally:
            child.kill()


def environ(source: Path) -> dict[str, str]:
    """Return the environment in which Python imports an engine from there."""
    return {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}


def _child(first: int, seeds: int, place: str) -> int:
    """Run seeds in this process; print a line for each, and one more when all are done."""
    from ..seeds import make_world, run

    for seed in range(first, first + seeds):
        world = make_world(seed)
        if place and place != ("bucket" if world.in_bucket else "memory" if world.place == "memory" else "disk"):
            continue
        failed = run(seed, world=world)
        why = None if failed is None else failed.why
        if why is not None and why.startswith("a traceback"):
            why = f"a traceback: {why.strip().splitlines()[-1]}"
        print(json.dumps([seed, why]), flush=True)
    print(json.dumps([None, None]), flush=True)
    return 0


def _test(mutant: Mutant) -> Caught:
    """Run the test that catches a mutant which no world can hold."""
    begin = time.monotonic()
    assert mutant.caught_by is not None
    with broken(mutant) as source:
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.caught_by]
        done = subprocess.run(words, cwd=ROOT, env=environ(source), capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"cannot run {mutant.caught_by}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    why = f"fails {mutant.caught_by}" if done.returncode else None
    return Caught(None, why, 0, time.monotonic() - begin)


if __name__ == "__main__":
    sys.exit(main())
