"""Waits between tries: bounded, jittered, and as the server states."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.alpaca.retry import RetryPolicy, retry_after

NOW = datetime(2024, 6, 3, 12, tzinfo=UTC)
UNIX = NOW.timestamp()


def test_waits_double_up_to_the_cap():
    policy = RetryPolicy(base=0.5, cap=5.0)

    assert [policy.wait(failures, 1.0) for failures in range(1, 8)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_wait_lies_between_nothing_and_the_cap_and_jitter_scales_it(failures, jitter):
    policy = RetryPolicy()

    assert 0 <= policy.wait(failures, jitter) <= policy.cap
    assert policy.wait(failures, jitter) == pytest.approx(jitter * policy.wait(failures, 1.0))


def test_a_request_and_a_run_are_bounded_by_default():
    """Six tries of one request take a quarter of a minute at most; ten minutes without any response end the run."""
    policy = RetryPolicy()

    assert (policy.tries, policy.give_up_after) == (6, 600.0)
    assert sum(policy.wait(failures, 1.0) for failures in range(1, policy.tries)) == 15.5


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=moment.tzinfo is UTC)


HINTS = {
    "seconds": ({"retry-after": "7"}, 7.0),
    "fraction": ({"retry-after": "0.25"}, 0.25),
    "spaces": ({"retry-after": " 7 "}, 7.0),
    "none-to-wait": ({"retry-after": "0"}, 0.0),
    "date": ({"retry-after": http_date(NOW + timedelta(seconds=30))}, 30.0),
    "date-in-another-zone": (
        {"retry-after": http_date((NOW + timedelta(seconds=30)).astimezone(timezone(timedelta(hours=-4))))},
        30.0,
    ),
    "date-gone-by": ({"retry-after": http_date(NOW - timedelta(hours=1))}, 0.0),
    "an-hour-is-two-minutes": ({"retry-after": "3600"}, 120.0),
    "a-far-date-is-two-minutes": ({"retry-after": http_date(NOW + timedelta(days=9))}, 120.0),
    "reset": ({"x-ratelimit-reset": f"{UNIX + 12:.0f}"}, 12.0),
    "far-reset": ({"x-ratelimit-reset": f"{UNIX + 9000:.0f}"}, 120.0),
    "retry-after-wins": ({"retry-after": "3", "x-ratelimit-reset": f"{UNIX + 12:.0f}"}, 3.0),
    "reset-where-retry-after-is-nonsense": ({"retry-after": "soon", "x-ratelimit-reset": f"{UNIX + 12:.0f}"}, 12.0),
    "reset-gone-by": ({"x-ratelimit-reset": f"{UNIX - 1:.0f}"}, None),
    "nothing": ({}, None),
    "empty": ({"retry-after": ""}, None),
    "nonsense": ({"retry-after": "soon", "x-ratelimit-reset": "later"}, None),
    "date-without-zone": ({"retry-after": "Mon, 03 Jun 2024 12:00:30 -0000"}, None),
    "negative": ({"retry-after": "-5"}, None),
    "not-a-number": ({"retry-after": "nan", "x-ratelimit-reset": "inf"}, None),
}


@pytest.mark.parametrize(("headers", "seconds"), HINTS.values(), ids=HINTS)
def test_the_wait_that_a_server_states(headers, seconds):
    assert retry_after(headers, UNIX) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-reset"]), st.text(max_size=30)))
def test_whatever_a_server_writes_the_wait_is_bounded(headers):
    wait = retry_after(headers, UNIX)

    assert wait is None or 0 <= wait <= 120


def test_a_date_beyond_all_numbers_says_nothing():
    assert retry_after({"retry-after": "Mon, 03 Jun 2024 12:00:30 +99999999999999999999"}, UNIX) is None
