"""No part of a past state is false or left out without a word, whatever is damaged, killed, delayed or done at the same time."""

from __future__ import annotations

import random
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import obstore
import pytest
from obstore.store import MemoryStore

from data_engine.errors import HistoryEnds, StoreBusy, StoreError
from data_engine.store.disk import Disk
from data_engine.store.history import compaction, forgetting, head, record, snapshots
from data_engine.store.history.head import Replaced, entries_of
from data_engine.store.history.past import past_files
from data_engine.store.history.record import FOLDER, dump, is_cut_off
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.local_files import LocalFiles
from data_engine.store.s3 import s3_history
from data_engine.store.s3.bucket import Bucket
from data_engine.store.s3.capabilities import Capabilities
from data_engine.store.s3.lease import elapsed
from data_engine.store.s3.s3_files import S3Files
from running import here

BARS = "equities_1day/symbol=A/year=2024/data.parquet"
OTHER = "equities_1day/symbol=B/year=2024/data.parquet"
COVERAGE = "metadata/coverage/equities_1day/symbol=A.json"
LIST = "metadata/indices/ours.csv"

HOUR = timedelta(hours=1)


def later():
    return datetime.now(UTC) + 2 * HOUR


def as_of(files, instant, key):
    return past_files(files, instant, now=datetime.now(UTC)).get(key)


def last_instant(files):
    return StoreHistory(files).last_instant


def processes(count):
    """Return files of one bucket, each as a process of its own has them."""
    store = MemoryStore()
    return [S3Files("memory://store", store=store) for _ in range(count)]


def held(files):
    return {key: content for key in (BARS, OTHER, COVERAGE, LIST) if (content := files.get(key)) is not None}


def life(files, commits, between=lambda number: None):
    """Change files many times; return what they held, by the instant of the last record."""
    rng, was = random.Random(7), {}
    for number in range(commits):
        key = rng.choice([BARS, OTHER, COVERAGE, LIST])
        content = rng.choice([b"", b"", b"content %d" % rng.randrange(5), rng.randbytes(300)])
        files.update(key, lambda old, content=content: content if (old or b"") != content else None)
        if (instant := last_instant(files)) is not None:
            was[instant] = held(files)
        between(number)
    return was


def told(files, instant):
    """Return what the history says that the store held, or None if the state is refused."""
    try:
        past = past_files(files, instant, now=datetime.now(UTC))
        listed = {key for folder in ("equities_1day", "metadata/coverage", "metadata/indices") for key in past.list(folder)}
        return {key: past.get(key) for key in listed}
    except StoreError:
        return None


# ------------------------------------------------------------------------------------------------------- damaged records


def some_record():
    replaced = [Replaced(BARS, b"PAR1 before" * 9, b"PAR1 after"), Replaced(COVERAGE, b"a\nb\n" * 50, b"a\nc\n" * 50)]
    return dump(datetime(2024, 1, 2, tzinfo=UTC), "store", 3, entries_of(replaced, head.Actor()))


def test_what_a_killed_writer_left_of_a_record_is_told_from_damage():
    content = some_record()
    for size in range(len(content)):
        assert is_cut_off(content[:size])
        assert is_cut_off(content[:size] + b"\0" * (len(content) - size))  # of a disk that had only the size of it
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            assert not is_cut_off(bytes(changed))


