"""The coverage files of a store: one per series, changed whole, each damaged alone. On every kind of place."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from data_engine.errors import DamagedFile
from data_engine.market.series import Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_file import dump, key
from data_engine.store.coverage_store import CoverageSnapshot, CoverageStore
from data_engine.store.file_count import Fingerprint
from data_engine.store.partitions import Period
from data_engine.version import __version__

MINUTES = Dataset(Timeframe.parse("1Min"))
DAYS = Dataset(Timeframe.parse("1Day"), feed=Feed.IEX)
A, B = Series("A", MINUTES), Series("B", MINUTES)
START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 3, 12, 30, 15, 999_999, tzinfo=UTC)
DAY = timedelta(days=1)
SPAN = TimeRange(START, START + DAY)
JANUARY = Period(2024, 1)


@pytest.fixture
def store(place) -> CoverageStore:
    return CoverageStore(place.files, now=lambda: NOW, by="the tests")


def want(known: Coverage) -> Coverage:
    return known.wanting(SPAN)


def test_of_an_unknown_series_nothing_is_known_and_nothing_is_made(store, place):
    assert store.read(A) == Coverage(A)
    assert store.update(A, lambda known: known) == Coverage(A)
    assert (store.datasets(), list(store.series(MINUTES)), store.forget(A)) == ([], [], False)
    assert place.content() == {}


def test_an_update_is_read_back_with_when_and_by_whom(store, place):
    made = store.update(A, want)

    now = NOW.replace(microsecond=0)
    assert made == Coverage(A, wanted=(SPAN,), begun=now, updated=now, by="the tests")
    assert store.read(A) == CoverageStore(place.open()).read(A) == made
    assert place.content() == {key(A): dump(made)}


def test_an_update_that_changes_nothing_leaves_the_file(store, place):
    made = store.update(A, want)
    later = CoverageStore(place.files, now=lambda: NOW + DAY, by="somebody else")
    before = place.mark(key(A))

    assert later.update(A, want) == made
    assert place.mark(key(A)) == before


def test_a_coverage_that_is_changed_to_and_fro_in_a_second_is_never_what_it_was(store, place):
    """Seed 970000778: a user who counted bars wrote over the count of a `remove`, since the coverage read as before it began."""
    seen: list[bytes] = []
    for change in (want, lambda known: known.with_changing([JANUARY]), lambda known: replace(known, changing=frozenset())):
        made = store.update(A, change)
        seen.append(place.content()[key(A)])

    second = NOW.replace(microsecond=0)
    assert len({*seen}) == 3
    assert made == Coverage(A, wanted=(SPAN,), begun=second, updated=second + timedelta(microseconds=2), by="the tests")
    assert store.read(A) == made
    later = CoverageStore(place.files, now=lambda: NOW + DAY, by="the tests")
    assert later.update(A, lambda known: known.with_changing([JANUARY])).updated == second + DAY


def test_by_default_the_program_signs_with_its_version_and_the_clock(place):
    earliest = datetime.now(UTC).replace(microsecond=0)
    made = CoverageStore(place.files).update(A, want)

    assert made.by == f"data-engine {__version__}"
    assert made.updated is not None
    assert earliest <= made.updated <= datetime.now(UTC)


def test_what_is_forgotten_is_unknown(store, place):
    store.update(A, want)
    store.update(A, lambda known: replace(known, wanted=()))

    assert store.forget(A) is True
    assert store.read(A) == Coverage(A)
    assert place.content() == {}


def test_a_series_of_which_something_is_left_or_about_to_be_stored_is_not_forgotten(store):
    """`remove` forgets it when it has ended, and `store` may have begun meanwhile."""
    requested = store.update(A, want)
    assert (store.forget(A), store.read(A)) == (False, requested)
    store.update(A, lambda known: replace(known, wanted=()))
    store.begin_storing(A, [Period(2024, 6)])
    assert store.forget(A) is False
    assert store.read(A).storing


def test_a_change_that_fails_leaves_the_file(store):
    made = store.update(A, want)
    with pytest.raises(ZeroDivisionError):
        store.update(A, lambda known: 1 / 0)

    assert store.read(A) == made


def test_datasets_and_series_are_listed(store, place):
    for symbol in ("NA", "BRK/B", "2330"):
        store.update(Series(symbol, MINUTES), want)
    store.update(Series("A", DAYS), want)
    for foreign in (
        "not_ours/symbol=A.json",
        "equities_1min/notes.txt",
        "equities_1min/symbol=A.json.bak",
        "equities_61min/symbol=A.json",
    ):
        place.put(f"metadata/coverage/{foreign}", b"{}")

    assert store.datasets() == [DAYS, MINUTES]
    assert list(store.series(MINUTES)) == [Series(symbol, MINUTES) for symbol in ("2330", "BRK/B", "NA")]
    assert list(store.series(DAYS)) == [Series("A", DAYS)]


def test_series_come_in_order_of_their_symbols(store):
    symbols = ["A", "A-B", "A.B", "AB", "A/B"]
    for symbol in symbols:
        store.update(Series(symbol, MINUTES), want)

    assert [series.symbol for series in store.series(MINUTES)] == sorted(symbols)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"{", "Expecting property name", id="damaged"),
        pytest.param(json.dumps({"format": 2}).encode(), "its format is 2, this program knows 1", id="newer"),
        pytest.param(dump(Coverage(B)), "it is the coverage of B 1Min sip raw", id="of-another-series"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_kept_and_troubles_no_other(store, place, data, why):
    expected = store.update(B, want)
    place.put(key(A), data)

    for use in (store.read, lambda series: store.update(series, want)):
        with pytest.raises(DamagedFile) as caught:
            use(A)
        for named in (str(A), f"{place.base}/{key(A)}", why, "`data-engine verify --repair`"):
            assert named in str(caught.value)
    assert place.content()[key(A)] == data
    assert store.read(B) == expected
    assert list(store.series(MINUTES)) == [A, B]


def day(number: int) -> TimeRange:
    return TimeRange(START + 2 * number * DAY, START + (2 * number + 1) * DAY)


def test_threads_lose_none_of_each_others_answers(place):
    stores = [CoverageStore(place.open()) for _ in range(2)]

    def answer(number: int) -> None:
        stores[number % 2].update(A, lambda known: replace(known, covered=tuple(sorted((*known.covered, day(number))))))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(answer, range(60)))

    assert stores[0].read(A).covered == tuple(day(number) for number in range(60))


def test_two_processes_lose_none_of_each_others_wishes(shared_place):
    code = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from data_engine.store.coverage_store import CoverageSnapshot, CoverageStore
from data_engine.store.partitions import Period
from data_engine.store.location import open_file_store
from data_engine.market.time_range import TimeRange
from data_engine.market.series import Dataset, Series, Timeframe
base, first = sys.argv[1], int(sys.argv[2])
files = open_file_store(base if base.startswith("s3:") else Path(base))
store, series = CoverageStore(files), Series("A", Dataset(Timeframe.parse("1Min")))
start, day = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
print("here", flush=True), sys.stdin.readline()
for number in range(first, 60, 2):
    store.update(series, lambda known: known.wanting(TimeRange(start + 2 * number * day, start + (2 * number + 1) * day)))
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, shared_place.base, str(first)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for first in (0, 1)
    ]
    for child in children:
        assert child.stdout.readline() == "here\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)

    assert [child.returncode for child in children] == [0, 0]
    assert CoverageStore(shared_place.files).read(A).wanted == tuple(day(number) for number in range(60))


def test_a_snapshot_reads_each_file_once_and_without_fingerprints(store, place):
    made = store.update(A, lambda known: replace(want(known), rows={JANUARY: 5}, files={JANUARY: Fingerprint(9, "0" * 16)}))
    snapshot = CoverageSnapshot(store)
    first = snapshot.read(A)
    store.update(A, lambda known: known.wanting(TimeRange(START, START + 2 * DAY)))

    assert first == replace(made, files={})
    assert snapshot.read(A) is first
    assert snapshot.read(B) == Coverage(B)
    assert (snapshot.datasets(), list(snapshot.series(MINUTES))) == (store.datasets(), [A])


def test_a_fingerprint_that_is_none_is_damage_whether_or_not_it_is_needed(store, place):
    made = dump(Coverage(A, rows={JANUARY: 5}, files={JANUARY: Fingerprint(9, "0" * 16)}, begun=NOW, updated=NOW))
    place.files.update(key(A), lambda _: made.replace(b'[9, "', b'["9", "'))

    for read in (store.read, store.stored, CoverageSnapshot(store).read):
        for _ in range(2):
            with pytest.raises(DamagedFile):
                read(A)


def test_series_with_equal_ranges_share_them_in_memory(store):
    for series in (A, B):
        store.update(series, want)

    assert store.read(A).wanted[0] is store.read(B).wanted[0]
