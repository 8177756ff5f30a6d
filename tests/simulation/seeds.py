"""Worlds and steps from seeds, and the shrinking of those that fail."""

from __future__ import annotations

import random
import traceback
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from data_engine.market.exchange_calendar import next_session
from data_engine.market.series import Adjustment

from .market import NEW_YORK, Action, Security, at, micros, midnight
from .oracle import Violation
from .vendor import Faults
from .world import Step, World

STEPS = 40

RAW_ONLY = 0.4

SKEWED = True
"""Whether the machine's clock may be ahead while answers do not say what time it is."""

PLACES = ("memory",) * 8 + ("journalled",) * 3 + ("strict",) * 4 + ("conditional", "conditional", "removing", "removing", "plain")

RECHECKED = 0.35
"""The share of worlds in which covered ranges are fetched again and compared."""

WIRE = 0.25
"""The share of worlds whose vendor is behind HTTP."""

TIMEFRAMES = ("1Min", "1Min", "1Min", "1Day", "1Day", "1Day", "8Hour", "7Hour", "1Hour", "30Min", "1Week")


def make_world(seed: object) -> World:
    """Return the world of a seed, with about eight securities."""
    draw = random.Random(f"world {seed}")
    begin = date(2024, 1, 10) + timedelta(days=draw.randrange(330))

    def around(low: int, high: int) -> date:
        return next_session(begin + timedelta(days=draw.randint(low, high)))

    securities = [Security("AAA"), Security("BBB", (5, 12))]
    securities.append(Security("CCC", (0, 2), quiet=0.5))
    securities.append(Security("DDD", (3, 6), last=around(-60, 20)))
    securities.append(Security("EEE", (3, 6), first=around(-20, 10)))
    securities.append(Security("FFF", (3, 6), first=around(-90, -60), renamed=around(-5, 8)))
    for symbol in ("GGG", "HHH"):
        security = Security(symbol, (3, 7), quiet=draw.choice((0.0, 0.3)))
        for _ in range(draw.randint(1, 3)):
            day = around(-60, 40)
            late = draw.choice((0, 0, 0, 5, 12))
            kind, factor = draw.choice((("split", 0.25), ("split", 0.5), ("dividend", 0.99), ("split", 2.0)))
            security.actions.append(Action(kind, day, factor, midnight(day + timedelta(days=late))))
        security.actions.sort(key=lambda one: one.day)
        securities.append(security)
    securities.append(Security("ZZZ", (1, 1), quiet=0.97))
    for security in securities:
        security.restless = draw.choice((0.0, 0.15, 0.3))
    renamed = next(one for one in securities if one.renamed is not None)
    assert renamed.renamed is not None
    before = replace(renamed, symbol="FBB", renamed=None, last=renamed.renamed - timedelta(days=1), like=renamed.symbol)
    securities.append(before)
    now = datetime.combine(begin, datetime.min.time(), NEW_YORK) + timedelta(minutes=draw.randrange(1440))
    return World(seed, securities, now.astimezone(UTC), draw.choice(PLACES), wire=draw.random() < WIRE)


def make_steps(seed: object, count: int = STEPS) -> list[Step]:
    """Return the steps of a seed."""
    world = make_world(seed)
    draw = random.Random(f"steps {seed}")
    symbols = [*world.market.securities, "NOPE"]
    raw_only = draw.random() < RAW_ONLY
    timeframes = [draw.choice(TIMEFRAMES) for _ in range(draw.choice((1, 1, 2)))]
    adjustments = ["raw"] if raw_only else ["raw", draw.choice(("split", "split", "all", "dividend"))]
    steps = []
    now = world.now
    for number in range(count):
        step = _step(draw, now, symbols, timeframes, adjustments, world.place, first=not number)
        step.salt = number + 1
        now += timedelta(hours=step.hours)
        if len(adjustments) > 1 and _adjusted_lately(world, now, adjustments[1]) and draw.random() < 0.5:
            _land(draw, step, adjustments[1])
        steps.append(step)
    again = random.Random(f"rechecks {seed}")  # of their own: the other worlds stay as they are
    if again.random() < RECHECKED:
        _recheck_some(again, steps, symbols, timeframes, adjustments, world.place)
    return steps


