"""Every inconsistency between files and coverage is found, and a repair and an update restore the same bytes.

More damages, with the command: `safety/test_corruptions.py`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_engine import ParquetStorage
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.ingest import series_files
from data_engine.ingest.page_writer import PageWriter
from data_engine.ingest.plan import FetchTask
from data_engine.market.bar_frame import to_frame
from data_engine.market.bars import BAR_SCHEMA, EMPTY, VALUES
from data_engine.market.bars_page import BarsPage
from data_engine.market.corporate_action import decode
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_days
from data_engine.sandbox import Replay, Sandbox
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.dated_ranges import Tentative
from data_engine.store.file_count import Fingerprint
from data_engine.store.file_store import Change
from data_engine.store.local_files import LocalFiles
from data_engine.store.partitions import Partition, Period
from data_engine.store.selection import DatasetFilter
from data_engine.verify import repair as repair_module
from data_engine.verify.file_check import check_footer
from data_engine.verify.findings import Finding
from data_engine.verify.repair import repair_series
from data_engine.verify.series_check import CheckedSeries, StoredBars, check_series, remaining
from data_engine.verify.status import series_status
from data_engine.verify.verify import verify
from real_data import real
from running import Clock, content, here, pipeline_of, write_minutes

MINUTES = Dataset(Timeframe.parse("1Min"))
A, B = Series("AAPL", MINUTES), Series("MSFT", MINUTES)
MAY, JUNE, JULY = FILES = tuple(Period(2024, month) for month in (5, 6, 7))
DAYS = [date(2024, 5, 30), date(2024, 5, 31), date(2024, 6, 3), date(2024, 6, 28), date(2024, 7, 1)]
WEDNESDAY = datetime(2024, 7, 3, 15, tzinfo=UTC)
EVERYTHING = DatasetFilter()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    return Clock(WEDNESDAY)


@pytest.fixture
def server(clock: Clock, tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(Replay(write_minutes(tmp_path / "bars.parquet", ["AAPL", "MSFT"], DAYS)), clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def base(server: Sandbox, clock: Clock, tmp_path: Path) -> Path:
    """A store of two symbols with three files each, covered completely."""
    pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-30", "2024-07-01")
    return tmp_path / "store"


# ------------------------------------------------------------------------------------------------------- ways to be damaged


def bars_of(base: Path, period: Period) -> Path:
    return base / f"equities_1min/symbol=AAPL/year={period.year}/month={period.month:02d}/data.parquet"


def coverage_of(base: Path) -> Path:
    return base / "metadata/coverage/equities_1min/symbol=AAPL.json"


def rewritten(change: Callable[[pa.Table], pa.Table], period: Period = JUNE) -> Callable[[Path], None]:
    """Return a damage: the bars of June, or another month, after *change*."""

    def damage(base: Path) -> None:
        path = bars_of(base, period)
        pq.write_table(change(pq.ParquetFile(path).read()).cast(BAR_SCHEMA), path)

    return damage


def with_nan(table: pa.Table) -> pa.Table:
    close = pa.array([float("nan"), *table.column("close").to_pylist()[1:]])
    return table.set_column(table.column_names.index("close"), "close", close)


def of_february(table: pa.Table) -> pa.Table:
    earlier = pc.subtract(table.column("timestamp"), pa.scalar(120 * 86_400_000_000, pa.duration("us")))
    return table.set_column(0, "timestamp", earlier)


DAMAGES: dict[str, tuple[Callable[[Path], object], str, Period | None, str]] = {
    "coverage-cut-short": (
        lambda base: coverage_of(base).write_text(coverage_of(base).read_text()[:99]), "coverage_damaged", None, "AAPL.json",
    ),
    "coverage-of-a-newer-program": (
        lambda base: coverage_of(base).write_text('{"format": 99}'), "coverage_damaged", None, "its format is 99",
    ),
    "no-parquet": (lambda base: bars_of(base, JUNE).write_bytes(b"PAR1 no"), "file_damaged", JUNE, "is not a bar file"),
    "cut-short": (
        lambda base: bars_of(base, MAY).write_bytes(bars_of(base, MAY).read_bytes()[:-9]), "file_damaged", MAY, "not a bar file",
    ),
    "other-columns": (
        lambda base: pq.write_table(pa.table({"a": [1]}), bars_of(base, JULY)), "file_damaged", JULY, "is not a bar file",
    ),
    "first-file-gone": (lambda base: bars_of(base, MAY).unlink(), "file_missing", MAY, "does not exist; the coverage counts 40"),
    "file-gone": (lambda base: bars_of(base, JUNE).unlink(), "file_missing", JUNE, "does not exist; the coverage counts 40"),
    "last-file-gone": (lambda base: bars_of(base, JULY).unlink(), "file_missing", JULY, "does not exist; the coverage counts 20"),
    "bars-gone": (
        rewritten(lambda table: table.slice(0, 33)), "rows_differ", JUNE, "holds 33 bars; the coverage counts 40",
    ),
    "bars-out-of-order": (rewritten(lambda table: table[::-1]), "bars_damaged", JUNE, "row 1 is not after 2024-06-28"),
    "a-bar-twice": (
        rewritten(lambda table: pa.concat_tables([table.slice(0, 1), table])), "bars_damaged", JUNE, "a second bar of 2024-06-03",
    ),
    "not-a-number": (rewritten(with_nan), "bars_damaged", JUNE, "close at 2024-06-03T14:00:00.000000Z is not a number"),
    "bars-of-another-month": (rewritten(of_february), "bars_damaged", JUNE, "bars of another period"),
    "no-bar-at-all": (rewritten(lambda table: EMPTY), "bars_damaged", JUNE, "no bars"),
}  # fmt: skip


def findings(base: Path, choice: DatasetFilter = EVERYTHING, *, quick: bool = False) -> dict[Series, list[Finding]]:
    """Return the inconsistencies of each series in the store."""
    report = verify(ParquetStorage(base).bars, choice, now=WEDNESDAY, quick=quick)
    found: dict[Series, list[Finding]] = {one: [] for one in (A, B) if one.dataset in choice}
    for finding in report.inconsistencies:
        assert finding.series is not None
        found[finding.series].append(finding)
    assert report.series == len(found)
    return found


def repaired(base: Path, series: Series = A) -> ParquetStorage:
    """Repair one series, and return the store."""
    storage = ParquetStorage(base)
    repair_series(storage.bars, series, check_series(storage.bars, series, now=WEDNESDAY).findings, now=WEDNESDAY)
    return storage


# -------------------------------------------------------------------------------------------------------------- checking


def test_an_undamaged_store_has_no_inconsistency(base):
    assert findings(base) == {A: [], B: []}


def test_stored_bars_are_counted_from_the_files(base):
    checked = check_series(ParquetStorage(base).bars, A, now=WEDNESDAY)

    assert checked.stored == StoredBars({MAY: 40, JUNE: 40, JULY: 20}, at("2024-05-30T14:00"), at("2024-07-01T14:19"))
    assert checked.findings == []
    assert (
        checked.stored.files
        == checked.coverage.files
        == {period: Fingerprint.of(bars_of(base, period).read_bytes()) for period in FILES}
    )


@pytest.mark.parametrize(("damage", "code", "period", "why"), DAMAGES.values(), ids=DAMAGES)
def test_every_inconsistency_has_its_code_its_file_and_its_series(base, damage, code, period, why):
    damage(base)
    found = findings(base)

    assert [(one.series, one.code, one.period) for one in found[A]] == [(A, code, period)]
    assert found[B] == []
    assert str(base) in found[A][0].message
    assert why in found[A][0].message
    assert found[A][0].remedy


def test_a_check_changes_nothing(base):
    for damage, *_ in DAMAGES.values():
        if bars_of(base, JUNE).exists() and bars_of(base, MAY).exists():
            damage(base)
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    findings(base)

    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before


def test_all_inconsistencies_of_a_series_are_found_at_once(base):
    bars_of(base, MAY).unlink()
    bars_of(base, JUNE).write_bytes(b"")
    rewritten(lambda table: table.slice(3), JULY)(base)

    assert {(one.code, one.period) for one in findings(base)[A]} == {
        ("file_missing", MAY),
        ("file_damaged", JUNE),
        ("rows_differ", JULY),
    }


def test_only_the_selected_series_are_checked(base):
    days = Dataset(Timeframe.parse("1Day"))
    storage = ParquetStorage(base)
    bars_of(base, JUNE).unlink()

    assert findings(base, DatasetFilter.parse("1Day")) == {}
    assert verify(storage.bars, EVERYTHING, ["MSFT"], now=WEDNESDAY).findings == []
    assert [one.series for one in verify(storage.bars, EVERYTHING, ["AAPL"], now=WEDNESDAY).inconsistencies] == [A]
    assert list(findings(base, DatasetFilter(MINUTES.timeframe, MINUTES.feed))) == [A, B]
    assert days not in DatasetFilter(MINUTES.timeframe)


def test_files_without_coverage_are_checked_too(base):
    coverage_of(base).unlink()
    bars_of(base, JUNE).write_bytes(b"")

    assert [one.code for one in findings(base)[A]] == ["file_damaged"]
    report = verify(ParquetStorage(base).bars, EVERYTHING, now=WEDNESDAY)
    assert [(one.code, one.series) for one in report.warnings] == [("not_in_coverage", A), ("history_ends", None)]
    assert "month=05/data.parquet and 1 more files" in report.warnings[0].message


def test_bars_outside_every_session_are_named(tmp_path):
    timestamps = ["2024-06-18T14:00", "2024-06-19T14:00", "2024-06-22T14:00"]  # Juneteenth, and a Saturday
    index = pd.MultiIndex.from_product([["AAPL"], pd.to_datetime(timestamps, utc=True)], names=["symbol", "timestamp"])
    ParquetStorage(tmp_path).store(pd.DataFrame(1.0, index=index, columns=list(VALUES)))

    report = verify(ParquetStorage(tmp_path).bars, EVERYTHING, now=WEDNESDAY)

    assert report.inconsistencies == []
    (finding,) = report.warnings
    assert (finding.code, finding.series) == ("bars_outside_sessions", A)
    assert "2 bars" in finding.message
    assert "2024-06-19 (exchange closed), 2024-06-22 (Saturday)" in finding.message


def more_bars(base: Path) -> None:
    """Write a bar into June, and count it nowhere."""
    storage = ParquetStorage(base)
    june = storage.bars.read(A, JUNE)
    more = june.slice(0, 1).set_column(0, "timestamp", pa.array([at("2024-06-14T14:00")], pa.timestamp("us", tz="UTC")))
    storage.bars.write(A, JUNE, more.cast(BAR_SCHEMA))


def test_uncounted_bars_are_consistent_while_a_requested_range_is_missing(base):
    """A killed or active run leaves them: it writes requested ranges first, then bars, coverage last."""
    storage = ParquetStorage(base)
    june = TimeRange(at("2024-06-13T04:00"), at("2024-06-15T04:00"))
    storage.bars.coverage.update(A, lambda known: replace(known, covered=difference(known.covered, (june,))))
    more_bars(base)

    report = verify(storage.bars, EVERYTHING, now=WEDNESDAY)
    assert report.inconsistencies == []
    assert [one.code for one in report.warnings] == ["not_in_coverage", "range_missing"]
    assert june in remaining(storage.bars.coverage.read(A))


def test_uncounted_bars_in_a_complete_month_are_an_inconsistency(base):
    more_bars(base)

    assert [(one.code, one.period) for one in findings(base)[A]] == [("file_changed", JUNE)]


def test_bars_that_a_user_stores_are_counted_with_a_size_alone(base):
    """`store` drops the digest of the files that it touches, so that nothing is wrong with them."""
    frame = ParquetStorage(base).load("AAPL", "2024-06-03", "2024-06-03") + 1.0
    ParquetStorage(base).store(frame)

    assert findings(base) == {A: [], B: []}
    known = ParquetStorage(base).bars.coverage.read(A)
    assert [known.fingerprint(period) is None for period in FILES] == [False, True, False]
    assert known.files[JUNE].size == bars_of(base, JUNE).stat().st_size


def test_a_coverage_without_fingerprints_is_consistent(base):
    fields = json.loads(coverage_of(base).read_text())
    del fields["files"]
    coverage_of(base).write_text(json.dumps(fields))

    assert findings(base) == {A: [], B: []}
    repaired(base)
    assert set(ParquetStorage(base).bars.coverage.read(A).files) == set(FILES)


def test_a_killed_refetch_is_consistent(base, server, clock, monkeypatch):
    """Its first file is revised and lacks bars, and is not yet counted: what it was about to change was written down before."""
    monkeypatch.setattr(series_files, "MANY_FILES", 0)
    monkeypatch.setattr(series_files, "GROUP_BARS", 1)  # files are written as soon as they are complete
    storage = ParquetStorage(base)
    task = FetchTask(("AAPL",), TimeRange(at("2024-06-01T00:00"), at("2024-07-02T00:00")), MINUTES, 60)
    writer = PageWriter(storage.bars, task, now=WEDNESDAY, refetch=True, accept_removals=True)
    june = storage.bars.read(A, JUNE)
    revised = june.set_column(4, BAR_SCHEMA.field("close"), pc.add(june.column("close"), 0.01)).slice(20)
    bars = pa.concat_tables([revised, storage.bars.read(A, JULY)])
    next(writer.chains())
    writer.take(BarsPage(bars, (("AAPL", 0, bars.num_rows),), None, 0))  # the bars of July complete the file of June

    assert storage.bars.read(A, JUNE).equals(revised)
    assert findings(base) == {A: [], B: []}
    assert findings(base, quick=True) == {A: [], B: []}
    assert set(storage.bars.coverage.read(A).files) == {MAY}
    assert [one.code for one in verify(storage.bars, EVERYTHING, now=WEDNESDAY).warnings] == ["not_in_coverage"]


# ------------------------------------------------------------------------------------------------------- killed runs


def changing(base: Path, *periods: Period) -> BarStore:
    """Write down that a run is about to change files, as it does before it removes bars."""
    store = ParquetStorage(base).bars
    store.coverage.update(A, lambda known: known.with_changing(periods))
    return store


KILLED: dict[str, tuple[Period, Callable[[Path], object], str | None, str | None, int]] = {
    "bars-gone": (JUNE, rewritten(lambda table: table.slice(3)), None, None, 97),
    "first-bars-gone": (MAY, rewritten(lambda table: table.slice(3), MAY), "2024-05-30T14:03", None, 97),
    "last-bars-gone": (JULY, rewritten(lambda table: table.slice(0, 5), JULY), None, "2024-07-01T14:04", 85),
    "first-file-gone": (MAY, lambda base: bars_of(base, MAY).unlink(), "2024-06-03T14:00", None, 60),
    "last-file-gone": (JULY, lambda base: bars_of(base, JULY).unlink(), None, "2024-06-28T14:19", 80),
    "nothing-changed-yet": (JUNE, lambda base: None, None, None, 100),
}  # fmt: skip


@pytest.mark.parametrize(("period", "change", "first", "last", "left"), KILLED.values(), ids=KILLED)
def test_no_count_is_believed_of_a_file_that_a_killed_run_was_changing(base, period, change, first, last, left):
    """A refetch that removes bars, killed before it counted: a warning, and a repair counts."""
    store = changing(base, period)
    change(base)

    for quick in (False, True):
        report = verify(store, EVERYTHING, now=WEDNESDAY, quick=quick)
        assert [(one.code, one.key) for one in report.findings] == [("not_in_coverage", Partition(A, period).key)]
    (status, _) = series_status(store, EVERYTHING, now=WEDNESDAY)
    assert (status.coverage.bars, status.problem) == (left, None)

    covered = store.coverage.read(A).covered
    assert here("verify", "--repair", "--base-path", base).code == 0
    known = store.coverage.read(A)
    assert (known.changing, known.bars, known.covered) == (frozenset(), left, covered)
    assert known.first_bar == at(first or "2024-05-30T14:00")
    assert known.last_bar == at(last or "2024-07-01T14:19")
    assert {one.code for one in verify(store, EVERYTHING, now=WEDNESDAY).findings} <= {"history_ends"}  # a test's hand, no run's


def stored_and_killed(base: Path, actor: str) -> BarStore:
    """Store a bar of June with another number of trades, and be killed before it is counted; no announcement is left."""
    store = ParquetStorage(base).bars
    bars = store.read(A, JUNE).slice(3, 1)
    revised = bars.set_column(bars.schema.get_field_index("trade_count"), BAR_SCHEMA.field("trade_count"), pa.array([77.0]))
    store.acting(actor).write(A, JUNE, revised)
    return store


@pytest.mark.parametrize("quick", [False, True])
def test_a_file_in_which_a_killed_user_has_stored_bars_is_uncounted_and_not_changed_by_another_program(base, quick):
    store = stored_and_killed(base, "store")

    report = verify(store, EVERYTHING, now=WEDNESDAY, quick=quick)
    assert [(one.code, one.key) for one in report.findings] == [("not_in_coverage", Partition(A, JUNE).key)]
    assert here("verify", "--repair", "--base-path", base).code == 0
    assert verify(store, EVERYTHING, now=WEDNESDAY, quick=quick).findings == []


def test_a_file_that_a_run_has_changed_and_not_counted_is_not_the_counted_one(base):
    store = stored_and_killed(base, "update of 2024-06-03T00:00:00Z")

    assert [one.code for one in verify(store, EVERYTHING, now=WEDNESDAY).inconsistencies] == ["file_changed"]


def test_a_damaged_file_stays_damaged_though_a_run_was_changing_it(base):
    store = changing(base, JUNE)
    bars_of(base, JUNE).write_bytes(b"")

    assert [(one.code, one.period) for one in verify(store, EVERYTHING, now=WEDNESDAY).findings] == [("file_damaged", JUNE)]


def test_tentative_emptiness_is_consistent_and_a_repair_keeps_what_of_it_is_covered(base):
    store = ParquetStorage(base).bars
    span = TimeRange(at("2024-06-04T04:00"), at("2024-06-20T04:00"))
    july = TimeRange(at("2024-07-01T00:00"), at("2024-07-01T14:00"))
    tentative = (Tentative(span, WEDNESDAY), Tentative(july, WEDNESDAY))
    store.coverage.update(A, lambda known: replace(known, tentative=tentative))
    assert verify(store, EVERYTHING, now=WEDNESDAY).findings == []
    (status, _) = series_status(store, EVERYTHING, now=WEDNESDAY)
    assert (status.missing, status.state) == ((), "complete")

    bars_of(base, JULY).write_bytes(b"")
    repaired(base)
    assert store.coverage.read(A).tentative == tentative[:1]


def test_bars_that_a_repair_finds_make_the_emptiness_before_them_doubtful(base):
    """The series was answered without a bar; then a run stored its first one, and was killed before it counted it."""
    store = ParquetStorage(base).bars
    june, july = TimeRange(at("2024-06-04T04:00"), at("2024-06-20T04:00")), store.read(A, JULY)
    new = Series("NEW", MINUTES)
    store.coverage.update(new, lambda known: replace(known, wanted=(june,), covered=(june,), empty_since=at("2024-06-20T15:00")))
    store.write(new, JULY, july)
    assert store.coverage.read(new).trusted == (june,)

    repaired(base, new)
    made = store.coverage.read(new)
    assert (made.rows, made.first_bar, made.empty_since) == ({JULY: 20}, july.column("timestamp")[0].as_py(), None)
    assert (made.covered, made.trusted) == ((june,), ())


# ------------------------------------------------------------------------------------------------------ requested ranges


def test_a_series_that_is_only_requested_is_incomplete(base):
    """Its run was killed before the first response."""
    new, span = Series("NEW", MINUTES), TimeRange(at("2024-06-03T04:00"), at("2024-06-04T04:00"))
    ParquetStorage(base).bars.coverage.requested.add({new: (span,)})
    store = ParquetStorage(base).bars

    status = {one.series: one for one in series_status(store, EVERYTHING, now=WEDNESDAY)}[new]
    assert (status.state, status.missing, status.to_json()["requested"]) == (
        "incomplete", (span,), [["2024-06-03T04:00:00Z", "2024-06-04T04:00:00Z"]],
    )  # fmt: skip
    report = verify(store, EVERYTHING, now=WEDNESDAY)
    assert [(one.code, one.series) for one in report.findings] == [("range_missing", new)]
    assert report.series == 3
    ran = here("remove", "NEW", "--dry-run", "--base-path", base, "--json")
    assert (ran.code, ran.json["removed"]) == (0, [{"symbol": "NEW", "dataset": "equities_1min", "bars": 0}])


def test_a_range_that_has_not_begun_is_requested_and_not_missing(base):
    new, span = Series("NEW", MINUTES), TimeRange(at("2024-07-04T04:00"), at("2024-12-31T05:00"))
    store = ParquetStorage(base).bars
    store.coverage.requested.add({new: (span,)})

    (status,) = series_status(store, EVERYTHING, ["NEW"], now=WEDNESDAY)
    assert (status.state, status.missing) == ("incomplete", ())
    assert verify(store, EVERYTHING, now=WEDNESDAY).findings == []


def test_uncounted_bars_are_consistent_with_what_a_killed_run_was_asked_for(base):
    """The coverage file says nothing of it yet."""
    june = TimeRange(at("2024-06-13T04:00"), at("2024-06-15T04:00"))
    store = ParquetStorage(base).bars
    store.coverage.update(A, lambda known: replace(known, **{
        name: difference(getattr(known, name), (june,)) for name in ("wanted", "covered")
    }))  # fmt: skip
    store.coverage.requested.add({A: (june,)})
    more_bars(base)

    assert findings(base) == {A: [], B: []}


def test_a_run_that_begins_during_the_check_is_no_inconsistency(base, monkeypatch):
    """It writes down what it was asked for, then bars: after the check has read the one, before it reads the other."""
    june = TimeRange(at("2024-06-13T04:00"), at("2024-06-15T04:00"))
    store = ParquetStorage(base).bars
    store.coverage.update(A, lambda known: replace(known, **{
        name: difference(getattr(known, name), (june,)) for name in ("wanted", "covered")
    }))  # fmt: skip
    read, begun = store.coverage.read, []

    def reading(series: Series) -> Coverage:
        known = read(series)
        if not begun:
            begun.append(series)
            ParquetStorage(base).bars.coverage.requested.add({A: (june,)})
            more_bars(base)
        return known

    monkeypatch.setattr(store.coverage, "read", reading)
    assert verify(store, EVERYTHING, ["AAPL"], now=WEDNESDAY).inconsistencies == []


def test_damaged_requests_are_found_and_quarantined(base):
    wanted = base / "metadata/wanted/0123.json"
    wanted.parent.mkdir(exist_ok=True)
    wanted.write_text("{")
    (wanted.parent / "notes.txt").write_text("mine")

    report = verify(ParquetStorage(base).bars, EVERYTHING, now=WEDNESDAY)
    assert [(one.code, one.key) for one in report.findings] == [
        ("requested_damaged", "metadata/wanted/0123.json"), ("unrecognized_file", "metadata/wanted/notes.txt"),
    ]  # fmt: skip
    assert [one.code for one in verify(ParquetStorage(base).bars, EVERYTHING, ["AAPL"], now=WEDNESDAY).findings] == [
        "requested_damaged"
    ]
    assert here("status", "--base-path", base).code == 4
    assert here("verify", "--repair", "--base-path", base).code == 0
    assert here("status", "--base-path", base).code == 0
    assert [path.name for path in (base / "metadata/set_aside").rglob("*.1")] == ["0123.json.1"]


# --------------------------------------------------------------------------------------------------- bars under way


def test_a_bar_under_way_is_not_missing(tmp_path):
    """After the close, today's daily bar has not ended; from midnight in New York on it is owed."""
    days = Series("AAPL", Dataset(Timeframe.parse("1Day")))
    store = ParquetStorage(tmp_path).bars
    wanted, tail = (
        TimeRange(at("2024-06-06T04:00"), at("2024-06-08T00:45")),
        TimeRange(at("2024-06-06T04:00"), at("2024-06-07T04:00")),
    )
    store.coverage.update(days, lambda known: replace(known, wanted=(wanted,), provisional=(tail,)))

    def seen(now: str) -> tuple[str, list[str]]:
        (status,) = series_status(store, EVERYTHING, now=at(now))
        return status.state, [one.code for one in verify(store, EVERYTHING, now=at(now)).findings]

    assert seen("2024-06-08T00:45") == ("empty", [])
    assert seen("2024-06-08T04:00") == ("incomplete", ["range_missing"])


