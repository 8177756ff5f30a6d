"""The identity of a series: what can be said is said in one way, and names can be read back."""

from __future__ import annotations

import itertools
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import InputError
from data_engine.market.series import RAW, Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, from_iso, iso

EVERY_TIMEFRAME = [
    *(f"{n}Min" for n in range(1, 60)), *(f"{n}Hour" for n in range(1, 24)), "1Day", "1Week",
    *(f"{n}Month" for n in (1, 2, 3, 4, 6, 12)),
]  # fmt: skip
EVENTS = ["split", "dividend", "spin-off"]
EVERY_ADJUSTMENT = ["raw", "all", *(",".join(some) for n in (1, 2, 3) for some in itertools.combinations(EVENTS, n))]

a_timeframe = st.sampled_from(EVERY_TIMEFRAME).map(Timeframe.parse)
an_instant = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))


@pytest.fixture(scope="module")
def alpaca():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # alpaca-py imports what websockets has deprecated
        import alpaca.data
    return alpaca.data


# Timeframes


@pytest.mark.parametrize("text", EVERY_TIMEFRAME)
def test_every_timeframe_of_alpaca_is_read_and_written(text):
    timeframe = Timeframe.parse(text)

    assert text == str(timeframe)
    assert timeframe == Timeframe.parse(text.lower()) == Timeframe.parse(text.upper()) == Timeframe.parse(timeframe)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("day", "1Day"), ("1D", "1Day"), ("Minute", "1Min"), ("5 minutes", "5Min"), ("1T", "1Min"), ("5T", "5Min"),
        ("4H", "4Hour"),
        ("1W", "1Week"), ("week", "1Week"), ("5m", "5Min"), ("1d", "1Day"),
        ("4h", "4Hour"), (" 1Min ", "1Min"), ("hours", "1Hour"), ("05Min", "5Min"),
    ],
)  # fmt: skip
def test_other_spellings_mean_the_same(text, expected):
    assert expected == str(Timeframe.parse(text))


@pytest.mark.parametrize(
    "value",
    ["", "1", "0Min", "60Min", "61Min", "0Hour", "24Hour", "2Day", "7Day", "2Week", "5Month", "7Month", "13Month", "30Sec",
     "1Year", "1.5Min", "-1Min", "1Min1Min", "1 Min x", "99999Min", "1\0Min", None, 1, b"1Min", True],
    ids=repr,
)  # fmt: skip
def test_what_alpaca_does_not_have_is_refused(value):
    with pytest.raises(InputError, match="1Min to 59Min"):
        Timeframe.parse(value)


@pytest.mark.parametrize("value", ["1M", "3M", "M"])
def test_a_capital_m_is_refused_since_it_means_two_things(value):
    amount = value[:-1] or "1"
    with pytest.raises(InputError, match=f"{amount}Min or {amount}Month"):
        Timeframe.parse(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pd.Timedelta("5min"), "5Min"),
        (pd.Timedelta(60, "min"), "1Hour"),
        (timedelta(days=1), "1Day"),
        (pd.Timedelta(7, "D"), "1Week"),
        (np.timedelta64(15, "m"), "15Min"),
        (np.timedelta64(4, "h"), "4Hour"),
    ],
)
def test_a_length_of_time_is_a_timeframe(value, expected):
    assert str(Timeframe.parse(value)) == expected


@pytest.mark.parametrize(
    "value",
    [pd.Timedelta("90s"), pd.Timedelta("90min"), timedelta(days=2), timedelta(0), pd.Timedelta("-5min"), np.timedelta64("NaT")],
)
def test_a_length_that_alpaca_does_not_have_is_refused(value):
    with pytest.raises(InputError, match="1Min to 59Min"):
        Timeframe.parse(value)


@pytest.mark.parametrize(("amount", "unit"), [(0, "Min"), (2, "Day"), (1, "Second"), (1, "min")])
def test_a_timeframe_cannot_be_made_that_alpaca_does_not_have(amount, unit):
    with pytest.raises(InputError, match=f"{amount}{unit} "):
        Timeframe(amount, unit)


def test_alpacas_own_timeframes_are_read(alpaca):
    unit = alpaca.TimeFrameUnit
    theirs = [alpaca.TimeFrame.Minute, alpaca.TimeFrame.Hour, alpaca.TimeFrame.Day, alpaca.TimeFrame.Week, alpaca.TimeFrame.Month]

    assert [str(Timeframe.parse(each)) for each in theirs] == ["1Min", "1Hour", "1Day", "1Week", "1Month"]
    assert str(Timeframe.parse(alpaca.TimeFrame(15, unit.Minute))) == "15Min"


@pytest.mark.parametrize(
    ("text", "length", "intraday"),
    [
        ("15Min", timedelta(minutes=15), True), ("4Hour", timedelta(hours=4), True), ("1Day", timedelta(days=1), False),
        ("1Week", timedelta(weeks=1), False), ("3Month", timedelta(days=93), False),
    ],
)  # fmt: skip
def test_a_timeframe_knows_its_length(text, length, intraday):
    assert (length, intraday) == (Timeframe.parse(text).length, Timeframe.parse(text).intraday)


