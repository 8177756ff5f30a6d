"""Seeded corruptions of a healthy store: each is found, named, and repaired or explained.

A healthy store is made once from the sandbox, copied, and damaged in one way. `verify` must name the file and what is wrong with
it; `verify --repair` must lead to a store without inconsistencies, or print what to do by hand; and `update` must restore what
the healthy store had.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_engine.sandbox import Replay, Sandbox
from real_data import real
from running import content, coverage, here, pipeline_of, rows, write_minutes

SYMBOLS = ("AAPL", "BRK.B", "MSFT")
_FIRST = date(2024, 5, 13)
SESSIONS = [
    day
    for day in (_FIRST + timedelta(days=number) for number in range(39))
    if day.weekday() < 5 and day not in (date(2024, 5, 27), date(2024, 6, 19))
]
MAY, JUNE = "equities_1min/symbol=AAPL/year=2024/month=05", "equities_1min/symbol=AAPL/year=2024/month=06"
MSFT_JUNE = JUNE.replace("AAPL", "MSFT")
YEAR = "equities_1day/symbol=AAPL/year=2024"
COVERAGE = "metadata/coverage/equities_1min/symbol=AAPL.json"
BOTH = ("equities_1min", "equities_1day")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    path = write_minutes(tmp_path_factory.mktemp("bars") / "bars.parquet", SYMBOLS, SESSIONS, per_day=30)
    with Sandbox(Replay(path)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def healthy(server: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minutes and days of three symbols over two months, and a list of them."""
    base = tmp_path_factory.mktemp("healthy") / "store"
    for timeframe in ("1Min", "1Day"):
        pipeline_of(server, base).ingest_symbols(list(SYMBOLS), "2024-05-13", "2024-06-20", timeframe, "three")
    return base


@pytest.fixture
def base(healthy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(healthy, tmp_path / "store"))


# ----------------------------------------------------------------------------------------------------------------- damages

Damage = Callable[[Path], object]


def bars(change: Callable[[pa.Table], pa.Table], folder: str = JUNE, **options: Any) -> Damage:
    """Return a damage: one file's table after *change*."""

    def damage(base: Path) -> None:
        path = base / folder / "data.parquet"
        pq.write_table(change(pq.ParquetFile(path).read()), path, **options)

    return damage


def raw(change: Callable[[bytes], bytes], name: str = f"{JUNE}/data.parquet") -> Damage:
    """Return a damage: one file's bytes after *change*."""

    def damage(base: Path) -> None:
        path = base / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def coverage_with(change: Callable[[dict[str, Any]], object], name: str = COVERAGE) -> Damage:
    """Return a damage: one coverage after *change*."""

    def damage(base: Path) -> None:
        fields = json.loads((base / name).read_text())
        change(fields)
        (base / name).write_text(json.dumps(fields))

    return damage


def moved(source: str, target: str) -> Damage:
    def damage(base: Path) -> None:
        (base / target).parent.mkdir(parents=True, exist_ok=True)
        (base / source).rename(base / target)

    return damage


def copied(source: str, target: str) -> Damage:
    def damage(base: Path) -> None:
        (base / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / source, base / target)

    return damage


def swapped(base: Path) -> None:
    one, other = (base / folder / "data.parquet" for folder in (JUNE, MSFT_JUNE))
    one.rename(base / "third")
    other.rename(one)
    (base / "third").rename(other)


def written(name: str, data: bytes) -> Damage:
    def damage(base: Path) -> None:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(data)

    return damage


def directory_in_place_of(name: str) -> Damage:
    def damage(base: Path) -> None:
        (base / name).unlink()
        (base / name).mkdir()

    return damage


def with_column(name: str, change: Callable[[pa.ChunkedArray], Any], **field: Any) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        made = change(table.column(name))
        return table.set_column(at, pa.field(name, made.type, **{"nullable": False, **field}), made)

    return changed


def shifted(**by: int) -> Callable[[pa.Table], pa.Table]:
    return with_column("timestamp", lambda column: pc.add(column, pa.scalar(timedelta(**by), pa.duration("us"))))


def one_value(value: float, row: int = 3) -> Callable[[pa.ChunkedArray], pa.Array]:
    def changed(column: pa.ChunkedArray) -> pa.Array:
        values = column.to_pylist()
        values[row] = value
        return pa.array(values, column.type)

    return changed


