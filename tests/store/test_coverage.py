"""What is known of a series: sets of instants that were wanted, answered, and may still change; and its file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, union
from data_engine.store.coverage import Coverage, Failure
from data_engine.store.coverage_file import dump, folder, key, load
from data_engine.store.dated_ranges import Tentative
from data_engine.store.file_count import FileCount, Fingerprint
from data_engine.store.partitions import Period
from data_engine.store.storing import Storing, begun, without_old

MINUTES = Dataset(Timeframe.parse("1Min"))
SERIES = Series("AAPL", MINUTES)
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOURS = range(-2, 62)
LONG_AFTER = START + 1000 * DAY


def at(hour: int) -> datetime:
    return START + hour * HOUR


def between(start: int, end: int) -> TimeRange:
    return TimeRange(at(start), at(end))


def as_set(ranges) -> set[int]:
    """Return the hours in the ranges, found by asking about each."""
    return {hour for hour in HOURS if any(each.start <= at(hour) < each.end for each in ranges)}


def canonical(ranges) -> bool:
    """Tell whether ranges are sorted, apart, and not touching."""
    return all(one.end < other.start for one, other in pairwise(ranges))


a_range = (
    st.tuples(st.integers(0, 59), st.integers(1, 60)).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: between(*pair))
)
some_ranges = st.lists(a_range, max_size=4).map(union)
an_hour = st.integers(0, 60)


@st.composite
def a_coverage(draw) -> Coverage:
    """Draw coverage as `answered` would have left it: what is provisional is not covered too."""
    covered = draw(some_ranges)
    provisional = [piece for piece in draw(some_ranges) if not as_set([piece]) & as_set(covered)]
    first = draw(st.none() | an_hour)
    return Coverage(
        SERIES,
        wanted=draw(some_ranges),
        covered=covered,
        provisional=union(provisional),
        first_bar=None if first is None else at(first),
        last_bar=None if first is None else at(first + draw(st.integers(0, 5))),
        empty_since=at(draw(an_hour)) if first is None else None,
    )


# Answers


@given(a_coverage(), a_range, st.integers(-1, 61))
def test_an_answer_covers_what_is_final_and_leaves_the_rest_provisional(known, span, final):
    """A set of hours each: the answer's hours are one or the other, never both, and nothing else changes."""
    made = known.answered(span, final_before=at(final), now=LONG_AFTER, counts={})

    answered = as_set([span])
    covered = as_set(known.covered) | {hour for hour in answered if hour < final}
    assert as_set(made.covered) == covered
    assert as_set(made.provisional) == (as_set(known.provisional) | answered) - covered
    assert canonical(made.covered)
    assert canonical(made.provisional)
    assert (made.wanted, made.series, made.failure) == (known.wanted, known.series, known.failure)


@given(st.lists(a_range, min_size=1, max_size=5), st.permutations(range(5)))
def test_the_order_of_answers_does_not_matter(spans, order):
    def after(sequence) -> Coverage:
        known = Coverage(SERIES)
        for span in sequence:
            count = FileCount(2, at(0), at(59))
            known = known.answered(span, final_before=at(40), now=at(50), counts={Period(2024, 1): count})
        return known

    assert after(spans) == after(spans[index] for index in order if index < len(spans))


def test_an_answer_counts_the_bars_of_its_files_and_reads_the_ends_from_them():
    """The first file lost its first bar: what was the first bar of the series is not one any more."""
    january, february, march = (Period(2024, month) for month in (1, 2, 3))
    known = Coverage(SERIES, rows={january: 5, february: 7}, first_bar=at(10), last_bar=at(800))
    counts = {january: FileCount(4, at(11), at(20)), february: FileCount(0), march: FileCount(3, at(1500), at(1510))}
    made = known.answered(between(0, 30), final_before=at(60), now=at(60), counts=counts)

    assert made.rows == {january: 4, march: 3}
    assert (made.bars, made.first_bar, made.last_bar, made.empty_since) == (7, at(11), at(1510), None)