def _recheck_some(
    draw: random.Random, steps: list[Step], symbols: list[str], timeframes: list[str], adjustments: list[str], place: str
) -> None:
    """Have covered ranges fetched again after some steps."""
    for number in range(draw.randint(1, 8)):
        step = Step(draw.choice(("recheck", "recheck", "audit")), salt=501 + number)
        step.symbols = None if draw.random() < 0.7 else tuple(draw.sample(symbols, 2))
        step.accept = draw.random() < 0.3
        step.minutes = draw.choice((1.0, 1.0, 0.05, 0.01))
        step.page_limit = draw.choice((10_000, 2_000, 200, 40))
        step.workers = draw.randint(1, 4)
        _misfortune(draw, step, place)
        step.repeat = False
        if draw.random() < 0.15:
            last = steps[-1]
            step.beside = _beside(draw, replace(last, symbols=None, salt=step.salt), symbols, timeframes, adjustments)
        steps.insert(draw.randint(1, len(steps)), step)


def _step(
    draw: random.Random,
    now: datetime,
    symbols: list[str],
    timeframes: list[str],
    adjustments: list[str],
    place: str,
    *,
    first: bool,
) -> Step:
    hours = _pause(draw, now)
    now += timedelta(hours=hours)
    kinds = ("ingest", "update", "remove", "store", "repair", "load")
    kind = draw.choices(kinds, (1, 0, 0, 0, 0, 0) if first else (45, 32, 8, 8, 3, 4))[0]
    chosen = tuple(draw.sample(symbols, draw.randint(1, min(6, len(symbols)))))
    timeframe, adjustment = draw.choice(timeframes), draw.choice(adjustments)
    start, end = _range(draw, now, timeframe)
    step = Step(kind, chosen, start, end, timeframe, adjustment, hours=hours)
    step.page_limit = draw.choice((10_000, 10_000, 2_000, 200, 40))
    step.workers = draw.randint(1, 4)
    if kind == "ingest":
        step.refetch = draw.random() < 0.2
        step.accept = step.refetch and draw.random() < 0.4
        step.index = draw.choice((None, None, None, "ours"))
    elif kind == "update":
        step.symbols = None if draw.random() < 0.75 else chosen[:2]
        if step.symbols is None and draw.random() < 0.15:
            step.index = "ours"
    elif kind == "store":
        step.symbols, step.adjustment = chosen[:2], "raw"
    elif kind in ("load", "repair"):
        step.symbols = None
    if kind in ("ingest", "update", "remove", "store", "repair"):
        _misfortune(draw, step, place)
    if kind in ("ingest", "update", "remove", "store") and draw.random() < 0.1:
        step.beside = _beside(draw, step, symbols, timeframes, adjustments)
        if draw.random() < 0.25:
            step.beside.beside = _beside(draw, step, symbols, timeframes, adjustments)
    return step


def _adjusted_lately(world: World, now: datetime, adjustment: str) -> bool:
    """Tell whether the vendor began to adjust by an action within a day."""
    market, parsed = world.market, Adjustment.parse(adjustment)
    times = (micros(now - timedelta(days=1)), micros(now))
    return any(len({market.known_actions(symbol, time, parsed) for time in times}) > 1 for symbol in ("GGG", "HHH"))


def _land(draw: random.Random, step: Step, adjustment: str) -> None:
    """Have the actions of the day land in the middle of a run of several requests."""
    if step.kind in ("ingest", "update"):
        step.faults.lands_at = draw.randint(2, 8)
        step.page_limit = draw.choice((40, 40, 200))
        step.faults.page_bars = draw.choice((10, 60, 1000))
    if step.kind == "ingest":
        step.adjustment = adjustment
        step.symbols = tuple(dict.fromkeys((*(step.symbols or ()), "GGG", "HHH")))


