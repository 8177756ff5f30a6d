"""One chain of pages on its way to disk: what is kept, what is claimed, and what is left when it breaks."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine import ParquetStorage
from data_engine.errors import DamagedFile
from data_engine.ingest import series_files
from data_engine.ingest.chain import Phase, remaining_tasks
from data_engine.ingest.page_writer import PageWriter
from data_engine.ingest.plan import FetchTask
from data_engine.market.bar_frame import to_frame
from data_engine.market.bars import EMPTY, VALUES, Changes, make_table, to_micros
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Adjustment, Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, union
from data_engine.store.coverage import Coverage
from data_engine.store.file_count import Fingerprint
from data_engine.store.partitions import Partition, Period
from data_engine.verify.series_check import check_series
from fetched_pages import (
    DAYS,
    HOURS,
    JULY,
    JUNE,
    LONG_AFTER,
    MAY,
    MINUTE,
    MINUTES,
    SPAN,
    SPLIT,
    WEEKS,
    at,
    bars,
    between,
    held,
    known,
    page,
    task,
)


@pytest.fixture
def storage(tmp_path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "store")


def put(storage: ParquetStorage, symbol: str, table: pa.Table, dataset: Dataset = MINUTES) -> None:
    """Have bars in the store already."""
    for period in (MAY, JUNE, JULY):
        inside = [stamp for stamp in table.column("timestamp").to_pylist() if stamp in period.span]
        if inside:
            storage.bars.write(
                Series(symbol, dataset),
                period,
                table.filter(pa.array([stamp in period.span for stamp in table.column("timestamp").to_pylist()])),
            )


# ------------------------------------------------------------------------------------------------- a chain that ends well


def test_a_chain_that_ends_covers_the_whole_range_of_every_symbol(storage):
    """A straddles two pages and two months, B has no bar, C one."""
    writer = PageWriter(storage.bars, task("A", "B", "C"), now=LONG_AFTER)
    taken = [
        writer.take(page(("A", bars("2024-06-03T14:00", "2024-06-28T14:00")))),
        writer.take(page()),
        writer.take(page(("A", bars("2024-06-28T14:01", "2024-07-01T14:00")), ("C", bars("2024-07-12T14:00", price=3.0)))),
    ]
    made = writer.complete()

    assert taken == [2, 0, 3]
    assert held(storage, "A") == dict.fromkeys(
        ["2024-06-03 14:00", "2024-06-28 14:00", "2024-06-28 14:01", "2024-07-01 14:00"], 1.0
    )
    assert held(storage, "B") == {}
    assert held(storage, "C") == {"2024-07-12 14:00": 3.0}
    assert made == {symbol: known(storage, symbol) for symbol in ("A", "B", "C")}
    assert {symbol: coverage.covered for symbol, coverage in made.items()} == dict.fromkeys("ABC", (SPAN,))
    assert [coverage.provisional for coverage in made.values()] == [()] * 3
    assert (made["A"].rows, made["B"].rows, made["C"].rows) == ({JUNE: 3, JULY: 1}, {}, {JULY: 1})
    assert (made["A"].first_bar, made["A"].last_bar) == (at("2024-06-03T14:00"), at("2024-07-01T14:00"))
    assert (made["A"].empty_since, made["B"].empty_since) == (None, LONG_AFTER)
    assert writer.changes == {"A": Changes(4), "B": Changes(), "C": Changes(1)}
    assert writer.damaged == {}


def test_bars_are_written_when_many_wait_but_for_the_current_file_and_covered_when_the_chain_has_ended(storage, monkeypatch):
    """Memory is bounded: what waits is written at the latest with the page that makes it many; a claim waits for the end."""
    monkeypatch.setattr(series_files, "MANY_FILES", 0)
    monkeypatch.setattr(series_files, "GROUP_BARS", 1)
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER)
    june, july = ("A", bars("2024-06-03T14:00")), ("A", bars("2024-07-01T14:00"))
    on_disk = []
    for one in (page(june), page(july), page(("B", bars("2024-06-03T14:00")))):
        writer.take(one)
        on_disk.append((list(held(storage, "A")), list(held(storage, "B"))))

    assert on_disk == [([], []), (["2024-06-03 14:00"], []), (["2024-06-03 14:00", "2024-07-01 14:00"], [])]
    assert known(storage, "A") == Coverage(Series("A", MINUTES))


def test_bars_of_few_files_wait_longer_than_those_of_many(storage, monkeypatch):
    """Files that are changed together are flushed together; of long series, a month is many bars."""
    monkeypatch.setattr(series_files, "GROUP_BARS", 2)
    monkeypatch.setattr(series_files, "MANY_FILES", 3)
    long, many = (PageWriter(storage.bars, task(*names), now=LONG_AFTER, group_bars=4) for names in ("A", "BCD"))
    long.take(page(("A", bars("2024-06-03T14:00", "2024-06-03T14:01", "2024-07-01T14:00"))))
    of_long = len(held(storage, "A"))
    long.take(page(("A", bars("2024-07-01T14:01"))))
    many.take(page(*((name, bars("2024-06-03T14:00")) for name in "BCD")))

    assert (of_long, len(held(storage, "A"))) == (0, 2)  # all but July, of which more may come
    assert [len(held(storage, name)) for name in "BCD"] == [1, 1, 0]


def test_the_more_workers_the_fewer_bars_wait_in_each_task():
    waiting = [workers * series_files.long_group(workers) for workers in (1, 4, 8, 16, 32, 64)]

    assert waiting == sorted(waiting)
    assert waiting[-1] == waiting[-2] <= 1 << 21  # bars of 64 bytes: 128 MB
    assert series_files.long_group(1000) == series_files.GROUP_BARS


def test_pages_do_not_stay_in_memory_once_their_bars_are_written(storage, monkeypatch):
    """A task may have hundreds of symbols: a part of a page that is kept of each would be all of the pages in the end."""
    monkeypatch.setattr(series_files, "MANY_FILES", 0)
    monkeypatch.setattr(series_files, "GROUP_BARS", 1)
    names = [f"S{number:02d}" for number in range(40)]
    writer = PageWriter(storage.bars, task(*names), now=LONG_AFTER)
    alive = []
    for name in names:
        times = to_micros(at("2024-06-03T14:00")) + 60_000_000 * np.arange(50)
        arrays = [times, *(np.full(50, 1.5) for _ in VALUES)]
        alive += [weakref.ref(array) for array in arrays]
        writer.take(BarsPage(make_table(arrays[0], arrays[1:]), ((name, 0, 50),), None, 1000))
        del times, arrays
    gc.collect()

    assert sum(array() is not None for array in alive) <= 8  # the page of the current symbol
    writer.complete()
    assert {len(held(storage, name)) for name in names} == {50}


def test_all_files_of_a_claimed_range_that_are_written_together_are_announced(storage, monkeypatch):
    """Of a range that was claimed to be empty, a killed run would leave files that no later run has a reason to count."""
    monkeypatch.setattr(series_files, "MANY_FILES", 0)
    monkeypatch.setattr(series_files, "GROUP_BARS", 1)
    storage.bars.coverage.update(Series("A", MINUTES), lambda known: replace(known, wanted=(SPAN,), covered=(SPAN,)))
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER)
    writer.take(page(("A", bars("2024-06-03T14:00", "2024-07-01T14:00")), ("B", bars("2024-06-03T14:00"))))

    assert len(held(storage, "A")) == 2
    assert known(storage, "A").changing == {JUNE, JULY}


def test_bars_beside_the_range_are_dropped(storage):
    """A request is widened to whole bars and may carry a session for comparison: the surplus belongs to nobody."""
    span = between("2024-06-03T14:00", "2024-06-03T14:02")
    writer = PageWriter(storage.bars, task("A", span=span), now=LONG_AFTER)
    stamps = [f"2024-06-03T{clock}" for clock in ("13:59", "14:00", "14:01", "14:02")]

    assert writer.take(page(("A", bars("2024-05-31T14:00", *stamps, "2024-07-01T14:00")))) == 2
    assert writer.complete()["A"].covered == (span,)
    assert list(held(storage, "A")) == ["2024-06-03 14:00", "2024-06-03 14:01"]


@pytest.mark.parametrize(
    ("dataset", "now", "kept"),
    [
        pytest.param(MINUTES, "2024-06-03T15:00:59", ["14:00", "14:59"], id="a-minute-is-running"),
        pytest.param(MINUTES, "2024-06-03T15:01", ["14:00", "14:59", "15:00"], id="the-minute-has-just-ended"),
        pytest.param(HOURS, "2024-06-03T15:59:59", ["14:00"], id="an-hour-is-running"),
        pytest.param(HOURS, "2024-06-03T16:00", ["14:00", "15:00"], id="the-hour-has-just-ended"),
        pytest.param(MINUTES, "2024-06-03T13:30", [], id="all-of-it-is-to-come"),
    ],
)
def test_bars_that_had_not_ended_are_left_out(storage, dataset, now, kept):
    sent = ["14:00", "14:59", "15:00", "15:01"] if dataset is MINUTES else ["14:00", "15:00", "16:00"]
    writer = PageWriter(
        storage.bars, task("A", span=between("2024-06-03T13:00", "2024-06-03T17:00"), dataset=dataset), now=at(now)
    )

    assert writer.take(page(("A", bars(*(f"2024-06-03T{clock}" for clock in sent))))) == len(kept)
    made = writer.complete()["A"]
    assert list(held(storage, "A", dataset)) == [f"2024-06-03 {clock}" for clock in kept]
    assert made.covered == ()


@pytest.mark.parametrize(
    ("dataset", "span", "now", "final"),
    [
        pytest.param(
            MINUTES,
            ("2024-06-03", "2024-06-05"),
            "2024-06-05T13:59:59",
            "2024-06-04T04:00",
            id="a-day-waits-for-the-next-session",
        ),
        pytest.param(
            MINUTES, ("2024-06-03", "2024-06-05T13:00"), "2024-06-05T14:00", "2024-06-05T04:00", id="a-day-is-final-from-10:00-on"
        ),
        pytest.param(
            WEEKS,
            ("2024-05-27T04:00", "2024-06-10T04:00"),
            "2024-06-10T13:59:59",
            "2024-06-03T04:00",
            id="a-week-waits-for-monday-10:00",
        ),
        pytest.param(
            WEEKS,
            ("2024-05-27T04:00", "2024-06-10T04:00"),
            "2024-06-10T14:00",
            "2024-06-10T04:00",
            id="a-week-is-final-on-monday-10:00",
        ),
    ],
)
def test_what_can_still_change_is_provisional(storage, dataset, span, now, final):
    whole = between(*span)
    writer = PageWriter(storage.bars, task("A", span=whole, dataset=dataset), now=at(now))
    stamps = ("2024-06-03T14:00", "2024-06-04T14:00") if dataset == MINUTES else ("2024-06-03T04:00",)
    writer.take(page(("A", bars(*stamps))))
    made = writer.complete()["A"]

    assert made.covered == tuple(piece for piece in [whole.before(at(final))] if piece)
    assert made.provisional == tuple(piece for piece in [whole.after(at(final))] if piece)
    assert len(held(storage, "A", dataset)) == len(stamps)


@pytest.mark.parametrize(
    ("stamps", "now", "waits"),
    [
        pytest.param(("2024-06-03T14:00", "2024-06-05T14:00"), "2024-06-06T14:00", True, id="the-day-before-traded"),
        pytest.param(("2024-06-05T14:00",), "2024-06-06T14:00", False, id="its-first-bar-is-later"),
        pytest.param(("2024-06-03T14:00", "2024-06-05T14:00"), "2024-06-12T14:00", False, id="eight-days-ago"),
    ],
)
def test_a_recent_session_without_a_bar_waits_for_the_end_of_the_run(storage, stamps, now, waits):
    """An outage answers like that, and one series cannot tell: 2024-06-04 is empty."""
    span, session = between("2024-06-03T04:00", "2024-06-06T04:00"), between("2024-06-04T08:00", "2024-06-05T00:01")
    writer = PageWriter(storage.bars, task("A", span=span), now=at(now))
    writer.take(page(("A", bars(*stamps))))
    made = writer.complete()["A"]

    assert made.provisional == ((session,) if waits else ())
    assert union((*made.covered, *made.provisional)) == (span,)
    assert [(one.range, one.regular, one.final) for one in writer.empty.get("A", ())] == [(session, False, True)] * waits


def test_bars_of_a_session_that_did_not_come_again_at_all_wait_for_the_end_of_the_run(storage):
    """Single minutes are withdrawn at once; a whole session is perhaps missing at the vendor."""
    span, session = between("2024-06-03T04:00", "2024-06-05T04:00"), between("2024-06-04T08:00", "2024-06-05T00:01")
    for now, stamps in (
        ("2024-06-05T01:00", ("2024-06-03T14:00", "2024-06-04T14:00", "2024-06-04T14:01")),
        ("2024-06-05T14:00", ("2024-06-03T14:00",)),
    ):
        writer = PageWriter(storage.bars, task("A", span=span), now=at(now))
        writer.take(page(("A", bars(*stamps))))
        made = writer.complete()["A"]

    assert list(held(storage, "A")) == ["2024-06-03 14:00", "2024-06-04 14:00", "2024-06-04 14:01"]
    assert (made.provisional, writer.changes["A"]) == ((session,), Changes(vanished=2))
    assert [one.withdrawn for one in writer.empty["A"]] == [(session,)]


def test_a_success_ends_an_old_failure(storage):
    storage.bars.coverage.update(Series("A", MINUTES), lambda old: old.wanting(SPAN).failed("unavailable", "503", LONG_AFTER))
    writer = PageWriter(storage.bars, task("A"), now=LONG_AFTER)
    writer.take(page())
    writer.complete()

    assert known(storage, "A").failure is None
    assert known(storage, "A").wanted == (SPAN,)


# -------------------------------------------------------------------------------------------------- a chain that breaks off


def test_a_chain_that_breaks_off_covers_what_is_certain(storage):
    """Bars of A came, and of a later symbol; C was under way. That B has none, or D has not begun, nothing that came says."""
    writer = PageWriter(storage.bars, task("A", "B", "C", "D"), now=LONG_AFTER)
    writer.take(page(("A", bars("2024-06-03T14:00")), ("C", bars("2024-06-03T14:00"))))
    writer.take(page(("C", bars("2024-07-01T14:00", "2024-07-01T14:05"))))
    left = writer.abort()

    rest = TimeRange(at("2024-07-01T14:06"), SPAN.end)
    assert left == {"B": SPAN, "C": rest, "D": SPAN}
    assert [known(storage, symbol).covered for symbol in "ABCD"] == [(SPAN,), (), (TimeRange(SPAN.start, rest.start),), ()]
    assert [len(held(storage, symbol)) for symbol in "ABCD"] == [1, 0, 3, 0]
    assert known(storage, "C").rows == {JUNE: 1, JULY: 2}
    assert list(remaining_tasks(task("A", "B", "C", "D"), left)) == [
        FetchTask(("B", "D"), SPAN, MINUTES, 60.0),
        FetchTask(("C",), rest, MINUTES, pytest.approx(120 / 4 * (rest.length / SPAN.length))),
    ]


def test_what_is_left_of_symbols_alike_is_one_task():
    assert list(remaining_tasks(task("A", "B", "C", "D"), {"D": SPAN, "C": SPAN})) == [FetchTask(("C", "D"), SPAN, MINUTES, 60.0)]
    assert list(remaining_tasks(task("A"), {})) == []


def test_a_chain_that_breaks_before_the_first_page_covers_nothing(storage):
    assert PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER).abort() == {"A": SPAN, "B": SPAN}
    assert [known(storage, symbol).covered for symbol in "AB"] == [(), ()]


def test_a_chain_that_breaks_after_the_last_bar_of_the_range_leaves_nothing(storage):
    writer = PageWriter(storage.bars, task("A"), now=LONG_AFTER)
    writer.take(page(("A", bars(SPAN.end - MINUTE))))

    assert writer.abort() == {}
    assert known(storage, "A").covered == (SPAN,)


def test_a_symbol_whose_only_bars_lie_beside_the_range_is_left_whole(storage):
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER)
    writer.take(page(("A", bars(SPAN.start - MINUTE))))

    assert writer.abort() == {"A": SPAN, "B": SPAN}


def test_a_symbol_that_breaks_off_is_covered_by_whole_bars(storage):
    """A bar of a week that came covers its week."""
    writer = PageWriter(
        storage.bars, task("A", span=between("2024-05-27T04:00", "2024-06-24T04:00"), dataset=WEEKS), now=LONG_AFTER
    )
    writer.take(page(("A", bars("2024-05-27T04:00", "2024-06-03T04:00"))))

    assert writer.abort() == {"A": between("2024-06-10T04:00", "2024-06-24T04:00")}
    assert known(storage, "A", WEEKS).covered == (between("2024-05-27T04:00", "2024-06-10T04:00"),)


def test_symbols_out_of_order_finish_nothing_early(storage):
    """Against the documentation: then only the end of the chain says that a symbol is whole. What came is kept."""
    writer = PageWriter(storage.bars, task("A", "B", "C"), now=LONG_AFTER)
    writer.take(page(("B", bars("2024-06-03T14:00")), ("A", bars("2024-06-04T14:00"))))
    left = writer.abort()

    assert left == {"A": SPAN, "B": SPAN, "C": SPAN}
    assert [known(storage, symbol).covered for symbol in "ABC"] == [(), (), ()]
    assert [list(held(storage, symbol)) for symbol in "ABC"] == [["2024-06-04 14:00"], ["2024-06-03 14:00"], []]


def test_symbols_out_of_order_are_whole_when_the_chain_ends(storage):
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER)
    for one in ("2024-06-03T14:00", "2024-06-04T14:00", "2024-07-01T14:00"):
        writer.take(page(("B", bars(one)), ("A", bars(one))))
    writer.complete()

    assert [known(storage, symbol).covered for symbol in "AB"] == [(SPAN,), (SPAN,)]
    assert list(held(storage, "A")) == list(held(storage, "B")) == ["2024-06-03 14:00", "2024-06-04 14:00", "2024-07-01 14:00"]


MARKET_START = at("2024-06-28")
MARKET = TimeRange(MARKET_START, MARKET_START + timedelta(hours=100))
a_market = st.dictionaries(st.sampled_from(["A", "AA", "B", "B.A"]), st.sets(st.integers(0, 99), max_size=8), min_size=1)


def serve(market: dict[str, set[int]], wanted: FetchTask, limit: int) -> list[BarsPage]:
    """Return the pages of a faithful server: symbols ascending, times ascending, one budget of bars over all."""
    rows = [
        (symbol, MARKET_START + timedelta(hours=hour)) for symbol in sorted(wanted.symbols) for hour in sorted(market[symbol])
    ]
    rows = [(symbol, stamp) for symbol, stamp in rows if stamp in wanted.range]
    cut = [rows[start : start + limit] for start in range(0, len(rows), limit)] or [[]]
    return [
        page(
            *((symbol, bars(*(stamp for name, stamp in part if name == symbol))) for symbol in sorted({name for name, _ in part}))
        )
        for part in cut
    ]


@settings(max_examples=25)
@given(a_market, st.integers(1, 5), st.lists(st.integers(0, 4), max_size=5))
def test_however_often_a_chain_breaks_nothing_is_lost_or_claimed_too_early(tmp_path_factory, market, limit, breaks):
    storage = ParquetStorage(tmp_path_factory.mktemp("store"))
    left = [FetchTask(tuple(sorted(market)), MARKET, MINUTES)]
    while left:
        one = left.pop()
        writer = PageWriter(storage.bars, one, now=LONG_AFTER)
        pages = serve(market, one, limit)
        broken_after = breaks.pop() if breaks else len(pages)
        for number, each in enumerate(pages):
            if number == broken_after:
                left += remaining_tasks(one, writer.abort())
                break
            writer.take(each)
        else:
            writer.complete()
        for symbol, hours in market.items():
            stamps = {MARKET_START + timedelta(hours=hour) for hour in hours}
            there = {at(text) for text in held(storage, symbol)}
            claimed = known(storage, symbol).covered
            assert there <= stamps
            assert {stamp for stamp in stamps if any(stamp in piece for piece in claimed)} <= there
            assert len(there) == known(storage, symbol).bars or not claimed

    assert {symbol: len(held(storage, symbol)) for symbol in market} == {symbol: len(hours) for symbol, hours in market.items()}
    assert {symbol: known(storage, symbol).covered for symbol in market} == dict.fromkeys(market, (MARKET,))


# -------------------------------------------------------------------------------------------------------------- trouble


def test_a_damaged_file_is_the_trouble_of_its_symbol_alone(storage):
    path = Path(storage.files.location) / Partition(Series("A", MINUTES), JUNE).key
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER)
    writer.take(page(("A", bars("2024-06-03T14:00", "2024-07-01T14:00")), ("B", bars("2024-06-03T14:00"))))
    made = writer.complete()

    assert list(made) == ["B"]
    assert {symbol: type(error) for symbol, error in writer.damaged.items()} == {"A": DamagedFile}
    assert known(storage, "A").covered == ()
    assert path.read_bytes() == b"damaged"
    assert list(held(storage, "B")) == ["2024-06-03 14:00"]


def test_damaged_coverage_is_the_trouble_of_its_symbol_alone(storage):
    path = Path(storage.files.location) / "metadata" / "coverage" / "equities_1min" / "symbol=A.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{")
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER)
    writer.take(page(("A", bars("2024-06-03T14:00")), ("B", bars("2024-06-03T14:00"))))

    assert list(writer.complete()) == ["B"]
    assert list(writer.damaged) == ["A"]
    assert path.read_bytes() == b"{"
    assert list(held(storage, "A")) == ["2024-06-03 14:00"]


# ------------------------------------------------------------------------------------------------------------ refetching

FOUR = ("2024-05-31T14:00", "2024-06-03T14:00", "2024-06-28T14:00", "2024-07-01T14:00")


def test_a_refetch_revises_adds_and_never_removes_silently(storage):
    put(storage, "A", bars(*FOUR))
    writer = PageWriter(storage.bars, task("A"), now=LONG_AFTER, refetch=True)
    writer.take(page(("A", bars("2024-06-03T14:00", "2024-06-03T14:01", price=2.0))))
    writer.complete()

    prices = [1.0, 2.0, 2.0, 1.0, 1.0]
    stamps = ["2024-05-31 14:00", "2024-06-03 14:00", "2024-06-03 14:01", "2024-06-28 14:00", "2024-07-01 14:00"]
    assert held(storage, "A") == dict(zip(stamps, prices, strict=True))
    written = writer.changes["A"]
    assert (written.added, written.revised, written.vanished) == (1, 1, 2)


def test_accepted_removals_are_applied_inside_the_range(storage):
    """Also to the month of which the answer had no bar at all; not to May, which was not asked for."""
    put(storage, "A", bars(*FOUR))
    writer = PageWriter(storage.bars, task("A"), now=LONG_AFTER, refetch=True, accept_removals=True)
    writer.take(page(("A", bars("2024-06-03T14:00"))))
    made = writer.complete()["A"]

    assert held(storage, "A") == {"2024-05-31 14:00": 1.0, "2024-06-03 14:00": 1.0}
    assert writer.changes["A"] == Changes(removed=2)
    assert {period: count for period, count in made.rows.items() if period != MAY} == {JUNE: 1}


def test_without_a_refetch_what_the_answer_lacks_is_kept_and_counted(storage):
    put(storage, "A", bars(*FOUR))
    writer = PageWriter(storage.bars, task("A"), now=LONG_AFTER)
    writer.take(page())
    writer.complete()

    assert len(held(storage, "A")) == 4
    assert writer.changes == {"A": Changes(vanished=3)}


@pytest.mark.parametrize("accept", [False, True], ids=["counted", "removed"])
def test_a_refetch_that_breaks_off_takes_no_bar_for_vanished_that_was_yet_to_come(storage, accept):
    put(storage, "A", bars("2024-06-03T14:00", "2024-06-04T14:00", "2024-06-28T14:00"))
    writer = PageWriter(storage.bars, task("A"), now=LONG_AFTER, refetch=True, accept_removals=accept)
    writer.take(page(("A", bars("2024-06-03T14:00"))))
    left = writer.abort()

    assert left == {"A": TimeRange(at("2024-06-03T14:01"), SPAN.end)}
    assert list(held(storage, "A")) == ["2024-06-03 14:00", "2024-06-04 14:00", "2024-06-28 14:00"]
    assert writer.changes["A"].vanished == 0


def test_a_refetch_with_symbols_out_of_order_removes_nothing_that_came(storage):
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER, refetch=True, accept_removals=True)
    for one in ("2024-06-03T14:00", "2024-06-04T14:00"):
        writer.take(page(("A", bars(one))))
        writer.take(page(("B", bars(one))))
        writer.take(page(("A", bars(f"{one[:-2]}30"))))
    writer.complete()

    assert list(held(storage, "A")) == ["2024-06-03 14:00", "2024-06-03 14:30", "2024-06-04 14:00", "2024-06-04 14:30"]


def test_nothing_is_removed_after_a_break_so_that_what_would_be_is_requested_again(storage):
    """Were A covered, nobody would ask again: what was dropped from a whole month would stay for ever, and uncounted."""
    put(storage, "A", bars("2024-06-03T14:00", "2024-07-01T14:00"))
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER, refetch=True, accept_removals=True)
    writer.take(page(("A", bars("2024-06-03T14:00")), ("B", bars("2024-06-03T14:00"))))
    left = writer.abort()

    assert left == {"A": SPAN, "B": TimeRange(at("2024-06-03T14:01"), SPAN.end)}
    assert known(storage, "A").covered == ()
    assert list(held(storage, "A")) == ["2024-06-03 14:00", "2024-07-01 14:00"]


# --------------------------------------------------------------------------------------------- prices of one base (adjusted)

BEFORE, AFTER = between("2024-05-31T08:00", "2024-06-01T00:00"), between("2024-07-15T08:00", "2024-07-16T00:00")


def split_task(*symbols: str, overlap: TimeRange | None) -> FetchTask:
    return task(*symbols, dataset=SPLIT, overlap=overlap)


def fetched(writer: PageWriter, *answers: BarsPage) -> list[TimeRange]:
    """Give each chain that the writer asks for its answer; return what it asked."""
    asked = []
    for chain, answer in zip(writer.chains(), answers, strict=True):
        asked.append(chain.range)
        writer.take(answer)
    return asked


def test_an_adjusted_series_is_extended_where_the_session_before_it_is_the_same(storage):
    put(storage, "A", bars("2024-05-31T14:00", "2024-05-31T14:01"), SPLIT)
    writer = PageWriter(storage.bars, split_task("A", overlap=BEFORE), now=LONG_AFTER)
    asked = fetched(writer, page(("A", bars("2024-05-31T14:00", "2024-05-31T14:01", "2024-06-03T14:00"))))

    assert asked == [TimeRange(BEFORE.start, SPAN.end)]
    assert writer.complete()["A"].covered == (SPAN,)
    assert writer.basis_changed == set()
    assert list(held(storage, "A", SPLIT)) == ["2024-05-31 14:00", "2024-05-31 14:01", "2024-06-03 14:00"]


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(bars("2024-05-31T14:00", "2024-05-31T14:01", price=0.5), id="other-prices"),
        pytest.param(bars("2024-05-31T14:00"), id="a-bar-less"),
        pytest.param(bars("2024-05-31T13:59", "2024-05-31T14:00", "2024-05-31T14:01"), id="a-bar-more"),
        pytest.param(EMPTY, id="none"),
    ],
)
def test_an_adjusted_series_is_not_extended_where_the_session_differs(storage, again):
    """Nothing of it is kept and nothing claimed; its neighbour, which is the same, goes on."""
    for symbol in ("A", "B"):
        put(storage, symbol, bars("2024-05-31T14:00", "2024-05-31T14:01"), SPLIT)
    writer = PageWriter(storage.bars, split_task("A", "B", overlap=BEFORE), now=LONG_AFTER)
    fetched(
        writer,
        page(
            ("A", pa.concat_tables([again, bars("2024-06-03T14:00", price=0.5)])),
            ("B", bars("2024-05-31T14:00", "2024-05-31T14:01", "2024-06-03T14:00")),
        ),
    )

    assert list(writer.complete()) == ["B"]
    assert writer.basis_changed == {"A"}
    assert held(storage, "A", SPLIT) == {"2024-05-31 14:00": 1.0, "2024-05-31 14:01": 1.0}
    assert known(storage, "A", SPLIT).covered == ()


@pytest.mark.parametrize("price", [1.0, 0.5])
def test_a_session_behind_the_range_is_asked_for_first(storage, price):
    """It would come too late: the bars of the range must not be kept before the comparison."""
    put(storage, "A", bars("2024-07-15T14:00"), SPLIT)
    writer = PageWriter(storage.bars, split_task("A", overlap=AFTER), now=LONG_AFTER)
    asked = fetched(
        writer, page(("A", bars("2024-07-15T14:00", price=price))), page(("A", bars("2024-06-03T14:00", price=price)))
    )

    assert asked == [AFTER, SPAN]
    assert list(writer.complete()) == (["A"] if price == 1.0 else [])
    expected = ["2024-06-03 14:00", "2024-07-15 14:00"] if price == 1.0 else ["2024-07-15 14:00"]
    assert list(held(storage, "A", SPLIT)) == expected


def test_an_adjusted_answer_replaces_what_lay_in_its_range(storage):
    """What was not covered could be of another price base."""
    put(storage, "A", bars("2024-06-04T14:00", "2024-07-01T14:00", price=9.0), SPLIT)
    writer = PageWriter(storage.bars, task("A", dataset=SPLIT), now=LONG_AFTER)
    writer.take(page(("A", bars("2024-06-03T14:00"))))
    writer.complete()

    assert held(storage, "A", SPLIT) == {"2024-06-03 14:00": 1.0}


@pytest.mark.parametrize("overlap", [BEFORE, AFTER], ids=["before-the-range", "behind-the-range"])
def test_what_is_left_of_an_adjusted_task_is_compared_too(storage, overlap):
    """B was not reached (an invalid neighbour is enough); A was compared before its first bar was kept."""
    for symbol in ("A", "B"):
        put(storage, symbol, bars(overlap.start), SPLIT)
    whole = split_task("A", "B", overlap=overlap)
    writer = PageWriter(storage.bars, whole, now=LONG_AFTER)
    chains = writer.chains()
    next(chains)
    writer.take(
        page(("A", bars(overlap.start)), ("B", bars(overlap.start)))
        if overlap is AFTER
        else page(("A", bars(overlap.start, "2024-06-03T14:00")))
    )
    if overlap is AFTER:
        next(chains)
        writer.take(page(("A", bars("2024-06-03T14:00"))))
    left = list(remaining_tasks(whole, writer.abort()))

    assert [(one.symbols, one.range, one.overlap) for one in left] == [
        (("A",), TimeRange(at("2024-06-03T14:01"), SPAN.end), None),
        (("B",), SPAN, overlap),
    ]


def test_a_file_that_somebody_wrote_meanwhile_is_not_vouched_for_though_it_has_the_same_size(storage, monkeypatch):
    """`store` in another process, after a chain has written a file and before it covers it."""
    monkeypatch.setattr(series_files, "MANY_FILES", 0)
    monkeypatch.setattr(series_files, "GROUP_BARS", 1)
    writer = PageWriter(storage.bars, task("A", "B"), now=LONG_AFTER)
    writer.take(page(("A", bars("2024-06-03 14:30", "2024-06-03 14:31", price=1.25)), ("B", bars("2024-06-03 14:30"))))
    size = storage.files.size(Partition(Series("A", MINUTES), JUNE).key)
    storage.store(to_frame([("A", bars("2024-06-03 14:30", "2024-06-03 14:31", price=1.5))]))
    assert storage.files.size(Partition(Series("A", MINUTES), JUNE).key) == size

    known = writer.complete()["A"]

    assert (known.rows, known.files) == ({JUNE: 2}, {JUNE: Fingerprint(size, "")})
    assert check_series(storage.bars, Series("A", MINUTES), now=LONG_AFTER).findings == []


# ------------------------------------------------------------------------------------------------------ phases, and no page


@pytest.mark.parametrize("price", [1.0, 0.5], ids=["same-basis", "new-basis"])
def test_a_break_in_the_chain_that_compares_covers_stores_and_removes_nothing(storage, price):
    """Of 60 symbols, 20 claimed all of May after one response about June."""
    for symbol in ("A", "B", "C"):
        put(storage, symbol, bars("2024-06-04T14:00"), SPLIT)  # lies in the range, not covered
        put(storage, symbol, bars("2024-07-15T14:00"), SPLIT)
    writer = PageWriter(storage.bars, split_task("A", "B", "C", overlap=AFTER), now=LONG_AFTER)
    chains = writer.chains()
    assert next(chains).phase is Phase.COMPARE
    writer.take(page(("A", bars("2024-07-15T14:00", price=price)), ("C", bars("2024-07-15T14:00"))))
    left = writer.abort()

    assert left == dict.fromkeys("ABC", SPAN)
    assert [known(storage, symbol, SPLIT).covered for symbol in "ABC"] == [(), (), ()]
    assert [len(held(storage, symbol, SPLIT)) for symbol in "ABC"] == [2, 2, 2]


def test_bars_of_the_comparison_are_compared_only_though_they_lie_in_the_range(storage):
    """A range that is widened to whole bars overlaps the session beside it: 25 rows were stored, 24 distinct."""
    eight_hours = Dataset(Timeframe.parse("8Hour"), Adjustment.parse("split"))
    put(storage, "A", bars("2024-07-13T08:00"), eight_hours)
    whole = FetchTask(("A",), between("2024-07-10T00:00", "2024-07-13T04:00"), eight_hours, 9.0)
    writer = PageWriter(storage.bars, replace(whole, overlap=between("2024-07-13T04:00", "2024-07-14T04:00")), now=LONG_AFTER)
    fetched(
        writer,
        page(("A", bars("2024-07-13T00:00", "2024-07-13T08:00"))),
        page(("A", bars("2024-07-12T16:00", "2024-07-13T00:00"))),
    )

    assert list(writer.complete()) == ["A"]
    assert list(held(storage, "A", eight_hours)) == ["2024-07-12 16:00", "2024-07-13 00:00", "2024-07-13 08:00"]


def test_a_range_of_which_no_page_came_is_not_covered(storage):
    """A plan that does not permit the latest minutes answers nothing: the vendor had 10 bars there."""
    writer = PageWriter(storage.bars, task("A"), now=LONG_AFTER)

    assert writer.complete() == {}
    assert known(storage, "A") == Coverage(Series("A", MINUTES))


def test_nothing_is_claimed_for_the_bar_that_is_forming(storage):
    """At 20:45 today's daily bar comes: its interval has not ended, so that it is not stored, and nothing is said about it."""
    now = at("2024-06-05T00:45")  # 20:45 New York on the 4th
    span = between("2024-06-03T04:00", "2024-06-05T00:45")
    writer = PageWriter(storage.bars, task("A", span=span, dataset=DAYS), now=now)
    writer.take(page(("A", bars("2024-06-03T04:00", "2024-06-04T04:00"))))
    made = writer.complete()["A"]

    assert list(held(storage, "A", DAYS)) == ["2024-06-03 04:00"]
    assert union((*made.covered, *made.provisional)) == (between("2024-06-03T04:00", "2024-06-04T04:00"),)
    assert writer.forming == {"A"}