def test_which_files_hold_the_ends_is_known_or_asked_for():
    january, february, march = (Period(2024, month) for month in (1, 2, 3))
    known = Coverage(SERIES, rows={january: 5, february: 7, march: 1}, first_bar=at(10), last_bar=at(1500))

    assert known.edges([february], {february: 8}) == frozenset()
    assert known.edges([january], {january: 0}) == {february}
    assert known.edges([march], {march: 0}) == {february}
    assert known.edges([january, february, march], {january: 0, february: 0, march: 0}) == frozenset()


def test_a_file_that_is_about_to_change_is_counted_anew():
    january, february = Period(2024, 1), Period(2024, 2)
    marks = {january: Fingerprint.of(b"a"), february: Fingerprint.of(b"b")}
    known = Coverage(SERIES, rows={january: 5, february: 7}, files=marks, first_bar=at(1), last_bar=at(800))
    changing = known.with_changing([january])

    assert (changing.changing, changing.files) == ({january}, {february: marks[february]})
    assert changing.counted({january: FileCount(5, at(1), at(9))}).changing == frozenset()
    assert known.cleared().changing == {january, february}


def test_of_two_users_who_store_bars_in_a_file_neither_takes_back_the_mark_of_the_other():
    january, february = Period(2024, 1), Period(2024, 2)
    one, other = begun([january], at(0), "one"), begun([january, february], at(1), "other")
    known = Coverage(SERIES, rows={january: 5}, files={january: Fingerprint.of(b"a")}, changing=frozenset({february}))
    both = known.with_storing(one).with_storing(other)
    counted = both.with_stored({january: FileCount(6, at(0), at(9))}, one)

    assert both.files == {}  # of what is about to change
    assert both.uncounted == counted.uncounted == {january, february}
    assert (counted.storing, counted.changing) == (other, {february})
    assert counted.with_stored({}, other).uncounted == {february}
    assert counted.counted({january: FileCount(7, at(0), at(9))}).uncounted == {january, february}  # by a run


def test_the_mark_of_a_user_who_was_killed_is_dropped_after_a_day():
    marks = (*begun([Period(2024, 1)], at(0), "killed"), *begun([Period(2024, 1)], at(20), "at work"))
    assert without_old(marks, at(23)) == marks
    assert without_old(marks, at(24)) == marks[1:]


def test_a_fingerprint_lasts_as_long_as_its_file_is_what_was_counted():
    january, february, march = (Period(2024, month) for month in (1, 2, 3))
    one, two, three = (Fingerprint.of(bytes([number])) for number in (1, 2, 3))
    known = Coverage(
        SERIES, rows={january: 5, february: 7}, files={january: one, february: two}, first_bar=at(1), last_bar=at(800)
    )
    when = {"final_before": at(60), "now": at(60)}

    counts = {february: FileCount(0), march: FileCount(3, at(1500), at(1501), three)}
    assert known.answered(between(0, 30), counts=counts, **when).files == {january: one, march: three}
    assert known.answered(between(0, 30), counts={}, **when).files == known.files
    assert known.without_fingerprints([february, march]).files == {january: one}
    assert known.without_fingerprints([march]) == known
    assert known.cleared().files == {}
    assert known.without(between(800, 801), {}).files == {january: one}, "hour 800 is in February"


def test_a_fingerprint_is_of_every_byte():
    """By the sha256sum of GNU coreutils: ``printf abc | sha256sum``."""
    assert Fingerprint.of(b"abc") == Fingerprint(3, "ba7816bf8f01cfea")
    assert Fingerprint.of(b"abd") != Fingerprint.of(b"abc")


def test_a_file_of_an_older_program_has_no_fingerprints():
    assert load(without_field("files"), SERIES).files == {}


SESSION = datetime(2024, 1, 5, 5, tzinfo=UTC)
"""Midnight in New York before a bar of 6 January, 00:00 UTC, which is 19:00 there."""


