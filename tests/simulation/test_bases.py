"""Adjusted series: one price base each, and few requests to know it. The numbers are the rows of issue 15."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from .market import Action, Security, at, midnight
from .oracle import Happened
from .vendor import Faults
from .world import Step, World


def world(now: str, *securities: Security) -> World:
    for security in securities:
        security.restless = 0.0
    return World("bases", list(securities), datetime.fromisoformat(now).replace(tzinfo=UTC))


def nights(made: World, count: int) -> list[Happened]:
    return [made.take(Step("update", salt=100 + night, hours=24, faults=whole_pages())) for night in range(count)]


def whole_pages() -> Faults:
    return Faults(page_bars=10_000)


def stopped(number: int) -> Security:
    """A security whose last bar is of a day of its own."""
    return Security(f"D{number:02d}", last=date(2024, 3, 4) + timedelta(days=2 * number))


def test_25_symbols_that_stopped_trading_share_a_request_every_night() -> None:
    live = [Security(f"L{number:02d}") for number in range(20)]
    dead = [stopped(number) for number in range(30)]
    made = world("2024-06-03T23:00", *live, *dead)
    symbols = tuple(one.symbol for one in (*live, *dead))
    made.take(Step("ingest", symbols, "2024-02-01", None, "1Day", "split", salt=1, faults=whole_pages()))

    # One for those that trade, one for those that do not.
    assert [len(happened.asks) for happened in nights(made, 3)] == [2, 2, 2]


def test_25_those_that_trade_again_are_compared_with_their_own_sessions() -> None:
    """Thin symbols, each last traded on another day; on the last night all of them have a bar."""
    days = [date(2024, 5, day) for day in (6, 8, 10, 14, 16, 20)]
    last = date(2024, 6, 4)
    thin = [Security(f"T{number}", only=[at(day, 11), at(last, 11)]) for number, day in enumerate(days)]
    made = world("2024-06-03T23:00", *thin, *(Security(f"L{number}") for number in range(8)))
    symbols = tuple(made.market.securities)
    made.take(Step("ingest", symbols, "2024-05-01", None, "1Day", "split", salt=1, faults=whole_pages()))
    happened = made.take(Step("update", salt=2, hours=38, faults=whole_pages()))

    assert happened.report is not None
    assert happened.report.exit_code == 0
    assert all(midnight(last) in made.state.rows_of(("equities_1day_split", one.symbol)) for one in thin)
    # The usual group, the question who has bars, and one request for each distance of the session to compare.
    assert len(happened.asks) <= 2 + 3


@pytest.mark.parametrize(("kind", "factor"), [("split", 0.5), ("dividend", 0.99)])
def test_4_an_action_that_is_worked_in_late_is_noticed_within_a_week(kind: str, factor: float) -> None:
    """Its date lies before the session that each update compares: only the first bars of the series tell."""
    action = Action(kind, date(2024, 5, 10), factor, at(date(2024, 6, 5), 12))
    made = world("2024-06-03T23:00", Security("AAA", actions=[action]), Security("BBB"))
    made.take(Step("ingest", ("AAA", "BBB"), "2024-05-01", None, "1Day", "all", salt=1, faults=whole_pages()))
    key = ("equities_1day_all", "AAA")
    first = made.state.rows_of(key)[midnight(date(2024, 5, 1))]
    asks = [len(happened.asks) for happened in nights(made, 9)]

    now = made.state.rows_of(key)[midnight(date(2024, 5, 1))]
    assert now[3] == pytest.approx(first[3] * factor, abs=0.01)
    # Every night the new day of both; once, what the first bars are now; once, all of AAA again.
    assert sum(asks) == 9 + 1 + 1


@pytest.mark.parametrize("kill_at", range(40, 400, 40))
def test_4_a_backfill_that_was_killed_is_compared_and_not_fetched_twice(kill_at: int) -> None:
    made = world("2024-06-10T15:00", Security("AAA", (3, 5)), Security("BBB", (3, 5)))
    whole = Step("ingest", ("AAA", "BBB"), "2024-02-01", None, adjustment="split", page_limit=100, workers=2, salt=1)
    whole.faults, whole.kill_at = Faults(page_bars=30), kill_at
    made.take(whole)
    held = {key: set(made.state.rows_of(key)) for key in made.state.keys}
    stored = {key: made.state.claims_of(key).unconfirmed for key in made.state.keys}
    happened = made.take(Step("update", salt=2, faults=Faults(page_bars=30)))

    assert happened.report is None or happened.report.exit_code in (0, 1)
    # What was recent then is fetched again: whether a session of it was missing, the killed run had not judged.
    recent = at(date(2024, 6, 3), 0)
    for key, spans in stored.items():
        for start, end in ((start, min(end, recent)) for start, end in spans):
            inside = [stamp for stamp in held[key] if start <= stamp < end]
            again = [stamp for ask in happened.asks_of(key) for stamp in ask.said.get(key[1], {}) if start <= stamp < end]
            # The first bars alone, and the session that the next range is joined to.
            assert len(inside) < 20 or len(set(again)) < len(inside)