def test_the_final_response_removes_what_was_provisional_and_did_not_come_again(storage):
    """Three minutes of a noon run were withdrawn by the evening."""
    noon, evening = at("2024-06-03T16:00"), at("2024-06-04T16:00")
    span = between("2024-06-03T08:00", "2024-06-03T16:00")
    early = PageWriter(storage.bars, task("A", span=span), now=noon)
    early.take(page(("A", bars("2024-06-03T14:00", "2024-06-03T14:01", "2024-06-03T14:02"))))
    early.complete()
    writer = PageWriter(storage.bars, task("A", span=span), now=evening)
    writer.take(page(("A", bars("2024-06-03T14:00", "2024-06-03T14:02"))))
    made = writer.complete()["A"]

    assert list(held(storage, "A")) == ["2024-06-03 14:00", "2024-06-03 14:02"]
    assert (made.covered, made.provisional, made.bars) == ((span,), (), 2)
    assert writer.changes["A"] == Changes(removed=1)


def test_without_the_sources_time_nothing_later_than_the_newest_bar_is_final(storage):
    """This machine's clock was ten days ahead: emptiness was final up to a day that had not come."""
    writer = PageWriter(storage.bars, task("A", "B"), now=at("2024-07-20T16:00"))
    writer.take(page(("A", bars("2024-06-03T14:00", "2024-07-01T14:00")), ("B", bars("2024-06-05T14:00"))), dated=False)
    made = writer.complete()

    newest, settled = at("2024-07-01T14:00"), at("2024-07-01T04:00")  # at 10:00 of a Monday: all before it
    covered, provisional = TimeRange(SPAN.start, settled), TimeRange(settled, newest)
    assert {symbol: one.covered for symbol, one in made.items()} == dict.fromkeys("AB", (covered,))
    assert {symbol: one.provisional for symbol, one in made.items()} == dict.fromkeys("AB", (provisional,))