def answer(known: Coverage, day: int, bar: int | None, span: TimeRange | None = None) -> Coverage:
    """Answer in full on a day, with the bar of a day or without any."""
    january = Period(2024, 1)
    counts = {} if bar is None else {january: FileCount(1, START + bar * DAY, START + bar * DAY)}
    now = START + day * DAY
    return known.answered(span or TimeRange(START, START + 10 * DAY), final_before=now, now=now, counts=counts)


def test_the_first_emptiness_is_remembered_until_a_bar_comes():
    once = answer(Coverage(SERIES), 31, None)
    twice = answer(once, 40, None)
    bars = answer(twice, 50, 12)

    assert [once.empty_since, twice.empty_since, bars.empty_since] == [START + 31 * DAY, START + 31 * DAY, None]
    assert answer(bars, 60, None).empty_since is None


# What has to be asked


@pytest.mark.parametrize(
    ("answers", "trusted"),
    [
        pytest.param([(10, None)], "nothing", id="without-any-bar-it-is-asked-again"),
        pytest.param([(10, None), (17, None)], "nothing", id="a-week-to-the-second-is-not-enough"),
        pytest.param([(10, None), (18, None)], "all", id="answered-more-than-a-week-after-the-first-time"),
        pytest.param([(10, 5)], "from the first session", id="before-a-young-first-bar"),
        pytest.param([(12, 5)], "from the first session", id="a-week-after-the-first-bar-is-not-enough"),
        pytest.param([(13, 5)], "all", id="answered-more-than-a-week-after-the-first-bar"),
        pytest.param([(10, 5), (13, 5)], "all", id="asked-again-after-more-than-a-week"),
    ],
)
def test_emptiness_is_final_by_when_it_was_answered(answers, trusted):
    """Alpaca maps a renamed symbol to its earlier bars from the next day on: a response of that day says nothing of them."""
    everything = TimeRange(START, START + 10 * DAY)
    known = Coverage(SERIES)
    for day, bar in answers:
        known = answer(known, day, bar)

    expected = {"nothing": (), "all": (everything,), "from the first session": (TimeRange(SESSION, everything.end),)}
    assert known.covered == (everything,)
    assert known.trusted == expected[trusted]
    assert load(dump(known), SERIES) == known


def test_emptiness_does_not_become_final_by_growing_old():
    """Four nights on which the request failed were taken for an answer on the fifth: 32 days were missing."""
    known = answer(Coverage(SERIES), 5, 5)

    before = TimeRange(START, SESSION)
    assert [one.range for one in known.tentative] == [before]
    later = answer(known, 300, 300, TimeRange(START + 299 * DAY, START + 300 * DAY))
    assert later.missing([before]) == (before,)


def test_emptiness_that_was_answered_before_any_bar_was_known_is_asked_for_again():
    """A ticker of yesterday: its empty past was answered a moment before its first bar came, and final then."""
    known = answer(Coverage(SERIES), 4, None, TimeRange(START, START + 3 * DAY))
    known = answer(known, 12, None, TimeRange(START, START + 3 * DAY))
    assert known.missing([TimeRange(START, START + 3 * DAY)]) == ()
    known = answer(known, 12, 11, TimeRange(START + 3 * DAY, START + 12 * DAY))

    assert known.missing([TimeRange(START, START + 3 * DAY)]) == (TimeRange(START, START + 3 * DAY),)
    again = answer(known, 19, 11, TimeRange(START, START + 3 * DAY))
    assert again.missing([TimeRange(START, START + 3 * DAY)]) == ()


def test_a_first_bar_where_an_earlier_response_had_none_makes_the_emptiness_before_it_doubtful():
    """Seeds 41000025 and 41000031: asked before the ticker was given, and five weeks later for a part: the rest stayed empty."""
    everything, part = TimeRange(START, START + 10 * DAY), TimeRange(SESSION + 9 * HOUR, START + 10 * DAY)
    known = answer(Coverage(SERIES), 30, None, everything)
    known = answer(known, 40, None, everything)
    assert known.missing([everything]) == ()
    known = answer(known, 50, 5, part)

    assert known.missing([everything]) == (TimeRange(START, part.start),)
    again = answer(known, 51, 5, TimeRange(START, part.start))
    assert again.missing([everything]) == ()