def in_2099(base: Path) -> None:
    table = pq.ParquetFile(base / MAY / "data.parquet").read()
    (base / MAY.replace("2024", "2099")).mkdir(parents=True)
    pq.write_table(shifted(days=75 * 365 + 18)(table), base / MAY.replace("2024", "2099") / "data.parquet")


def middle_of_a_page(data: bytes) -> bytes:
    at = len(data) // 2
    return data[: at - 40] + bytes(80) + data[at + 40 :]


REPAIRED, MANUAL, NOTHING = "repaired", "by hand", "nothing"


@dataclass(frozen=True)
class Corruption:
    """One damage, and what must be found.

    Attributes:
        damage: The function that damages a store.
        codes: The codes that `verify` finds.
        quick: The codes that `verify --quick` finds.
        named: Texts in the messages.
        after: What `--repair` does; `NOTHING` is a warning that stays.
    """

    damage: Damage
    codes: set[str]
    quick: set[str]
    named: tuple[str, ...]
    after: str = REPAIRED


def both(damage: Damage, code: str, *named: str, after: str = REPAIRED, codes: str = "") -> Corruption:
    """Return a corruption that a full and a quick check find alike."""
    found = {code, *codes.split()}
    return Corruption(damage, found, found, named, after)


def full(damage: Damage, code: str, *named: str, quick: str = "") -> Corruption:
    """Return a corruption that a quick check finds as another, or not at all."""
    return Corruption(damage, {code}, {quick} if quick else set(), named)