def _beside(draw: random.Random, step: Step, symbols: list[str], timeframes: list[str], adjustments: list[str]) -> Step:
    """Return what another process does at the same time, often to the same symbols."""
    kind = draw.choice(("ingest", "update", "remove", "store"))
    some = tuple(draw.sample(symbols, draw.randint(1, 3)))
    if step.symbols and draw.random() < 0.7:
        some = step.symbols[:2]
    other = Step(kind, some, step.start, step.end, draw.choice((step.timeframe, *timeframes)), salt=step.salt)
    other.adjustment = "raw" if kind == "store" else draw.choice((step.adjustment, *adjustments))
    if kind == "ingest":
        other.refetch = draw.random() < 0.3
        other.accept = other.refetch and draw.random() < 0.5
    elif kind == "update" and draw.random() < 0.5:
        other.symbols = None
    if draw.random() < 0.2:
        other.kill_at = draw.randint(1, 150)
    elif draw.random() < 0.15:
        other.interrupt_at = draw.randint(1, 60)
    return other


def _misfortune(draw: random.Random, step: Step, place: str) -> None:
    """Have something go wrong in half of the steps."""
    luck = draw.random()
    if place != "plain" and draw.random() < 0.05:
        step.suspend_at = int(draw.choice((20, 60, 150)) * draw.random()) + 1
        step.suspend_for = draw.choice((30.0, 90.0, 600.0, 3600.0 * 5, 86_400.0))
    if place not in ("memory", "plain") and draw.random() < 0.08:
        step.fails = draw.choice((0.003, 0.02, 0.1))
    step.faults.page_bars = draw.choice((1000, 120, 30, 6))
    if luck < 0.45:
        step.repeat = draw.random() < 0.35
        step.faults.free_plan = draw.random() < 0.12
        step.faults.dated = draw.random() < 0.88
        if draw.random() < 0.1:
            step.faults.lands_at = draw.randint(2, 8)
        if not step.faults.dated and draw.random() < 0.4:
            step.skew = draw.choice((0.0, 24.0 * 10 if SKEWED else 0.0, -5.0))
        return
    if luck < 0.6:
        if draw.random() < 0.6:
            step.kill_before = int(draw.choice((4, 12, 40)) * draw.random()) + 1
        else:
            step.kill_at = int(draw.choice((20, 60, 150, 500)) * draw.random()) + 1
        step.power = draw.random() < 0.5
    elif luck < 0.72:
        step.interrupt_at = int(draw.choice((15, 40, 120)) * draw.random()) + 1
    elif luck < 0.76 and place in ("memory", "journalled", "strict"):
        step.full_at = draw.randint(1, 25)
    elif luck < 0.88:
        step.faults.page = draw.choice((0.05, 0.2, 0.5))
    elif luck < 0.91:
        step.faults.broken_symbols = tuple(draw.sample(("AAA", "BBB", "CCC", "GGG"), draw.randint(1, 2)))
    elif luck < 0.93:
        step.faults.bad_symbols = ("BBB",)
    elif luck < 0.95:
        step.faults.credentials_at = draw.randint(1, 5)
    elif luck < 0.97:
        step.faults.down_at = draw.randint(1, 6)
    else:
        step.faults.outage = True


def _pause(draw: random.Random, now: datetime) -> float:
    """Return the hours until the next step: none, some, to an evening, over days."""
    kind = draw.random()
    if kind < 0.25:
        return 0.0
    if kind < 0.45:
        return draw.randint(1, 300) / 60
    if kind < 0.8:
        local = now.astimezone(NEW_YORK)
        hour, minute = draw.choice(((20, 45), (9, 5), (12, 0), (9, 58), (10, 2), (20, 28), (20, 31), (2, 0)))
        when = local.replace(hour=hour, minute=minute, second=draw.choice((0, 30)), microsecond=0)
        while when <= local:
            when += timedelta(days=1)
        return (when - local).total_seconds() / 3600
    return 24.0 * draw.choice((1, 1, 2, 3, 4, 8, 15))