def test_a_record_of_a_newer_format_is_no_rest_of_a_killed_writer():
    assert not is_cut_off(some_record().replace(b"history 2", b"history 3", 1))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 4
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("packed", [False, True])
def test_states_before_a_damaged_part_of_the_history_are_refused_and_later_ones_are_told(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(compaction, "_MANY", 6)
    monkeypatch.setattr(compaction, "_to_merge", lambda *_: [])  # several packs

    def pack(number):
        if packed and number % 8 == 7:
            compaction.compact(files, later(), bases=1)

    files = LocalFiles(tmp_path)
    was = life(files, 40, pack)
    instants = sorted(was)
    parts = sorted((tmp_path / FOLDER).iterdir())
    numbers = {number: instant for instant, number in zip(instants, _numbers(files), strict=True)}
    assert len([part for part in parts if "-" in part.name]) == (3 if packed else 0)
    for part in parts[:-1]:
        content = part.read_bytes()
        flip(part)
        last = int(part.name[-12:])
        readable = min(instant for number, instant in numbers.items() if number > last)
        for instant in instants:
            assert told(files, instant) == (was[instant] if instant >= readable else None)
        part.write_bytes(content)
    assert [told(files, instant) for instant in instants] == [was[instant] for instant in instants]


def _numbers(files):
    """Return the numbers of the records but the one with which the history begins."""
    history = StoreHistory(files)
    every = [*(one for pack in history.packs.values() for one in pack.records()), *history.records]
    return [one.number for one in every][1:]


def test_a_state_before_a_damaged_part_is_refused_by_its_name(tmp_path):
    files = LocalFiles(tmp_path)
    for number in range(3):
        files.update(BARS, lambda _, number=number: b"bars %d" % number)
    instant = last_instant(files)
    files.delete(BARS)
    damaged = max((tmp_path / FOLDER).iterdir())
    flip(damaged)
    with pytest.raises(StoreError, match=f"{damaged.name}.* is damaged .*an instant after its next change"):
        as_of(files, instant, BARS)
    files.update(OTHER, lambda _: b"other")
    with pytest.raises(StoreError, match=f"{damaged.name}.* is damaged"):
        as_of(files, instant, BARS)
    assert as_of(files, last_instant(files), OTHER) == b"other"


def test_a_reader_of_the_past_refuses_it_when_a_later_record_is_damaged(tmp_path):
    files = LocalFiles(tmp_path)
    files.update(BARS, lambda _: b"bars")
    past = past_files(files, last_instant(files), now=datetime.now(UTC))
    files.update(LIST, lambda _: b"list")
    assert past.get(BARS) == b"bars"
    files.delete(BARS)
    flip(max((tmp_path / FOLDER).iterdir()))
    with pytest.raises(StoreError, match="is damaged"):
        list(past.list("equities_1day"))


def test_pruning_a_damaged_history_tells_what_every_file_was_from_then_on(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "_MANY", 6)
    files = LocalFiles(tmp_path)
    untouched = OTHER.replace("=B", "=C")
    files.update(untouched, lambda _: b"of the first night")
    was = life(files, 30, lambda number: compaction.compact(files, later(), bases=1) if number == 20 else None)
    flip(min((tmp_path / FOLDER).iterdir()))
    cut = sorted(instant for instant in was if told(files, instant) is not None)[2]
    assert compaction.prune(files, cut, later()).begins == cut
    files.update(untouched, lambda _: b"changed")
    assert StoreHistory(files).damaged is None
    for instant in was:
        if instant >= cut:
            assert told(files, instant) == {**was[instant], untouched: b"of the first night"}


def test_packing_leaves_records_of_a_newer_version_and_what_they_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "_MANY", 8)
    files, was = LocalFiles(tmp_path), {}

    def change(key, content):
        files.update(key, lambda _: content)
        was[last_instant(files)] = held(files)

    for number in range(12):
        change(LIST, b"list %d" % number)
    with monkeypatch.context() as newer:
        newer.setattr(record, "_FORMATS", (1, 2, 3))
        change(BARS, b"bars 0")
        change(BARS, b"bars 1")
        names = sorted(path.name for path in (tmp_path / FOLDER).iterdir())[-2:]
    for number in range(30):
        files.update(LIST, lambda _, number=number: b"later list %d" % number)
        if number % 10 == 9:
            compaction.compact(files, later(), bases=1)
    left = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert left.issuperset(names)
    assert len([name for name in left if "-" in name]) >= 2
    assert all(told(files, instant) is None for instant in was)
    monkeypatch.setattr(record, "_FORMATS", (1, 2, 3))
    assert {instant: told(files, instant) for instant in was} == was


