"""Sessions, their hours, and when bars stop changing; the judge of the calendar is ``exchange_calendars``."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market.exchange_calendar import (
    can_hold_bars,
    count_sessions,
    extended_hours,
    is_half_day,
    is_session,
    next_session,
    regular_hours,
    session_starts,
    sessions,
)
from data_engine.market.finality import final_before
from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe
from data_engine.market.time_range import TimeRange, iso

NEW_YORK = ZoneInfo("America/New_York")
FIRST, LAST = date(1995, 1, 1), date(2030, 12, 31)
DAY = timedelta(days=1)


def every_day() -> list[date]:
    return [FIRST + n * DAY for n in range((LAST - FIRST).days + 1)]


def ny(text: str) -> datetime:
    """Read what a clock in New York shows."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


def dataset(timeframe: str, feed: str = "sip", adjustment: str = "raw") -> Dataset:
    return Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), Feed.parse(feed))


class Judge:
    """The calendar of another package."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses what pandas has deprecated
            import exchange_calendars

            calendar = exchange_calendars.get_calendar("XNYS", start=str(FIRST), end=str(LAST))
            self.days = [stamp.date() for stamp in calendar.sessions]
            self.early = {stamp.date() for stamp in calendar.early_closes}
            self.closes = {stamp.date(): close.to_pydatetime() for stamp, close in calendar.schedule["close"].items()}
        self.set = set(self.days)


@pytest.fixture(scope="module")
def judge():
    return Judge()


# The calendar


def test_36_years_of_sessions_are_those_of_the_judge(judge):
    assert judge.days == [day for day in every_day() if is_session(day)]
    assert judge.days == list(sessions(FIRST, LAST))


def test_36_years_of_half_days_are_those_of_the_judge(judge):
    assert judge.early == {day for day in every_day() if is_half_day(day)}


def test_the_close_is_the_judges(judge):
    assert {day: close.astimezone(UTC) for day, close in judge.closes.items()} == {
        day: regular_hours(day).end for day in judge.days
    }


def test_the_next_session_is_the_judges(judge):
    for day in every_day()[:-10]:
        assert judge.days[bisect_right(judge.days, day)] == next_session(day)


@pytest.mark.parametrize(
    ("day", "open_", "half"),
    [
        pytest.param("2001-09-11", False, False, id="the-attack"),
        pytest.param("2012-10-29", False, False, id="the-storm"),
        pytest.param("2018-12-05", False, False, id="mourning"),
        pytest.param("2025-01-09", False, False, id="mourning-again"),
        pytest.param("2024-07-03", True, True, id="the-eve-of-the-fourth"),
        pytest.param("2024-11-29", True, True, id="the-day-after-thanksgiving"),
        pytest.param("2024-12-24", True, True, id="christmas-eve"),
        pytest.param("2021-12-31", True, False, id="new-years-day-on-a-saturday-is-not-made-up-for"),
        pytest.param("2021-06-18", True, False, id="before-juneteenth-was-a-holiday"),
        pytest.param("2024-06-19", False, False, id="juneteenth"),
        pytest.param("2024-06-08", False, False, id="a-saturday"),
        pytest.param("2024-03-29", False, False, id="good-friday"),
    ],
)
def test_days_to_remember(day, open_, half):
    assert (open_, half) == (is_session(date.fromisoformat(day)), is_half_day(date.fromisoformat(day)))


def test_sessions_between_two_days_include_both():
    assert list(sessions(date(2024, 6, 18), date(2024, 6, 20))) == [date(2024, 6, 18), date(2024, 6, 20)]
    assert list(sessions(date(2024, 6, 20), date(2024, 6, 18))) == []


@pytest.mark.parametrize(
    ("day", "regular", "extended"),
    [
        pytest.param("2024-06-05", ("09:30", "16:00"), ("04:00", "20:00"), id="a-day-in-summer"),
        pytest.param("2024-01-03", ("09:30", "16:00"), ("04:00", "20:00"), id="a-day-in-winter"),
        pytest.param("2024-11-29", ("09:30", "13:00"), ("04:00", "17:00"), id="a-half-day"),
    ],
)
def test_hours_are_what_a_clock_in_new_york_shows(day, regular, extended):
    for hours, clock in ((regular_hours, regular), (extended_hours, extended)):
        assert hours(date.fromisoformat(day)) == TimeRange(*(ny(f"{day}T{time}") for time in clock))


def test_hours_are_written_in_utc():
    assert str(extended_hours(date(2024, 6, 5))) == "2024-06-05T08:00:00Z .. 2024-06-06T00:00:00Z"
    assert str(extended_hours(date(2024, 1, 3))) == "2024-01-03T09:00:00Z .. 2024-01-04T01:00:00Z"


# When bars are final: written by hand from the contract


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param("2024-06-05T20:45", "2024-06-05", id="nothing-of-today-in-the-evening"),
        pytest.param("2024-06-06T09:59:59", "2024-06-05", id="yesterday-not-before-ten"),
        pytest.param("2024-06-06T10:00", "2024-06-06", id="yesterday-from-ten"),
        pytest.param("2024-06-08T12:00", "2024-06-07", id="friday-waits-over-saturday"),
        pytest.param("2024-06-10T09:59", "2024-06-07", id="until-monday"),
        pytest.param("2024-06-10T10:00", "2024-06-10", id="with-the-weekend-at-ten"),
        pytest.param("2024-06-20T09:59", "2024-06-18", id="the-day-before-a-holiday-waits-for-the-day-after"),
        pytest.param("2024-11-30T10:00", "2024-11-29", id="a-half-day-waits-like-any-other"),
        pytest.param("2024-03-11T10:00", "2024-03-11", id="by-the-new-time"),
        pytest.param("2024-11-04T10:00", "2024-11-04", id="by-the-old-time"),
    ],
)
@pytest.mark.parametrize("timeframe", ["1Min", "5Min", "30Min", "1Hour"])
@pytest.mark.parametrize("feed", ["sip", "iex", "delayed_sip", "boats", "otc"])
def test_minutes_and_hours_are_final_at_ten_on_the_next_session(now, expected, timeframe, feed):
    assert iso(ny(expected)) == iso(final_before(dataset(timeframe, feed), ny(now)))


def test_a_bar_over_midnight_waits_for_the_next_session():
    """A 7-hour bar begins at 0, 7, 14 and 21 o'clock UTC; in winter a day of New York begins at 5."""
    assert iso(final_before(dataset("7Hour"), ny("2024-01-04T10:00"))) == "2024-01-04T00:00:00Z"