# ----------------------------------------------------------------------------------------------------------- same content


def renamed(base: Path) -> None:
    """Store what Alpaca answers after AAPL has become MSFT: the same bars under both."""
    store = ParquetStorage(base)
    for period in FILES:
        store.store(to_frame([("MSFT", store.bars.read(A, period))]))


def rename_known(base: Path) -> None:
    days = new_york_days(date(2024, 7, 1), date(2024, 7, 2))
    record = {"old_symbol": "AAPL", "new_symbol": "MSFT", "process_date": "2024-07-02"}
    change = decode("name_change", record)
    store = ActionStore(ParquetStorage(base).files)
    store.update("MSFT", lambda book: book.answered(days, book.to_fetch(days), [change], now=WEDNESDAY)[0])


def test_two_tickers_of_one_security_have_the_same_bars(base):
    """A user stored them under both: that is no swap, and a repair sets no good file aside."""
    renamed(base)

    report = verify(ParquetStorage(base).bars, EVERYTHING, now=WEDNESDAY)
    assert [(one.code, one.series, one.period) for one in report.findings] == [("same_content", B, period) for period in FILES]
    before = content(base)
    assert here("verify", "--repair", "--base-path", base).code == 0
    assert content(base) == before

    rename_known(base)
    assert verify(ParquetStorage(base).bars, EVERYTHING, now=WEDNESDAY).findings == []


