"""Progress: the lines of the legacy pipeline at intervals, or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_engine.ingest.page_estimate import PageEstimate
from data_engine.ingest.progress import LogProgress, NoProgress, Progress, ProgressState, lines

STATE = ProgressState(
    total=500,
    successful=120,
    failed=5,
    pages=12_400,
    pages_expected=49_027,
    bars=120_000_000,
    seconds=330.0,
    per_minute=2254.4,
    allowed=10_000.0,
)


def test_the_lines_are_those_of_the_legacy_pipeline_and_one_of_pages():
    assert lines(STATE) == (
        "Progress: 125/500 (25.0%)\n"
        "  Successful: 120 | Failed: 5 | Remaining: 375\n"
        "  Elapsed: 5m 30s | Est. remaining: 16m 15s\n"
        "  Pages: 12,400 of about 49,027 | 2,254/min of 10,000"
    )


@pytest.mark.parametrize(
    ("changed", "line", "expected"),
    [
        pytest.param({"pages": 0}, 2, "  Elapsed: 5m 30s | Est. remaining: unknown", id="before-the-first-page"),
        pytest.param({"seconds": 0.0}, 2, "  Elapsed: 0.0s | Est. remaining: unknown", id="before-any-time"),
        pytest.param({"pages": 50_000}, 2, "  Elapsed: 5m 30s | Est. remaining: unknown", id="more-pages-than-expected"),
        pytest.param({"pages": 50_000}, 3, "  Pages: 50,000 of about 50,000 | 2,254/min of 10,000", id="never-more-than-of"),
        pytest.param({"allowed": None}, 3, "  Pages: 12,400 of about 49,027 | 2,254/min", id="no-limit"),
        pytest.param({"total": 0, "successful": 0, "failed": 0}, 0, "Progress: 0/0 (100.0%)", id="nothing-to-do"),
        pytest.param({"successful": 495}, 0, "Progress: 500/500 (100.0%)", id="done"),
        pytest.param({"total": 3, "successful": 1, "failed": 0}, 0, "Progress: 1/3 (33.3%)", id="thirds"),
    ],
)
def test_lines_at_the_edges(changed, line, expected):
    assert lines(replace(STATE, **changed)).splitlines()[line] == expected


def test_the_remaining_time_is_estimated_by_pages():
    """Twice the pages in the same time: the rest goes twice as fast."""
    half = replace(STATE, pages=100, pages_expected=400, seconds=60.0)

    assert half.done == 125
    assert half.remaining_seconds == 180.0
    assert replace(half, pages=200).remaining_seconds == 60.0
    assert replace(half, pages=400).remaining_seconds is None, "symbols are left, and no page that was planned"
    assert replace(half, pages=400, successful=495).remaining_seconds == 0.0


def test_what_is_left_of_the_pages_is_judged_by_the_tasks_that_are_done():
    estimate = PageEstimate(5, [10, 10, 20, 4])  # five pages came before
    assert estimate.expected(5) == 49

    estimate.start(10)
    estimate.start(10)
    assert estimate.expected(15) == 49
    estimate.finish(10, 15)  # half as much again
    assert estimate.expected(20) == 5 + 15 + 15 + 30 + 6
    estimate.start(4)
    estimate.finish(4, 0)  # its series failed before the first request
    assert estimate.expected(20) == 5 + 15 + 15 + 30
    estimate.start(20)
    estimate.restart(20)
    assert estimate.expected(60) == 60 + 1 + 30, "the task that runs has sent more than it was to send"
    estimate.start(20)
    assert estimate.expected(65) == 67, "two run: each has one to come"
    assert estimate.expected(90) == 90, "nobody knows"
    estimate.finish(10, 40)
    estimate.finish(20, 30)
    assert estimate.expected(90) == 90


def test_a_burst_is_called_one_and_does_not_shorten_the_estimate():
    """100 of 300 requests in 6 seconds, with 200 a minute allowed: the other 200 take a minute and not 12 seconds."""
    burst = replace(STATE, pages=100, pages_expected=300, seconds=6.0, per_minute=1000.0, allowed=200.0)

    assert burst.remaining_seconds == 60.0
    assert "| 1,000/min, a burst; limit 200" in lines(burst)
    assert replace(burst, seconds=90.0, per_minute=67.0).remaining_seconds == 180.0, "the account is not what is slow"


def test_nothing_is_wholly_done_before_every_symbol_is():
    late = replace(STATE, total=30, successful=26, failed=0, pages=300, pages_expected=300)

    assert late.share == 0.99
    assert replace(late, successful=29, failed=1).share == 1.0
    assert replace(late, pages=75).share == 0.25


def test_lines_come_a_second_after_the_beginning_and_then_at_most_once_in_a_while():
    clock = [100.0]
    written: list[tuple[float, str]] = []
    progress = LogProgress(lambda text: written.append((clock[0], text)), every=5.0, clock=lambda: clock[0])
    for tick in range(0, 200, 3):  # tenths of a second
        clock[0] = 100 + tick / 10
        progress.update(STATE)
    progress.close()

    assert written == [(at, lines(STATE)) for at in (101.2, 106.3, 111.4, 116.5)]


def test_a_note_is_written_at_once():
    written: list[str] = []
    progress = LogProgress(written.append, clock=lambda: 0.0)
    progress.note("AAPL: fetched again in full")
    progress.update(STATE)
    progress.close()

    assert written == ["AAPL: fetched again in full"]


def test_no_progress_writes_nothing(capfd):
    progress: Progress = NoProgress()
    progress.note("anything")
    progress.update(STATE)
    progress.close()

    assert capfd.readouterr() == ("", "")