@pytest.mark.parametrize(
    ("timeframe", "now", "expected"),
    [
        pytest.param("1Day", "2024-06-06T09:59:59", "2024-06-05", id="yesterdays-day-not-before-ten"),
        pytest.param("1Day", "2024-06-06T10:00", "2024-06-06", id="yesterdays-day-from-ten"),
        pytest.param("1Day", "2024-06-05T23:59", "2024-06-05", id="today-is-not-final-in-the-evening"),
        pytest.param("1Day", "2024-06-08T12:00", "2024-06-07", id="fridays-day-waits-over-saturday"),
        pytest.param("1Day", "2024-06-09T23:59", "2024-06-07", id="and-over-sunday"),
        pytest.param("1Day", "2024-06-10T09:59", "2024-06-07", id="until-monday"),
        pytest.param("1Day", "2024-06-10T10:00", "2024-06-10", id="at-ten"),
        pytest.param("1Day", "2024-06-19T12:00", "2024-06-18", id="a-holiday-is-no-session"),
        pytest.param("1Day", "2024-06-20T09:59", "2024-06-18", id="the-day-before-a-holiday-waits-for-the-day-after"),
        pytest.param("1Day", "2024-06-20T10:00", "2024-06-20", id="at-ten-of-the-day-after"),
        pytest.param("1Day", "2024-11-30T10:00", "2024-11-29", id="a-half-day-waits-like-any-other"),
        pytest.param("1Day", "2024-12-02T10:00", "2024-12-02", id="until-the-next-session"),
        pytest.param("1Day", "2024-03-11T09:59", "2024-03-08", id="over-the-night-that-lacks-an-hour"),
        pytest.param("1Day", "2024-03-11T10:00", "2024-03-11", id="at-ten-by-the-new-time"),
        pytest.param("1Day", "2024-11-04T09:59", "2024-11-01", id="over-the-night-that-has-one-more"),
        pytest.param("1Day", "2024-11-04T10:00", "2024-11-04", id="at-ten-by-the-old-time"),
        pytest.param("1Week", "2024-06-07T23:00", "2024-06-03", id="this-week"),
        pytest.param("1Week", "2024-06-10T09:59", "2024-06-03", id="last-week-not-before-monday-at-ten"),
        pytest.param("1Week", "2024-06-10T10:00", "2024-06-10", id="last-week-from-monday-at-ten"),
        pytest.param("1Week", "2024-09-03T09:59", "2024-08-26", id="a-monday-without-a-session-does-not-count"),
        pytest.param("1Week", "2024-09-03T10:00", "2024-09-02", id="so-tuesday-at-ten"),
        pytest.param("1Month", "2024-07-01T09:59", "2024-06-01", id="last-month-not-before-the-first-session-at-ten"),
        pytest.param("1Month", "2024-07-01T10:00", "2024-07-01", id="last-month-from-then"),
        pytest.param("1Month", "2025-01-02T09:59", "2024-12-01", id="new-years-day-is-no-session"),
        pytest.param("1Month", "2025-01-02T10:00", "2025-01-01", id="december-from-the-second-of-january"),
        pytest.param("3Month", "2024-06-30T12:00", "2024-04-01", id="this-quarter"),
        pytest.param("12Month", "2024-12-31T23:00", "2024-01-01", id="this-year"),
        pytest.param("12Month", "2025-01-02T10:00", "2025-01-01", id="last-year"),
    ],
)
@pytest.mark.parametrize("feed", ["sip", "otc"])
def test_days_and_longer_are_final_at_ten_on_the_next_session(timeframe, now, expected, feed):
    for adjustment in ("raw", "split"):
        assert iso(ny(expected)) == iso(final_before(dataset(timeframe, feed, adjustment), ny(now)))