@pytest.mark.parametrize("final_once", [False, True])
def test_a_chain_that_breaks_off_after_the_first_bars_makes_the_rest_of_an_earlier_emptiness_doubtful(final_once):
    """Seed 940000681: empty on the day before a rename; three days later a page of it came, and the service was down."""
    everything, part = TimeRange(START, START + 10 * DAY), TimeRange(START, START + 3 * DAY)
    known = answer(Coverage(SERIES), 11, None, everything)
    known = answer(known, 20, None, everything) if final_once else known
    known = answer(known, 23, 1, part)

    assert known.missing([everything]) == (TimeRange(part.end, everything.end),)
    again = answer(known, 24, 1, TimeRange(part.end, everything.end))
    assert again.missing([everything]) == ()


def test_bars_of_a_user_leave_the_emptiness_around_them_doubtful():
    """Seed 970000645: empty on the day of a rename, then `store` with bars before and after: the emptiness was final."""
    everything, january = TimeRange(START, START + 10 * DAY), Period(2024, 1)
    known = answer(Coverage(SERIES), 11, None, everything)
    stored = known.with_stored({january: FileCount(2, START + 2 * DAY, START + 8 * DAY)})

    assert stored.missing([everything]) == (everything,)
    assert answer(stored, 30, 2, everything).missing([everything]) == ()


def test_an_emptiness_stays_doubtful_if_a_later_run_goes_by_an_older_newest_bar():
    """Responses without a time are dated by their newest bar, which can be older than the run that found the emptiness."""
    empty, part = TimeRange(START + 3 * DAY, START + 10 * DAY), TimeRange(START, START + 3 * DAY)
    known = answer(answer(Coverage(SERIES), 11, None, empty), 10, 1, part)

    assert known.missing([empty, part]) == (empty,)


def test_ranges_that_a_run_was_answered_at_the_same_time_are_believed_whichever_came_first():
    """Tasks of one series: the second half came first, and its days before its first bar lie between bars."""
    first, second = TimeRange(START, START + 5 * DAY), TimeRange(START + 5 * DAY, START + 10 * DAY)
    orders = [[(second, 8), (first, 1)], [(first, 1), (second, 1)]]
    for order in orders:
        known = Coverage(SERIES)
        for span, bar in order:
            known = answer(known, 12, bar, span)
        assert known.missing([first, second]) == ()


@pytest.mark.parametrize(("begun", "trusted"), [(12, False), (13, True)])
def test_a_file_of_an_older_program_trusts_emptiness_that_was_answered_late_enough(begun, trusted):
    known = Coverage(
        SERIES, covered=(TimeRange(START, START + 10 * DAY),), rows={Period(2024, 1): 1}, first_bar=START + 5 * DAY,
        last_bar=START + 5 * DAY, begun=START + begun * DAY, updated=START + 400 * DAY,
    )  # fmt: skip
    fields = json.loads(dump(known))
    del fields["tentative"]

    assert (load(json.dumps(fields).encode(), SERIES).trusted == known.covered) is trusted


@given(a_coverage(), some_ranges)
def test_missing_is_what_was_wanted_less_what_is_trusted(known, wanted):
    missing = known.missing(wanted)

    assert as_set(missing) == as_set(wanted) - as_set(known.trusted)
    assert as_set(known.trusted) <= as_set(known.covered)
    assert canonical(missing)


@given(a_coverage(), a_range)
def test_once_answered_in_full_and_old_nothing_is_missing(known, span):
    made = known.answered(span, final_before=LONG_AFTER, now=LONG_AFTER, counts={})
    again = made.answered(span, final_before=LONG_AFTER, now=LONG_AFTER + 8 * DAY, counts={})

    assert again.missing([span]) == ()
    assert made.incomplete(span, LONG_AFTER) == ()