# ------------------------------------------------------------------------------------------------------------- beginnings


def test_the_second_of_two_processes_that_begin_a_history_leaves_what_the_first_has_found(monkeypatch):
    first, second, reader = processes(3)
    was = {COVERAGE: b"0123456789-old", BARS: b"other bars"}
    for key, content in was.items():
        obstore.put(first._bucket._store, key, content)
    begun, put = [], Bucket.put

    def overtaken(self, key, content, mode, writer):
        if self is second._bucket and key.startswith(FOLDER) and not begun:
            begun.append(None)
            first.update(COVERAGE, lambda _: b"0123456789-new")
            begun[0] = StoreHistory(first).begins
        return put(self, key, content, mode, writer)

    monkeypatch.setattr(Bucket, "put", overtaken)
    second.update(BARS, lambda _: b"bars of the second")
    assert {key: as_of(reader, begun[0], key) for key in was} == was
    assert [one.actor == head.BEGINNING for one in StoreHistory(reader).records] == [True, False, False]


def test_a_history_whose_first_record_was_cut_off_begins_with_the_next_one(tmp_path):
    for key in (BARS, OTHER):
        path = tmp_path / key
        path.parent.mkdir(parents=True)
        path.write_bytes(b"of an older version")

    class Dying(Disk):
        def write(self, handle, content):
            if bytes(content[:19]) == b"data-engine history":
                super().write(handle, content[:20])
                raise SystemExit
            return super().write(handle, content)

        def unlink(self, path):
            if FOLDER not in path:
                super().unlink(path)

    with suppress(SystemExit):
        LocalFiles(tmp_path, disk=Dying()).update(BARS, lambda _: b"new")
    assert [path.stat().st_size for path in (tmp_path / FOLDER).iterdir()] == [20]
    files = LocalFiles(tmp_path)
    files.update(BARS, lambda _: b"new")
    instant = last_instant(files)
    files.update(BARS, lambda _: b"newer")
    assert {key: as_of(files, instant, key) for key in (BARS, OTHER)} == {BARS: b"new", OTHER: b"of an older version"}


# ------------------------------------------------------------------------------------------------------ numbers of records


def test_a_request_that_failed_and_is_carried_out_late_takes_the_number_of_no_record(monkeypatch):
    """Of a service without conditional writes."""
    (files,), late, put = processes(1), [], Bucket.put
    files._known[files._service] = Capabilities(writing=False, removing=False, clock=datetime.now(UTC).timestamp() - elapsed())

    def failing(self, key, content, mode, writer):
        if key.startswith(FOLDER) and not late:
            late.append((key, content, mode, writer))
            raise StoreError("timed out")
        return put(self, key, content, mode, writer)

    with files.lock("run", seconds=10):
        files.update(BARS, lambda _: b"bars 0")
        reader = past_files(files, last_instant(files), now=datetime.now(UTC))
        with monkeypatch.context() as broken:
            broken.setattr(Bucket, "put", failing)
            with pytest.raises(StoreError, match="timed out"):
                files.update(LIST, lambda _: b"a list")
            files.update(BARS, lambda _: b"bars 1")
            files.update(OTHER, lambda _: b"new")
        assert (reader.get(BARS), list(reader.list("equities_1day"))) == (b"bars 0", [BARS])  # it looks for later records
        put(files._bucket, *late[0])
        instant = last_instant(files)
        files.update(BARS, lambda _: b"bars 2")
    assert [as_of(files, instant, key) for key in (BARS, OTHER, LIST)] == [b"bars 1", b"new", None]