an_instant = st.datetimes(datetime(2000, 1, 1), datetime(2029, 1, 1), timezones=st.just(UTC))


@given(an_instant)
def test_days_and_minutes_are_final_as_the_judges_calendar_says(judge, now):
    local = now.astimezone(NEW_YORK)
    today = local.date()
    # Of today and the days before, the last that no longer waits: the session after the day before it has seen ten o'clock.
    day = today
    while True:
        opening = judge.days[bisect_right(judge.days, day - DAY)]
        if opening < today or (opening == today and local.hour >= 10):
            break
        day -= DAY

    for timeframe in ("1Day", "1Min"):
        assert iso(ny(day.isoformat())) == iso(final_before(dataset(timeframe), now))


@given(an_instant, st.timedeltas(timedelta(0), timedelta(days=9)), st.sampled_from(["1Min", "7Hour", "1Day", "1Week", "1Month"]))
def test_what_is_final_stays_final(now, later, timeframe):
    before, after = (final_before(dataset(timeframe), instant) for instant in (now, now + later))

    assert before <= after
    assert before <= now
    assert before == Timeframe.parse(timeframe).floor(before)


# Where bars can be


@pytest.mark.parametrize(
    ("timeframe", "start", "end", "answer"),
    [
        pytest.param("1Min", "2024-06-08T00:00", "2024-06-10T04:00", False, id="a-weekend-and-the-night-after"),
        pytest.param("1Min", "2024-06-08T00:00", "2024-06-10T04:01", True, id="and-the-first-minute-of-monday"),
        pytest.param("1Min", "2024-06-05T20:01", "2024-06-06T04:00", False, id="a-night"),
        pytest.param("1Min", "2024-06-05T20:00", "2024-06-06T04:00", True, id="the-stroke-of-the-close"),
        pytest.param("1Min", "2024-06-05T19:59", "2024-06-06T04:00", True, id="the-last-minute"),
        pytest.param("1Min", "2024-11-29T17:01", "2024-12-02T04:00", False, id="the-evening-of-a-half-day"),
        pytest.param("1Min", "2024-06-19T00:00", "2024-06-20T00:00", False, id="a-holiday"),
        pytest.param("1Hour", "2024-06-06T03:30", "2024-06-06T04:01", True, id="an-hour-that-begins-with-the-session"),
        pytest.param("7Hour", "2024-06-06T03:00", "2024-06-06T03:30", True, id="a-bar-that-begins-before-the-session"),
        pytest.param("1Day", "2024-06-05T00:00", "2024-06-06T00:00", True, id="a-day"),
        pytest.param("1Day", "2024-06-05T00:01", "2024-06-06T00:00", False, id="a-day-whose-bar-begins-before"),
        pytest.param("1Day", "2024-06-08T00:00", "2024-06-10T00:00", False, id="two-days-of-a-weekend"),
        pytest.param("1Week", "2024-06-03T00:00", "2024-06-04T00:00", True, id="a-monday-that-begins-a-week"),
        pytest.param("1Week", "2024-06-04T00:00", "2024-06-10T00:00", False, id="days-that-begin-no-week"),
        pytest.param("1Week", "2024-09-02T00:00", "2024-09-03T00:00", True, id="a-week-that-begins-on-a-holiday"),
        pytest.param("1Month", "2024-06-01T00:00", "2024-06-02T00:00", True, id="a-month-that-begins-on-a-saturday"),
        pytest.param("1Month", "2024-06-02T00:00", "2024-07-01T00:00", False, id="days-that-begin-no-month"),
    ],
)
def test_a_request_is_needed_only_where_a_bar_may_begin(timeframe, start, end, answer):
    assert answer is can_hold_bars(TimeRange(ny(start), ny(end)), dataset(timeframe))
    assert answer is can_hold_bars(TimeRange(ny(start), ny(end)), dataset(timeframe, "iex"))


