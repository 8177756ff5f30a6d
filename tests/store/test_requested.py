"""What runs were asked to ingest, one file per run: never lost, never changed in place, taken over by the coverage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import DamagedFile
from data_engine.market.series import Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, union
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.requested import FOLDER, RequestedRanges, dump, load

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTES, DAYS = Dataset(Timeframe.parse("1Min")), Dataset(Timeframe.parse("1Day"), feed=Feed.IEX)
A, B = Series("A", MINUTES), Series("B", DAYS)


def between(start: int, end: int) -> TimeRange:
    return TimeRange(START + timedelta(days=start), START + timedelta(days=end))


a_range = st.tuples(st.integers(0, 50), st.integers(51, 99)).map(lambda pair: between(*pair))
some_ranges = st.dictionaries(
    st.builds(
        Series, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), st.sampled_from([MINUTES, DAYS])
    ),
    st.lists(a_range, min_size=1, max_size=3).map(union),
    max_size=6,
)


@given(some_ranges)
def test_what_was_written_can_be_read_back(ranges):
    assert load(dump(ranges)) == ranges


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 2, "requested": []}', b'{"format": 1, "requested": [{}]}'])
def test_a_damaged_or_newer_file_is_refused(content):
    with pytest.raises(ValueError, match=r"."):
        load(content)


def test_ranges_are_one_file_whatever_the_number_of_series_and_are_known_to_the_next(place):
    first = RequestedRanges(place.files)
    first.add({A: (between(0, 3),), B: (between(1, 2),)})
    first.add({A: (between(2, 9),)})
    second = RequestedRanges(place.files)
    second.refresh()

    assert (second.of(A), second.of(B)) == ((between(0, 9),), (between(1, 2),))
    assert len(list(place.files.list(FOLDER))) == 1
    second.replace({})
    assert list(place.files.list(FOLDER)) == []
    first.refresh()
    assert list(first.series()) == []


def test_files_of_several_runs_are_read_together_and_become_one(place):
    for days in (1, 2):
        place.files.update(f"{FOLDER}/run{days}.json", lambda _, days=days: dump({A: (between(3 * days, 3 * days + 1),)}))
    requested = RequestedRanges(place.files)
    requested.refresh()

    assert requested.of(A) == (between(3, 4), between(6, 7))
    requested.withdraw(A, between(0, 4))
    assert requested.of(A) == (between(6, 7),)
    assert len(list(place.files.list(FOLDER))) == 1


def test_a_file_that_cannot_be_read_is_named(place):
    place.files.update(f"{FOLDER}/run.json", lambda _: b"{")

    with pytest.raises(DamagedFile, match=r"metadata/wanted/run\.json"):
        RequestedRanges(place.files).refresh()


def test_a_series_that_is_only_requested_is_one_of_the_store(place):
    RequestedRanges(place.files).add({A: (between(0, 3),)})
    coverage = CoverageStore(place.files)
    coverage.requested.refresh()

    assert coverage.datasets() == [MINUTES]
    assert list(coverage.series(MINUTES)) == [A]
    assert coverage.read(A) == Coverage(A, wanted=(between(0, 3),))
    assert coverage.stored(A) == Coverage(A)


def test_the_coverage_takes_the_ranges_over_when_it_is_written(place):
    coverage = CoverageStore(place.files)
    coverage.requested.add({A: (between(0, 3),)})
    coverage.update(A, lambda known: known.failed("unavailable", "503", START))

    assert CoverageStore(place.files).stored(A).wanted == (between(0, 3),)
