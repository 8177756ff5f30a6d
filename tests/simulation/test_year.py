"""A year of nightly updates: after each, the store holds what the vendor has, and December asks no more than January."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta

from data_engine.market.exchange_calendar import sessions

from .market import DAY, NEW_YORK, Security, floor, instant, micros
from .oracle import dataset_of, with_sessions
from .state import common, inside, minus, shown
from .vendor import Faults
from .world import Step, World

OUTAGE, MERGED, RENAMED = date(2024, 5, 14), date(2024, 10, 4), date(2024, 7, 10)

SHORT = date(2024, 3, 29)
"""Where the year ends unless all of it is asked for: `make fuzz` does."""

INDEX = "ours"


def securities() -> list[Security]:
    made = [Security(f"D{number:02d}", (1, 3), settled=True, restless=0.1) for number in range(11)]
    made.append(Security("D11", (1, 3), last=MERGED, settled=True, restless=0.1))
    made.append(Security("D12", (1, 2), quiet=0.6, settled=True, restless=0.0))
    made.append(Security("GONE", (1, 2), last=date(2024, 2, 16), settled=True, restless=0.0))
    made.append(Security("LATER", (1, 2), first=date(2024, 2, 9), settled=True, restless=0.0))
    made.append(Security("NAMED", (1, 2), renamed=RENAMED, settled=True, restless=0.0))
    made += [Security("DEAD", (1, 2), last=date(2024, 1, 5), settled=True), Security("NEVER", (1, 1), first=date(2030, 1, 2))]
    return [*made, Security("M00", (4, 8), settled=True), Security("M01", (2, 5), settled=True)]


def members(quarter: int) -> tuple[str, ...]:
    """Return the members of the index: one comes and one goes each quarter."""
    return tuple(f"D{number:02d}" for number in range(quarter, quarter + 5))


def local(day: date, hour: int, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=NEW_YORK).astimezone(UTC)


def check_equal(world: World, *, whole: bool) -> None:
    """All that was requested is claimed up to the bar under way, and the bars are the vendor's, of ten days or of all."""
    now = micros(world.now)
    for key in world.state.keys:
        claims, rows, dataset = world.state.claims_of(key), world.state.rows_of(key), dataset_of(key)
        start = claims.wanted[0][0] if whole else max(claims.wanted[0][0], now - 10 * DAY)
        asked = common(claims.wanted, [(start, floor(now, dataset.timeframe))])
        missing = with_sessions(minus(asked, claims.all), dataset)
        assert not missing, f"{key} lacks {shown(missing)}"
        there = world.market.bars(key[1], dataset.timeframe, dataset.adjustment, start, now, now)
        ended = {stamp: values for stamp, (values, _) in there.items() if inside(stamp, asked)}
        renamed = world.market.securities[key[1]].renamed
        if renamed is not None and world.now < local(renamed + timedelta(days=9), 12, 0):
            ended = {stamp: values for stamp, values in ended.items() if stamp >= min(rows, default=0)}  # asked again for a week
        found = {stamp: values for stamp, values in rows.items() if inside(stamp, asked)}
        assert found == ended, f"{key}: {[instant(stamp) for stamp, _ in set(found.items()) ^ set(ended.items())]}"


def night(world: World, when: datetime, number: int, faults: Faults, *, whole: bool = False, index: str | None = None) -> int:
    """Update at a time; return how many requests that took."""
    world.now = when
    happened = world._do(Step("update", salt=number, faults=faults, index=index))
    world.oracle.check(happened)
    sent = world.vendor.sent
    if index is None and not faults.fatal:
        assert happened.report is not None, happened.error
        check_equal(world, whole=whole)
    return sent


def test_a_year_of_nightly_updates() -> None:
    """With `SIMULATION_YEAR` in the environment to its end, else its first quarter."""
    end = date(2024, 12, 31) if "SIMULATION_YEAR" in os.environ else SHORT
    draw = random.Random("year")
    world = World("year", securities(), local(date(2024, 1, 2), 20, 45))
    names = tuple(world.market.securities)
    days, minutes = tuple(name for name in names if name[0] != "M" and name != "NAMED"), ("M00", "M01")
    world.take(Step("ingest", days, "2023-11-01", None, "1Day", salt=1))
    world.take(Step("ingest", minutes, "2023-12-15", None, salt=2))
    sent: dict[int, list[int]] = defaultdict(list)
    number, quarter = 10, -1
    for day in sessions(date(2024, 1, 3), end):
        number += 10
        if (day.month - 1) // 3 != quarter:
            quarter = (day.month - 1) // 3
            world.now = local(day, 8, 0)
            world.take(Step("ingest", members(quarter), "2023-11-01", None, "1Day", index=INDEX, salt=number + 4))
        if day == RENAMED:
            world.now = local(day, 8, 30)
            world.take(Step("ingest", ("NAMED",), "2023-11-01", None, "1Day", salt=number + 5))
        if draw.random() < 0.06:
            continue  # a night is skipped
        if draw.random() < 0.1:
            night(world, local(day, 12, 0), number, Faults(), index=draw.choice((None, INDEX)))
        faults = Faults(outage=True) if day == OUTAGE else Faults()
        last = day.day > 25 and day.weekday() == 4
        sent[day.month].append(night(world, local(day, 20, 45), number + 1, faults, whole=last))
        if draw.random() < 0.2:
            night(world, local(day + timedelta(days=1), 9, 5), number + 2, Faults())
        if last:
            world._verify(everything=True)
    world.now = local(end + timedelta(days=1), 9, 5)
    night(world, world.now, number + 9, Faults(), whole=True)
    # The first weeks of a store are others: emptiness before a first bar is asked for again.
    first, final = (sum(sent[month]) / len(sent[month]) for month in (min(sent) + 1, max(sent)))

    assert final <= first + 0.5, {month: sum(counts) / len(counts) for month, counts in sent.items()}
