"""The record of a run: what was requested, received and failed, in a short line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import CredentialsRefused, Failure, Interrupted
from data_engine.ingest.outcome import IngestionReport, Outcome
from data_engine.ingest.plan import IngestionPlan
from data_engine.ingest.run_log import (
    KEPT_BYTES,
    KEPT_RUNS,
    FailureGroup,
    RequestedDataset,
    RunRecord,
    append_record,
    dump,
    load,
    parse_records,
    run_record,
)
from data_engine.market.bars import Changes
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange

BEGAN = datetime(2024, 6, 3, 20, 45, 7, 123456, tzinfo=UTC)
SPAN = TimeRange(datetime(2024, 6, 3, 4, tzinfo=UTC), datetime(2024, 6, 4, 4, tzinfo=UTC))
PLAN = IngestionPlan(Dataset.from_name("equities_1min"), ("AAPL", "ZZZQ"), SPAN, (), {"ZZZQ": 1})


def small(number: int = 0, **fields: object) -> RunRecord:
    return RunRecord(BEGAN.replace(microsecond=0) + timedelta(days=number), 1.5, "update", None, "data-engine 0", (), **fields)  # type: ignore[arg-type]


def test_a_record_has_what_was_requested_received_and_failed() -> None:
    outcomes = (Outcome("AAPL", bars=900, written=7), Outcome("ZZZQ", Failure("no_data", "No data available")))
    report = IngestionReport(outcomes, requests=3, pages=2, seconds=1.23456, changes=Changes(5, 2), notes=("truncated",))

    run = run_record("ingest", [PLAN], report, began=BEGAN, index="ours", by="data-engine 0")

    assert run == RunRecord(
        BEGAN.replace(microsecond=0),
        1.235,
        "ingest",
        "ours",
        "data-engine 0",
        (RequestedDataset("equities_1min", 2, ("AAPL", "ZZZQ"), SPAN.start, SPAN.end, complete=1),),
        requests=3,
        pages=2,
        added=5,
        revised=2,
        succeeded=1,
        failures=(FailureGroup("no_data", "No data available", 1, ("ZZZQ",)),),
        notes=("truncated",),
    )
    assert (run.state, run.failed) == ("failed", 1)


@pytest.mark.parametrize(
    ("error", "state"), [(CredentialsRefused("no"), "stopped"), (Interrupted("enough"), "interrupted"), (None, "done")]
)
def test_the_state_is_how_it_ended(error: Exception | None, state: str) -> None:
    assert run_record("update", [PLAN], None, error, began=BEGAN).state == state  # type: ignore[arg-type]


def test_symbols_that_failed_for_the_same_reason_are_one_group() -> None:
    outcomes = tuple(Outcome(f"S{number}", Failure("interrupted", "not finished")) for number in range(500))

    (failure,) = run_record("ingest", [], IngestionReport(outcomes), began=BEGAN).failures

    assert (failure.symbols, failure.named) == (500, tuple(f"S{number}" for number in range(20)))


def test_with_many_reasons_the_line_stays_short_and_counts_all() -> None:
    outcomes = tuple(Outcome(f"S{number}", Failure("refused", f"{number} " + "x" * 5000)) for number in range(500))

    run = run_record("ingest", [], IngestionReport(outcomes), began=BEGAN)

    assert run.failed == 500
    assert run.failures[-1] == FailureGroup("other", "481 more reasons", 481, tuple(f"S{number}" for number in range(19, 39)))
    assert len(dump(run)) < 12_000


words = st.text(max_size=30)
instants = st.datetimes(datetime(2016, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))
datasets = st.builds(
    RequestedDataset, words, st.integers(0, 9), st.tuples(words), instants, instants, st.integers(0, 9), st.integers(0, 9)
)
failures = st.builds(FailureGroup, words, words, st.integers(0, 9), st.tuples(words, words))
records = st.builds(
    RunRecord,
    instants,
    st.floats(0, 1e6),
    words,
    st.none() | words,
    words,
    st.lists(datasets, max_size=2).map(tuple),
    failures=st.lists(failures, max_size=2).map(tuple),
    notes=st.lists(words, max_size=2).map(tuple),
    error=st.none() | st.tuples(words, words),
)


@given(records)
def test_a_line_is_read_as_it_was_written(run: RunRecord) -> None:
    line = dump(run)

    assert load(line) == run
    assert line.count(b"\n") == 1
    assert json.loads(line)["state"] == run.state


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"7", b'{"format":2}', b'{"format":1}', b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_damaged_line_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        load(line)


def test_damaged_lines_are_skipped_and_kept() -> None:
    content = append_record(b'{"format":99,"from":"the future"}\nhalf a li', small())

    assert content.splitlines()[:2] == [b'{"format":99,"from":"the future"}', b"half a li"]
    assert parse_records(content) == [small()]


def test_the_latest_come_first_and_the_oldest_go() -> None:
    content: bytes | None = None
    for number in range(KEPT_RUNS + 7):
        content = append_record(content, small(number))

    runs = parse_records(content)
    assert [runs[0], runs[-1], len(runs)] == [small(KEPT_RUNS + 6), small(7), KEPT_RUNS]
    assert parse_records(None) == []


def test_a_run_log_of_long_lines_stays_small() -> None:
    long = small(notes=tuple("n" * 400 for _ in range(20)))
    content = b"".join(dump(long) for _ in range(400))

    content = append_record(content, small(1))

    assert KEPT_BYTES - 10_000 < len(content) <= KEPT_BYTES
    assert parse_records(content)[0] == small(1)
