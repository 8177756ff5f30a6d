"""A folder that the legacy pipeline wrote with alpaca-py, recognized by every command, and turned into a store in place."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from data_engine import IngestionPipeline, MetadataStore, ParquetStorage
from data_engine.errors import ForeignFiles, StoreError
from data_engine.ingest.import_in_place import find_legacy, import_in_place
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.sandbox import Replay, Sandbox
from data_engine.store.bar_store import BarStore
from data_engine.store.file_store import Change
from data_engine.store.local_files import LocalFiles
from data_engine.store.selection import DatasetFilter
from data_engine.verify.verify import verify
from legacy import LegacyPipeline, TimeFrame, TimeFrameUnit, keep, rows_of, write
from running import account, bars_in, client_of, count, differing, here, run, write_minutes

DAYS = [date(2024, 5, 30), date(2024, 5, 31), date(2024, 6, 3), date(2024, 6, 4), date(2024, 6, 5)]
SYMBOLS = ["AAPL", "BRK.B", "NA"]
MINUTES = Dataset(Timeframe(1, "Min"))
START, END = datetime(2024, 5, 30), datetime(2024, 6, 6)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    path = write_minutes(tmp_path_factory.mktemp("market") / "bars.parquet", [*SYMBOLS, "MSFT"], DAYS, per_day=60)
    with Sandbox(Replay(path)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def original(server: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("original")
    LegacyPipeline(server.url, base).ingest(SYMBOLS, START, END, index="sp500_2025")
    assert (base / "equities_1min/symbol=BRK.B/year=2024/month=6/data_0.parquet").is_file(), "as DuckDB names it"
    return base


@pytest.fixture
def base(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "store"))


@pytest.fixture
def source(original: Path, tmp_path: Path) -> str:
    return keep(rows_of(original), tmp_path / "source.parquet")


def files_of(base: Path) -> dict[str, bytes]:
    """Return every file but locks, whose content says nothing."""
    found = (path for path in base.rglob("*") if path.is_file() and path.suffix != ".lock" and "history" not in path.parts)
    return {path.relative_to(base).as_posix(): path.read_bytes() for path in found}


def in_place(base: Path, files: LocalFiles | None = None, **options):
    store = BarStore(files or LocalFiles(base))
    return import_in_place(store, find_legacy(store), now=datetime.now(UTC), **options)


def pipeline_of(server: Sandbox, base: Path, **options) -> IngestionPipeline:
    return IngestionPipeline(2, base, client=client_of(server), progress=False, **options)


def verified(base: Path):
    return verify(ParquetStorage(base).bars, DatasetFilter(), now=datetime.now(UTC))


# Recognized by every command


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status"], 0),
        (["status", "AAPL"], 0),
        (["status", "--digest"], 0),
        (["verify"], 0),
        (["verify", "--repair"], 4),
        (["query", "SELECT count(*) FROM bars_1min"], 4),
        (["update"], 4),
        (["ingest", "AAPL", "--start", "2024-05-30"], 4),
        (["ingest", "AAPL", "--start", "2024-05-30", "--dry-run"], 4),
        (["ingest", "MSFT", "--start", "2024-05-30"], 4),
        (["remove", "AAPL"], 4),
        (["report"], 4),
        (["audit"], 4),
        (["actions"], 4),
        (["status", "--session", "2024-06-03"], 1),
        (["status", "--runs"], 0),
        (["doctor"], 4),
        (["universe", "show"], 4),
        (["universe", "update"], 4),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_a_command_says_what_the_folder_is_and_writes_nothing(server, base, words, code):
    before = files_of(base)
    ran = here(*words, "--base-path", base, url=server.url)

    assert ran.code == code
    assert "data-engine import --in-place" in ran.text
    if words[0] != "verify":
        assert "900 bars of 3 symbols" in ran.text
    assert files_of(base) == before
    assert not (base / "metadata/locks").exists(), "not even a lock"


def test_data_engine_alone_says_what_the_folder_is(base):
    ran = here(env={"DATA_ENGINE_BASE_PATH": str(base)})

    assert "900 bars of 3 symbols" in ran.out
    assert "data-engine import --in-place" in ran.out


def test_data_engine_alone_says_that_a_folder_is_doubled(doubled):
    ran = here(env={"DATA_ENGINE_BASE_PATH": str(doubled)})

    assert "beside bars of this store" in ran.out
    assert "data-engine import --in-place" in ran.out


def test_the_library_says_what_the_folder_is_and_writes_nothing(server, base):
    before, storage = files_of(base), ParquetStorage(base)
    frame = client_of(server).fetch_bars("MSFT", "2024-06-03", "2024-06-03")
    for call in (
        lambda: storage.load("AAPL", "2024-06-03", "2024-06-04", incomplete="ignore"),
        lambda: storage.store(frame),
        lambda: pipeline_of(server, base).ingest_symbols(["MSFT"], "2024-06-03"),
        lambda: pipeline_of(server, base).update(),
    ):
        with pytest.raises(ForeignFiles, match="900 bars of 3 symbols"):
            call()
    assert files_of(base) == before


def test_the_lists_of_the_folder_are_read_as_they_are(base):
    ran = here("index", "show", "sp500_2025", "--base-path", base, "--json")

    assert [one["symbol"] for one in ran.json["members"]] == SYMBOLS
    assert str(MetadataStore(base).load("sp500_2025").added_date.dtype) == "datetime64[ns, UTC]"


# In place


def test_every_bar_of_the_source_is_in_the_store_and_no_other(base, original, source):
    report = in_place(base)

    assert differing(bars_in(base), source) == 0
    assert (report.files, report.moved, report.bars, report.added, report.stored, report.failed) == (6, 6, 900, 900, 0, [])
    assert not list((base / "equities_1min").rglob("data_*.parquet"))
    assert files_of(base / "metadata/legacy") == {
        path: data for path, data in files_of(original).items() if path.startswith("equities_")
    }
    assert not (base / "metadata/import").exists()
    storage = ParquetStorage(base)
    assert verified(base).findings == []
    known = storage.bars.coverage.read(Series("AAPL", MINUTES))
    assert (known.bars, known.covered, known.wanted, known.changing) == (300, (), (), frozenset())


def test_nothing_is_left_to_do_a_second_time(base):
    in_place(base)
    before = files_of(base)
    report = in_place(base)

    assert (report.files, report.added, report.failed) == (0, 0, [])
    assert files_of(base) == before


def test_a_dry_run_writes_nothing(base):
    before = files_of(base)
    report = in_place(base, dry_run=True)

    assert (report.added, report.failed) == (900, [])
    assert files_of(base) == before


def test_originals_can_be_dropped_month_by_month(base, source):
    in_place(base, drop_originals=True)

    assert differing(bars_in(base), source) == 0
    assert not (base / "metadata/legacy").exists()


def test_the_line_to_run_next_covers_what_was_imported(server, base, source):
    ran = here("import", "--in-place", "--base-path", base, url=server.url)
    assert ran.code == 0
    (line,) = [line.strip() for line in ran.out.splitlines() if line.strip().startswith("data-engine ingest")]

    assert line == f"data-engine ingest --index sp500_2025 --start 2024-05-30 --end 2024-06-05 --base-path {base}"
    states = here("status", "--base-path", base, "--json").json["series"]
    assert {one["state"] for one in states} == {"unverified"}, "nothing of it was requested"
    for words in ((), ("NA",)):
        update = here("update", *words, "--base-path", base, url=server.url)
        assert (update.code, "NA" in update.err, "data-engine ingest" in update.err) == (2, True, True), update.text
    again = here(*line.split()[1:], url=server.url)
    assert again.code == 0, again.text
    assert differing(bars_in(base), source) == 0
    states = here("status", "--base-path", base, "--json").json["series"]
    assert {one["state"] for one in states} == {"complete"}


def test_claimed_sessions_are_covered_and_the_vendor_is_not_asked_for_them(server, base, source):
    report = in_place(base, claim=True)
    assert report.claimed == {Series(symbol, MINUTES): 5 for symbol in SYMBOLS}
    storage = ParquetStorage(base)
    known = storage.bars.coverage.read(Series("AAPL", MINUTES))
    (claimed,) = known.covered
    assert (str(claimed.start), str(claimed.end)) == ("2024-05-30 04:00:00+00:00", "2024-06-06 04:00:00+00:00")
    assert known.imported == known.covered == known.wanted

    server.forget()
    pipeline_of(server, base).ingest_symbols(SYMBOLS, "2024-05-30", "2024-06-05")
    assert [one.path for one in server.requests if "bars" in one.path] == []
    everything = storage.load("AAPL", "2024-05-30", "2024-06-05")
    with pytest.warns(UserWarning, match="AAPL"):
        vendors = storage.load("AAPL", "2024-05-30", "2024-06-05", source="vendor")
    assert (len(everything), len(vendors)) == (300, 0)

    pipeline_of(server, base).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03", refetch=True)
    answered = storage.load("AAPL", "2024-06-03", "2024-06-03", source="vendor")
    assert len(answered) == 60
    assert verified(base).inconsistencies == []


# Killed


class Killed(BaseException):
    """The end of a process."""


class Mortal(LocalFiles):
    """Files whose process ends before, or in the middle of, its change number *left*."""

    def __init__(self, base: Path, left: int) -> None:
        super().__init__(base)
        self.left = left

    def _die(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def update(self, key: str, change: Change) -> bool:
        self._die()
        return super().update(key, change)

    def delete(self, key: str) -> bool:
        self._die()
        return super().delete(key)


def without_times(files: dict[str, bytes]) -> dict[str, object]:
    """Return files whose coverage does not say when it was written."""
    made: dict[str, object] = {}
    for path, data in files.items():
        if path.startswith("metadata/coverage/"):
            made[path] = {name: value for name, value in json.loads(data).items() if name not in ("begun", "updated")}
        else:
            made[path] = data
    return made


def test_killed_at_every_change_it_ends_the_same(original, tmp_path):
    small = Path(shutil.copytree(original, tmp_path / "small", ignore=shutil.ignore_patterns("symbol=BRK.B", "symbol=NA")))
    whole = Path(shutil.copytree(small, tmp_path / "whole"))
    in_place(whole, claim=True)
    expected = without_times(files_of(whole))
    changes, alive = 0, False
    while not alive:
        base = Path(shutil.copytree(small, tmp_path / f"killed-{changes}"))
        try:
            in_place(base, Mortal(base, changes), claim=True)
            alive = True
        except Killed:
            seen = duckdb.sql(f"SELECT count(*), count(DISTINCT (symbol, timestamp)) FROM ({rows_of(base)})").fetchall()[0]
            assert seen[0] == seen[1], "no bar twice"
            in_place(base, claim=True)
        assert without_times(files_of(base)) == expected
        shutil.rmtree(base)
        changes += 1
    assert changes > 15, "that many changes there are to die in"


def test_other_commands_name_an_unfinished_import(server, base):
    with pytest.raises(Killed):
        in_place(base, Mortal(base, 6), workers=1)
    unfinished = list((base / "metadata/import/journal").rglob("*.json"))
    assert len(unfinished) == 1

    assert "not finished" in here("status", "--base-path", base).out
    ran = here("ingest", "AAPL", "--start", "2024-05-30", "--end", "2024-06-05", "--base-path", base, "--json", url=server.url)
    assert (ran.code, ran.json["failed"][0]["code"]) == (1, "foreign_files")
    ran = here("import", "--in-place", "--base-path", base)
    assert (ran.code, "not finished" in here("status", "--base-path", base).out) == (0, False)


def test_killed_by_a_signal_at_random_points_it_ends_the_same(original, tmp_path, source):
    base = Path(shutil.copytree(original, tmp_path / "store"))
    chance = random.Random(17)
    env = {**os.environ, **account(None)}
    for _ in range(2):
        words = [sys.executable, "-m", "data_engine", "import", "--in-place", "--base-path", str(base)]
        with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while not (base / "metadata/locks/run.lock").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.1)
            process.send_signal(signal.SIGKILL)
    assert run("import", "--in-place", "--base-path", base).code == 0
    assert differing(bars_in(base), source) == 0
    assert not list((base / "equities_1min").rglob("data_*.parquet"))


def test_a_reader_beside_it_never_sees_a_bar_twice(base, source):
    stop, seen = threading.Event(), []

    def read() -> None:
        connection = duckdb.connect()
        while not stop.is_set():
            try:
                query = f"SELECT count(*), count(DISTINCT (symbol, timestamp)) FROM ({rows_of(base)})"
                seen.append(connection.execute(query).fetchall()[0])
            except duckdb.Error:  # a file left between the listing and the reading
                continue

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while not seen:
            time.sleep(0.001)
        in_place(base, workers=1)
        behind = len(seen)
        while len(seen) < behind + 2:
            time.sleep(0.001)
    finally:
        stop.set()
        reader.join()
    assert [bars for bars, distinct in seen if bars != distinct] == []
    assert min(bars for bars, _ in seen) >= 900 - 180, "never more than about a month is lacking"
    assert seen[-1] == (900, 900)


# Both layouts in one folder


@pytest.fixture
def doubled(original: Path, server: Sandbox, tmp_path: Path) -> Path:
    """Return the folder of someone who had ingested into the old one before data-engine refused it."""
    base, ours = Path(shutil.copytree(original, tmp_path / "doubled")), tmp_path / "ours"
    pipeline_of(server, ours).ingest_symbols(["AAPL", "MSFT"], "2024-05-31", "2024-06-04")
    shutil.copytree(ours, base, dirs_exist_ok=True)
    assert count(base) == 900 + 2 * 180
    return base


def test_of_a_doubled_folder_the_rows_are_united_and_the_doubles_are_counted(doubled, source, server, tmp_path):
    pipeline = pipeline_of(server, tmp_path / "msft")
    pipeline.ingest_symbols(["MSFT"], "2024-05-31", "2024-06-04")
    report = in_place(doubled)

    assert (report.added, report.stored, report.failed) == (900 - 180, 180, [])
    assert differing(bars_in(doubled), f"{source} UNION ALL {bars_in(tmp_path / 'msft')}") == 0
    assert verified(doubled).inconsistencies == []


def test_where_both_have_a_bar_the_one_of_the_store_wins(original, server, tmp_path):
    base, ours = Path(shutil.copytree(original, tmp_path / "both")), tmp_path / "ours"
    storage = ParquetStorage(ours)
    frame = client_of(server).fetch_bars("AAPL", "2024-06-03", "2024-06-03")
    frame["volume"] += 7
    storage.store(frame)
    shutil.copytree(ours, base, dirs_exist_ok=True)
    in_place(base)

    loaded = ParquetStorage(base).load("AAPL", "2024-06-03", "2024-06-03", incomplete="ignore")
    pd.testing.assert_series_equal(loaded["volume"], frame["volume"])


def test_every_command_keeps_working_on_a_store_with_three_legacy_files(server, tmp_path):
    base = tmp_path / "store"
    pipeline_of(server, base).ingest_symbols(["AAPL", "MSFT"], "2024-05-30", "2024-06-04")
    bars = client_of(server).fetch_bars(["AAPL", "NA"], "2024-05-30", "2024-06-05").reset_index()
    bars = bars.assign(year=bars.timestamp.dt.year, month=bars.timestamp.dt.month)
    bars = bars[(bars.symbol == "NA") | (bars.month == 6)]
    write(bars, base / "equities_1min")
    assert len(list(base.rglob("data_0.parquet"))) == 3
    before = {path: path.read_bytes() for path in base.rglob("data*.parquet")}

    def ran(*words: object):
        return here(*words, "--base-path", base, url=server.url)

    for words in (["status"], ["status", "AAPL", "NA"], ["doctor"]):
        asked = ran(*words)
        assert asked.code == 0
        assert "AAPL in equities_1min" in asked.out
        assert "300 bars of 1 symbol" in asked.out
    planned = ran("ingest", "AAPL", "MSFT", "--start", "2024-05-30", "--end", "2024-06-05", "--dry-run", "--json")
    assert (planned.code, planned.json["complete"]) == (1, 0)
    assert [(one["symbol"], one["code"]) for one in planned.json["failed"]] == [("AAPL", "foreign_files")]
    for words in (["update", "NA"], ["verify", "NA"], ["remove", "NA"]):
        asked = ran(*words)
        assert (asked.code, "import --in-place" in asked.err) == (4, True)
    asked = ran("query", "SELECT count(*) FROM bars_1min", "--json")
    assert (asked.code, asked.json["rows"]) == (0, [[480]])
    assert "3 files" in asked.err
    assert "import --in-place" in asked.err
    ingested = ran("ingest", "AAPL", "MSFT", "--start", "2024-05-30", "--end", "2024-06-05", "--json")
    assert (ingested.code, ingested.json["successful"]) == (1, ["MSFT"])
    assert [(one["symbol"], one["code"]) for one in ingested.json["failed"]] == [("AAPL", "foreign_files")]
    assert [one["code"] for one in ran("update", "--json").json["failed"]] == ["foreign_files"]
    assert ran("remove", "AAPL").code == 4
    assert ran("remove", "MSFT", "--start", "2024-06-05", "--end", "2024-06-05").code == 0
    assert ran("verify").code == 5
    assert ran("verify", "--repair").code == 5
    assert ran("report", "--out", tmp_path / "report.html").code == 0
    storage = ParquetStorage(base)
    with pytest.warns(UserWarning, match="import --in-place"):
        assert len(storage.load("AAPL", "2024-05-30", "2024-06-05")) == 240
    with pytest.raises(ForeignFiles):
        storage.store(client_of(server).fetch_bars("AAPL", "2024-06-05", "2024-06-05"))
    aapl = {path for path in before if "symbol=AAPL" in str(path)}
    assert {path: path.read_bytes() for path in aapl} == {path: before[path] for path in aapl}

    assert ran("import", "--in-place").code == 0
    assert ran("verify").code == 0
    assert len(storage.load("AAPL", "2024-05-30", "2024-06-05", incomplete="ignore")) == 300
    assert len(storage.load("NA", "2024-05-30", "2024-06-05", incomplete="ignore")) == 300
    (note,) = pipeline_of(server, base, now=lambda: datetime(2024, 6, 5, 12, tzinfo=UTC)).update()["notes"]
    assert "NA" in note, "an update leaves it as it is"


# Hours and days among minutes


def stamps(timeframe: TimeFrame, server: Sandbox, base: Path, symbol: str) -> str:
    """Have the legacy pipeline write bars of a timeframe; return SQL for them, by alpaca-py."""
    apart = base.with_name(f"{base.name}-{timeframe.value}-{symbol}")
    for folder in (base, apart):
        LegacyPipeline(server.url, folder).ingest([symbol], START, END, timeframe)
    return rows_of(apart)


def test_bars_of_every_timeframe_go_to_their_own_dataset(server, tmp_path):
    base, five = tmp_path / "store", TimeFrame(5, TimeFrameUnit.Minute)
    wanted = {
        "equities_1min": stamps(TimeFrame.Minute, server, base, "AAPL"),
        "equities_1day": stamps(TimeFrame.Day, server, base, "BRK.B"),
        "equities_5min": stamps(five, server, base, "NA"),
    }
    hours = pd.date_range("2024-05-01", "2024-07-01", freq="h", tz="UTC", inclusive="left")
    hours = hours[(hours.tz_convert("America/New_York").hour.isin(range(4, 20))) & (hours.day_of_week < 5)]
    bars = pd.DataFrame({"symbol": "MSFT", "timestamp": hours, **dict.fromkeys(("open", "high", "low", "close", "vwap"), 5.0)})
    bars = bars.assign(volume=1.0, trade_count=1.0, year=bars.timestamp.dt.year, month=bars.timestamp.dt.month)
    write(bars, base / "equities_1min")
    wanted["equities_1hour"] = keep(f"{rows_of(base)} WHERE symbol = 'MSFT'", tmp_path / "hours.parquet")
    report = in_place(base, claim=True)

    assert report.failed == []
    for dataset, query in wanted.items():
        assert differing(bars_in(base, dataset), query) == 0, dataset
    storage = ParquetStorage(base)
    assert {dataset.name for dataset in storage.bars.coverage.datasets()} == set(wanted)
    assert storage.bars.coverage.read(Series("MSFT", MINUTES)).covered == ()
    assert verified(base).inconsistencies == []


def test_days_beside_minutes_in_one_file_are_told_apart(server, tmp_path):
    base = tmp_path / "store"
    client = client_of(server)
    both = pd.concat([client.fetch_bars("AAPL", "2024-06-03", "2024-06-05", timeframe) for timeframe in ("1Min", "1Day")])
    both = both.reset_index()
    write(both.assign(year=2024, month=6), base / "equities_1min")
    in_place(base)

    assert (count(base, "equities_1min"), count(base, "equities_1day")) == (180, 3)


def test_what_can_be_of_several_timeframes_is_refused_by_name_and_stays(server, tmp_path):
    base = tmp_path / "store"
    stamps(TimeFrame.Minute, server, base, "AAPL")
    hours = pd.DataFrame({"timestamp": pd.date_range("2024-06-03", periods=300, freq="h", tz="UTC")})
    few = pd.DataFrame({"timestamp": pd.to_datetime(["2024-06-03 14:00Z", "2024-06-04 14:00Z"])})
    for symbol, frame in (("NA", hours), ("MSFT", few)):
        frame = frame.assign(
            symbol=symbol, **dict.fromkeys(("open", "high", "low", "close", "volume", "trade_count", "vwap"), 1.0)
        )
        night = frame.timestamp.dt.tz_convert("America/New_York").dt.hour == 0
        write(frame[~night].assign(year=2024, month=6), base / "equities_1min")
    report = in_place(base)

    ((path, message),) = report.failed
    assert "symbol=MSFT" in path
    assert "1Min" in message
    assert "1Hour" in message
    assert "--timeframe" in message
    assert Path(path).is_file()
    assert in_place(base, timeframe="1Hour").failed == []
    assert count(base, "equities_1hour") == 2 + len(hours) - 13


def test_the_zone_of_the_machine_that_wrote_the_folder_does_not_matter(server, tmp_path):
    """DuckDB derives year and month in its own time zone: bars of a month's last evening lie in its file, not in the next."""
    base = tmp_path / "store"
    times = pd.date_range("2024-01-31 22:00", "2024-02-01 02:00", freq="min", tz="UTC", inclusive="left")
    times = times.append(pd.date_range("2024-02-29 23:00", "2024-03-01 01:00", freq="min", tz="UTC", inclusive="left"))
    bars = pd.DataFrame({"symbol": "A", "timestamp": times, "open": np.arange(len(times), dtype=float) + 1})
    bars = bars.assign(**dict.fromkeys(("high", "low", "close", "volume", "trade_count", "vwap"), bars.open))
    local = bars.timestamp.dt.tz_convert("America/New_York")
    write(bars.assign(year=local.dt.year, month=local.dt.month), base / "equities_1min")
    kept = keep(rows_of(base), tmp_path / "kept.parquet")
    report = in_place(base)

    assert report.failed == []
    assert differing(bars_in(base), kept) == 0
    assert len(list((base / "equities_1min").rglob("data.parquet"))) == 3


