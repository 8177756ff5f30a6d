"""A process is killed before each of its changes of a file, and the power may fail: what the next one then believes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from .disk import Disks
from .market import Action, Security, at, midnight
from .oracle import dataset_of
from .scheduler import Killed
from .state import common
from .test_rows import MINUTES, world
from .vendor import Faults
from .world import Step, World

PLACES = ("memory", "strict")


def killed_before_each_change(begin: Callable[[], World], step: Step) -> list[World]:
    """Take a step in world after world, killed before its first change, its second ...; return the worlds.

    Each world has gone on with the power failing, with the same command and with an update, and all of it was as it must be, also
    when it is read as it was then.
    """
    worlds: list[World] = []
    while True:
        made = begin()
        power = made.place != "memory"
        happened = made.take(replace(step, kill_before=len(worlds) + 1, power=power, salt=len(worlds)))
        if not isinstance(happened.error, Killed):
            return worlds
        assert len(worlds) < 200
        made.take(replace(step, hours=0.0, faults=Faults(), salt=1_000))
        made.take(Step("clock", power=power, salt=1_001))
        made.take(Step("update", salt=1_002, hours=24))
        made.memory.check(made.files.files())
        worlds.append(made)


@pytest.mark.parametrize("place", PLACES)
def test_a_first_ingest_of_two_files(place: str) -> None:
    """Mutant `coverage-before-bars`."""

    def begin() -> World:
        return world("2024-06-10T15:00", Security("AAA", (2, 3)), Security("BBB", (2, 3)), place=place)

    assert len(killed_before_each_change(begin, Step("ingest", ("AAA", "BBB"), "2024-05-30", "2024-06-04", workers=1))) > 5


@pytest.mark.parametrize("as_a_whole", [True, False], ids=["file-system", "each-file"])
def test_a_group_of_series_whose_flushes_are_one(as_a_whole: bool) -> None:
    """Mutants `group-drafts-not-flushed`, `group-folders-not-flushed` and `group-covered-before-flush`."""

    def begin() -> World:
        made = world("2024-06-10T15:00", Security("AAA", (2, 3)), Security("BBB", (2, 3)), place="strict")
        assert isinstance(made.files, Disks)
        made.files.disk.flushes_as_a_whole = as_a_whole
        return made

    step = Step("ingest", ("AAA", "BBB"), "2024-05-30", "2024-06-04", workers=1)
    assert len(killed_before_each_change(begin, step)) > 5


def test_a_group_that_finds_its_files_as_a_killed_process_left_them_flushes_them() -> None:
    """Mutant `group-of-seen-not-flushed`: nothing is written, all is claimed, and then the power fails."""
    step = Step("ingest", ("AAA", "BBB"), "2024-06-03", "2024-06-04", workers=1)
    for change in range(1, 60):
        made = world("2024-06-10T15:00", Security("AAA", (2, 3)), Security("BBB", (2, 3)), place="strict")
        assert isinstance(made.files, Disks)
        made.files.disk.flushes_as_a_whole = False
        killed = isinstance(made.take(replace(step, kill_before=change, salt=1)).error, Killed)
        made.take(replace(step, salt=2))
        made.take(Step("clock", power=True, salt=3))
        if not killed:
            break
    assert 15 < change < 59


def test_a_file_that_another_process_changes_while_a_group_is_flushed_is_done_again() -> None:
    """Mutant `group-not-compared`: `store` writes between the read of a file and its move."""
    for salt in range(12):
        made = world("2024-06-10T15:00", Security("AAA", (2, 3)), Security("BBB", (2, 3)), place="strict")
        made.take(Step("ingest", ("AAA", "BBB"), "2024-06-03", "2024-06-03", salt=100 + salt))
        step = Step("ingest", ("AAA", "BBB"), "2024-06-03", "2024-06-06", salt=salt, workers=1)
        step.beside = Step("store", ("AAA", "BBB"), "2024-05-30", "2024-06-07")
        made.take(step)


@pytest.mark.parametrize("place", PLACES)
def test_a_removal(place: str) -> None:
    """Mutants `remove-bars-first` and `remove-not-announced`."""

    def begin() -> World:
        made = world("2024-06-10T15:00", Security("AAA", (2, 3)), place=place)
        made.take(Step("ingest", ("AAA",), "2024-05-29", "2024-06-05", salt=1))
        return made

    assert len(killed_before_each_change(begin, Step("remove", ("AAA",), "2024-05-30", "2024-06-03"))) > 3


@pytest.mark.parametrize("place", PLACES)
def test_what_earlier_runs_requested(place: str) -> None:
    """Mutant `requested-old-file-first`: what killed runs have left to be fetched is taken over by the next one."""

    def begin() -> World:
        made = world("2024-06-10T15:00", *(Security(name, (1, 2)) for name in ("AAA", "BBB", "CCC")), place=place)
        for number, symbol in enumerate(("AAA", "BBB")):
            requested = Step("ingest", (symbol,), "2024-06-03", "2024-06-04", salt=1 + number, faults=Faults(stop_at=1))
            made.take(requested)
            assert made.state.claims_of((MINUTES, symbol)).wanted
        return made

    worlds = killed_before_each_change(begin, Step("ingest", ("CCC",), "2024-06-03", "2024-06-04", workers=1))
    assert len(worlds) > 3
    for made in worlds:
        assert all(made.state.rows_of((MINUTES, symbol)) for symbol in ("AAA", "BBB", "CCC"))


def _split(symbol: str = "AAA") -> Security:
    return Security(symbol, (2, 3), actions=[Action("split", date(2024, 6, 10), 0.25, midnight(date(2024, 6, 10)))])


@pytest.mark.parametrize("place", PLACES)
def test_a_series_that_is_fetched_again_on_another_basis(place: str) -> None:
    """Nothing of the old basis is claimed beside the new one, wherever the process is killed."""

    def begin() -> World:
        made = world("2024-06-06T23:00", _split(), place=place)
        made.take(Step("ingest", ("AAA",), "2024-05-28", None, adjustment="split", salt=1))
        return made

    step = Step("update", hours=24 * 4, workers=1, faults=Faults(page_bars=4))
    assert len(killed_before_each_change(begin, step)) > 5


@pytest.mark.parametrize("place", PLACES)
def test_a_refetch_on_another_basis(place: str) -> None:
    """The claims that stand are inside the range."""

    def begin() -> World:
        made = world("2024-06-06T23:00", _split(), place=place)
        made.take(Step("ingest", ("AAA",), "2024-05-28", "2024-06-05", adjustment="split", salt=1))
        return made

    step = Step("ingest", ("AAA",), "2024-05-20", None, adjustment="split", hours=24 * 4, refetch=True, workers=1)
    step.faults = Faults(page_bars=4)
    assert len(killed_before_each_change(begin, step)) > 5


def test_bars_that_a_killed_process_left_unflushed_are_flushed_before_they_are_claimed() -> None:
    """Mutant `flush-of-what-was-seen`: the next process finds the same bars in place, and the power fails after it."""

    def begin() -> World:
        return world("2024-06-10T15:00", Security("AAA", (2, 3)), place="strict")

    step, kills = Step("ingest", ("AAA",), "2024-06-03", "2024-06-04", workers=1), 0
    for change in range(1, 60):
        made = begin()
        kills += isinstance(made.take(replace(step, kill_before=change, salt=1)).error, Killed)
        made.take(replace(step, salt=2))
        made.take(Step("clock", power=True, salt=3))
    assert 5 < kills < 50


def test_what_a_killed_process_left_unflushed_is_flushed_before_it_is_counted() -> None:
    """It had moved a file of a range that it fetched again; the next run counts the file, and then the power fails."""
    key = (MINUTES, "AAA")

    def left(change: int) -> World:
        made = world("2024-06-10T15:00", Security("AAA", (2, 3)), place="strict")
        made.take(Step("ingest", ("AAA",), "2024-06-03", "2024-06-03", salt=1))
        again = Step("ingest", ("AAA",), "2024-06-03", "2024-06-04", refetch=True, workers=1, salt=2, kill_before=change)
        assert isinstance(made.take(again).error, Killed)
        return made

    moved = next(
        change for change in range(10, 60) if len((one := left(change)).state.rows_of(key)) > one.state.claims_of(key).bars
    )
    counted = 0
    for following in range(8, 40, 2):
        made = left(moved)
        before = made.state.claims_of(key)
        assert before.changing
        made.take(Step("update", salt=3, kill_before=following, power=True))
        counted += made.state.claims_of(key).bars > before.bars
        if counted > 2:
            return
    raise AssertionError("no update was killed after its count, and before anything else")


@pytest.mark.parametrize("following", [10, 9_999])
def test_what_a_killed_run_left_unflushed_is_flushed_before_the_next_one_relies_on_it(following: int) -> None:
    """What was asked for is in place, so that the next run does not write it down, or all is, so that it only says so."""
    step, asks = Step("ingest", ("AAA",), "2024-06-03", "2024-06-04", workers=1), set()
    for change in range(3, 60, 2):
        made = world("2024-06-10T15:00", Security("AAA", (2, 3)), place="strict")
        killed = made.take(replace(step, kill_before=change, salt=1)).error
        asks.add(len(made.take(replace(step, kill_before=following, power=following < 99, salt=2)).asks))
        if not isinstance(killed, Killed):
            break
    assert change > 10
    assert asks == {0, 1}


def test_a_file_that_was_removed_stays_removed_when_the_power_fails() -> None:
    """Mutant `flush-of-removal`."""
    days = [date(2024, 5, 30), date(2024, 6, 3)]
    for salt in range(8):
        made = world("2024-06-05T15:00", Security("AAA", only=[at(day, 10) for day in days]), place="strict")
        made.market.change("AAA", at(days[0], 10), at(date(2024, 6, 6), 12), None)
        made.seed = salt
        made.take(Step("ingest", ("AAA",), "2024-05-29", "2024-06-04", salt=1))
        made.take(Step("ingest", ("AAA",), "2024-05-29", "2024-06-04", refetch=True, accept=True, hours=48, salt=2))
        assert len(made.state.rows_of((MINUTES, "AAA"))) == 1
        made.take(Step("clock", power=True, salt=3 + salt))
        assert len(made.state.rows_of((MINUTES, "AAA"))) == 1


# --------------------------------------------------------------------------------------------- what was answered, and when


def test_emptiness_is_not_final_because_a_week_has_passed() -> None:
    """Mutant `time-is-an-answer`: nine days later new days are answered, and the earlier ones are not asked for."""
    made = world("2024-06-05T19:00", Security("NEW", (2, 3), renamed=date(2024, 6, 5)), Security("AAA", (2, 3)))
    made.take(Step("ingest", ("NEW", "AAA"), "2024-05-01", None, salt=1))
    made.take(Step("ingest", ("NEW",), "2024-06-12", None, hours=24 * 9, salt=2))
    assert min(made.state.rows_of((MINUTES, "NEW"))) > midnight(date(2024, 6, 5))
    made.finish()


def test_emptiness_before_a_first_bar_that_is_found_later_is_asked_for_again() -> None:
    """Mutant `first-bar-is-an-answer`: a later bar tells that earlier days, answered twice, are not final yet."""
    days = [date(2024, 6, 4), date(2024, 6, 7)]
    made = world("2024-06-08T15:00", Security("AAA", only=[at(day, 10) for day in days]), Security("BBB", (2, 3)))
    made.market.change("AAA", at(days[0], 10), at(days[0], 10), None)
    made.market.change("AAA", at(days[0], 10), at(date(2024, 6, 19), 12), (7.0, 8.0, 6.0, 7.5, 100.0, 2.0, 7.0))
    made.take(Step("ingest", ("AAA", "BBB"), "2024-06-03", "2024-06-05", salt=1))
    made.take(Step("ingest", ("AAA", "BBB"), "2024-06-03", "2024-06-05", salt=2, hours=24 * 9))
    made.take(Step("ingest", ("AAA",), "2024-06-06", "2024-06-07", salt=3, hours=24 * 4))
    made.take(Step("update", salt=4, hours=24))
    assert sorted(made.state.rows_of((MINUTES, "AAA"))) == [at(day, 10) for day in days]


def test_what_was_stored_unconfirmed_is_final_by_when_it_was_answered() -> None:
    """Mutant `confirmed-by-now`: the run that compares comes two days after the one that was stopped, and a day was revised."""
    compared = 0
    for stop_at in range(2, 40):
        made = world("2024-06-10T19:00", Security("AAA", (3, 5)), restless=1.0)
        step = Step("ingest", ("AAA",), "2024-05-01", None, adjustment="split", page_limit=60, workers=1, salt=stop_at)
        step.faults = Faults(page_bars=15, stop_at=stop_at)
        made.take(step)
        key = ("equities_1min_split", "AAA")
        compared += any(end > at(date(2024, 6, 10), 9) for _, end in made.state.claims_of(key).unconfirmed)
        made.take(Step("ingest", ("AAA",), "2024-05-01", "2024-05-02", adjustment="split", hours=24 * 3, salt=50))
        assert not common(made.state.claims_of(key).covered, [(midnight(date(2024, 6, 10)), midnight(date(2024, 6, 11)))])
        made.take(Step("update", salt=51))
        minutes, day = dataset_of(key), (midnight(date(2024, 6, 10)), midnight(date(2024, 6, 11)))
        there = made.market.bars("AAA", minutes.timeframe, minutes.adjustment, *day, at(date(2024, 6, 12), 12))
        held = made.state.rows_of(key)
        assert {stamp: held.get(stamp) for stamp in there} == {stamp: values for stamp, (values, _) in there.items()}
    assert compared


@pytest.mark.parametrize("lands_at", range(2, 8))
def test_an_action_between_the_earlier_part_and_the_first_claimed_bar(lands_at: int) -> None:
    """Mutant `earlier-part-not-compared`: the claimed bars are later than the action, and stay as they are."""
    action = Action("dividend", date(2024, 5, 28), 0.9, at(date(2024, 6, 10), 10))
    made = world("2024-06-10T12:00", Security("AAA", (3, 5), actions=[action]))
    made.take(Step("ingest", ("AAA",), "2024-06-03", "2024-06-05", adjustment="all", salt=1))
    step = Step(
        "ingest", ("AAA",), "2024-03-01", "2024-06-05", adjustment="all", page_limit=60, workers=1, salt=lands_at, hours=3
    )
    step.faults = Faults(page_bars=30, lands_at=lands_at)
    made.take(step)
    made.take(Step("update", salt=20, hours=24))


@pytest.mark.parametrize("place", PLACES)
def test_an_earlier_part_on_two_bases(place: str) -> None:
    """Mutant `one-of-two-seams`: the first claimed bars are as they were, those of the earlier part are not."""
    action = Action("dividend", date(2024, 5, 28), 0.9, at(date(2024, 6, 10), 10))

    def begin() -> World:
        made = world("2024-06-10T12:00", Security("AAA", (3, 5), actions=[action]), place=place)
        made.take(Step("ingest", ("AAA",), "2024-06-03", "2024-06-04", adjustment="all", salt=1))
        return made

    step = Step("ingest", ("AAA",), "2024-05-20", "2024-06-04", adjustment="all", workers=1, hours=3)
    step.faults = Faults(page_bars=10, lands_at=3)
    assert len(killed_before_each_change(begin, step)) > 5


@pytest.mark.parametrize("lands_at", range(3, 8))
def test_a_split_between_two_pages_of_an_extension(lands_at: int) -> None:
    """Mutant `extension-without-withdrawal`: the second page brings a claimed and provisional day on the new basis."""

    def begin() -> World:
        made = world("2024-06-07T23:00", _split())
        made.take(Step("ingest", ("AAA",), "2024-06-03", None, adjustment="split", salt=1))
        return made

    step = Step("update", hours=24 * 3, workers=1, faults=Faults(page_bars=3, lands_at=lands_at))
    assert len(killed_before_each_change(begin, step)) > 5


def test_two_ingests_of_one_range_at_the_same_time_fetch_it_once() -> None:
    """Mutant `ingest-reads-before-lock`: who waits for the store plans by what the other one has stored."""
    for salt in range(8):
        made = world("2024-06-10T15:00", Security("AAA", (2, 3)), Security("BBB", (2, 3)))
        step = Step("ingest", ("AAA", "BBB"), "2024-06-03", "2024-06-05", salt=salt)
        step.beside = Step("ingest", ("AAA", "BBB"), "2024-06-03", "2024-06-05")
        assert len(made.take(step).asks) == 1


def test_what_is_left_of_a_chain_that_broke_off_is_still_compared() -> None:
    """Mutant `rest-not-compared`: else each series is compared by a request of its own when the run ends."""
    asked = broke = 0
    for salt in range(20):
        made = world("2024-06-10T23:00", *(Security(name, (3, 3)) for name in ("AAA", "BBB", "CCC")))
        made.take(Step("ingest", ("AAA", "BBB", "CCC"), "2024-06-03", None, adjustment="split", salt=100))
        happened = made.take(Step("update", hours=24, workers=1, faults=Faults(page_bars=2, page=0.15), salt=salt))
        broke += any(not ask.complete for ask in happened.asks)
        asked += len(happened.asks)
    assert broke > 3
    assert asked < 20 * 5  # of a page each: 83, and 106 if what is left were compared at the end


def test_who_has_the_newest_bar_of_an_undated_answer_has_a_bar() -> None:
    """Asked who has any: the newest bar may be forming, and was taken for none, so that emptiness was claimed in its place."""
    dead = [Security(name, only=[at(date(2024, 5, 20 + number), 10), last]) for number, (name, last) in enumerate(_LATE.items())]
    made = world("2024-06-05T23:00", Security("LIVE", (2, 3)), *dead)
    symbols = ("LIVE", *_LATE)
    made.take(Step("ingest", symbols, "2024-05-01", None, adjustment="split", salt=1))
    made.take(Step("update", hours=24 * 6, salt=2, faults=Faults(dated=False, page_bars=1)))
    made.take(Step("update", hours=24, salt=3))
    for name, last in _LATE.items():
        assert last in made.state.rows_of(("equities_1min_split", name))


_LATE = {f"S{number:02}": at(date(2024, 6, 6), 10, number) for number in range(6)}
