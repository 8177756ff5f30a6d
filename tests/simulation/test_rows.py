"""What was seen to go wrong, as small worlds that failed before it was mended. The numbers are the rows of issue 15."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from data_engine.market.exchange_calendar import sessions

from .market import Action, Security, at, instant, midnight
from .oracle import Happened
from .state import Key, common
from .vendor import Faults
from .world import Step, World


def world(now: str, *securities: Security, place: str = "memory", restless: float = 0.0) -> World:
    for security in securities:
        security.restless = restless
    return World("rows", list(securities), datetime.fromisoformat(now).replace(tzinfo=UTC), place)


def names(count: int) -> tuple[str, ...]:
    return tuple(f"S{number:02d}" for number in range(count))


def reported(happened: Happened) -> tuple[int, dict[str, str]]:
    assert happened.report is not None, happened.error
    return happened.report.exit_code, dict(happened.report["codes"])


def span(first: str, last: str) -> tuple[int, int]:
    return midnight(date.fromisoformat(first)), midnight(date.fromisoformat(last) + timedelta(days=1))


MINUTES, DAYS = "equities_1min", "equities_1day"

# ------------------------------------------------------------------------------------------- row 1: a chain that only compares

BREAKS = {
    "keys-refused": Faults(credentials_at=2, page_bars=10),
    "service-down": Faults(down_at=2, page_bars=10),
    "stopped": Faults(stop_at=2, page_bars=10),
    "outage": Faults(outage_at=2, page_bars=10),
    "bad-pages": Faults(page=0.6, page_bars=10),
}


@pytest.mark.parametrize("faults", BREAKS.values(), ids=BREAKS)
def test_1_a_break_in_the_chain_that_compares_covers_nothing(faults: Faults) -> None:
    made = world("2024-06-10T15:00", *(Security(name, (2, 3)) for name in names(8)))
    made.take(Step("ingest", names(8), "2024-06-03", "2024-06-05", adjustment="split", salt=1))
    happened = made.take(Step("ingest", names(8), "2024-05-01", "2024-06-05", adjustment="split", faults=faults, salt=2))

    assert happened.asks
    for name in names(8):
        key = ("equities_1min_split", name)
        claimed = common(made.state.claims_of(key).all, [span("2024-05-01", "2024-05-31")])
        answered = [
            ask for ask in happened.asks if (found := ask.answered(name)) and found[0] < span("2024-06-01", "2024-06-01")[0]
        ]
        assert not claimed or answered
    made.take(Step("update", salt=3))


@pytest.mark.parametrize("at_seam", range(2, 60, 6))
def test_1_ctrl_c_anywhere_covers_what_was_answered(at_seam: int) -> None:
    made = world("2024-06-10T15:00", *(Security(name, (2, 3)) for name in names(6)))
    made.take(Step("ingest", names(6), "2024-06-03", "2024-06-05", adjustment="split", salt=1))
    step = Step("ingest", names(6), "2024-05-20", "2024-06-05", adjustment="split", interrupt_at=at_seam, salt=at_seam)
    step.faults.page_bars = 10
    made.take(step)
    made.take(Step("update", salt=3))


# ------------------------------------------------------------------------------ row 2: sessions that overlap what is asked for


@pytest.mark.parametrize("timeframe", ["8Hour", "6Hour", "7Hour", "12Hour"])
def test_2_a_told_session_of_long_bars_is_stored_once(timeframe: str) -> None:
    made = world("2024-01-20T15:00", Security("AAA"))
    made.take(Step("ingest", ("AAA",), "2024-01-10", "2024-01-12", timeframe, "split", salt=1))
    happened = made.take(Step("ingest", ("AAA",), "2024-01-03", "2024-01-12", timeframe, "split", salt=2))

    assert reported(happened) == (0, {})
    made.take(Step("load", salt=3))
    made.finish()


def test_2_hours_from_the_middle_of_one() -> None:
    made = world("2024-01-20T15:00", Security("AAA", (9, 14)))
    made.take(Step("ingest", ("AAA",), "2024-01-10", "2024-01-12", "1Hour", "split", salt=1))
    made.take(Step("ingest", ("AAA",), "2024-01-03T09:30:00-05:00", "2024-01-12", "1Hour", "split", salt=2))
    made.take(Step("load", salt=3))
    made.finish()


# -------------------------------------------------------------------------------------------- row 3: one bar at 00:00 UTC


def test_3_a_series_whose_only_bar_is_at_midnight_of_utc_is_updated() -> None:
    only = Security("AAA", only=[at(date(2024, 1, 10), 19, 30)])
    made = world("2024-01-12T15:00", only, Security("BBB"))
    made.take(Step("ingest", ("AAA", "BBB"), "2024-01-09", "2024-01-11", "8Hour", salt=1))
    assert [instant(stamp).hour for stamp in made.state.rows_of(("equities_8hour", "AAA"))] == [0]

    for number, symbols in enumerate((None, ("AAA",))):
        assert reported(made.take(Step("update", symbols, salt=2 + number, hours=24)))[0] == 0


# ------------------------------------------------------------------------------------ row 4: one adjustment basis a series


@pytest.mark.parametrize("lands_at", range(2, 7))
@pytest.mark.parametrize(("kind", "factor"), [("split", 0.25), ("dividend", 0.99)])
def test_4_an_action_that_lands_during_a_backfill_leaves_one_basis(lands_at: int, kind: str, factor: float) -> None:
    security = Security("AAA", (3, 5), actions=[Action(kind, date(2024, 6, 10), factor, midnight(date(2024, 6, 10)))])
    made = world("2024-06-10T15:00", security)
    step = Step("ingest", ("AAA",), "2024-02-01", None, adjustment="all", page_limit=300, workers=1, salt=lands_at)
    step.faults = Faults(lands_at=lands_at, page_bars=30)
    happened = made.take(step)
    assert len({ask.span for ask in happened.asks}) > 1


# ------------------------------------------------------------------------------------- rows 5 and 24: bars before a rename


def renamed() -> World:
    return world("2024-06-05T19:00", Security("NEW", (2, 3), renamed=date(2024, 6, 5)), Security("AAA", (2, 3)))


def early(made: World) -> int:
    return sum(stamp < midnight(date(2024, 6, 5)) for stamp in made.state.rows_of((MINUTES, "NEW")))


def test_5_bars_from_before_a_rename_are_asked_for_again_nine_days_later() -> None:
    made = renamed()
    made.take(Step("ingest", ("NEW", "AAA"), "2024-05-01", None, salt=1))
    assert not early(made)
    made.take(Step("update", salt=2, hours=24 * 9))

    assert early(made)


def test_24_a_failed_request_is_no_answer() -> None:
    made = renamed()
    made.take(Step("ingest", ("NEW", "AAA"), "2024-05-01", None, salt=1))
    for night in range(8):
        # What fails is the chain for the empty past of NEW, which comes after the tails of both.
        made.take(Step("update", ("NEW",), salt=10 + night, hours=24, workers=1, faults=Faults(outage_at=1 if night else 2)))
    made.take(Step("update", salt=30, hours=24 * 3))

    assert early(made)


# --------------------------------------------------------------------------------------------------- row 6: what was asked for


@pytest.mark.parametrize("now", ["2024-06-08T16:00", "2024-06-05T05:30"], ids=["saturday", "night"])
def test_6_what_is_asked_for_while_nothing_trades_is_remembered(now: str) -> None:
    made = world(now, Security("BBB"))
    today = (datetime.fromisoformat(now) - timedelta(hours=4)).date().isoformat()
    assert reported(made.take(Step("ingest", ("BBB",), today, "2024-12-31", salt=1))) == (0, {})
    happened = made.take(Step("update", salt=2, hours=24 * 4))

    assert reported(happened) == (0, {})
    assert made.state.rows_of((MINUTES, "BBB"))


# -------------------------------------------------------------------------------------- rows 7 and 23: what the report counts


def with_withdrawn(*, raw: bool) -> World:
    stamps = [at(date(2024, 6, 5), 10, minute) for minute in range(20)]
    made = world("2024-06-06T15:00", Security("AAA", only=stamps), Security("BBB"))
    for stamp in stamps[:5]:
        made.market.change("AAA", stamp, at(date(2024, 6, 9), 12), None)
    made.take(Step("ingest", ("AAA", "BBB"), "2024-06-05", "2024-06-05", adjustment="raw" if raw else "split", salt=1))
    return made


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "split"])
@pytest.mark.parametrize("accept", [True, False], ids=["accepted", "not-accepted"])
def test_7_the_report_says_what_was_removed_and_what_was_kept(raw: bool, accept: bool) -> None:
    made = with_withdrawn(raw=raw)
    step = Step("ingest", ("AAA", "BBB"), "2024-06-05", "2024-06-05", refetch=True, accept=accept, salt=2, hours=24 * 6)
    step.adjustment = "raw" if raw else "split"
    report = made.take(step).report

    gone = accept or not raw
    assert (report.changes.removed, report.changes.vanished) == ((5, 0) if gone else (0, 5))
    assert ("kept" in report.summary()) == (not gone)
    assert len(made.state.rows_of((MINUTES if raw else "equities_1min_split", "AAA"))) == (15 if gone else 20)


def test_23_bars_that_are_withdrawn_are_removed_by_the_final_response_and_counted() -> None:
    stamps = [at(date(2024, 6, 5), 10, minute) for minute in range(20)]
    made = world("2024-06-05T16:00", Security("AAA", only=stamps))
    for stamp in stamps[:3]:
        made.market.change("AAA", stamp, at(date(2024, 6, 5), 18), None)
    made.take(Step("ingest", ("AAA",), "2024-06-05", None, salt=1))
    report = made.take(Step("update", salt=2, hours=24)).report

    assert len(made.state.rows_of((MINUTES, "AAA"))) == 17
    assert report.changes.removed == 3
    assert "3" in report.line().splitlines()[0]


# ------------------------------------------------------------------------------- rows 8 and 9: the verdict is on what is there


def test_8_a_chain_that_breaks_after_some_symbols_were_finished() -> None:
    made = world("2024-06-10T15:00", Security("AAA", (5, 5)), Security("BBB", (5, 5)), Security("CCC", (5, 5)))
    step = Step("ingest", ("AAA", "BBB", "CCC"), "2024-06-03", "2024-06-04", workers=1, salt=1)
    step.faults = Faults(outage_at=3, page_bars=9)
    exit_code, codes = reported(made.take(step))

    assert exit_code == 1
    for symbol in ("AAA", "BBB", "CCC"):
        held = len(made.state.rows_of((MINUTES, symbol)))
        assert (codes.get(symbol) is None) == (held == 10)
        assert codes.get(symbol) != "no_data"


@pytest.mark.parametrize("salt", range(12))
def test_9_the_order_in_which_tasks_end_is_no_verdict(salt: int) -> None:
    made = world("2024-06-10T15:00", *(Security(name, (2, 3), first=date(2024, 5, 20)) for name in names(3)))
    step = Step("ingest", names(3), "2023-10-02", "2024-06-04", page_limit=300, workers=4, salt=salt)
    happened = made.take(step)

    assert len(happened.asks) > 3
    assert reported(happened) == (0, {})


# ----------------------------------------------------------------------------------------- row 11: no page is no answer


def test_11_a_range_wholly_in_the_minutes_that_are_refused_is_not_claimed() -> None:
    made = world("2024-06-05T15:00", Security("AAA", (200, 200)))
    step = Step("ingest", ("AAA",), "2024-06-05T10:50:00-04:00", None, salt=1)
    step.faults.free_plan = True
    made.take(step)
    assert made.state.claims_of((MINUTES, "AAA")).all == []
    made.take(Step("update", salt=2, hours=24))

    assert made.state.rows_of((MINUTES, "AAA"))


# ------------------------------------------------------------------------------------- row 12: what decides is read in the hold


@pytest.mark.parametrize("salt", range(10))
def test_12_a_series_that_is_removed_while_an_update_waits_stays_removed(salt: int) -> None:
    made = world("2024-06-05T15:00", Security("AAA"), Security("BBB"))
    made.take(Step("ingest", ("AAA", "BBB"), "2024-06-03", None, salt=100))
    made.take(Step("update", hours=24, salt=salt, beside=Step("remove", ("AAA",))))

    assert (MINUTES, "AAA") not in made.state.claims
    assert not made.state.rows_of((MINUTES, "AAA"))


# ------------------------------------------------------------------------ row 17: a killed run is never an inconsistency


def _withdrawn_days() -> World:
    days = list(sessions(date(2024, 5, 1), date(2024, 6, 14)))
    made = world("2024-06-17T15:00", Security("AAA", only=[at(day, 10, 3 * n) for n in range(4) for day in days]))
    for day in (*days[:3], *days[20:22]):
        for number in range(4):
            made.market.change("AAA", at(day, 10, 3 * number), at(date(2024, 6, 20), 12), None)
    made.take(Step("ingest", ("AAA",), "2024-05-01", "2024-06-14", salt=1))
    return made


def _shift(step: Step, kill_at: int) -> Step:
    return replace(step, kill_at=kill_at, salt=kill_at)


@pytest.mark.parametrize("first", range(1, 5))
def test_17_a_killed_refetch_that_removes_is_no_inconsistency(first: int) -> None:
    step = Step("ingest", ("AAA",), "2024-05-01", "2024-06-14", refetch=True, accept=True, hours=24 * 5, workers=1)
    for kill_at in range(first, 60, 4):
        made = _withdrawn_days()
        made.take(_shift(step, kill_at))
        happened = made.take(Step("ingest", ("AAA",), "2024-05-01", "2024-06-14", salt=2, refetch=kill_at % 3 == 0))
        assert reported(happened)[0] == 0
        made.take(Step("update", salt=3, hours=24))


@pytest.mark.parametrize("first", range(1, 4))
def test_17_a_kill_between_bars_and_coverage_then_a_shorter_run_or_store(first: int) -> None:
    step = Step("ingest", ("AAA",), "2024-05-10", "2024-05-30", workers=1)
    for kill_at in range(first, 40, 3):
        days = list(sessions(date(2024, 5, 1), date(2024, 6, 14)))
        made = world("2024-06-17T15:00", Security("AAA", only=[at(day, 10, 3 * n) for n in range(4) for day in days]))
        made.take(Step("ingest", ("AAA",), "2024-05-20", "2024-05-21", salt=1))
        made.take(_shift(step, kill_at))
        if kill_at % 2:
            made.take(Step("ingest", ("AAA",), "2024-05-20", "2024-05-22", salt=2))
        else:
            made.take(Step("store", ("AAA",), "2024-05-20", "2024-05-24", salt=2))
        made.take(Step("update", salt=3))


# --------------------------------------------------------------------------- row 18: a clock that is ahead, and nobody says so


def test_18_without_the_vendors_time_nothing_later_than_its_newest_bar_is_final() -> None:
    made = world("2024-06-05T18:00", Security("AAA"))
    step = Step("ingest", ("AAA",), "2024-06-03", None, skew=240, salt=1)
    step.faults.dated = False
    made.take(step)
    made.take(Step("update", salt=2, hours=24 * 3))
    there = made.market.bars("AAA", *_minutes(made), *span("2024-06-03", "2024-06-07"), 1 << 62)

    assert set(made.state.rows_of((MINUTES, "AAA"))) == set(there)


def _minutes(made: World):  # type: ignore[no-untyped-def]
    from data_engine.market.series import RAW, Timeframe

    return Timeframe.parse("1Min"), RAW


# ---------------------------------------------------------------- row 20: two tickers of one security hold the same months


def two_tickers() -> World:
    renamed = date(2024, 6, 10)
    made = world("2024-06-05T15:00", Security("META", renamed=renamed), Security("FB", last=date(2024, 6, 7), like="META"))
    made.take(Step("ingest", ("FB",), "2024-05-01", None, salt=1))
    made.take(Step("update", salt=2, hours=24 * 12))
    return made


def may_of(made: World, symbol: str) -> bytes | None:
    return made.files.content.get(f"{MINUTES}/symbol={symbol}/year=2024/month=05/data.parquet")


def test_20_the_same_bars_under_an_old_and_a_new_ticker_are_no_swap() -> None:
    """Also where a run was killed after it stored them, and before it counted them: a repair leaves them where they are."""
    uncounted = 0
    for kill_at in range(4, 60, 2):
        made = two_tickers()
        made.take(Step("ingest", ("META",), "2024-05-01", None, salt=3, workers=1, kill_at=kill_at))
        stored = may_of(made, "META")
        uncounted += stored is not None and not made.state.claims_of((MINUTES, "META")).bars
        made.take(Step("repair", salt=4))
        assert may_of(made, "META") == stored
        assert stored in (None, may_of(made, "FB"))

    assert uncounted
    made.finish()
    assert may_of(made, "META") == may_of(made, "FB")


# ------------------------------------------------------------------------------------------------- row 21: a bar under way


def test_21_todays_bar_is_not_claimed_before_it_has_ended() -> None:
    made = world("2024-06-08T00:45", Security("AAA"), Security("NEW", first=date(2024, 6, 7)))  # Friday, 20:45 in New York
    happened = made.take(Step("ingest", ("AAA", "NEW"), "2024-06-03", None, "1Day", salt=1))

    assert reported(happened) == (0, {})
    for symbol in ("AAA", "NEW"):
        assert not common(made.state.claims_of((DAYS, symbol)).all, [span("2024-06-07", "2024-06-07")])
    made.take(Step("update", salt=2, hours=24))
    assert len(made.state.rows_of((DAYS, "AAA"))) == 5


# -------------------------------------------------------------------------------------------- row 22: a member that has left


def test_22_the_tail_of_a_member_that_has_left_is_completed() -> None:
    made = world("2024-06-06T00:45", Security("AAA"), Security("BBB"))
    late = at(date(2024, 6, 4), 10)
    made.market.change("BBB", late, at(date(2024, 6, 6), 9), (9.0, 9.0, 9.0, 9.0, 700.0, 1.0, 9.0))
    made.take(Step("ingest", ("AAA", "BBB"), "2024-06-03", None, "1Day", index="ours", salt=1))
    made.take(Step("ingest", ("AAA",), "2024-06-03", None, "1Day", index="ours", salt=2))
    made.take(Step("update", index="ours", salt=3, hours=24 * 2))
    key: Key = (DAYS, "BBB")

    assert len(made.state.rows_of(key)) >= 3
    first = at(date(2024, 6, 6), 0)
    assert not common(made.state.claims_of(key).provisional, [(0, first)])


# ----------------------------------------------------------------------------------------------------- row 26: an outage


def test_26_an_outage_is_not_halved_symbol_by_symbol() -> None:
    made = world("2024-06-10T15:00", *(Security(name, (1, 1)) for name in names(64)))
    step = Step("ingest", names(64), "2024-06-03", "2024-06-04", workers=2, salt=1)
    step.faults = Faults(outage=True)
    made.take(step)

    assert made.vendor.sent <= 10