# What stands in the way


def test_a_month_with_a_bad_file_stays_and_the_others_are_imported(base):
    bad = base / "equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet"
    bad.write_bytes(b"PAR1 no")
    report = in_place(base)

    assert [path for path, _ in report.failed] == [str(bad)]
    assert bad.read_bytes() == b"PAR1 no"
    assert report.added == 900 - 180


def test_a_full_disk_is_said_before_anything_moves(base, monkeypatch):
    before = files_of(base)
    monkeypatch.setattr(LocalFiles, "free_bytes", lambda self: 1_000)
    with pytest.raises(StoreError, match="--drop-originals"):
        in_place(base)
    assert files_of(base) == before


def test_of_a_folder_with_both_layouts_the_bars_of_the_store_win(original, server, tmp_path):
    both, ours = Path(shutil.copytree(original, tmp_path / "both")), tmp_path / "ours"
    frame = client_of(server).fetch_bars("AAPL", "2024-06-03", "2024-06-03")
    frame["volume"] += 7
    ParquetStorage(ours).store(frame)
    shutil.copytree(ours, both, dirs_exist_ok=True)
    assert here("import", both, "--base-path", tmp_path / "new").code == 0

    loaded = ParquetStorage(tmp_path / "new").load("AAPL", "2024-06-03", "2024-06-03", incomplete="ignore")
    pd.testing.assert_series_equal(loaded["volume"], frame["volume"])
    assert count(tmp_path / "new") == 900


def test_a_folder_is_not_imported_into_one_of_the_legacy_pipeline(base, original):
    before = files_of(base)

    assert here("import", original, "--base-path", base).code == 4
    assert files_of(base) == before
    assert not (base / "metadata/locks").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_named_pipe_in_place_of_a_file_blocks_nothing(base):
    pipe = base / "equities_1min/symbol=AAPL/year=2024/month=6/data_0.parquet"
    pipe.unlink()
    os.mkfifo(pipe)

    assert "of 3 symbols" in here("status", "--base-path", base).out
    ran = here("import", "--in-place", "--base-path", base, "--json")
    assert (ran.code, [one["file"] for one in ran.json["failed"]], ran.json["added"]) == (1, [str(pipe)], 720)


def test_a_folder_is_imported_with_its_lists(base, tmp_path):
    ran = here("import", base, "--base-path", tmp_path / "new", "--json")

    assert (ran.code, ran.json["added"], ran.json["lists"]) == (0, 900, ["sp500_2025"])
    mine, theirs = (MetadataStore(folder).load("sp500_2025") for folder in (tmp_path / "new", base))
    pd.testing.assert_frame_equal(mine, theirs)