@pytest.mark.parametrize("paused", ["before", "in the request"])
def test_a_machine_that_was_paused_gives_a_record_no_number_that_is_in_a_pack(monkeypatch, paused):
    """Its clock that counts the time in suspend stood still, too."""
    user, run, reader = processes(3)
    put, ahead = Bucket.put, [timedelta(0)]

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + ahead[0]

    monkeypatch.setattr(compaction, "_MANY", 6)
    monkeypatch.setattr(head, "datetime", Clock)
    monkeypatch.setattr(s3_history, "elapsed", lambda: 1000.0)
    user.update(BARS, lambda _: b"bars 0")

    def pause():
        ahead[0] = 3 * HOUR
        for number in range(20):
            run.update(LIST, lambda _, number=number: b"list %d" % number)
        run.update(LIST, lambda _: b"last")
        compaction.compact(run, datetime.now(UTC) + 5 * HOUR, bases=1)
        store = run._bucket._store
        for page in list(obstore.list(store, FOLDER)):
            for one in page:
                if not one["size"]:
                    obstore.delete(store, one["path"])  # as a service does that removes on condition

    def pausing(self, key, content, mode, writer):
        if self is user._bucket and key.startswith(FOLDER) and not ahead[0]:
            pause()
        return put(self, key, content, mode, writer)

    if paused == "before":
        pause()
    else:
        monkeypatch.setattr(Bucket, "put", pausing)
    user.update(BARS, lambda _: b"bars 1")
    instant = last_instant(reader)
    user.update(BARS, lambda _: b"bars 2")
    now = datetime.now(UTC) + 4 * HOUR
    assert past_files(reader, instant, now=now).get(BARS) == b"bars 1"


# ---------------------------------------------------------------------------------------------------------------- pruning


def test_pruning_keeps_the_record_of_a_change_that_has_not_moved_yet(tmp_path, monkeypatch):
    files, user = LocalFiles(tmp_path), LocalFiles(tmp_path)
    for number in range(3):
        files.update(LIST, lambda _, number=number: b"list %d" % number)
    files.update(BARS, lambda _: b"bars 0")
    move = user._drafts.move

    def pruned_meanwhile(draft, path):
        files.update(LIST, lambda _: b"later")
        compaction.prune(files, datetime.now(UTC), datetime.now(UTC))
        move(draft, path)

    monkeypatch.setattr(user._drafts, "move", pruned_meanwhile)
    user.update(BARS, lambda _: b"bars 1")
    monkeypatch.undo()
    instant = last_instant(files)
    files.update(BARS, lambda _: b"bars 2")
    assert as_of(files, instant, BARS) == b"bars 1"


def test_young_records_keep_their_numbers_though_they_are_to_be_pruned(place):
    """Another process may take the number of a record that is in a pack for a free one."""
    for number in range(6):
        place.files.update(LIST, lambda _, number=number: b"list %d" % number)
    names = list(place.files.list(FOLDER))
    assert compaction.prune(place.files, later(), datetime.now(UTC)).begins is None
    assert list(place.files.list(FOLDER)) == names


def test_what_is_stored_while_history_is_pruned_does_not_have_more_dropped_than_was_told(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "AGE", timedelta(0))
    files = LocalFiles(tmp_path)
    for number in range(3):
        files.update(LIST, lambda _, number=number: b"symbol,added_date\nA,2024-01-0%d\n" % (number + 1))
    instant, then = last_instant(files), files.get(LIST)
    snapshots.Snapshots(files).write(snapshots.Snapshot.of("kept", instant, "0", 0, 0))
    files.update(LIST, lambda _: b"symbol,added_date\nB,2024-01-01\n")
    before = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    check = snapshots.refuse_needed

    def beside(files, begins):
        check(files, begins)
        LocalFiles(tmp_path).update(BARS, lambda _: b"bars")

    monkeypatch.setattr(snapshots, "refuse_needed", beside)
    assert here("history", "prune", "--before", before, "--base-path", str(tmp_path)).code == 0
    assert as_of(files, instant, LIST) == then


# -------------------------------------------------------------------------------------------------------------- snapshots


