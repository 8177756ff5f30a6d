"""People's dates: a day is New York's and the last one is included; an instant is exact and the last one is not."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import InputError
from data_engine.market.dates import Span, parse_end, parse_span, parse_start, parse_zone
from data_engine.market.time_range import TimeRange

NOW = datetime(2024, 6, 15, 12, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")


def utc(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=UTC)


# Days

A_DAY = {
    "text": "2024-01-31",
    "text-with-spaces": " 2024-01-31\n",
    "date": date(2024, 1, 31),
    "naive-midnight": datetime(2024, 1, 31),
    "pandas-midnight": pd.Timestamp("2024-01-31"),
    "text-of-naive-midnight": "2024-01-31T00:00:00",
    "text-of-naive-midnight-with-a-space": "2024-01-31 00:00",
}


@pytest.mark.parametrize("day", A_DAY.values(), ids=A_DAY)
def test_a_day_is_new_yorks_and_as_an_end_it_is_included(day):
    assert (parse_start(day), parse_end(day)) == (utc(2024, 1, 31, 5), utc(2024, 2, 1, 5))


@pytest.mark.parametrize(
    ("day", "hours"), [("2024-03-10", 23), ("2024-11-03", 25), ("2024-06-03", 24)], ids=["spring", "autumn", "summer"]
)
def test_a_day_is_as_long_as_it_is_in_new_york(day, hours):
    assert parse_end(day) - parse_start(day) == timedelta(hours=hours)


@given(st.dates(date(1970, 1, 2), date(2199, 12, 30)))
def test_days_follow_each_other_without_gap(day):
    assert parse_end(day) == parse_start(day + timedelta(days=1))
    assert parse_start(day).astimezone(NEW_YORK).replace(tzinfo=None) == datetime(day.year, day.month, day.day)


# Instants

AN_INSTANT = {
    "text-with-offset": "2024-01-31T09:30:00-05:00",
    "text-in-utc": "2024-01-31T14:30:00Z",
    "text-with-a-space": "2024-01-31 14:30+00:00",
    "datetime-in-new-york": datetime(2024, 1, 31, 9, 30, tzinfo=NEW_YORK),
    "datetime-with-offset": datetime(2024, 1, 31, 20, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "pandas": pd.Timestamp("2024-01-31 09:30", tz="America/New_York"),
    "pandas-in-utc": pd.Timestamp("2024-01-31 14:30", tz="UTC"),
}


@pytest.mark.parametrize("instant", AN_INSTANT.values(), ids=AN_INSTANT)
def test_an_aware_instant_is_exact_at_both_ends(instant):
    assert parse_start(instant) == parse_end(instant) == utc(2024, 1, 31, 14, 30)
    assert (type(parse_start(instant)), parse_start(instant).tzinfo) == (datetime, UTC)


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2199, 1, 1)),
    st.sampled_from([NEW_YORK, UTC, ZoneInfo("Asia/Kolkata"), timezone(timedelta(hours=-3, minutes=-17))]),
)
def test_an_instant_is_the_same_moment_to_the_microsecond(moment, zone):
    aware = moment.replace(tzinfo=zone)

    assert parse_start(aware) == aware.astimezone(UTC)
    assert parse_start(aware.isoformat()) == aware.astimezone(UTC)


def test_an_aware_midnight_is_an_instant_and_no_day():
    assert parse_end(datetime(2024, 1, 31, tzinfo=NEW_YORK)) == utc(2024, 1, 31, 5)


# Ranges


def test_a_range_of_days_includes_the_last():
    assert parse_span("2024-06-03", "2024-06-07", now=NOW) == Span(TimeRange(utc(2024, 6, 3, 4), utc(2024, 6, 8, 4)))


def test_one_day_is_a_range():
    assert parse_span("2024-06-03", "2024-06-03", now=NOW).range == TimeRange(utc(2024, 6, 3, 4), utc(2024, 6, 4, 4))


def test_a_range_of_instants_excludes_the_last():
    span = parse_span("2024-06-03T13:30:00Z", utc(2024, 6, 3, 20), now=NOW)

    assert span == Span(TimeRange(utc(2024, 6, 3, 13, 30), utc(2024, 6, 3, 20)))


def test_without_end_the_range_ends_now():
    assert parse_span("2024-06-03", None, now=NOW) == Span(TimeRange(utc(2024, 6, 3, 4), NOW))


@pytest.mark.parametrize("end", ["2024-06-15", "2030-01-01", NOW + timedelta(microseconds=1)])
def test_an_end_to_come_is_cut_off_and_said(end):
    assert parse_span("2024-06-03", end, now=NOW) == Span(TimeRange(utc(2024, 6, 3, 4), NOW), future_end=True)


@given(start=st.dates(date(1990, 1, 1), date(2024, 6, 15)), days=st.integers(0, 5000))
def test_a_range_never_reaches_past_now(start, days):
    span = parse_span(start, start + timedelta(days=days), now=NOW)

    assert span.range.end <= NOW
    assert span.future_end == (parse_end(start + timedelta(days=days)) > NOW)


# Refusals

REFUSED = {
    "reversed-days": ("2024-06-07", "2024-06-03", "end 2024-06-03 "),
    "reversed-instants": ("2024-06-03T15:00:00Z", "2024-06-03T14:00:00Z", "end 2024-06-03T14:00:00Z "),
    "equal-instants": ("2024-06-03T14:00:00Z", "2024-06-03T14:00:00Z", "end 2024-06-03T14:00:00Z "),
    "start-to-come": ("2024-07-01", "2024-07-05", "start 2024-07-01 lies in the future (now is 2024-06-15T12:00:00Z)"),
    "start-to-come-and-no-end": ("2024-07-01", None, "lies in the future"),
    "start-is-now": (NOW, None, "lies in the future"),
    "naive-time-of-day": ("2024-06-03T09:30:00", None, "start 2024-06-03T09:30:00 has a time of day"),
    "naive-datetime": (datetime(2024, 6, 3, 9, 30), None, "start 2024-06-03 09:30:00 has a time of day"),
    "naive-end": ("2024-06-03", datetime(2024, 6, 3, 9, 30), "end 2024-06-03 09:30:00 has a time of day"),
    "a-year": ("2024", None, "start '2024' is not a date"),
    "another-order": ("31/01/2024", None, "is not a date"),
    "american-order": ("01-31-2024", None, "is not a date"),
    "no-dashes": ("20240131", None, "is not a date"),
    "a-week": ("2024-W05-1", None, "is not a date"),
    "thirteenth-month": ("2024-13-01", None, "is not a date"),
    "thirtieth-of-february": ("2024-02-30", None, "is not a date"),
    "empty": ("", None, "is not a date"),
    "a-word": ("yesterday", None, "is not a date"),
    "digits-of-another-script": ("２０２４-01-31", None, "is not a date"),
    "a-number": (20240131, None, "start 20240131 is not a date"),
    "none": (None, "2024-06-03", "start None is not a date"),
    "not-a-time": (pd.NaT, None, "is not a date"),
    "nan": (float("nan"), None, "is not a date"),
    "before-1970": ("1969-12-31", None, "out of range"),
    "the-year-1": (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), None, "out of range"),
    "the-year-9999": ("2024-06-03", "9999-12-31", "end 9999-12-31 is out of range"),
    "the-last-instant": ("2024-06-03", datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), "out of range"),
}


@pytest.mark.parametrize(("start", "end", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_range_is_refused_by_name(start, end, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parse_span(start, end, now=NOW)


def test_a_refusal_says_how_to_write_it():
    with pytest.raises(InputError, match=re.escape("2024-01-31T09:30:00-05:00")):
        parse_start("31.01.2024")


@given(
    st.text(max_size=30) | st.integers() | st.floats() | st.none() | st.binary(max_size=5) | st.lists(st.integers(), max_size=2)
)
def test_anything_else_is_a_moment_or_our_refusal(value):
    try:
        assert parse_start(value).tzinfo is UTC
    except InputError:
        return


@pytest.mark.parametrize("text", ["2024-01-31", "2024-01-31T00:00", "2024-01-31T00:00:00.000000000"])
def test_a_day_of_numpy_is_a_day(text):
    assert parse_start(np.datetime64(text)) == parse_start("2024-01-31")
    assert parse_end(np.datetime64(text)) == parse_end("2024-01-31")


@pytest.mark.parametrize("text", ["2024-01", "2024", "NaT", "2024-01-31T09:30"])
def test_what_is_no_day_of_numpy_is_refused(text):
    with pytest.raises(InputError, match="start"):
        parse_start(np.datetime64(text))


def test_time_zones_have_names():
    assert parse_zone("America/New_York") == ZoneInfo("America/New_York")
    assert parse_zone(UTC) is UTC
    for wrong in ("New York", "", 5):
        with pytest.raises(InputError, match=re.escape(repr(wrong))):
            parse_zone(wrong)