def test_a_killed_run_for_the_other_ticker_is_no_swap(base):
    """It has extended the file to what the first ticker's has, and has not counted it."""
    store = ParquetStorage(base).bars
    june = TimeRange(at("2024-06-28T04:00"), at("2024-06-29T04:00"))
    store.remove(B, JUNE.span)
    store.coverage.requested.add({B: (june,)})
    path = base / Partition(B, JUNE).key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bars_of(base, JUNE).read_bytes())

    report = verify(store, EVERYTHING, now=WEDNESDAY)
    assert report.inconsistencies == []
    assert {one.code for one in report.warnings} >= {"not_in_coverage", "range_missing", "same_content"}


def test_a_file_of_another_symbol_is_a_swap_also_where_bars_are_still_to_come(base):
    """Files were exchanged: each has the content that was counted for the other."""
    store = ParquetStorage(base).bars
    gap = TimeRange(at("2024-06-04T04:00"), at("2024-06-05T04:00"))
    for series in (A, B):
        store.coverage.update(series, lambda known: replace(known, covered=difference(known.covered, (gap,))))
    one, other = bars_of(base, JUNE), base / Partition(B, JUNE).key
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(ours)

    report = verify(store, EVERYTHING, now=WEDNESDAY)
    assert ours != theirs
    assert [(one.code, one.series) for one in report.inconsistencies] == [("file_swapped", A), ("file_swapped", B)]