class UnderWay:
    """A write of another process whose record is made, and whose request for the file is under way."""

    def __init__(self, monkeypatch, asked):
        self.run, self.user = processes(2)
        self.run.update(BARS, lambda _: b"old")
        put = Bucket.put

        def slow(bucket, key, content, mode, writer):
            if bucket is self.user._bucket and key == BARS:
                monkeypatch.setattr(Bucket, "put", put)
                asked(self, lambda: put(bucket, key, content, mode, writer))
            return put(bucket, key, content, mode, writer)

        monkeypatch.setattr(Bucket, "put", slow)
        self.user.update(BARS, lambda _: b"new")


def test_no_snapshot_of_a_bucket_is_made_while_a_write_of_another_process_is_under_way(monkeypatch):
    monkeypatch.setattr(snapshots, "_PATIENCE", 0.0, raising=False)
    asked = []

    def create(under_way, _):
        with pytest.raises(StoreBusy, match=f"{re.escape(BARS)} was recorded at .*try again after 20"):
            snapshots.settled_instant(under_way.run)
        asked.append(True)

    run = UnderWay(monkeypatch, create).run
    instant = snapshots.settled_instant(run)
    run.update(BARS, lambda _: b"newer")
    assert (asked, as_of(run, instant, BARS)) == ([True], b"new")


def test_a_snapshot_of_a_bucket_waits_for_a_write_that_is_under_way(monkeypatch):
    instants = []

    def create(under_way, carry_out):
        monkeypatch.setattr(snapshots, "sleep", lambda _: carry_out(), raising=False)
        instants.append(snapshots.settled_instant(under_way.run))
        instants.append(as_of(under_way.run, instants[0], BARS))

    run = UnderWay(monkeypatch, create).run
    assert instants[1] == as_of(run, instants[0], BARS) == b"new"


def test_a_write_that_another_was_faster_than_or_that_was_killed_long_ago_holds_up_no_snapshot(monkeypatch):
    monkeypatch.setattr(snapshots, "_PATIENCE", 0.0, raising=False)
    run, user = processes(2)
    run.update(BARS, lambda _: b"old")
    replace = S3Files._replace

    def overtaken(self, capabilities, key, found, content):
        monkeypatch.setattr(S3Files, "_replace", replace)
        run.update(BARS, lambda _: b"faster")
        return replace(self, capabilities, key, found, content)

    monkeypatch.setattr(S3Files, "_replace", overtaken)
    user.update(BARS, lambda old: b"slower" if old == b"old" else None)
    assert as_of(run, snapshots.settled_instant(run), BARS) == b"faster"

    def killed(self, capabilities, key, found, content):
        raise SystemExit

    monkeypatch.setattr(S3Files, "_replace", killed)
    with suppress(SystemExit):
        user.update(BARS, lambda _: b"never")
    with pytest.raises(StoreBusy):
        snapshots.settled_instant(run)
    monkeypatch.setattr(snapshots, "_IN_FLIGHT", timedelta(0))
    assert as_of(run, snapshots.settled_instant(run), BARS) == b"faster"


# ------------------------------------------------------------------------------------------------------------- forgetting


def revised_and_forgotten(files, packs):
    """Store and revise bars, forget them, store others; return the contents that must be nowhere, and what else was held."""
    rng, secrets, was = random.Random(3), [], {}
    for number in range(8):
        secrets.append(rng.randbytes(2000))
        files.acting("store").update(BARS, lambda _: b"PAR1" + secrets[-1])
        files.update(COVERAGE, lambda _, number=number: b"%d" % number)
        was[last_instant(files)] = files.get(COVERAGE)
        if packs and number % 4 == 3:
            compaction.compact(files, later(), bases=1)
    files.acting("remove", forgets=True).delete(BARS)
    removed = last_instant(files)
    for content in (b"PAR1 bars 1", b"PAR1 bars 2"):
        files.acting("store").update(BARS, lambda _, content=content: content)
        was[last_instant(files)] = files.get(COVERAGE)
    return secrets, was, removed