@given(a_timeframe, an_instant)
def test_a_bar_holds_the_instant_it_was_found_by(timeframe, instant):
    start = timeframe.floor(instant)

    assert start <= instant < timeframe.next(start)
    assert start == timeframe.floor(start)
    assert start.tzinfo is UTC
    # With an hour more for a day of 25 hours.
    assert timeframe.next(start) - start <= timeframe.length + timedelta(hours=1)


@given(a_timeframe, an_instant)
def test_bars_follow_each_other_without_gap_or_overlap(timeframe, instant):
    start = timeframe.floor(instant)
    following = timeframe.next(start)

    assert following == timeframe.floor(following)
    assert start == timeframe.floor(following - timedelta(microseconds=1))


@given(a_timeframe, an_instant)
def test_the_ceiling_is_the_first_start_not_before(timeframe, instant):
    ceiling = timeframe.ceil(instant)

    assert timeframe.floor(ceiling) == ceiling >= instant
    assert ceiling == timeframe.ceil(ceiling)
    assert timeframe.floor(ceiling - timedelta(microseconds=1)) < instant


@given(a_timeframe, an_instant, st.timedeltas(timedelta(microseconds=1), timedelta(days=99)))
def test_widening_adds_less_than_a_bar_on_each_side(timeframe, start, length):
    span = TimeRange(start, start + length)
    wide = timeframe.widen(span)

    assert wide.start <= span.start < span.end <= wide.end
    assert wide == timeframe.widen(wide)
    assert timeframe.next(wide.start) > span.start


@given(an_instant)
def test_days_weeks_and_months_begin_where_pandas_says(instant):
    local = pd.Timestamp(instant).tz_convert("America/New_York").tz_localize(None)
    for text, period in (("1Day", "D"), ("1Week", "W-SUN"), ("1Month", "M"), ("3Month", "Q-DEC"), ("12Month", "Y-DEC")):
        expected = local.to_period(period).start_time.tz_localize("America/New_York")

        assert expected == pd.Timestamp(Timeframe.parse(text).floor(instant))


@given(an_instant, st.sampled_from([f"{n}Min" for n in (1, 2, 5, 7, 15, 30, 59)] + [f"{n}Hour" for n in (1, 4, 7, 12, 23)]))
def test_minutes_and_hours_are_counted_from_midnight_utc(instant, text):
    timeframe = Timeframe.parse(text)
    day = pd.Timestamp(instant).normalize()
    starts = pd.date_range(day, day + pd.Timedelta("1D"), freq=timeframe.length, inclusive="left")

    assert starts[starts <= pd.Timestamp(instant)][-1] == pd.Timestamp(timeframe.floor(instant))


@pytest.mark.parametrize(
    ("text", "instant", "start", "end"),
    [
        pytest.param("1Day", "2024-03-10T12:00:00Z", "2024-03-10T05:00:00Z", "2024-03-11T04:00:00Z", id="a-day-of-23-hours"),
        pytest.param("1Day", "2024-11-03T12:00:00Z", "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z", id="a-day-of-25-hours"),
        pytest.param(
            "1Day", "2024-06-04T03:59:59Z", "2024-06-03T04:00:00Z", "2024-06-04T04:00:00Z", id="the-evening-is-of-its-day"
        ),
        pytest.param(
            "1Week", "2024-03-08T12:00:00Z", "2024-03-04T05:00:00Z", "2024-03-11T04:00:00Z", id="a-week-over-the-change"
        ),
        pytest.param(
            "1Month", "2024-11-30T12:00:00Z", "2024-11-01T04:00:00Z", "2024-12-01T05:00:00Z", id="a-month-over-the-change"
        ),
        pytest.param("1Month", "2024-02-29T12:00:00Z", "2024-02-01T05:00:00Z", "2024-03-01T05:00:00Z", id="a-leap-february"),
        pytest.param("3Month", "2024-12-31T12:00:00Z", "2024-10-01T04:00:00Z", "2025-01-01T05:00:00Z", id="the-last-quarter"),
        pytest.param("4Month", "2024-08-31T12:00:00Z", "2024-05-01T04:00:00Z", "2024-09-01T04:00:00Z", id="a-third-of-a-year"),
        pytest.param(
            "12Month", "2024-01-01T04:59:59Z", "2023-01-01T05:00:00Z", "2024-01-01T05:00:00Z", id="a-year-ends-in-new-york"
        ),
        pytest.param("7Hour", "2024-06-03T22:00:00Z", "2024-06-03T21:00:00Z", "2024-06-04T00:00:00Z", id="the-last-bar-is-short"),
    ],
)
def test_a_bar_by_hand(text, instant, start, end):
    timeframe = Timeframe.parse(text)

    assert start == iso(timeframe.floor(from_iso(instant)))
    assert end == iso(timeframe.next(from_iso(start))) == iso(timeframe.ceil(from_iso(instant)))


