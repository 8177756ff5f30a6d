"""What changed after it was final, as the report tells it, against what a model of the vendor or the test itself has changed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_engine.ingest.recheck import recheck
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Series
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.report import later
from data_engine.report.contents import overview_of
from data_engine.report.coverage_months import STATES
from data_engine.store.history.record import FOLDER
from data_engine.store.local_files import LocalFiles
from data_engine.store.partitions import Period
from data_engine.store.selection import DatasetFilter
from pages import DAYS, NOW, SOURCE, days_of, make_changed_store
from running import here
from second_thoughts import EPOCH, EVERYTHING, KINDS, World, micros

JUNE = list(sessions(date(2024, 6, 3), date(2024, 6, 28)))  # of `make_changed_store`


def head_of(storage: ParquetStorage, **named: Any) -> dict[str, Any]:
    return overview_of(storage.bars, DatasetFilter(), **{"now": NOW, **named}).head()


def told(history: dict[str, Any], kind: str) -> Counter[str]:
    """Return the number of bars by symbol that the listed changes count."""
    found: Counter[str] = Counter()
    for one in history["changes"]:
        found[one["symbol"]] += one[kind]
    return +found


def stamp(text: str) -> int:
    return micros(datetime.fromisoformat(text))


def test_what_the_vendor_loads_late_revises_and_withdraws_is_told_bar_by_bar(tmp_path: Path) -> None:
    """Late bars are told once they are stored, the others as conflicting, and as revised and removed once they are accepted."""
    world = World("minutes", tmp_path / "store")
    storage, symbol = world.pipeline.storage, world.symbols[2]
    last = max(world.vendor.bars[symbol])
    storage.bars.coverage.update(Series(symbol, world.dataset), lambda known: known.reopened(known.covered))
    world.vendor.bars[symbol][last] = tuple(value + 1 for value in world.vendor.bars[symbol][last])
    world.pipeline.update()
    history = head_of(storage, now=world.clock.now)["history"]
    assert (history["open"], history["change_count"]) == (1, 0)  # that bar was provisional, as far as the store knew

    used = {(symbol, last)}
    thoughts = [one for kind in KINDS if (one := world.think(kind, used)) is not None]
    late = {place for one in thoughts for place in one.appeared}
    theirs = {place: bar for one in thoughts for place, bar in one.conflicting.items()}
    assert late
    assert {bar is None for bar in theirs.values()} == {True, False}
    stored = {place: world.stored(place[0])[place[1]] for place in theirs}
    world.clock.now += timedelta(days=1)
    recheck(world.pipeline, EVERYTHING, None, minutes=10_000, page_limit=world.vendor.page_bars)
    head = head_of(storage, now=world.clock.now)
    history = head["history"]

    assert told(history, "late") == Counter(symbol for symbol, _ in late)
    assert history["totals"] == {"late": len(late), "revised": 0, "removed": 0, "not_kept": 0}
    assert {(one["symbol"], stamp(one["timestamp"])): one["alpaca"] for one in history["conflicts"]} == theirs
    assert {(one["symbol"], stamp(one["timestamp"])): one["stored"] for one in history["conflicts"]} == stored
    assert {one["actor"].split(" of ")[0] for one in history["changes"]} == {"recheck"}
    days = {symbol: {at for name, at in late if name == symbol} for symbol, _ in late}
    for one in history["changes"]:
        first, last = (EPOCH + timedelta(microseconds=edge(days[one["symbol"]])) for edge in (min, max))
        # The bars are of regular hours, or start at midnight in New York: their day is that of UTC.
        assert (one["first"], one["last"]) == (first.date().isoformat(), last.date().isoformat())
    marked = {one["symbol"]: sum(row[1] for row in one["later"]) for one in head["datasets"][0]["series"] if one["later"]}
    assert marked == Counter(symbol for symbol, _ in late)

    recheck(world.pipeline, EVERYTHING, None, minutes=None, accept=True)
    history = head_of(storage, now=world.clock.now)["history"]
    assert history["conflicts"] == []
    assert told(history, "revised") == Counter(symbol for (symbol, _), bar in theirs.items() if bar is not None)
    assert told(history, "removed") == Counter(symbol for (symbol, _), bar in theirs.items() if bar is None)
    instants = [one["instant"] for one in history["changes"]]
    assert instants == sorted(instants, reverse=True)


def test_filled_gaps_are_told_with_their_source_and_whether_they_count(tmp_path: Path) -> None:
    storage = make_changed_store(tmp_path / "store")
    head = head_of(storage)
    days, fills = head["datasets"]

    told_fills = [(one["start"], one["source"], one["counts"]) for one in head["history"]["fills"]]
    assert told_fills == [("2024-07-01T04:00:00Z", SOURCE, True), ("2024-06-10T04:00:00Z", SOURCE, False)]
    assert [one["dataset"] for one in head["history"]["fills"]] == [fills["name"]] * 2 == ["equities_1day_fill"] * 2
    assert [STATES[int(state)] for state in fills["series"][0]["states"]] == ["filled", "filled"]
    assert {STATES[int(state)] for state in days["series"][0]["states"]} == {"complete"}
    assert (len(head["charts"]), "cover" in head["commands"]) == (1, False)  # what fills is not drawn, and not requested
    monday = date(2024, 7, 1).toordinal()
    assert monday not in head["charts"][0]["days"]


def test_lists_are_bounded_and_everything_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = make_changed_store(tmp_path / "store")
    for name in ("CHANGES", "DAYS", "CONFLICTS", "FILLS"):
        monkeypatch.setattr(later, name, 1)
    history = head_of(storage)["history"]

    assert [(one["late"], one["revised"]) for one in history["changes"]] == [(0, 2)]  # the latest
    assert [one["alpaca"] for one in history["conflicts"]] == [None]
    assert ([one["start"][:10] for one in history["fills"]], history["fill_count"]) == (["2024-07-01"], 2)
    assert (history["change_count"], history["conflict_count"], history["day_count"]) == (2, 2, len(history["days"]))
    assert history["totals"] == {"late": 1, "revised": 2, "removed": 0, "not_kept": 0}


def test_each_record_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = make_changed_store(tmp_path / "store")
    read: Counter[str] = Counter()
    get = LocalFiles.get

    def counted(files: LocalFiles, key: str) -> bytes | None:
        content = get(files, key)
        read[key] += key.startswith(FOLDER) and content is not None
        return content

    monkeypatch.setattr(LocalFiles, "get", counted)
    head_of(storage)

    records = sorted(path.name for path in (tmp_path / "store" / FOLDER).iterdir())
    assert {key.rsplit("/", 1)[1]: times for key, times in (+read).items()} == dict.fromkeys(records, 1)


def test_what_was_removed_is_told_by_its_actor_also_without_a_series_or_its_bars(tmp_path: Path) -> None:
    for words, kind in (((), "removed"), (("--forget",), "not_kept")):
        make_changed_store(tmp_path / kind, "AAPL")
        assert here("remove", "AAPL", *words, "--base-path", tmp_path / kind).code == 0
        changes = head_of(ParquetStorage(tmp_path / kind))["history"]["changes"]
        latest = next(one for one in changes if one["dataset"] == DAYS.name)  # the bars that filled gaps went, too

        assert (latest["symbol"], latest["actor"]) == ("AAPL", "remove")
        assert latest[kind] == {"removed": len(JUNE), "not_kept": 1}[kind]


def test_a_history_that_begins_later_is_damaged_or_has_gaps_says_so_and_the_page_is_written(tmp_path: Path) -> None:
    assert head_of(ParquetStorage(tmp_path / "empty"))["history"]["begins"] is None
    base = tmp_path / "store"
    storage = make_changed_store(base)
    for record in (base / FOLDER).iterdir():  # as an older version would have left it
        record.unlink()
    storage = ParquetStorage(base)
    began = datetime.now(UTC)
    series = next(storage.bars.coverage.series(DAYS))
    storage.bars.write(series, Period(2024, None), days_of(JUNE, 1.0))
    found = head_of(storage)["history"]
    assert (found["from_before"], found["unexplained"], found["totals"]["revised"]) == (2, 0, len(JUNE))
    assert datetime.fromisoformat(found["begins"]) >= began

    quick = head_of(storage, quick=True)["history"]
    assert (quick["read"], quick["begins"], quick["changes"], len(quick["conflicts"])) == (False, found["begins"], [], 2)

    first = min((base / FOLDER).iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    (bars,) = (base / "equities_1day").rglob("*.parquet")
    bars.write_bytes(b"no bars")
    found = head_of(storage)["history"]
    assert found["unexplained"] == 2  # of the other file, only the beginning was known
    assert any(first.name in text for text in found["problems"])
    assert any(bars.name in text for text in found["problems"])
    ran = here("report", "--base-path", base, "--out", tmp_path / "page.html")
    assert (ran.code, (tmp_path / "page.html").exists()) == (0, True), ran.text