def test_a_bar_that_starts_in_a_claimed_range_has_ended_whatever_the_newest_bar_is(storage):
    """Seed 940000207: weeks, claimed to a Tuesday; the week came late, as the newest bar, and was left out of what is claimed."""
    weeks = Dataset(Timeframe(1, "Week"))
    monday, tuesday = at("2024-06-10T04:00"), at("2024-06-11T04:00")
    first = PageWriter(storage.bars, task("A", span=TimeRange(at("2024-06-05"), tuesday), dataset=weeks), now=at("2024-06-20"))
    first.take(page())
    assert first.complete()["A"].claimed_until == tuesday

    later = PageWriter(
        storage.bars, task("A", span=TimeRange(at("2024-06-05"), at("2024-07-01")), dataset=weeks), now=at("2024-07-01")
    )
    later.take(page(("A", bars(monday))), dated=False)
    later.complete()
    assert held(storage, "A", weeks) == {"2024-06-10 04:00": 1.0}


def test_counts_that_a_killed_run_left_are_made_anew_by_the_next_write(storage, monkeypatch):
    """Killed between file and coverage of `--refetch --accept-removals`: the first bar had gone, and stayed for ever."""
    series = Series("A", MINUTES)
    first = PageWriter(storage.bars, task("A"), now=LONG_AFTER)
    first.take(page(("A", bars("2024-06-03T14:00", "2024-06-28T14:00", "2024-07-01T14:00"))))
    first.complete()
    monkeypatch.setattr(series_files, "MANY_FILES", 0)
    monkeypatch.setattr(series_files, "GROUP_BARS", 1)
    killed = PageWriter(storage.bars, task("A"), now=LONG_AFTER, refetch=True, accept_removals=True)
    killed.take(page(("A", bars("2024-06-28T14:00", "2024-07-01T14:00"))))  # June is settled when July begins

    left = known(storage, "A")
    assert left.changing >= {JUNE}
    assert (len(held(storage, "A")), left.bars) == (2, 3)
    later = PageWriter(storage.bars, task("A", span=between("2024-07-01T00:00", "2024-07-02T00:00")), now=LONG_AFTER)
    later.take(page(("A", bars("2024-07-01T14:00"))))
    later.complete()
    made = known(storage, "A")
    assert (made.changing, made.rows, made.first_bar) == (frozenset(), {JUNE: 1, JULY: 1}, at("2024-06-28T14:00"))
    assert storage.bars.coverage.read(series) == made


