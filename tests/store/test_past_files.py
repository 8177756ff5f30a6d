"""A store as it was: whatever was written, by whom and where, is read again as it was, or refused by name."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event

import pandas as pd
import pytest

from data_engine.errors import HistoryEnds, InputError, StoreError
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.store.history import compaction, head
from data_engine.store.history.pack import pack_numbers
from data_engine.store.history.past import past_files
from data_engine.store.history.record import FOLDER
from data_engine.store.history.snapshots import settled_instant
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.history.undo import Kind
from data_engine.store.local_drafts import LocalDrafts
from data_engine.store.local_files import LocalFiles
from stores import not_on_moto

KEYS = [
    "metadata/coverage/equities_1min/symbol=A.json",
    "metadata/coverage/equities_1min/symbol=B.json",
    "metadata/indices/ours.json",
    "equities_1min/symbol=A/year=2024/month=06/data.parquet",
]


def last_instant(files):
    return StoreHistory(files).last_instant


def contents(files):
    return {key: content for key in KEYS if (content := files.get(key)) is not None}


@pytest.mark.parametrize("seed", range(2))
def test_files_are_read_as_they_were_after_each_change(place, seed):
    rng, files = random.Random(seed), place.files
    if seed:
        place.put(KEYS[0], b"there before the history")
    was = []
    for number in range(5 if place.kind == "moto" else 15):
        content = b"content %d " % number * rng.choice([1, 100])
        chosen = rng.sample(KEYS, 2)
        with files.lock("run", seconds=5):
            if number % 3 == 0:
                files.update_many({key: lambda old, content=content: content for key in chosen})
            elif number % 5 == 0:
                files.delete(chosen[0])
            else:
                files.acting("somebody").update(chosen[0], lambda old, content=content: (old or b"")[:50] + content)
        was.append((last_instant(files), contents(place.open())))
    again = place.open()

    assert [instant for instant, _ in was] == sorted(instant for instant, _ in was)
    for instant, expected in was:
        past = past_files(again, instant, now=was[-1][0])
        found = {
            key: size for folder in ("metadata/coverage", "metadata/indices", "equities_1min") for key, size in past.sizes(folder)
        }
        assert contents(past) == expected
        assert found == {key: len(content) for key, content in expected.items()}
    if seed:
        assert contents(past_files(again, was[0][0] - timedelta(microseconds=1), now=was[-1][0])).keys() == {KEYS[0]}


def test_the_future_and_the_time_before_the_history_are_refused(place):
    files, now = place.files, datetime.now(UTC)
    with pytest.raises(InputError, match="it has no history yet"):
        past_files(files, now, now=now)
    files.update(KEYS[0], lambda _: b"a")
    began = last_instant(files)

    with pytest.raises(InputError, match="its history begins at"):
        past_files(files, began - timedelta(days=1), now=began)
    with pytest.raises(InputError, match="that is in the future"):
        past_files(files, began + timedelta(days=1), now=began)


def test_what_a_hand_has_changed_is_refused_by_name_and_the_rest_is_read(place):
    files = place.files
    for key in KEYS[:2]:
        files.update(key, lambda _: b"a")
    instant = last_instant(files)
    files.update(KEYS[1], lambda _: b"b")
    place.put(KEYS[0], b"by hand")
    past = past_files(place.open(), instant, now=datetime.now(UTC))

    with pytest.raises(HistoryEnds, match="no record explains"):
        past.get(KEYS[0])
    assert past.get(KEYS[1]) == b"a"


def test_what_others_write_while_the_past_is_read_does_not_change_it(place):
    files = place.files
    for key in KEYS[:2]:
        files.update(key, lambda _: b"then")
    past = past_files(place.open(), last_instant(files), now=datetime.now(UTC))
    files.update(KEYS[0], lambda _: b"changed later")
    files.delete(KEYS[1])
    files.update(KEYS[3], lambda _: b"new")
    folders = ("metadata/coverage", "equities_1min")

    assert [key for folder in folders for key in past.list(folder)] == KEYS[:2]
    assert (past.folders(""), past.size(KEYS[1]), past.size(KEYS[3])) == (["metadata"], 4, None)
    files.update(KEYS[0], lambda _: b"once more")
    assert contents(past) == dict.fromkeys(KEYS[:2], b"then")


def test_the_instant_of_a_snapshot_is_that_of_a_state_that_no_writer_under_way_changes(tmp_path, monkeypatch):
    files, order = LocalFiles(tmp_path), []
    recorded, asking, release = Event(), Event(), Event()
    files.update(KEYS[3], lambda _: b"before")
    move = LocalDrafts.move

    def held_up(self, draft, path):
        recorded.set()
        assert release.wait(30)
        order.append("moved")
        move(self, draft, path)

    class Asking(LocalFiles):
        def update(self, key, change):
            asking.set()
            return super().update(key, change)

    def settle():
        instant = settled_instant(Asking(tmp_path))
        order.append("settled")
        return instant

    monkeypatch.setattr(LocalDrafts, "move", held_up)
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(files.update, KEYS[3], lambda _: b"after")
        assert recorded.wait(30)
        settling = pool.submit(settle)
        waits = asking.wait(30)
        release.set()
        assert (waits, writing.result()) == (True, True)
        instant = settling.result()
    assert order == ["moved", "settled"]
    files.update(KEYS[3], lambda _: b"much later")

    assert past_files(files, instant, now=datetime.now(UTC)).get(KEYS[3]) == b"after"


def test_a_record_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    files = LocalFiles(tmp_path)
    for content in (b"a", b"ab"):
        files.update(KEYS[3], lambda _, content=content: content)
    last = max((tmp_path / FOLDER).iterdir())
    last.unlink()
    last.mkdir()  # what cannot be read, for every user

    with pytest.raises(StoreError, match=last.name):
        LocalFiles(tmp_path).update(KEYS[3], lambda _: b"abc")
    assert files.get(KEYS[3]) == b"ab"


def test_a_file_that_a_hand_has_removed_is_listed_and_refused_by_name(tmp_path):
    files = LocalFiles(tmp_path)
    for content in (b"a", b"ab"):
        files.update(KEYS[3], lambda _, content=content: content)
    instant = last_instant(files)
    files.update(KEYS[0], lambda _: b"b")
    shutil.rmtree(tmp_path / "equities_1min")
    past = past_files(files, instant, now=datetime.now(UTC))

    assert list(past.sizes("equities_1min")) == [(KEYS[3], 2)]
    assert past.folders("") == ["equities_1min", "metadata"]
    with pytest.raises(HistoryEnds, match="no record explains"):
        past.get(KEYS[3])


def test_a_reader_whose_last_record_was_packed_meanwhile_reads_on(place, monkeypatch):
    monkeypatch.setattr(compaction, "_MANY", 4)
    files, expected = place.files, {}
    for key in KEYS:
        files.update(key, lambda _, key=key: b"then " + key.encode())
        expected[key] = b"then " + key.encode()
    past = past_files(place.open(), last_instant(files), now=datetime.now(UTC))
    for number in range(8):
        for key in KEYS[:2]:
            files.update(key, lambda _, number=number: b"now %d" % number)
        files.delete(KEYS[2])
        files.update(KEYS[2], lambda _: b"again")
    files.delete(KEYS[3])
    files.update(KEYS[0], lambda _: b"last")
    compaction.compact(files, datetime.now(UTC) + timedelta(hours=2), bases=1)

    assert contents(past) == expected
    assert [key for key, _ in past.sizes("equities_1min")] == [KEYS[3]]


def test_the_past_cannot_be_changed(place):
    place.files.update(KEYS[0], lambda _: b"a")
    past = past_files(place.files, last_instant(place.files), now=datetime.now(UTC))
    for change in (
        lambda: past.update(KEYS[0], lambda _: b"b"),
        lambda: past.delete(KEYS[0]),
        lambda: past.update_many({KEYS[0]: lambda _: b"b"}),
        lambda: past.lock("run", seconds=0),
        past.remove_stale_drafts,
    ):
        with pytest.raises(StoreError, match="cannot be changed"):
            change()
    assert place.files.get(KEYS[0]) == b"a"


def test_reading_the_present_reads_no_record(place, monkeypatch):
    storage = ParquetStorage(files=place.files)
    storage.store(frame(1.0), "1Min", feed="sip", adjustment="raw")
    read = []
    get = type(place.files).get
    monkeypatch.setattr(type(place.files), "get", lambda self, key: (read.append(key), get(self, key))[1])
    storage.load("A", "2024-06-03", "2024-06-03", incomplete="ignore")

    assert read
    assert not [key for key in read if key.startswith(FOLDER)]


def frame(price):
    times = pd.date_range("2024-06-03 13:30", periods=4, freq="min", tz="UTC")
    index = pd.MultiIndex.from_product([["A"], times], names=["symbol", "timestamp"])
    columns = ["open", "high", "low", "close", "volume", "trade_count", "vwap"]
    return pd.DataFrame(price, index=index, columns=columns)


def test_bars_are_loaded_as_they_were_by_every_way_of_reading(place):
    storage = ParquetStorage(files=place.files)
    first, second = frame(1.0), frame(2.0).iloc[1:]
    storage.store(first, "1Min", feed="sip", adjustment="raw")
    instant = last_instant(place.files)
    storage.store(second, "1Min", feed="sip", adjustment="raw")
    call = {"symbols": "A", "start": "2024-06-03", "end": "2024-06-03", "incomplete": "ignore"}
    then = storage.load(**call, as_stored_on=instant)

    assert storage.load(**call)["close"].tolist() == [1.0, 2.0, 2.0, 2.0]
    assert then["close"].tolist() == [1.0] * 4
    assert then.attrs["data_engine"]["as_stored_on"]
    assert storage.load(**call).attrs["data_engine"].get("as_stored_on") is None
    assert storage.load_arrow(**call, as_stored_on=instant)["close"].to_pylist() == [1.0] * 4
    assert storage.load_polars(**call, as_stored_on=instant)["close"].to_list() == [1.0] * 4
    assert storage.relation(**call, as_stored_on=instant).fetchdf()["close"].tolist() == [1.0] * 4
    assert [value for _, part in storage.batches(**call, as_stored_on=instant) for value in part["close"].to_pylist()] == [
        1.0
    ] * 4
    assert storage.sessions("A", "2024-06-03", "2024-06-03", as_stored_on=instant)["bars"].tolist() == [4]


def life_of_files(place, rng, commits, between=lambda number: None):
    """Change files many times; return what they were, by instant."""
    not_on_moto(place)
    files, was = place.files, {}
    for number in range(commits):
        key = rng.choice(KEYS)
        content = rng.choice([b"", b"content %d " % rng.randrange(9) * 30, b"x%d" % number])
        files.acting(f"run {number % 3}").update(key, lambda old, content=content: content if (old or b"") != content else None)
        if StoreHistory(files).last_number:
            was[StoreHistory(files).last_instant] = contents(files)
        between(number)
    return was


@pytest.mark.parametrize("seed", range(3))
def test_packs_tell_the_same_as_the_records_they_hold(place, seed, monkeypatch):
    """Records are packed now and then, packs are merged, and a killed process has left what it was about to remove."""
    monkeypatch.setattr(compaction, "_MANY", 6)
    rng, left = random.Random(seed), {}

    def between(number):
        if rng.random() < 0.2:
            left.update({key: place.files.get(key) for key in place.files.list(FOLDER)})
            compaction.compact(place.files, datetime.now(UTC) + timedelta(hours=2), bases=1)
            if rng.random() < 0.3:
                put_back = rng.sample(sorted(left), min(3, len(left)))
                for key in put_back:
                    place.files.update(key, lambda _, key=key: left[key])

    was = life_of_files(place, rng, 40, between)
    again = place.open()

    assert any(pack_numbers(key) for key in again.list(FOLDER))
    assert [record.number for record in StoreHistory(again).records] == sorted(
        {record.number for record in StoreHistory(again).records}
    )
    for instant, expected in was.items():
        assert contents(past_files(again, instant, now=datetime.now(UTC))) == expected


def test_young_records_and_the_last_one_stay_files_of_their_own(place, monkeypatch):
    monkeypatch.setattr(compaction, "_MANY", 6)
    life_of_files(place, random.Random(1), 20)

    assert compaction.compact(place.files, datetime.now(UTC), bases=1) == 0
    assert compaction.compact(place.files, datetime.now(UTC) + timedelta(hours=2), bases=1) > 10
    assert len(StoreHistory(place.files).records) >= 1


def test_a_first_record_that_is_larger_than_a_pack_is_packed_with_no_other(tmp_path, monkeypatch):
    """Such as the one with which the history of a large store begins; nothing was ever packed."""
    monkeypatch.setattr(compaction, "_MOST_BYTES", 4_000)
    files, key = LocalFiles(tmp_path), "metadata/coverage/equities_1min/symbol=A.json"
    large = random.Random(1).randbytes(8_000)
    files.update(key, lambda _: large)
    for number in range(40):
        files.update(key, lambda _, number=number: b"%d" % number)
    later = datetime.now(UTC) + timedelta(hours=2)
    packed = [compaction.compact(files, later, bases=1) for _ in range(3)]
    assert packed[0] >= 1
    assert sum(packed) >= 10  # fewer than are worth a pack are left


@pytest.mark.parametrize("packed", [False, True])
def test_a_pruned_history_begins_later_and_tells_the_same_from_then_on(place, packed, monkeypatch):
    monkeypatch.setattr(compaction, "_MANY", 6)
    was = life_of_files(place, random.Random(2), 30)
    if packed:
        compaction.compact(place.files, datetime.now(UTC) + timedelta(hours=2), bases=1)
    cut = sorted(was)[15]
    size = sum(size for _, size in place.files.sizes(FOLDER))
    pruned = compaction.prune(place.files, cut, datetime.now(UTC) + timedelta(hours=2))
    now = datetime.now(UTC)

    assert pruned.begins == cut
    assert pruned.freed == size - sum(size for _, size in place.files.sizes(FOLDER))
    for instant, expected in was.items():
        if instant >= cut:
            assert contents(past_files(place.files, instant, now=now)) == expected
        else:
            with pytest.raises(InputError, match="its history begins at"):
                past_files(place.files, instant, now=now)
    place.files.update(KEYS[0], lambda _: b"afterwards")
    assert contents(past_files(place.files, max(was), now=datetime.now(UTC))) == was[max(was)]


def test_everything_can_be_pruned_and_the_history_goes_on(place):
    was = life_of_files(place, random.Random(3), 12)
    last = StoreHistory(place.files).last_number
    compaction.prune(place.files, datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) + timedelta(hours=2))
    place.files.update(KEYS[0], lambda _: b"afterwards")

    assert StoreHistory(place.files).last_number == last + 1
    assert contents(past_files(place.files, max(was), now=datetime.now(UTC))) == was[max(was)]


def test_bars_that_are_forgotten_are_in_no_record(place):
    secret = b"PAR1 bars that must go " * 20
    place.files.update(KEYS[3], lambda _: secret)
    instant = last_instant(place.files)
    place.files.acting("remove", forgets=True).delete(KEYS[3])

    assert [entry.undo.kind for record in StoreHistory(place.files).records[1:] for entry in record.entries] == [
        Kind.ABSENT,
        Kind.LOST,
    ]
    with pytest.raises(HistoryEnds):
        past_files(place.files, instant, now=datetime.now(UTC)).get(KEYS[3])


@pytest.mark.parametrize("bases", [0, 1, 3])
def test_of_price_bases_the_latest_are_kept(place, bases, monkeypatch):
    """All bars of an adjusted file change each time; raw ones and text keep all that they were."""
    monkeypatch.setattr(compaction, "_MANY", 3)
    adjusted, raw = KEYS[3].replace("1min", "1min_split"), KEYS[3]
    instants = []
    for number in range(5):
        content = b"PAR1" + bytes([number]) * 400
        for key in (adjusted, raw):
            place.files.update(key, lambda _, content=content: content)
        instants.append(last_instant(place.files))
        compaction.compact(place.files, datetime.now(UTC) + timedelta(hours=2), bases=bases)
    place.files.update(KEYS[0], lambda _: b"a")
    place.files.update(KEYS[0], lambda _: b"b")
    monkeypatch.setattr(compaction, "_MANY", 1)
    compaction.compact(place.files, datetime.now(UTC) + timedelta(hours=2), bases=bases)

    for number, instant in enumerate(instants):
        past = past_files(place.files, instant, now=datetime.now(UTC))
        assert past.get(raw) == b"PAR1" + bytes([number]) * 400
        if number >= 4 - bases:
            assert past.get(adjusted) == past.get(raw)
        else:
            with pytest.raises(HistoryEnds):
                past.get(adjusted)


def test_instants_rise_though_the_clock_is_set_back(place, monkeypatch):
    class Clock(datetime):
        at = datetime(2024, 6, 10, 12, tzinfo=UTC)

        @classmethod
        def now(cls, tz=None):
            return cls.at

    monkeypatch.setattr(head, "datetime", Clock)
    was = {}
    for number in range(4):
        place.open().update(KEYS[0], lambda _, number=number: b"content %d" % number)
        was[last_instant(place.files)] = contents(place.files)
        Clock.at -= timedelta(hours=1)

    assert list(was) == sorted(was)
    for instant, expected in was.items():
        assert contents(past_files(place.files, instant, now=max(was))) == expected