FILE = f"{JUNE}/data.parquet"
CORRUPTIONS = {
    # A file of bars that is none
    "file-empty": both(raw(lambda _: b""), "file_damaged", FILE, "empty"),
    "file-cut-short": both(raw(lambda data: data[:-9]), "file_damaged", FILE, "not readable as Parquet"),
    "file-cut-in-half": both(raw(lambda data: data[: len(data) // 2]), "file_damaged", FILE, "not readable as Parquet"),
    "file-of-text": both(raw(lambda _: b"timestamp,open\n" * 9), "file_damaged", FILE, "not readable as Parquet"),
    "footer-is-garbage": both(
        raw(lambda data: data[:-90] + b"\xff" * 82 + data[-8:]), "file_damaged", FILE, "not readable as Parquet"
    ),
    "page-is-garbage": Corruption(raw(middle_of_a_page), {"file_changed"}, set(), (FILE,)),
    # Columns
    "column-lost": both(bars(lambda table: table.drop_columns(["vwap"])), "file_damaged", FILE, "missing columns: vwap"),
    "column-too-many": both(
        bars(lambda table: table.append_column("symbol", pa.array(["AAPL"] * len(table)))),
        "file_damaged", FILE, "unexpected columns: symbol",
    ),
    "columns-in-another-order": both(
        bars(lambda table: table.select(table.column_names[::-1])), "file_damaged", FILE, "order of columns: vwap",
    ),
    "volumes-as-whole-numbers": both(
        bars(with_column("volume", lambda column: column.cast(pa.int64()))), "file_damaged", FILE, "volume is int64, not double",
    ),
    "timestamps-without-a-zone": both(
        bars(with_column("timestamp", lambda column: column.cast(pa.timestamp("us")))),
        "file_damaged", FILE, "timestamp is timestamp[us], not timestamp[us, tz=UTC]",
    ),
    "timestamps-in-nanoseconds": both(
        bars(with_column("timestamp", lambda column: column.cast(pa.timestamp("ns", "UTC")))),
        "file_damaged", FILE, "timestamp is timestamp[ns, tz=UTC]",
    ),
    "a-null": both(
        bars(with_column("close", lambda column: pa.array([None, *column.to_pylist()[1:]]), nullable=True)),
        "file_damaged", FILE, "close is nullable",
    ),
    # Rows
    "row-dropped": both(bars(lambda table: table.slice(1)), "rows_differ", FILE, "holds 389 bars; the coverage counts 390"),
    "half-the-rows-dropped": both(bars(lambda table: table.slice(0, 100)), "rows_differ", FILE, "holds 100 bars"),
    "all-rows-dropped": both(bars(lambda table: table.slice(0, 0)), "bars_damaged", FILE, "no bars"),
    "row-twice": full(
        bars(lambda table: pa.concat_tables([table.slice(0, 1), table])),
        "bars_damaged", FILE, "a second bar of 2024-06-03", quick="file_changed",
    ),
    "rows-out-of-order": full(
        bars(lambda table: table[::-1]), "bars_damaged", FILE, "row 1 is not after 2024-06-20", quick="file_changed",
    ),
    "a-nan": full(
        bars(with_column("close", one_value(float("nan")))), "bars_damaged", FILE, "close at 2024-06-03", quick="file_changed",
    ),
    "an-infinity": full(
        bars(with_column("volume", one_value(float("inf")))), "bars_damaged", FILE, "volume at", quick="file_changed",
    ),
    "month-shifted": both(bars(shifted(days=-31)), "bars_damaged", FILE, "bars of another period"),
    "timestamps-off-by-30-seconds": full(
        bars(shifted(seconds=30)), "bars_off_grid", FILE, "is not the start of a 1Min bar", quick="file_changed",
    ),
    "bars-of-2099": both(in_2099, "bars_in_future", "year=2099/month=05/data.parquet"),
    "price-changed": full(
        bars(with_column("close", one_value(999.0))),
        "file_changed", FILE, "is not the file that was counted", quick="file_changed",
    ),
    "prices-ten-times-as-high": full(
        bars(with_column("high", lambda column: pc.multiply(column, 10.0))), "file_changed", FILE, quick="file_changed",
    ),
    "row-added": both(
        bars(lambda table: pa.concat_tables([table, shifted(hours=1)(table.slice(len(table) - 1))])),
        "file_changed", FILE, "is not the file that was counted",
    ),
    "rewritten-by-another-program": both(
        bars(lambda table: table, compression="snappy"), "file_changed", FILE, "is not the file that was counted",
    ),
    "daily-timestamps-at-utc-midnight": full(
        bars(shifted(hours=-4), YEAR), "bars_off_grid", f"{YEAR}/data.parquet", "is not the start of a 1Day bar",
        quick="file_changed",
    ),
    # Files in the wrong place
    "file-deleted": both(lambda base: (base / FILE).unlink(), "file_missing", FILE, "does not exist; the coverage counts 390"),
    "symbol-deleted": both(
        lambda base: shutil.rmtree(base / "equities_1min/symbol=AAPL"), "file_missing", FILE,
        f"{MAY}/data.parquet does not exist",
    ),
    "files-swapped": Corruption(
        swapped, {"file_swapped"}, {"file_changed"}, (FILE, f"{MSFT_JUNE}/data.parquet", "bars of MSFT", "bars of AAPL"),
    ),
    "file-of-another-symbol": Corruption(
        copied(f"{MSFT_JUNE}/data.parquet", FILE), {"file_swapped"}, {"file_changed"}, (FILE, "bars of MSFT"),
    ),
    "file-in-the-wrong-month": both(
        moved(FILE, f"{JUNE[:-2]}07/data.parquet"), "file_missing", FILE, "month=07/data.parquet", codes="bars_damaged",
    ),
    "symbol-folder-renamed": Corruption(
        moved("equities_1min/symbol=AAPL", "equities_1min/symbol=FAKE"),
        {"file_missing", "file_swapped", "not_in_coverage"} - {"not_in_coverage"}, {"file_missing", "not_in_coverage"},
        (FILE, "symbol=FAKE/year=2024/month=06/data.parquet", "bars of AAPL"),
    ),
    "file-named-as-duckdb-does": both(
        copied(FILE, f"{JUNE}/data_0.parquet"), "unrecognized_bars", f"{JUNE}/data_0.parquet", "whole dataset",
    ),
    "month-without-its-nought": both(
        copied(FILE, f"{JUNE[:-2]}6/data.parquet"), "unrecognized_bars", "month=6/data.parquet",
    ),
    "symbol-encoded-otherwise": both(
        copied(FILE, f"{JUNE.replace('AAPL', '%41APL')}/data.parquet"),
        "unrecognized_bars", "symbol=%41APL", "symbol=AAPL",
    ),
    # Coverage
    "coverage-cut-short": both(raw(lambda data: data[:99], COVERAGE), "coverage_damaged", COVERAGE),
    "coverage-is-garbage": both(raw(lambda _: bytes(range(256)), COVERAGE), "coverage_damaged", COVERAGE),
    "coverage-of-a-newer-program": both(
        coverage_with(lambda fields: fields.update(format=99)), "coverage_damaged", COVERAGE, "its format is 99",
    ),
    "coverage-under-another-name": both(
        copied(COVERAGE.replace("AAPL", "MSFT"), COVERAGE), "coverage_damaged", COVERAGE, "it is the coverage of MSFT",
    ),
    "coverage-ranges-overlap": both(
        coverage_with(lambda fields: fields["covered"].append(fields["covered"][0])), "coverage_damaged", COVERAGE, "overlap",
    ),
    "coverage-without-a-zone": both(
        coverage_with(lambda fields: fields.update(covered=[["2024-05-13T04:00:00", "2024-06-21T04:00:00"]])),
        "coverage_damaged", COVERAGE, "not an instant in UTC",
    ),
    "coverage-says-final-and-provisional": both(
        coverage_with(lambda fields: fields.update(provisional=fields["covered"])), "coverage_damaged", "AAPL", "provisional",
    ),
    "coverage-of-the-future": both(
        coverage_with(lambda fields: fields["covered"][0].__setitem__(1, "2099-01-01T00:00:00Z")),
        "coverage_not_final", "AAPL", "2099-01-01T00:00:00Z",
    ),
    "coverage-counts-a-file-that-never-was": both(
        coverage_with(lambda fields: fields["rows"].update({"2024-04": 7})), "file_missing", "month=04/data.parquet",
        "counts 7 bars",
    ),
    "coverage-counts-too-many": both(
        coverage_with(lambda fields: (fields["rows"].update({"2024-06": 391}), fields["files"].clear())),
        "rows_differ", FILE, "the coverage counts 391",
    ),
    "coverage-says-an-earlier-first-bar": both(
        coverage_with(lambda fields: fields.update(first_bar="2024-05-13T08:00:00Z")), "bar_range_differs", "AAPL",
        "2024-05-13T08:00:00Z",
    ),
    "coverage-says-a-later-last-bar": both(
        coverage_with(lambda fields: fields.update(last_bar="2024-06-20T23:00:00Z")), "bar_range_differs", "AAPL",
        "2024-06-20T23:00:00Z",
    ),
    "coverage-of-a-symbol-without-files": both(
        lambda base: (base / COVERAGE.replace("AAPL", "FAKE")).write_text((base / COVERAGE).read_text().replace("AAPL", "FAKE")),
        "file_missing", FILE.replace("AAPL", "FAKE"),
    ),
    "coverage-lost": both(lambda base: (base / COVERAGE).unlink(), "not_in_coverage", f"{MAY}/data.parquet", "coverage was lost"),
    # Requested ranges
    "requested-ranges-are-garbage": both(
        written("metadata/wanted/0123.json", b'{"format": 1'), "requested_damaged", "metadata/wanted/0123.json",
    ),
    "requested-ranges-of-a-newer-program": both(
        written("metadata/wanted/0123.json", b'{"format": 99, "requested": []}'), "requested_damaged", "its format is 99",
    ),
    "notes-among-the-requested-ranges": both(
        written("metadata/wanted/notes.txt", b"mine"), "unrecognized_file", "metadata/wanted/notes.txt", after=NOTHING
    ),
    # To be repaired by hand
    "directory-in-place-of-a-file": both(directory_in_place_of(FILE), "file_unreadable", FILE, after=MANUAL),
    "directory-in-place-of-a-coverage": both(directory_in_place_of(COVERAGE), "file_unreadable", COVERAGE, after=MANUAL),
    "list-damaged": both(
        written("metadata/indices/three.csv", b"symbol,added_date\nAAPL\n"), "index_damaged", "three.csv", after=MANUAL
    ),
    "actions-damaged": both(
        written("metadata/actions/symbol=AAPL.json", b"[]"), "actions_damaged", "actions/symbol=AAPL.json", after=MANUAL
    ),
    "history-of-a-list-damaged": both(
        raw(lambda data: data + b"x,y\n", "metadata/indices/history/three.csv"), "index_damaged", "three.csv", after=MANUAL
    ),
    # Harmless leftovers
    "temporary-file-of-a-killed-writer": both(
        written(f"metadata/drafts/00-{uuid4().hex}.tmp", b"half a fi"), "temporary_files_left", "metadata/drafts/00-",
    ),
    "text-among-the-bars": both(
        written(f"{JUNE}/notes.txt", b"mine"), "unrecognized_file", f"{JUNE}/notes.txt", after=NOTHING
    ),
    "backup-among-the-coverage": both(copied(COVERAGE, f"{COVERAGE}.bak"), "unrecognized_file", f"{COVERAGE}.bak", after=NOTHING),
    "directory-of-no-dataset": both(
        copied(FILE, "equities_nonsense/data.parquet"), "unrecognized_file", "equities_nonsense", after=NOTHING
    ),
}  # fmt: skip
WARNINGS = {"temporary_files_left", "unrecognized_file", "not_in_coverage"}
SIDE_EFFECTS = {"history_ends", "price_jump", "price_order", "price_spike", "minutes_differ_from_days", "range_missing"}
"""What may be found beside the corruption itself: changed prices may be improbable, too."""


def check(base: Path, *more: str) -> dict[str, Any]:
    """Return the object of `verify --json`, with the exit code."""
    ran = here("verify", "--json", "--base-path", base, *more)
    return {**ran.json, "code": ran.code}


def codes(checked: dict[str, Any]) -> set[str]:
    """Return the codes of all findings, but that of quarantined files."""
    return {one["code"] for one in (*checked["inconsistencies"], *checked["warnings"])} - {"quarantined"}


def stored(base: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {dataset: rows(base, dataset) for dataset in BOTH}


# --------------------------------------------------------------------------------------------------------------- the tests


def test_there_are_enough_of_them():
    assert len(CORRUPTIONS) >= 50


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_is_found_and_named(base, name):
    corruption = CORRUPTIONS[name]
    corruption.damage(base)
    checked = check(base)

    found = codes(checked)
    if name == "page-is-garbage":  # a decoder may fail on garbage, or decode other numbers
        found = corruption.codes if found & {"file_damaged", "bars_damaged", "file_changed"} else found
    assert found - (SIDE_EFFECTS - corruption.codes) == corruption.codes
    assert checked["code"] == (0 if corruption.codes <= WARNINGS else 5)
    messages = "\n".join(one["message"] for one in (*checked["inconsistencies"], *checked["warnings"]))
    for words in corruption.named:
        assert words in messages
    assert all(one["remedy"] for one in checked["inconsistencies"])


@pytest.mark.one_of(2)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_quick_check_finds_what_metadata_can_tell(base, name):
    corruption = CORRUPTIONS[name]
    corruption.damage(base)
    checked = check(base, "--quick")

    assert codes(checked) == corruption.quick
    assert checked["code"] == (0 if corruption.quick <= WARNINGS else 5)


@pytest.mark.one_of(2)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_repair_and_an_update_restore_it(base, healthy, server, name):
    corruption = CORRUPTIONS[name]
    corruption.damage(base)
    ran = here("verify", "--repair", "--base-path", base)

    if corruption.after == MANUAL:
        assert ran.code == 5
        assert "by hand: " in ran.out
        assert check(base)["code"] == 5
        return
    assert ran.code == 0, ran.text
    assert check(base)["inconsistencies"] == []
    if corruption.after == REPAIRED:
        assert codes(check(base)) & corruption.codes == set()
    updated = here("update", "--base-path", base, url=server.url)
    assert (updated.code, check(base)["inconsistencies"]) == (1 if "without-files" in name else 0, []), updated.text
    assert stored(base) == stored(healthy)
    if "in-the-wrong" not in name:
        ours = {key: data for key, data in content(base).items() if "nonsense" not in key}
        assert ours == content(healthy), "not only the same rows: the same bytes"
    for dataset in BOTH:
        after, before = coverage(base, "AAPL", dataset), coverage(healthy, "AAPL", dataset)
        assert (after["rows"], after["files"], after["bars"]) == (before["rows"], before["files"], before["bars"])
        assert (after["first_bar"], after["last_bar"]) == (before["first_bar"], before["last_bar"])
        start, end = before["covered"][0]
        assert [piece for piece in after["covered"] if piece[0] <= start and end <= piece[1]]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(base):
    (base / FILE).chmod(0)
    checked = check(base)

    assert (checked["code"], codes(checked)) == (5, {"file_unreadable"})
    assert FILE in checked["inconsistencies"][0]["message"]


def test_a_quarantined_file_is_kept_and_no_reader_sees_it(base, healthy):
    """It may be needed as evidence."""
    before = (base / FILE).read_bytes()
    changed = bars(with_column("close", one_value(999.0)))
    changed(base)
    damaged = (base / FILE).read_bytes()
    here("verify", "--repair", "--base-path", base)

    assert before != damaged
    assert (base / "metadata/set_aside" / f"{FILE}.1").read_bytes() == damaged
    assert not (base / FILE).exists()
    assert not list((base / "metadata").rglob("*.parquet"))
    (left,) = [one for one in check(base)["warnings"] if one["code"] == "quarantined"]
    assert "metadata/set_aside" in left["message"]


def test_several_at_once_are_repaired_together(base, healthy, server):
    for name in (
        "file-cut-short",
        "daily-timestamps-at-utc-midnight",
        "file-named-as-duckdb-does",
        "coverage-of-a-symbol-without-files",
    ):
        CORRUPTIONS[name].damage(base)
    raw(lambda data: data[:50], COVERAGE.replace("AAPL", "MSFT"))(base)
    ran = here("verify", "--repair", "--base-path", base)
    here("update", "--base-path", base, url=server.url)

    assert ran.code == 0
    assert check(base)["inconsistencies"] == []
    assert stored(base) == stored(healthy)


def test_a_dry_run_of_a_repair_changes_nothing(base):
    for name in ("file-cut-short", "coverage-of-the-future", "temporary-file-of-a-killed-writer", "month-without-its-nought"):
        CORRUPTIONS[name].damage(base)
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    ran = here("verify", "--repair", "--dry-run", "--base-path", base)

    assert ran.code == 5
    assert ran.out.count("  repair: ") == 4
    assert {path: path.read_bytes() for path in base.rglob("*") if path.is_file()} == before


def test_an_undamaged_store_is_consistent(base):
    for more in ((), ("--quick",)):
        checked = check(base, *more)
        assert (checked["code"], codes(checked), checked["series"]) == (0, set(), 6)


def test_a_store_of_eight_real_symbols_is_consistent(tmp_path):
    """258,824 bars of the consolidated tape: no inconsistency and no warning; two prices really fell by a quarter overnight."""
    names = ["AAPL", "NVDA", "SPY", "ACHR", "MSTR", "ARM", "SPCX", "INTC"]
    with Sandbox(Replay(real("minute/polygon_sip_ext_8sym_20240603_20240816.parquet")), gzip_level=0) as sandbox:
        pipeline_of(sandbox, tmp_path / "eight").ingest_symbols(names, "2024-06-03", "2024-08-16")
    checked = check(tmp_path / "eight")

    assert (checked["code"], checked["inconsistencies"], checked["series"]) == (0, [], 8)
    assert checked["warnings"] == []
    assert {kind: count for kind, count in checked["gaps"].items() if count} == {"quiet": 21_642}
    assert check(tmp_path / "eight", "--quick")["code"] == 0


def test_a_swap_of_two_real_files_is_named(tmp_path):
    names = ["AAPL", "INTC"]
    with Sandbox(Replay(real("minute/polygon_sip_ext_8sym_20240603_20240816.parquet")), gzip_level=0) as sandbox:
        pipeline_of(sandbox, tmp_path / "two").ingest_symbols(names, "2024-06-03", "2024-08-16")
    one, other = (tmp_path / "two" / f"equities_1min/symbol={name}/year=2024/month=07/data.parquet" for name in names)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    checked = check(tmp_path / "two")

    assert [(found["symbol"], found["code"]) for found in checked["inconsistencies"]] == [
        (name, "file_swapped") for name in names
    ]
    assert np.all(
        [f"bars of {name}" in found["message"] for name, found in zip(names[::-1], checked["inconsistencies"], strict=True)]
    )
