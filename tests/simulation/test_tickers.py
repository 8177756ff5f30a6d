"""Worlds in which tickers are passed on, and come back: no series ever holds the bars of two securities."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import pytest

from data_engine.market.exchange_calendar import next_session

from .market import Listing, Market, Security
from .oracle import Violation
from .vendor import Faults
from .world import Step, World

BEGIN = date(2024, 3, 4)


def day(number: int) -> date:
    return next_session(BEGIN + timedelta(days=number))


def before(one: date) -> date:
    return one - timedelta(days=1)


LEFT, TAKEN, AWAY, BACK, PASSED = day(12), day(20), day(10), day(24), day(17)
FORMER = f"S@{before(LEFT)}"

SECURITIES = [
    Security("ONE", last=before(LEFT), settled=True),
    Security("TWO", first=TAKEN, settled=True),
    Security("RET", settled=True),
    Security("XXX", settled=True),
    Security("AAA", (5, 12)),
]

LISTINGS = (
    Listing("S", "ONE", date(2000, 1, 1), before(LEFT)),
    Listing("S", "TWO", TAKEN),
    Listing("A", "RET", date(2000, 1, 1), before(AWAY)),
    Listing("B", "RET", AWAY, before(BACK)),
    Listing("A", "RET", BACK),
    Listing("OLD", "XXX", date(2000, 1, 1), before(PASSED)),
    Listing("NEW", "XXX", PASSED),
)


def change(old: str, new: str, when: date) -> tuple[date, str, dict[str, str]]:
    return when - timedelta(days=8), "name_change", {"old_symbol": old, "new_symbol": new, "process_date": str(when)}


RECORDS = (
    (
        LEFT - timedelta(days=8),
        "stock_merger",
        {"acquiree_symbol": "S", "acquirer_symbol": "AAA", "effective_date": str(LEFT), "process_date": str(LEFT)},
    ),
    change("A", "B", AWAY),
    change("B", "A", BACK),
    change("OLD", "NEW", PASSED),
)


def make(seed: int) -> World:
    market = Market(seed, SECURITIES, LISTINGS, RECORDS)
    return World(seed, [], datetime(BEGIN.year, BEGIN.month, BEGIN.day, 21, tzinfo=UTC), market=market)


def steps(seed: int, count: int = 24) -> list[Step]:
    """Return runs over six weeks, some of them killed, some with requests that fail."""
    draw = random.Random(f"tickers {seed}")
    made = []
    for number in range(count):
        symbols = tuple(draw.sample(("S", "A", "B", "OLD", "NEW", "AAA"), draw.randint(1, 4)))
        if number > count // 2 and draw.random() < 0.5:
            symbols = (*symbols, FORMER)
        start = day(draw.randint(-6, number))
        timeframe = draw.choice(("1Min", "1Day"))
        step = Step("ingest", symbols, str(start), None, timeframe) if draw.random() < 0.4 or not number else Step("update")
        step.salt, step.hours = number + 1, draw.choice((0.0, 20.0, 24.0, 47.0, 70.0)) if number else 0.0
        luck = draw.random()
        if luck < 0.15:
            step.kill_at = draw.randint(1, 120)
        elif luck < 0.25:
            step.faults = Faults(page=0.2)
        elif luck < 0.35 and step.kind == "ingest":
            step.refetch = True
        step.repeat = not step.faulty and draw.random() < 0.3
        made.append(step)
    return made


@pytest.mark.parametrize("seed", range(4))
def test_no_series_ever_holds_two_securities(seed: int) -> None:
    world = make(seed)
    for step in steps(seed):
        world.take(step)
    world.finish()

    assert sum(bool(world.state.rows_of(key)) for key in world.state.keys) >= 4


def test_without_actions_two_securities_meet_and_the_world_says_so() -> None:
    """The world's own check is not blind: this is what a store without corporate actions does."""
    world = make(1)
    world.market.records = ()
    world.take(Step("ingest", ("S",), str(day(-6))))
    with pytest.raises(Violation, match=r"\(h\) .*'S'.* holds bars of two securities"):
        world.take(Step("update", hours=24.0 * 35))