def test_a_task_leaves_the_mark_of_a_file_that_another_task_may_be_changing(storage):
    """Seed 910000689: a task of April counted March while another task was changing it, and took back its mark."""
    series = Series("A", MINUTES)
    PageWriter(storage.bars, task("A"), now=LONG_AFTER).complete()
    put(storage, "A", bars("2024-06-05T14:00", "2024-06-28T14:00", "2024-07-01T14:00"))
    storage.bars.coverage.update(series, lambda known: known.counted(storage.bars.count_files(known, {JUNE, JULY})).cleared())
    of_june = task("A", span=between("2024-06-01T00:00", "2024-07-01T00:00"), beside=True)
    of_july = task("A", span=between("2024-07-01T00:00", "2024-07-13T04:00"), beside=True)

    later = PageWriter(storage.bars, of_july, now=LONG_AFTER, refetch=True, accept_removals=True)
    later.take(page(("A", bars("2024-07-01T14:00"))))
    later.complete()
    assert known(storage, "A").changing == {JUNE, JULY}  # of July, the rest may be another task's

    earlier = PageWriter(storage.bars, of_june, now=LONG_AFTER, refetch=True, accept_removals=True)
    earlier.take(page(("A", bars("2024-06-05T14:00"))))
    earlier.complete()
    assert known(storage, "A").changing == {JULY}
    assert known(storage, "A").rows == {JUNE: 1, JULY: 1}

    only = PageWriter(storage.bars, replace(of_july, beside=False), now=LONG_AFTER, refetch=True, accept_removals=True)
    only.take(page(("A", bars("2024-07-01T14:00"))))
    only.complete()
    assert known(storage, "A").changing == frozenset()