# ------------------------------------------------------------------------------------------------------------- repairing


@pytest.mark.parametrize(("damage", "code", "period", "why"), DAMAGES.values(), ids=DAMAGES)
def test_a_repair_covers_only_what_is_proven_and_an_update_fetches_the_rest(server, clock, base, damage, code, period, why):
    before = content(base)
    damage(base)
    storage = repaired(base)

    known = storage.bars.coverage.read(A)
    assert findings(base) == {A: [], B: []}
    if period is None:
        assert known.covered == known.provisional == ()
    else:
        assert intersection((period.span,), (*known.covered, *known.provisional)) == ()
        assert intersection((period.span,), known.wanted) != ()

    server.forget()
    report = pipeline_of(server, base, clock).update()
    assert report["failed"] == []
    assert content(base) == before
    assert findings(base) == {A: [], B: []}
    assert storage.bars.coverage.read(A).bars == 100


def test_bars_that_a_repair_leaves_are_counted_by_it(base):
    """What is no longer covered is still there: a second repair has nothing left to count."""
    rewritten(lambda table: table.slice(0, 33))(base)
    known = repaired(base).bars.coverage.read(A)

    assert (known.rows, set(known.files)) == ({MAY: 40, JUNE: 33, JULY: 20}, set(FILES))
    assert [one.code for one in check_series(ParquetStorage(base).bars, A, now=WEDNESDAY).findings] == []