@given(a_coverage(), a_range, a_range)
def test_what_is_provisional_is_asked_again_but_not_incomplete(known, span, wish):
    made = known.wanting(wish).answered(span, final_before=at(-1), now=at(60), counts={})

    assert as_set([span]) - as_set(made.covered) <= as_set(made.missing([span]))
    assert made.incomplete(span, LONG_AFTER) == ()


@given(a_coverage(), a_range, st.integers(0, 70))
def test_incomplete_is_what_was_wanted_and_never_answered_and_has_ended(known, span, now):
    found = known.incomplete(span, at(now))

    answered = as_set(known.covered) | as_set(known.provisional)
    assert as_set(found) == {hour for hour in (as_set([span]) & as_set(known.wanted)) - answered if hour < now}
    assert canonical(found)


@given(a_coverage(), a_range)
def test_a_wish_is_added_to_the_old_ones(known, span):
    made = known.wanting(span)

    assert as_set(made.wanted) == as_set(known.wanted) | as_set([span])
    assert canonical(made.wanted)
    assert made == known.wanting(span).wanting(span)


# What is taken back


@given(a_coverage(), a_range)
def test_what_was_removed_is_neither_claimed_nor_wanted(known, span):
    made = known.without(span, {})

    hours = as_set([span])
    for name in ("wanted", "covered", "provisional"):
        assert as_set(getattr(made, name)) == as_set(getattr(known, name)) - hours
        assert canonical(getattr(made, name))


def test_what_was_removed_is_not_counted():
    january, february = Period(2024, 1), Period(2024, 2)
    known = Coverage(SERIES, rows={january: 5, february: 7}, first_bar=at(0), last_bar=at(800))
    fewer = known.without(between(0, 1), {january: FileCount(4, at(2), at(9))})

    assert (fewer.rows, fewer.first_bar, fewer.last_bar) == ({january: 4, february: 7}, at(2), at(800))
    none = known.without(between(0, 1), {january: FileCount(0), february: FileCount(7, at(750), at(800))})
    assert (none.rows, none.first_bar, none.last_bar) == ({february: 7}, at(750), at(800))


@given(a_coverage())
def test_what_is_withdrawn_is_wanted_still(known):
    made = known.cleared()

    assert made.covered == made.provisional == ()
    assert (made.wanted, made.first_bar, made.rows) == (known.wanted, known.first_bar, known.rows)


def test_a_failure_lasts_until_all_that_was_wanted_is_there():
    failed = Coverage(SERIES).wanting(between(0, 10)).failed("unavailable", "the server answered 503", at(20))

    def answer(known: Coverage, start: int, end: int, final: int) -> Coverage:
        return known.answered(between(start, end), final_before=at(final), now=at(30), counts={})

    half = answer(failed, 0, 5, 60)
    assert failed.failure == Failure("unavailable", "the server answered 503", at(20))
    assert half.succeeded() == half
    assert answer(half, 5, 10, 60).succeeded().failure is None
    assert answer(half, 5, 10, 7).succeeded().failure is None, "a provisional tail is no failure"


# As a JSON file

a_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
an_instant = st.datetimes(datetime(1970, 1, 2), datetime(2199, 1, 1), timezones=st.just(UTC))
precise_ranges = st.lists(
    st.tuples(an_instant, an_instant).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: TimeRange(*pair)), max_size=4
).map(union)
a_dataset = st.builds(
    Dataset,
    st.sampled_from(["1Min", "23Hour", "1Day", "12Month"]).map(Timeframe.parse),
    st.sampled_from(["raw", "all", "split,dividend,spin-off"]).map(Adjustment.parse),
    st.sampled_from(Feed),
)