def _range(draw: random.Random, now: datetime, timeframe: str) -> tuple[str, str | None]:
    local = now.astimezone(NEW_YORK)
    reach = 12 if timeframe in ("1Min", "30Min") else 90
    first = local.date() - timedelta(days=draw.randint(0, reach))
    start = first.isoformat()
    if draw.random() < 0.15:
        start = (
            datetime.combine(first, datetime.min.time(), NEW_YORK).replace(hour=9, minute=draw.choice((30, 0, 17))).isoformat()
        )
    kind = draw.random()
    if kind < 0.4:
        return start, None
    if kind < 0.5:
        return start, (local.date() + timedelta(days=draw.randint(0, 30))).isoformat()
    last = first + timedelta(days=draw.randint(0, max(1, (local.date() - first).days)))
    if kind < 0.6:
        end = datetime.combine(last, time(draw.choice((10, 16, 20)), draw.choice((0, 30))), NEW_YORK)
        return start, end.isoformat()
    return start, last.isoformat()


# ---------------------------------------------------------------------------------------------------------------- running


@dataclass
class Failed:
    """A seed that fails."""

    seed: object
    steps: list[Step]
    why: str
    log: list[str]

    @property
    def line(self) -> str:
        """The seed, and what is not as it must be."""
        return f"seed {self.seed}, step {len(self.steps)}: {' '.join(self.why.split())[-500:]}"

    def __str__(self) -> str:
        world = make_world(self.seed)
        lines = [f"seed {self.seed}: {self.why}", f"begins {world.now:%Y-%m-%d %H:%M:%S} UTC", "steps:"]
        lines += [f"    {step}," for step in self.steps]
        lines += ["what happened:", *(f"    {line}" for line in self.log)]
        return "\n".join(lines)


def run(seed: object, steps: list[Step] | None = None, world: World | None = None) -> Failed | None:
    """Run a seed, in its own world or a given one; return how it fails, None if it does not."""
    world = world or make_world(seed)
    steps = make_steps(seed) if steps is None else steps
    taken: list[Step] = []
    try:
        for step in steps:
            taken.append(step)
            world.take(step)
        world.finish()
    except Violation as error:
        return Failed(seed, taken, str(error), world.log)
    except Exception:  # noqa: BLE001 - of the world itself, or of a reader
        return Failed(seed, taken, f"a traceback: {traceback.format_exc()}", world.log)
    return None


def shrink(failed: Failed, tries: int = 120) -> Failed:
    """Return a failure of the same kind with fewer steps."""
    kind = failed.why[:22]

    def fails(steps: list[Step]) -> Failed | None:
        nonlocal tries
        tries -= 1
        found = run(failed.seed, steps)
        return found if found is not None and found.why[:22] == kind else None

    size = max(1, len(failed.steps) // 2)
    while size and tries > 0:
        first = 0
        while first < len(failed.steps) and tries > 0:
            dropped = failed.steps[first : first + size]
            left = [*failed.steps[:first], *failed.steps[first + size :]]
            if first < len(left):  # what comes later keeps its time
                left[first] = replace(left[first], hours=left[first].hours + sum(step.hours for step in dropped))
            found = fails(left)
            if found is not None and len(found.steps) < len(failed.steps):
                failed = found
            else:
                first += size
        size //= 2
    for number, step in enumerate(failed.steps):
        for change in (
            {"repeat": False},
            {"faults": Faults()},
            {"symbols": step.symbols and step.symbols[:1]},
            {"page_limit": 10_000},
        ):
            simpler = replace(failed.steps[number], **change)
            if tries > 0 and simpler != failed.steps[number]:
                failed = fails([*failed.steps[:number], simpler, *failed.steps[number + 1 :]]) or failed
    return failed


__all__ = ["Failed", "at", "make_steps", "make_world", "run", "shrink"]