def test_bars_stored_during_the_check_of_a_repair_have_no_fingerprint(base, monkeypatch):
    """`store` does not wait for a repair: its bars must not look damaged later, or the next repair quarantines them."""
    storage, writers = ParquetStorage(base), []
    june = storage.bars.read(A, JUNE)
    revised = june.set_column(4, BAR_SCHEMA.field("close"), pc.add(june.column("close"), 0.01))

    def check(*words: object, **more: object) -> CheckedSeries:
        checked = check_series(*words, **more)
        if not writers:
            writers.append(threading.Thread(target=storage.store, args=(to_frame([("AAPL", revised)]),)))
            writers[0].start()
            writers[0].join(0.5)  # it is done, or waits for the repair to end
        return checked

    bars_of(base, MAY).unlink()
    monkeypatch.setattr(repair_module, "check_series", check)
    repaired(base)
    writers[0].join()

    assert storage.bars.read(A, JUNE).equals(revised)
    assert findings(base) == {A: [], B: []}


def test_a_file_written_while_it_is_quarantined_stays(base):
    """Only what was copied is removed."""
    rewritten(lambda table: table.slice(0, 33))(base)
    key = Partition(A, JUNE).key

    class Busy(LocalFiles):
        def update(self, key_: str, change: Change) -> bool:
            done = super().update(key_, change)
            if key_.startswith("metadata/set_aside/"):
                super().update(key, lambda _: b"written meanwhile")
            return done

    found = [Finding("file_changed", "", A, JUNE, key)]
    repair_series(BarStore(Busy(base)), A, found, now=WEDNESDAY)

    assert bars_of(base, JUNE).read_bytes() == b"written meanwhile"