def test_bars_of_a_run_that_broke_off_are_counted_before_emptiness_is_final(storage):
    """Seed 980000697: the first bars lay there, not counted, and the days before them were claimed as empty for ever."""
    november, december = between("2024-11-06T05:00", "2024-11-29T05:00"), Period(2024, 12)
    asked = PageWriter(storage.bars, task("A", span=november), now=at("2024-12-01T12:00"))
    asked.take(page())
    asked.complete()
    assert known(storage, "A").empty_since is not None
    storage.bars.write(Series("A", MINUTES), december, bars("2024-12-11T18:30"))  # and the disk was full

    later = PageWriter(storage.bars, task("A", span=november), now=at("2024-12-13T12:00"))
    later.take(page())
    later.complete()
    made = known(storage, "A")
    assert (made.rows, made.first_bar) == ({december: 1}, at("2024-12-11T18:30"))
    assert union(one.range for one in made.tentative) == (november,)


def test_a_first_bar_that_is_only_counted_makes_the_emptiness_before_it_doubtful(storage):
    """Symbols came out of order and the chain broke off: nothing is claimed of the bar's range, and its file is counted."""
    november, december = between("2024-11-06T05:00", "2024-11-29T05:00"), between("2024-11-29T05:00", "2024-12-12T12:00")
    for now in ("2024-11-29T12:00", "2024-12-08T12:00"):
        empty = PageWriter(storage.bars, task("B", span=november), now=at(now))
        empty.take(page())
        empty.complete()
    assert known(storage, "B").trusted == (november,)

    broken = PageWriter(storage.bars, task("A", "B", span=december), now=december.end)
    broken.take(page(("B", bars("2024-12-11T18:30"))))
    broken.take(page(("A", bars("2024-12-11T18:30"))))
    assert broken.abort() == {"A": december, "B": december}
    assert (known(storage, "B").first_bar, known(storage, "B").trusted) == (at("2024-12-11T18:30"), ())

    later = PageWriter(storage.bars, task("B", span=december), now=december.end)
    later.take(page(("B", bars("2024-12-11T18:30"))))
    later.complete()
    assert known(storage, "B").covered[0].start == november.start
    assert known(storage, "B").trusted == ()  # the emptiness up to the bar is not a week older than the bar either