# Feeds and adjustments


@pytest.mark.parametrize(
    ("value", "feed", "stored", "wire"),
    [
        (None, Feed.SIP, Feed.SIP, "sip"), ("sip", Feed.SIP, Feed.SIP, "sip"), (" IEX ", Feed.IEX, Feed.IEX, "iex"),
        ("otc", Feed.OTC, Feed.OTC, "otc"), ("boats", Feed.BOATS, Feed.BOATS, "boats"),
        ("account", Feed.ACCOUNT, Feed.ACCOUNT, None), ("delayed_sip", Feed.DELAYED_SIP, Feed.SIP, "sip"),
        (Feed.OTC, Feed.OTC, Feed.OTC, "otc"),
    ],
)  # fmt: skip
def test_a_feed_is_known_by_what_is_requested_and_what_is_stored(value, feed, stored, wire):
    read = Feed.parse(value)

    assert (feed, stored, wire) == (read, read.stored, read.wire)


@pytest.mark.parametrize("value", ["", "nyse", "overnight", 1, ["sip"]], ids=repr)
def test_an_unknown_feed_is_refused_with_those_there_are(value):
    with pytest.raises(InputError, match="sip, iex, otc, boats, delayed_sip or account"):
        Feed.parse(value)


def test_alpacas_own_feeds_and_adjustments_are_read(alpaca):
    from alpaca.data.enums import Adjustment as Theirs
    from alpaca.data.enums import DataFeed

    assert [Feed.parse(each) for each in (DataFeed.SIP, DataFeed.IEX, DataFeed.OTC)] == [Feed.SIP, Feed.IEX, Feed.OTC]
    assert [str(Adjustment.parse(each)) for each in Theirs] == [each.value for each in Theirs]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "raw"), ("raw", "raw"), ("RAW", "raw"), ("all", "all"), ("split", "split"), ("dividend,split", "split,dividend"),
        ("spinoff", "spin-off"), ("spin-off, SPLIT", "split,spin-off"), ("split,split", "split"), (RAW, "raw"),
    ],
)  # fmt: skip
def test_an_adjustment_has_one_spelling(value, expected):
    adjustment = Adjustment.parse(value)

    assert expected == str(adjustment)
    assert adjustment.is_raw is (expected == "raw")


@pytest.mark.parametrize("value", ["", "none", "raw,split", "all,split", "split,", "split;dividend", 1, True], ids=repr)
def test_an_unknown_adjustment_is_refused(value):
    with pytest.raises(InputError, match="raw, all, or a list of split, dividend, spin-off"):
        Adjustment.parse(value)


# Datasets


@pytest.mark.parametrize(
    ("timeframe", "adjustment", "feed", "name"),
    [
        ("1Min", None, None, "equities_1min"), ("5Min", None, "sip", "equities_5min"),
        ("1Hour", None, "iex", "equities_1hour_iex"),
        ("1Day", "split", None, "equities_1day_split"), ("1Week", "dividend", "otc", "equities_1week_dividend_otc"),
        ("1Month", "all", "boats", "equities_1month_all_boats"), ("1Min", None, "account", "equities_1min_account"),
        ("1Min", None, "delayed_sip", "equities_1min"), ("1Day", "dividend,split", None, "equities_1day_split_dividend"),
        ("1Day", "spin-off", None, "equities_1day_spin-off"),
    ],
)  # fmt: skip
def test_a_dataset_has_the_name_of_the_contract(timeframe, adjustment, feed, name):
    assert name == Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), Feed.parse(feed)).name


def test_every_dataset_is_read_back_from_its_name_and_no_two_share_one():
    every = {
        Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), feed)
        for timeframe in EVERY_TIMEFRAME for adjustment in EVERY_ADJUSTMENT for feed in Feed
    }  # fmt: skip
    names = {dataset.name for dataset in every}

    assert len(every) == len(names) == len(EVERY_TIMEFRAME) * len(EVERY_ADJUSTMENT) * 5
    assert every == {Dataset.from_name(name) for name in names}
    assert all(name == name.lower() for name in names)


@pytest.mark.parametrize(
    "name",
    ["", "equities", "equities_", "equities_iex", "equities_1min_sip", "equities_1MIN", "Equities_1min", "equities_minute",
    "equities_1min_raw",
     "equities_1min_dividend_split", "equities_1min_iex_otc", "equities_1min_iex_split", "equities_60min", "crypto_1min",
     "equities_1min_x",
     "equities_1min_delayed_sip", "equities_1min/x", "equities_01min"],
)  # fmt: skip
def test_another_name_is_no_dataset(name):
    with pytest.raises(ValueError):
        Dataset.from_name(name)


def test_a_series_says_what_it_is():
    assert str(Series("BRK.B", Dataset(Timeframe(1, "Day"), Adjustment.parse("split")))) == "BRK.B in equities_1day_split"
