"""The report of a run: a mapping, an exit code, and text."""

from __future__ import annotations

import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import Failure
from data_engine.ingest.outcome import NO_DATA, IngestionReport, LastingNote, Outcome, duration
from data_engine.market.bars import Changes

MIXED = IngestionReport(
    (
        Outcome("TSLA", bars=12, written=3, vanished=4),
        Outcome("XYZ", Failure("invalid_symbol", "invalid symbol: XYZ")),
        Outcome("AAPL", bars=1000, written=0),
        Outcome("ZVZZT", Failure("no_data", NO_DATA)),
    ),
    requests=1234,
    pages=1200,
    seconds=1365.00049,
    changes=Changes(1_000_002, 3, 4),
    notes=("the end was truncated to 16 minutes ago",),
)


def test_a_report_is_a_mapping_with_symbols_in_the_order_given():
    assert isinstance(MIXED, dict)
    assert json.loads(json.dumps(MIXED))["failed"] == [["XYZ", "invalid symbol: XYZ"], ["ZVZZT", "No data available"]]
    assert pickle.loads(pickle.dumps(MIXED)).exit_code == MIXED.exit_code
    assert dict(MIXED) == {
        "successful": ["TSLA", "AAPL"],
        "failed": [("XYZ", "invalid symbol: XYZ"), ("ZVZZT", "No data available")],
        "codes": {"XYZ": "invalid_symbol", "ZVZZT": "no_data"},
        "bars": {"TSLA": 12, "XYZ": 0, "AAPL": 1000, "ZVZZT": 0},
        "bars_written": 1_000_005,
        "bars_revised": 3,
        "bars_vanished": 4,
        "vanished": {"TSLA": 4},
        "bars_removed": 0,
        "conflicting": {},
        "ended": [],
        "silent": [],
        "requests": 1234,
        "pages": 1200,
        "elapsed_seconds": 1365.0,
        "notes": ["the end was truncated to 16 minutes ago"],
    }
    assert len(MIXED) == len(list(MIXED))
    with pytest.raises(KeyError, match="losses"):
        MIXED["losses"]


def test_the_json_of_a_report_is_the_one_of_the_contract():
    made = json.loads(json.dumps(MIXED.to_json()))

    assert made["failed"] == [
        {"symbol": "XYZ", "code": "invalid_symbol", "message": "invalid symbol: XYZ"},
        {"symbol": "ZVZZT", "code": "no_data", "message": "No data available"},
    ]
    assert {"successful", "failed", "bars_written", "requests", "elapsed_seconds"} <= made.keys()
    assert {name: value for name, value in made.items() if name != "failed"} == {
        name: value for name, value in MIXED.items() if name not in ("failed", "codes")
    }


def test_reports_with_the_same_facts_are_equal():
    def again(seconds: float) -> IngestionReport:
        return IngestionReport((Outcome("A"),), seconds=seconds)

    assert again(1.0) == again(1.0) != again(2.0)


def failed(*codes: str) -> tuple[Outcome, ...]:
    return (Outcome("GOOD"), *(Outcome(f"BAD{number}", Failure(code, "why")) for number, code in enumerate(codes)))


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        pytest.param(IngestionReport(()), 0, id="nothing-requested"),
        pytest.param(IngestionReport(failed(), notes=("truncated",), changes=Changes(vanished=9)), 0, id="notes-are-no-failure"),
        pytest.param(IngestionReport(failed("no_data")), 1, id="a-symbol-failed"),
        pytest.param(IngestionReport(failed("no_data"), unreachable=True), 6, id="alpaca-cannot-be-reached"),
        pytest.param(IngestionReport(failed("no_data", "store_busy")), 7, id="a-file-was-locked"),
        pytest.param(IngestionReport(failed("store_busy"), unreachable=True), 7, id="locked-before-unreachable"),
        pytest.param(IngestionReport(failed("store_busy"), unreachable=True, interrupted=True), 130, id="interrupted-before-all"),
        pytest.param(IngestionReport(failed(), interrupted=True), 130, id="interrupted-though-nothing-failed"),
    ],
)
def test_the_exit_code_is_the_first_that_applies(report, expected):
    assert report.exit_code == expected


def test_the_summary_is_that_of_the_legacy_pipeline_with_every_failed_symbol():
    dropped = next(line for line in MIXED.summary().splitlines() if "--accept-removals" in line)
    assert re.search(r"\b4 stored bars\b.* TSLA \(4\)", dropped)
    assert MIXED.summary() == (
        "Total ingestion time: 22m 45s\n"
        "\n"
        "Ingestion Summary:\n"
        "  Successful: 2/4\n"
        "  Failed: 2/4\n"
        "  Bars: 1,000,002 new, 3 revised | Requests: 1,234\n"
        f"{dropped}\n"
        "  Note: the end was truncated to 16 minutes ago\n"
        "\n"
        "Failed symbols:\n"
        "  - XYZ: invalid symbol: XYZ\n"
        "  - ZVZZT: No data available"
    )


def test_a_summary_without_failures_ends_with_the_totals():
    assert IngestionReport((Outcome("A"),), requests=1, seconds=0.4, changes=Changes(390)).summary() == (
        "Total ingestion time: 0.4s\n\nIngestion Summary:\n"
        "  Successful: 1/1\n  Failed: 0/1\n  Bars: 390 new, 0 revised | Requests: 1"
    )


def test_no_failed_symbol_is_cut_from_the_summary():
    many = IngestionReport(failed(*["no_data"] * 500))

    assert sum(line.startswith("  - BAD") for line in many.summary().splitlines()) == 500


def test_one_line_for_a_nightly_run_and_one_per_failure():
    dropped = next(line for line in MIXED.line().splitlines() if "TSLA (4)" in line)
    assert MIXED.line() == (
        "2 of 4 series up to date, 2 failed, 1,000,002 bars new, 3 revised, 4 dropped, 0 removed, 1,234 requests, 22m 45s\n"
        "  Note: the end was truncated to 16 minutes ago\n"
        f"{dropped}\n"
        "  - XYZ: invalid symbol: XYZ\n"
        "  - ZVZZT: No data available"
    )


def test_a_note_on_what_lasts_is_left_out_once_it_was_said_and_one_on_an_event_never_is():
    lasting, event = LastingNote("FB renamed to META on 2022-06-09"), "prices were adjusted anew, fetched again in full: AAPL"
    report = IngestionReport((Outcome("AAPL"),), notes=(lasting, event))
    assert [text in report.line() for text in (lasting, event)] == [True, True]
    assert [text in report.line(said=frozenset(map(str, (lasting, event)))) for text in (lasting, event)] == [False, True]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0.0s"), (0.44, "0.4s"), (9.94, "9.9s"), (10, "10s"), (59.4, "59s"), (59.6, "1m 00s"), (330, "5m 30s"), (975, "16m 15s"),
     (1365, "22m 45s"), (3599.4, "59m 59s"), (3599.6, "1h 00m 00s"), (3725, "1h 02m 05s"), (360_000, "100h 00m 00s")],
)  # fmt: skip
def test_durations_are_written_in_units(seconds, expected):
    assert duration(seconds) == expected


@given(st.floats(10, 10**6))
def test_a_duration_is_right_to_the_second(seconds):
    parts = {text[-1]: int(text[:-1]) for text in duration(seconds).split()}

    assert abs(parts.get("h", 0) * 3600 + parts.get("m", 0) * 60 + parts["s"] - seconds) <= 0.5


def test_ten_seconds_are_written_in_one_way():
    assert duration(9.96) == duration(10)
