"""Kills and faults by the thousand: ``python tests/safety/fuzz.py --kills 1000 --faults 10000 --minutes 20``.

It stops at the first violation (exit 1), printing how to see it again, or when all is done or the time is over. The last
line says how many passed. Two processes share the work; each draws everything from the seed and a number.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from data_engine.sandbox import Faults
from data_engine.sandbox.faults import KINDS
from safety.harness import Scenario, Snapshot, Stage, check_whole, same, served, snapshot, staged, truth_of
from safety.market import SYMBOLS

SCENARIOS = ("first", "extend", "update", "refetch", "rebase", "remove")
_QUICK = tuple(kind for kind in KINDS if kind not in ("429", "429_reset"))  # those two make everybody wait a second


def kill_once(stage: Stage, scenarios: dict[str, Scenario], seed: int, number: int) -> Counter[str]:
    """Kill one run one to four times, where chance says, and let the next complete it."""
    chance = random.Random(f"kill {seed} {number}")
    scenario = scenarios[chance.choice(sorted(scenarios))]
    deaths: list[dict[str, Any]] = []
    for _ in range(chance.choice([1, 1, 1, 2, 3, 4])):
        if chance.random() < 0.7:
            point = chance.choice(sorted(scenario.points))
            deaths.append({"point": point, "nth": chance.randint(1, scenario.points[point])})
        else:
            deaths.append({"after": chance.uniform(0, 1.2 * scenario.seconds)})
        deaths[-1]["workers"] = chance.choice([1, 4, 4, 8])
    with tempfile.TemporaryDirectory(dir=stage.folder) as folder:
        try:
            killed = scenario.kill(stage.forks, Path(folder), deaths)
        except Exception:
            print(f"{scenario.name}: {deaths}", flush=True)
            raise
    return Counter(kills=killed, **{f"kills of {scenario.name}": killed})


def fault_once(stage: Stage, expected: Snapshot, undisturbed: int, seed: int, number: int) -> Counter[str]:
    """Ingest against a server that misbehaves as chance says."""
    chance = random.Random(f"fault {seed} {number}")
    kinds = chance.sample(KINDS if chance.random() < 0.1 else _QUICK, chance.randint(1, 6))
    total = chance.choice([0.05, 0.2, 0.2, 0.3])
    # Before the first answer with headers a refusal costs seconds, rightly: nobody knows the rate yet.
    faults = Faults(dict.fromkeys(kinds, total / len(kinds)), seed=chance.randrange(2**32), retry_after=0)
    workers, limit = chance.choice([1, 2, 8, 16]), chance.choice([60, 110, 250, 10_000])
    with tempfile.TemporaryDirectory(dir=stage.folder) as folder, served(stage.original, faults, rate=600_000) as sandbox:
        job = stage.job(url=sandbox.url, base=folder, workers=workers, limit=limit, read_seconds=0.3, tries=8)
        try:
            told = stage.forks.run(job)
            if {failed["code"] for failed in told["failed"]} != {"no_data"}:
                check_whole(Path(folder), [truth_of(stage.original)])
                # Eight faults in a row are rare, but they happen; then the next run completes it.
                sandbox.faults = Faults()
                stage.forks.run(replace(job, workers=4))
            same(Path(folder), expected)
            most = 3 * (undisturbed * max(1, 110 // limit + 1) + 3 * len(SYMBOLS) * 3)
            assert len(sandbox.requests) <= most, f"{len(sandbox.requests)} requests, {most} are allowed"
        except Exception:
            print(f"{faults} {job}", flush=True)
            raise
        met = sum(record.fault is not None for record in sandbox.requests)
    return Counter(runs=1, faults=met)


def work(arguments: argparse.Namespace) -> int:
    """Do the share of one process; print a line of JSON at the end."""
    deadline = time.monotonic() + 60 * arguments.minutes
    done: Counter[str] = Counter()
    number = arguments.share
    with staged() as stage:
        scenarios = {name: stage.scenario(name) for name in SCENARIOS if name not in arguments.without}
        base = stage.folder / "undisturbed"
        undisturbed = stage.forks.run(replace(stage.job(), base=str(base), limit=110))["requests"]
        expected = snapshot(base)
        while time.monotonic() < deadline and (done["kills"] < arguments.kills or done["runs"] < arguments.faults):
            try:
                if done["kills"] < arguments.kills and (done["runs"] >= arguments.faults or number % 4 < 2):
                    done += kill_once(stage, scenarios, arguments.seed, number)
                else:
                    done += fault_once(stage, expected, undisturbed, arguments.seed, number)
            except Exception as error:  # noqa: BLE001 - the finding
                print(f"VIOLATION: {type(error).__name__}: {error}\nseed {arguments.seed}, number {number}", flush=True)
                print(json.dumps({**done, "failed": 1}), flush=True)
                return 1
            number += 1 if arguments.only is not None else arguments.shares
            if arguments.only is not None:
                break
    print(json.dumps(done), flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=10_000, help="runs against a server that misbehaves")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", type=int, default=None, metavar="NUMBER", help="the one that failed, again")
    parser.add_argument("--without", nargs="*", default=[], choices=SCENARIOS)
    parser.add_argument("--shares", type=int, default=2, help="processes")
    parser.add_argument("--share", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.randrange(2**32)
    if arguments.only is not None:
        arguments.share = arguments.only
    if arguments.share is not None:
        return work(arguments)
    print(f"seed {arguments.seed}", flush=True)
    started = time.monotonic()
    command = [sys.executable, __file__, "--minutes", str(arguments.minutes), "--seed", str(arguments.seed)]
    command += ["--shares", str(arguments.shares), "--without", *arguments.without]
    goals = ["--kills", str(-(-arguments.kills // arguments.shares)), "--faults", str(-(-arguments.faults // arguments.shares))]
    shares = [
        subprocess.Popen([*command, *goals, "--share", str(share)], stdout=subprocess.PIPE, text=True)
        for share in range(arguments.shares)
    ]
    done: Counter[str] = Counter()
    for share in shares:
        lines = share.communicate()[0].splitlines()
        print("\n".join(lines[:-1]), end="\n" if lines[1:] else "")
        done += Counter(json.loads(lines[-1])) if lines and lines[-1].startswith("{") else Counter(failed=1)
    for name in sorted(done):
        if name.startswith("kills of"):
            print(f"  {name}: {done[name]}")
    minutes = (time.monotonic() - started) / 60
    print(
        f"{done['kills'] + done['runs']} passed, {done['failed']} failed: {done['kills']} kills, {done['runs']} runs that met "
        f"{done['faults']} faults, {minutes:.1f} minutes, seed {arguments.seed}"
    )
    return 1 if done["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