def coverage_of(dataset: Dataset) -> st.SearchStrategy[Coverage]:
    month = st.integers(1, 12) if dataset.timeframe.intraday else st.none()
    periods = st.builds(Period, st.integers(1970, 2199), month)
    return st.builds(
        Coverage,
        st.builds(Series, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10), st.just(dataset)),
        wanted=precise_ranges,
        covered=precise_ranges,
        provisional=precise_ranges,
        tentative=precise_ranges.map(lambda ranges: tuple(Tentative(one, one.end) for one in ranges)),
        changing=st.frozensets(periods, max_size=3),
        storing=st.lists(
            st.builds(Storing, st.builds(Period, st.integers(1970, 2199), month), an_instant, a_text), max_size=3
        ).map(tuple),
        rows=st.dictionaries(st.builds(Period, st.integers(1970, 2199), month), st.integers(1, 10**6), max_size=5),
        files=st.dictionaries(
            st.builds(Period, st.integers(1970, 2199), month), st.binary(max_size=9).map(Fingerprint.of), max_size=5
        ),
        first_bar=st.none() | an_instant,
        last_bar=st.none() | an_instant,
        empty_since=st.none() | an_instant,
        failure=st.none() | st.builds(Failure, a_text, a_text, an_instant),
        begun=st.none() | an_instant,
        updated=st.none() | an_instant,
        by=a_text,
    )


any_coverage = a_dataset.flatmap(coverage_of)


@given(any_coverage)
def test_what_was_written_can_be_read_back(known):
    data = dump(known)

    assert load(data, known.series) == known
    assert dump(load(data, known.series)) == data
    assert data.isascii()


def test_the_file_is_for_people_too():
    known = Coverage(
        Series("BRK.B", Dataset(Timeframe.parse("1Day"), Adjustment.parse("split"), Feed.IEX)),
        wanted=(between(0, 48),),
        covered=(between(0, 10), between(12, 24)),
        rows={Period(2024, None): 3, Period(2023, None): 1},
        files={Period(2024, None): Fingerprint(5, "a3bdf5b6b3b0f4e2")},
        first_bar=at(0),
        last_bar=at(5) + timedelta(microseconds=1),
        failure=Failure("unavailable", "503", at(30)),
        begun=at(29),
        updated=at(31),
        by="data-engine 1.2",
    )

    assert (
        dump(known).decode()
        == """{
  "format": 1,
  "symbol": "BRK.B",
  "timeframe": "1Day",
  "feed": "iex",
  "adjustment": "split",
  "wanted": [
    ["2024-01-01T00:00:00Z", "2024-01-03T00:00:00Z"]
  ],
  "covered": [
    ["2024-01-01T00:00:00Z", "2024-01-01T10:00:00Z"],
    ["2024-01-01T12:00:00Z", "2024-01-02T00:00:00Z"]
  ],
  "provisional": [],
  "tentative": [],
  "bars": 4,
  "first_bar": "2024-01-01T00:00:00Z",
  "last_bar": "2024-01-01T05:00:00.000001Z",
  "empty_since": null,
  "failure": {"code": "unavailable", "message": "503", "at": "2024-01-02T06:00:00Z"},
  "rows": {"2023": 1, "2024": 3},
  "files": {"2024": [5, "a3bdf5b6b3b0f4e2"]},
  "begun": "2024-01-02T05:00:00Z",
  "updated": "2024-01-02T07:00:00Z",
  "by": "data-engine 1.2"
}
"""
    )
    assert json.loads(dump(known))["bars"] == known.bars


def test_the_file_lies_where_the_contract_says():
    assert key(SERIES) == "metadata/coverage/equities_1min/symbol=AAPL.json"
    assert key(Series("BRK/B", MINUTES)) == "metadata/coverage/equities_1min/symbol=BRK%2FB.json"
    assert key(SERIES).startswith(folder(MINUTES) + "/")


def test_a_file_from_before_it_said_when_a_series_was_begun_was_begun_when_it_was_written():
    fields = json.loads(dump(Coverage(SERIES, updated=at(9))))
    del fields["begun"]

    assert load(json.dumps(fields).encode(), SERIES).begun == at(9)