def test_several_damages_are_repaired_together(server, clock, base):
    before = content(base)
    coverage_of(base).write_text("{")
    bars_of(base, JUNE).write_bytes(b"")
    rewritten(lambda table: table[::-1], JULY)(base)
    repaired(base)
    pipeline_of(server, base, clock).update()

    assert content(base) == before
    assert findings(base) == {A: [], B: []}


def test_a_repair_leaves_the_neighbours_and_the_other_files_alone(base):
    before = content(base)
    bars_of(base, JUNE).write_bytes(b"")
    others = ParquetStorage(base).bars.coverage.read(B)
    storage = repaired(base)

    assert content(base) == {key: data for key, data in before.items() if "AAPL/year=2024/month=06" not in key}
    assert storage.bars.coverage.read(B) == others


def test_a_repair_of_an_undamaged_series_leaves_its_coverage(base):
    storage = ParquetStorage(base)
    before = storage.bars.coverage.read(A)
    repair_series(storage.bars, A, [], now=WEDNESDAY)
    after = storage.bars.coverage.read(A)

    assert (after.wanted, after.covered, after.provisional, after.rows) == (
        before.wanted, before.covered, before.provisional, before.rows,
    )  # fmt: skip
    assert (after.first_bar, after.last_bar) == (before.first_bar, before.last_bar)