@pytest.mark.parametrize("packs", [False, True])
def test_nothing_of_bars_that_are_forgotten_is_kept_and_everything_else_is(place, monkeypatch, packs):
    monkeypatch.setattr(compaction, "_MANY", 6)
    secrets, was, removed = revised_and_forgotten(place.files, packs)
    dropped = forgetting.drop_forgotten(place.files, "remove")
    raw = b"".join(place.content().values())

    assert dropped >= 7 * 2000
    assert [secret[100:200] in raw for secret in secrets] == [False] * 8
    for instant, content in was.items():
        assert as_of(place.files, instant, COVERAGE) == content
        if instant < removed:
            with pytest.raises(HistoryEnds):
                as_of(place.files, instant, BARS)
    assert [as_of(place.files, instant, BARS) for instant in was if instant > removed] == [b"PAR1 bars 1", b"PAR1 bars 2"]
    assert forgetting.drop_forgotten(place.files, "remove") == 0


def test_a_killed_process_that_forgets_leaves_states_refused_and_the_next_one_drops_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "_MANY", 6)
    for kill in range(12):
        base = tmp_path / str(kill)
        files = LocalFiles(base)
        secrets, was, removed = revised_and_forgotten(files, packs=True)
        update, left = LocalFiles.update, [kill]

        def dying(self, key, change, update=update, left=left):
            if not left[0]:
                raise SystemExit
            left[0] -= 1
            return update(self, key, change)

        with monkeypatch.context() as killed, suppress(SystemExit):
            killed.setattr(LocalFiles, "update", dying)
            forgetting.drop_forgotten(LocalFiles(base), "remove")
        for instant, content in was.items():
            assert as_of(files, instant, COVERAGE) == content
            if instant < removed:
                with pytest.raises(HistoryEnds):
                    as_of(files, instant, BARS)
        forgetting.drop_forgotten(files, "remove")
        raw = b"".join(path.read_bytes() for path in base.rglob("*") if path.is_file())
        assert not any(secret[100:200] in raw for secret in secrets)


def test_what_a_writer_had_read_before_bars_were_forgotten_is_forgotten_though_it_is_recorded_later():
    run, user = processes(2)
    secret = random.Random(5).randbytes(500)
    run.update(BARS, lambda _: b"PAR1" + secret)

    def change(content):
        if content is None:
            return None
        run.acting("remove", forgets=True).delete(BARS)
        return b"PAR1 revised"

    user.update(BARS, change)
    history = [bytes(obstore.get(run._bucket._store, key).bytes()) for key in run.list(FOLDER)]
    assert any(secret[100:200] in content for content in history)
    forgetting.drop_forgotten(run, "remove")
    history = [bytes(obstore.get(run._bucket._store, key).bytes()) for key in run.list(FOLDER)]
    assert not any(secret[100:200] in content for content in history)


def test_values_of_a_file_whose_removal_did_not_happen_are_kept(tmp_path):
    files = LocalFiles(tmp_path)
    files.update(BARS, lambda _: b"PAR1 bars 1")
    instant = last_instant(files)
    files.update(BARS, lambda _: b"PAR1 bars 2")
    killed = LocalFiles(tmp_path).acting("remove", forgets=True)
    killed._unlink = lambda _: (_ for _ in ()).throw(SystemExit)
    with suppress(SystemExit):
        killed.delete(BARS)
    assert forgetting.drop_forgotten(files, "remove") == 0
    assert as_of(files, instant, BARS) == b"PAR1 bars 1"


def test_values_that_other_sources_had_are_forgotten_with_the_bars(tmp_path):
    files, key = LocalFiles(tmp_path), "metadata/conflicts/equities_1day/symbol=A.csv"
    secret = random.Random(1).randbytes(500)
    files.update(key, lambda _: secret)
    instant = last_instant(files)
    files.acting("remove", forgets=True).update(key, lambda _: b"nothing")
    raw = b"".join(path.read_bytes() for path in (tmp_path / FOLDER).iterdir())
    assert secret[100:200] not in raw
    with pytest.raises(HistoryEnds):
        as_of(files, instant, key)