OUT_OF_ORDER = "its ranges overlap or are not in order"
FIRST, SECOND, THIRD, FOURTH = (f"2024-01-0{day}T00:00:00Z" for day in (1, 2, 3, 4))
FIELDS = json.loads(dump(Coverage(SERIES, wanted=(between(0, 9),), failure=Failure("a", "b", at(1)), by="x")))


def without_field(lost: str) -> bytes:
    return json.dumps({name: value for name, value in FIELDS.items() if name != lost}).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "Expecting value", id="empty"),
        pytest.param(dump(Coverage(SERIES))[:-20], "Expecting|Unterminated", id="cut-off"),
        pytest.param(b"\xff\xfe\x00", "decode", id="no-text"),
        pytest.param(b"[1, 2]", "list indices", id="a-list"),
        pytest.param(b"null", "NoneType", id="null"),
        pytest.param(b"{}", "it lacks 'format'", id="an-empty-object"),
        *(
            pytest.param(without_field(lost), f"it lacks '{lost}'", id=f"no-{lost}")
            for lost in FIELDS
            if lost not in ("bars", "files", "begun", "tentative")
        ),
        *(
            pytest.param(json.dumps({**FIELDS, **changed}).encode(), why, id=name)
            for name, changed, why in [
                ("newer", {"format": 2}, "its format is 2, this program knows 1"),
                ("another-kind-of-format", {"format": "1"}, "its format is '1', this program knows 1"),
                ("another-symbol", {"symbol": "MSFT"}, "it is the coverage of MSFT 1Min sip raw"),
                ("another-timeframe", {"timeframe": "5Min"}, "it is the coverage of AAPL 5Min sip raw"),
                ("another-feed", {"feed": "iex"}, "it is the coverage of AAPL 1Min iex raw"),
                ("another-adjustment", {"adjustment": "all"}, "it is the coverage of AAPL 1Min sip all"),
                ("reversed-range", {"covered": [[SECOND, FIRST]]}, "must be after its start"),
                ("unsorted", {"covered": [[THIRD, FOURTH], [FIRST, SECOND]]}, OUT_OF_ORDER),
                ("overlapping", {"wanted": [[FIRST, THIRD], [SECOND, FOURTH]]}, OUT_OF_ORDER),
                ("not-utc", {"provisional": [["2024-01-01T00:00:00+01:00", SECOND]]}, "isoformat|UTC"),
                ("half-a-range", {"covered": [["2024-01-01T00:00:00Z"]]}, "unpack"),
                ("numbers-for-ranges", {"covered": [[1, 2]]}, "int"),
                ("no-count", {"rows": {"2024-01": "many"}}, "many"),
                ("no-list-of-counts", {"rows": [1]}, "list"),
                ("no-failure", {"failure": "oops"}, "string indices"),
                ("no-list-of-fingerprints", {"files": [1]}, "list"),
                ("half-a-fingerprint", {"files": {"2024-01": [5]}}, "unpack"),
                ("a-size-in-words", {"files": {"2024-01": ["5", "ab"]}}, "for the fingerprint of 2024-01"),
            ]
        ),
    ],
)
def test_a_damaged_newer_or_foreign_file_is_refused(data, why):
    with pytest.raises(ValueError, match=why):
        load(data, SERIES)


@pytest.mark.parametrize(
    "rows", [{"2024-13": 5}, {"2024-01": -5}, {"2024": 5}], ids=["month-13", "negative", "a-year-of-minutes"]
)
def test_counts_of_files_that_cannot_be_are_refused(rows):
    with pytest.raises(ValueError, match=r"rows|2024"):
        load(json.dumps({**FIELDS, "rows": rows}).encode(), SERIES)


def test_a_file_of_brackets_is_refused():
    with pytest.raises(ValueError, match=r"."):
        load(b"[" * 100_000, SERIES)