# ------------------------------------------------------------------------------------- the calendar, the market, the days


def test_a_missing_range_is_a_warning_with_the_last_failure(base):
    storage = ParquetStorage(base)
    storage.bars.coverage.update(
        A, lambda known: known.wanting(TimeRange(at("2024-04-01T04:00"), at("2024-04-03T04:00"))).failed("gone", "503", WEDNESDAY)
    )
    report = verify(storage.bars, EVERYTHING, now=WEDNESDAY)

    assert report.inconsistencies == []
    (finding,) = report.warnings
    assert (finding.code, finding.series) == ("range_missing", A)
    assert f"{at('2024-04-01T04:00'):%FT%TZ}" in finding.message
    assert "503" in finding.message
    assert report.gaps["failed"] == 1


def test_a_shared_gap_in_real_bars_is_one_warning(tmp_path):
    """Half an hour is cut out of the responses of eight real symbols; the illiquid ones do not count."""
    table = pq.read_table(real("minute/polygon_sip_ext_8sym_20240603_20240816.parquet"))
    start, end = (pa.scalar(at(text), pa.timestamp("us", "UTC")) for text in ("2024-07-10T17:00", "2024-07-10T17:30"))
    timestamps = table.column("timestamp")
    pq.write_table(table.filter(pc.or_(pc.less(timestamps, start), pc.greater_equal(timestamps, end))), tmp_path / "cut.parquet")
    names = ["AAPL", "NVDA", "SPY", "ACHR", "MSTR", "ARM", "SPCX", "INTC"]
    with Sandbox(Replay(tmp_path / "cut.parquet"), gzip_level=0) as sandbox:
        pipeline_of(sandbox, tmp_path / "store").ingest_symbols(names, "2024-06-03", "2024-08-16")
    report = verify(ParquetStorage(tmp_path / "store").bars, EVERYTHING, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert report.inconsistencies == []
    (gap,) = [one for one in report.warnings if one.code == "gap"]
    assert "equities_1min: 2024-07-10T17:00:00Z .. 2024-07-10T17:30:00Z has no bar for 7 of the 7 symbols" in gap.message
    assert report.gaps["shared"] == 7


def test_minutes_are_compared_with_daily_bars(server, base, clock):
    pipeline_of(server, base, clock).ingest_symbols(["AAPL", "MSFT"], "2024-05-30", "2024-07-01", "1Day")
    storage = ParquetStorage(base)
    assert verify(storage.bars, EVERYTHING, now=WEDNESDAY).findings == []

    days = Series("AAPL", Dataset(Timeframe.parse("1Day")))
    table = storage.bars.read(days, Period(2024, None))
    storage.bars.write(
        days, Period(2024, None), table.set_column(1, BAR_SCHEMA.field("open"), pc.multiply(table.column("open"), 1.01))
    )
    (finding,) = [
        one for one in verify(storage.bars, EVERYTHING, now=WEDNESDAY).warnings if one.code == "minutes_differ_from_days"
    ]
    assert finding.series == A
    assert "2024-05-30 open 100 by the minutes, 101 by the daily bar" in finding.message
    assert finding.message.endswith("and 2 more")


def test_a_price_jump_is_explained_by_a_corporate_action(tmp_path):
    timestamps = pd.to_datetime(["2024-06-07T14:00", "2024-06-10T14:00"], utc=True)
    index = pd.MultiIndex.from_product([["NVDA"], timestamps], names=["symbol", "timestamp"])
    frame = pd.DataFrame([[1200.0] * 7, [120.0] * 7], index=index, columns=list(VALUES))
    storage = ParquetStorage(tmp_path)
    storage.store(frame)

    assert [one.code for one in verify(storage.bars, EVERYTHING, now=WEDNESDAY).warnings] == ["price_jump"]
    days = new_york_days(date(2024, 6, 8), date(2024, 6, 11))
    record = {"symbol": "NVDA", "ex_date": "2024-06-10", "process_date": "2024-06-10", "new_rate": 10, "old_rate": 1}
    split = decode("forward_split", record)
    ActionStore(storage.files).update("NVDA", lambda book: book.answered(days, book.to_fetch(days), [split], now=WEDNESDAY)[0])
    assert verify(storage.bars, EVERYTHING, now=WEDNESDAY).findings == []


# ------------------------------------------------------------------------------------------------------- the command line


def test_the_command_prints_inconsistencies_and_exits_with_5(base):
    bars_of(base, JUNE).unlink()
    ran = here("verify", "--base-path", base)

    assert ran.code == 5
    assert f"{bars_of(base, JUNE)} does not exist" in ran.out
    assert "2 series checked, 1 inconsistency, 0 warnings" in ran.out


def test_the_command_prints_json(base):
    bars_of(base, JUNE).unlink()
    ran = here("verify", "--base-path", base, "--json")

    (finding,) = ran.json["inconsistencies"]
    assert (ran.code, ran.json["series"], ran.json["repaired"]) == (5, 2, False)
    assert (finding["dataset"], finding["symbol"], finding["code"]) == ("equities_1min", "AAPL", "file_missing")


def test_a_dry_run_of_a_repair_changes_nothing(base):
    bars_of(base, JUNE).write_bytes(b"")
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    ran = here("verify", "--repair", "--dry-run", "--base-path", base)

    assert (ran.code, "repair: " in ran.out) == (5, True)
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before
    assert here("verify", "--dry-run", "--base-path", base).code == 2


def test_a_repair_exits_with_0_and_leaves_no_inconsistency(base):
    bars_of(base, JUNE).write_bytes(b"")
    ran = here("verify", "--repair", "--base-path", base)

    assert (ran.code, "`data-engine update AAPL`" in ran.out) == (0, True)
    assert here("verify", "--base-path", base).code == 0


@pytest.mark.parametrize("groups", [1, 40])
def test_a_quick_check_reads_a_footer_however_long_it_is(base, groups):
    """40 row groups have a footer of 20 kB: more than the end of a file that is read first."""

    def cut(path: Path) -> None:
        table = pq.ParquetFile(path).read()
        with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False) as writer:
            for number in range(groups):
                writer.write_table(table.slice(number * table.num_rows // groups, table.num_rows // groups))

    path = bars_of(base, JUNE)
    before = pq.read_metadata(path).num_rows
    cut(path)
    checked = check_footer(LocalFiles(base), Partition(A, JUNE), WEDNESDAY)

    assert checked is not None
    assert checked.finding is None
    assert (checked.rows, checked.size) == (before // groups * groups, path.stat().st_size)


def test_a_quick_check_sees_one_changed_byte_of_a_small_file(base):
    path = bars_of(base, JUNE)
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])

    assert [finding.code for finding in findings(base, quick=True)[A]] == ["file_changed"]


def test_a_quick_check_does_not_wait_for_a_pipe(base):
    path = bars_of(base, JUNE)
    path.unlink()
    os.mkfifo(path)

    assert [finding.code for finding in findings(base, quick=True)[A]] == ["file_unreadable"]
