"""A year of nightly updates: after each, the store holds what the vendor has, and December asks no more than January."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta

import pytest

from data_engine.market.exchange_calendar import sessions

from .market import NEW_YORK, Security, instant, micros
from .oracle import dataset_of
from .state import Key, inside
from .vendor import Faults
from .world import Step, World

YEAR = 2024

OUTAGE = date(2024, 5, 14)


def securities() -> list[Security]:
    made = [Security(f"D{number:02d}", (1, 3), settled=True, restless=0.1) for number in range(12)]
    made.append(Security("D12", (1, 2), quiet=0.6, settled=True, restless=0.0))
    made.append(Security("GONE", (1, 2), last=date(2024, 8, 16), settled=True, restless=0.0))
    made.append(Security("LATER", (1, 2), first=date(2024, 4, 9), settled=True, restless=0.0))
    made.append(Security("NAMED", (1, 2), renamed=date(2024, 7, 10), settled=True, restless=0.0))
    made += [Security("DEAD", (1, 2), last=date(2024, 1, 5), settled=True), Security("NEVER", (1, 1), first=date(2030, 1, 2))]
    return [*made, Security("M00", (4, 8), settled=True), Security("M01", (2, 5), settled=True)]


def local(day: date, hour: int, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=NEW_YORK).astimezone(UTC)


def check_equal(world: World) -> None:
    """Every final bar is the vendor's, and every bar that the vendor has and that has ended is there."""
    now = micros(world.now)
    for key in world.state.keys:
        _check_series(world, key, now)


def _check_series(world: World, key: Key, now: int) -> None:
    claims, rows = world.state.claims_of(key), world.state.rows_of(key)
    dataset = dataset_of(key)
    start = max(claims.wanted[0][0], now - 10 * 86_400_000_000)
    there = world.market.bars(key[1], dataset.timeframe, dataset.adjustment, start, now, now)
    for stamp, (values, _) in there.items():
        if inside(stamp, claims.all):
            assert rows.get(stamp) == values, f"{key} at {instant(stamp)}"
    extra = [stamp for stamp in rows if stamp >= start and stamp not in there and inside(stamp, claims.covered)]
    assert not extra, f"{key} still holds {instant(extra[0])}"


def night(world: World, when: datetime, number: int, faults: Faults) -> int:
    """Update at a time; return how many requests that took."""
    world.now = when
    happened = world._do(Step("update", salt=number, faults=faults))
    world.oracle.check(happened)
    if happened.report is not None and not faults.fatal:
        check_equal(world)
    return world.vendor.sent


@pytest.mark.skipif("SIMULATION_YEAR" not in os.environ, reason="not seen to pass yet; set SIMULATION_YEAR=1")
def test_a_year_of_nightly_updates() -> None:
    draw = random.Random("year")
    world = World("year", securities(), local(date(2024, 1, 2), 20, 45))
    names = tuple(world.market.securities)
    days, minutes = tuple(name for name in names if name[0] != "M" and name != "NAMED"), ("M00", "M01")
    world.take(Step("ingest", days, "2023-11-01", None, "1Day", salt=1))
    world.take(Step("ingest", minutes, "2023-12-15", None, salt=2))
    sent: dict[int, list[int]] = defaultdict(list)
    number = 10
    for day in sessions(date(2024, 1, 3), date(2024, 12, 31)):
        number += 10
        if draw.random() < 0.06:
            continue  # a night is skipped
        if day == date(2024, 7, 10):
            world.take(Step("ingest", ("NAMED",), "2023-11-01", None, "1Day", salt=number + 5))
        faults = Faults(outage=True) if day == OUTAGE else Faults()
        if draw.random() < 0.1:
            night(world, local(day, 12, 0), number, Faults())
        sent[day.month].append(night(world, local(day, 20, 45), number + 1, faults))
        if draw.random() < 0.2:
            night(world, local(day + timedelta(days=1), 9, 5), number + 2, Faults())
        if day.day > 25 and day.weekday() == 4:
            world._verify(everything=True)
    world.finish()
    january, december = (sum(sent[month]) / len(sent[month]) for month in (2, 12))

    assert december <= january + 0.5, (january, december)