@pytest.mark.parametrize("feed", ["otc", "boats", "account"])
def test_feeds_with_hours_of_their_own_may_always_have_bars(feed):
    assert can_hold_bars(TimeRange(ny("2024-06-08T00:00"), ny("2024-06-08T00:01")), dataset("1Min", feed))


@given(st.datetimes(datetime(2000, 1, 1), datetime(2029, 1, 1)), st.integers(1, 7200))
def test_minutes_may_be_where_the_judge_has_extended_hours(judge, naive, length):
    start = naive.replace(second=0, microsecond=0, tzinfo=UTC)
    span = TimeRange(start, start + timedelta(minutes=length))
    expected = False
    for n in range(length):
        local = (start + timedelta(minutes=n)).astimezone(NEW_YORK)
        closes = 17 if local.date() in judge.early else 20
        if local.date() in judge.set and 4 <= local.hour < closes:
            expected = True
            break

    assert expected is can_hold_bars(span, dataset("1Min"))


# Counting


@given(an_instant, st.timedeltas(timedelta(seconds=1), timedelta(days=40)))
def test_sessions_of_a_range_are_counted_by_their_beginning(judge, start, length):
    span = TimeRange(start, start + length)
    near = [day for day in judge.days if abs((day - start.date()).days) < 50]

    assert sum(ny(f"{day}T04:00") in span for day in near) == count_sessions(span)
    assert [ny(f"{day}T00:00") for day in near if ny(f"{day}T00:00") in span] == list(session_starts(span))
