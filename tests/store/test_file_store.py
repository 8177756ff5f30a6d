"""Files change whole or not at all: whoever reads, whoever else writes, and whoever is killed meanwhile.

Tests that take a `place` are about every kind of place; those that take a folder are about a disk.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.errors import StoreBusy, StoreError
from data_engine.store import disk as disk_module
from data_engine.store.disk import Disk
from data_engine.store.file_store import check_key, check_keys
from data_engine.store.local_files import LocalFiles
from stores import variables

KEY = "equities_1min/symbol=A/year=2024/month=06/data.parquet"
OLD, NEW = b"old" * 1000, b"new" * 2000

posix = pytest.mark.skipif(os.name == "nt", reason="signals and user ids are POSIX")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else or mount"
)


@pytest.fixture
def base(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def files(base) -> LocalFiles:
    return LocalFiles(base)


def put(files: LocalFiles, content: bytes, key: str = KEY) -> None:
    files.update(key, lambda old: content)


def on_disk(base: Path) -> dict[str, bytes]:
    """Return the content of every file of a store but its locks, found without its own listing."""
    found = (path for path in base.rglob("*") if path.is_file() and path.suffix != ".lock" and "history" not in path.parts)
    return {path.relative_to(base).as_posix(): path.read_bytes() for path in found}


def drafts(base: Path) -> list[Path]:
    return [path for path in base.rglob("*") if "drafts" in path.parts and path.is_file()]


# ------------------------------------------------------------------------------------------------------- second processes

PREAMBLE = """
import os, pathlib, signal, sys, time
from data_engine.errors import StoreBusy, StoreError
from data_engine.store.location import open_file_store
base, key = sys.argv[1:3]
files = open_file_store(base if base.startswith("s3:") else pathlib.Path(base))
def say(word):
    print(word, flush=True)
def put(content):
    files.update(key, lambda old: content)
"""


def command(code: str, base: Path | str, key: str = KEY) -> list[str]:
    return [sys.executable, "-c", PREAMBLE + code, str(base), key]


def run(code: str, base: Path | str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(code, base, key), capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def started(code: str, base: Path | str) -> Iterator[subprocess.Popen[str]]:
    """Run a second process until it says ``here``; let it go on when the context ends, by closing its stdin."""
    child = subprocess.Popen(command(code, base), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60, child.kill)
    watchdog.start()
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        yield child
    finally:
        child.communicate(timeout=60)
        watchdog.cancel()


HERE_AND_WAIT = "(say('here'), sys.stdin.read())"


# ------------------------------------------------------------------------------------------------------------ one process

a_key = st.sampled_from(["a/b", "a/c", "a/d/e", "b", "metadata/coverage/x.json"])
an_operation = st.one_of(
    st.tuples(st.just("put"), a_key, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("leave"), a_key, st.none()),
    st.tuples(st.just("empty"), a_key, st.none()),
    st.tuples(st.just("delete"), a_key, st.none()),
)


def test_files_behave_as_a_dictionary_of_keys(new_place):
    """An update to None leaves a file, one to nothing removes it; folders go with their last file."""

    @settings(max_examples=25 if new_place().on_disk else 10, deadline=None)
    @given(st.lists(an_operation, max_size=12))
    def check(operations):
        made = new_place()
        with variables(made.env):
            behaves_as_a_dictionary(made, operations)

    check()


def behaves_as_a_dictionary(place, operations):
    files, expected = place.files, {}
    for verb, key, content in operations:
        if verb == "delete":
            assert files.delete(key) is (expected.pop(key, None) is not None)
        else:
            seen = []
            made = {"put": content, "leave": None, "empty": b""}[verb]
            written = files.update(key, lambda old, seen=seen, made=made: (seen.append(old), made)[1])
            assert seen == [expected.get(key)]
            if verb == "put":
                assert written is True
                expected[key] = content
            elif verb == "empty":
                assert written is (expected.pop(key, None) is not None)
            else:
                assert written is False
        assert {key: files.get(key) for key in expected} == expected == place.content()
        assert {key: files.size(key) for key in expected} == {key: len(content) for key, content in expected.items()}
        assert files.sizes_of([*expected, "no/such"]) == [*map(len, expected.values()), None]
    folders = {parent.as_posix() for key in expected for parent in Path(key).parents} - {"."}
    top = {folder for folder in folders if "/" not in folder} - {"metadata"}
    shown = set(files.folders("")) - {"metadata"}
    # SeaweedFS goes on showing the folder of the last file that was removed, for a while; and what cannot remove on condition
    # keeps a mark there.
    assert shown >= top if place.kind in ("seaweedfs", "memory") else shown == top
    if place.on_disk:
        base = Path(place.base)
        there = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_dir()}
        assert there - {"metadata", "metadata/locks", "metadata/drafts", "metadata/history"} == folders - {"metadata"}


def test_what_is_not_there_is_none(place):
    files = place.files
    put(files, OLD)

    assert files.get("no/such") is files.size("no/such") is None
    assert files.get(f"{KEY}/below-a-file") is files.size(f"{KEY}/below-a-file") is None
    assert list(files.list("no")) == list(files.list(KEY)) == list(files.sizes("no")) == []
    assert files.delete("no/such") is files.delete(f"{KEY}/below-a-file") is False
    assert files.location == place.base


def test_files_know_their_folder_where_they_have_one(place):
    assert place.files.folder == (Path(place.base) if place.on_disk else None)
    assert place.files.write_warning() is None


def test_reading_creates_nothing(place):
    files = place.files

    assert (files.get(KEY), files.size(KEY), list(files.list("metadata")), files.folders("")) == (None, None, [], [])
    assert (files.free_bytes() or 0) > 0 or not place.on_disk
    assert place.content() == {}
    assert not place.on_disk or not Path(place.base).exists()


def test_there_is_nothing_to_clean_where_nothing_was_written(place):
    assert place.files.remove_stale_drafts() == 0
    assert place.content() == {}


def test_a_list_names_every_file_below_a_folder(place):
    keys = ["a/1/x", "a/1/y", "a/2", "a/3/4/5"]
    for number, key in enumerate([*reversed(keys), "ab/1", "b"]):
        put(place.files, OLD + bytes(number), key)

    assert list(place.files.list("a")) == keys
    assert list(place.files.sizes("a")) == [(key, len(OLD) + 3 - number) for number, key in enumerate(keys)]


def test_the_folders_right_below_a_folder_are_named(place):
    files = place.files
    for key in ["a/2/x", "a/1/x/y", "a/file", "b/3/x"]:
        put(files, OLD, key)

    assert (list(files.folders("a")), list(files.folders("a/file")), list(files.folders("none"))) == (["1", "2"], [], [])
    assert set(files.folders("")) - {"metadata"} == {"a", "b"}


def test_a_list_is_sorted_by_key(place):
    """As a bucket would list them: ``-`` and ``.`` and ``%`` come before the slash. And keys are what they are."""
    keys = [f"d/symbol={symbol}/data.parquet" for symbol in ("A", "A-B", "A.B", "A%2FB", "AB")]
    for key in keys:
        put(place.files, OLD, key)

    assert list(place.files.list("d")) == sorted(keys) == sorted(place.content())


def test_a_long_list_comes_whole(place, monkeypatch):
    """A bucket lists a thousand at a time; this one ten."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    keys = [f"d/{number:02d}/x" for number in range(35)]
    for key in keys:
        put(place.files, OLD, key)

    assert list(place.files.list("d")) == keys
    assert place.files.folders("d") == [key.split("/")[1] for key in keys]


def test_a_list_passes_over_a_foreign_folder(files, base):
    put(files, OLD, "d/ours")
    (base / "d" / "C:\\theirs").mkdir()
    (base / "d" / "C:\\theirs" / "file").touch()

    assert "d/ours" in list(files.list("d"))


def test_a_change_that_fails_leaves_the_file_and_frees_the_lock(place):
    files = place.files
    put(files, OLD)

    def fail(old):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.update(KEY, fail)

    assert place.content() == {KEY: OLD}
    place.open(lock_seconds=0).update(KEY, lambda old: NEW)
    assert place.content() == {KEY: NEW}


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("../outside", id="parent"),
        pytest.param("a/../../outside", id="parent-in-the-middle"),
        pytest.param("/tmp/outside", id="absolute"),
        pytest.param("a//b", id="empty-part"),
        pytest.param("", id="nothing"),
        pytest.param(".", id="the-store-itself"),
        pytest.param("a/.", id="a-folder-itself"),
        pytest.param("a\\..\\..\\outside", id="backslashes"),
        pytest.param("C:outside", id="a-drive"),
        pytest.param("a:stream", id="a-stream"),
        pytest.param("a\0b", id="nul"),
    ],
)
def test_no_key_leads_out_of_the_store(place, key):
    files = place.files
    for use in (
        lambda: files.update(key, lambda old: NEW),
        lambda: files.get(key),
        lambda: files.size(key),
        lambda: files.delete(key),
        lambda: list(files.list(key)),
    ):
        with pytest.raises(StoreError, match=re.escape(repr(key))):
            use()

    assert place.content() == {}
    assert not place.on_disk or list(Path(place.base).parent.iterdir()) == []


@given(st.lists(st.text(alphabet="a./\\:\0\n ", max_size=6), max_size=4))
def test_many_keys_are_refused_if_one_of_them_is(keys):
    def refused(check: Callable[[], object]) -> bool:
        try:
            check()
        except StoreError:
            return True
        return False

    assert refused(lambda: check_keys(keys)) == any(refused(lambda key=key: check_key(key)) for key in keys)


def test_a_store_that_was_removed_under_a_living_object_is_made_anew(files, base):
    put(files, OLD)
    shutil.rmtree(base)
    put(files, NEW)

    assert on_disk(base) == {KEY: NEW}


# ---------------------------------------------------------------------------------------------------------------- threads


def test_a_reader_sees_old_or_new_never_a_mixture(place):
    """A writer replaces the file until the reader has met twenty of its versions, each read whole through every road."""
    files, base = place.files, Path(place.base)
    put(files, bytes(1))
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            put(files, bytes([number % 251]) * (1 + number % 7 * 50_000))

    def read() -> set[bytes]:
        met: set[bytes] = set()
        while len(met) < 20:
            if place.on_disk:
                assert list(base.glob("**/*.parquet")) == [base / KEY]
            for content in (files.get(KEY), (base / KEY).read_bytes() if place.on_disk else place.content()[KEY]):
                assert content is not None
                assert content == content[:1] * len(content)
                met.add(content[:1])
        return met

    with ThreadPoolExecutor(2) as pool:
        writer = pool.submit(write)
        try:
            assert len(pool.submit(read).result(timeout=60)) >= 20
        finally:
            done.set()
        writer.result(timeout=60)
    assert list(place.content()) == [KEY]


def test_threads_lose_none_of_each_others_changes(place):
    """Also between two objects of one process on the same place."""
    both = place.files, place.open()

    def add(number: int) -> None:
        both[number % 2].update("counter", lambda old: str(int(old or b"0") + 1).encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200 if place.on_disk else 75)))

    assert place.content() == {"counter": b"200" if place.on_disk else b"75"}


class Contended(Disk):
    """A disk on which another process removes an empty folder whenever it was just looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.removed = 0

    def make_folder(self, path: str) -> None:
        try:
            super().make_folder(path)
        except FileExistsError:
            self._remove(path)
            raise
        if self.removed < 3:
            self._remove(path)

    def _remove(self, path: str) -> None:
        if Path(path) == self.folder:
            self.removed += 1
            self.folder.rmdir()


def test_a_folder_that_is_removed_while_it_is_looked_at_is_made_again(base):
    disk = Contended(base / "folder")
    files = LocalFiles(base, disk=disk)
    put(files, OLD, "folder/file")

    assert (files.get("folder/file"), disk.removed) == (OLD, 3)


def test_a_folder_that_another_thread_removes_is_made_again(files, base):
    """Files of one folder come and go; none of their writers may fail because a neighbour took the folder away."""

    def come_and_go(name: str) -> None:
        for _ in range(150):
            put(files, OLD, f"folder/of/{name}")
            assert files.get(f"folder/of/{name}") == OLD
            assert files.delete(f"folder/of/{name}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, "abcd"))

    assert on_disk(base) == {}
    assert not (base / "folder").exists()


def test_a_thread_that_waits_too_long_is_told_who_it_waits_for(place):
    files = place.open(lock_seconds=0.05)
    inside, done = threading.Event(), threading.Event()

    def slow(old: bytes | None) -> bytes:
        inside.set()
        assert done.wait(60)
        return NEW

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(files.update, KEY, slow)
        assert inside.wait(60)
        try:
            with pytest.raises(StoreBusy, match=re.escape(place.base)):
                put(files, OLD)
        finally:
            done.set()
        assert writing.result(timeout=60) is True
    assert place.content() == {KEY: NEW}


# ------------------------------------------------------------------------------------------------------------------ kills


@posix
@pytest.mark.parametrize(
    ("killed", "content", "left"),
    [
        pytest.param("os.fsync = die", OLD, 1, id="draft-not-yet-flushed"),
        pytest.param("os.replace = die", OLD, 1, id="between-the-draft-and-the-move"),
        pytest.param("move = os.replace\nos.replace = lambda *a: (move(*a), die())", NEW, 0, id="moved"),
    ],
)
def test_a_killed_writer_leaves_old_or_new_and_a_draft_that_clean_removes(files, base, killed, content, left):
    put(files, OLD)
    child = run(f"def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n{killed}\nput({NEW!r})", base)

    assert child.returncode == -signal.SIGKILL, child.stderr
    assert list(base.glob("**/*.parquet")) == [base / KEY]
    assert files.get(KEY) == content
    assert len(drafts(base)) == left
    assert [draft for draft in drafts(base) if draft.suffix == ".parquet" or draft.parent != base / "metadata" / "drafts"] == []
    assert files.remove_stale_drafts() == left
    assert on_disk(base) == {KEY: content}
    assert files.remove_stale_drafts() == 0


@posix
def test_the_lock_of_a_killed_writer_is_free_at_once(base):
    with started(f"files.update(key, lambda old: {HERE_AND_WAIT})", base) as child:
        with pytest.raises(StoreBusy):
            put(LocalFiles(base, lock_seconds=0.05), NEW)
        child.kill()
        child.wait(60)

        put(LocalFiles(base, lock_seconds=0), NEW)

    assert on_disk(base) == {KEY: NEW}


@posix
def test_the_run_of_a_killed_process_holds_nobody_up(base):
    with started(f"with files.lock('run', seconds=0): {HERE_AND_WAIT}", base) as child:
        child.kill()
        child.wait(60)

        with LocalFiles(base).lock("run", seconds=0):
            pass


@posix
def test_clean_leaves_the_draft_of_a_living_writer(base):
    files = LocalFiles(base, lock_seconds=0.05)
    put(files, OLD)
    pausing = f"move = os.replace\nos.replace = lambda *a: ({HERE_AND_WAIT}, move(*a))\nput({NEW!r})"
    with started(pausing, base):
        (draft,) = drafts(base)

        assert files.remove_stale_drafts() == 0
        assert draft.read_bytes() == NEW
        assert files.get(KEY) == OLD
        with pytest.raises(StoreBusy, match=rf"{re.escape(str(base))}.*0\.05 s.*--wait"):
            put(files, OLD)

    assert on_disk(base) == {KEY: NEW}


def test_clean_passes_over_a_file_that_is_no_draft(files, base):
    put(files, OLD)
    foreign = base / "metadata" / "drafts" / "notes.tmp"
    foreign.touch()

    assert files.remove_stale_drafts() == 0
    assert foreign.exists()


# ---------------------------------------------------------------------------------------------------------- two processes


def test_two_processes_lose_none_of_each_others_changes(shared_place):
    """Each with two threads, on one file: the most contended a store can be."""
    times = 100 if shared_place.on_disk else 20
    count = f"""
from concurrent.futures import ThreadPoolExecutor
def add(_):
    files.update(key, lambda old: str(int(old or b"0") + 1).encode())
say("here"), sys.stdin.readline()
with ThreadPoolExecutor(2) as pool:
    list(pool.map(add, range({times})))
"""
    children = [
        subprocess.Popen(command(count, shared_place.base, "counter"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout.readline() == "here\n"  # both are past their imports: they really compete
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)

    assert [child.returncode for child in children] == [0, 0]
    assert shared_place.content() == {"counter": str(2 * times).encode()}


def test_a_held_store_keeps_other_runs_away_but_not_other_writes(shared_place):
    waits, base = [], shared_place.base
    files = shared_place.open(lock_seconds=0)
    with started(f"with files.lock('run', seconds=0): {HERE_AND_WAIT}", base):
        message = rf"{re.escape(base)}.*0\.05 s.*--wait"
        with pytest.raises(StoreBusy, match=message), files.lock("run", seconds=0.05, waiting=lambda: waits.append("waiting")):
            pytest.fail("two runs at once")
        put(files, NEW)
        with files.lock("another", seconds=0):
            pass

    with files.lock("run", seconds=0, waiting=lambda: waits.append("again")):
        assert waits == ["waiting"]
    assert shared_place.content() == {KEY: NEW}


def test_a_run_that_waits_begins_when_the_other_ends(shared_place):
    with started(f"with files.lock('run', seconds=0): {HERE_AND_WAIT}\nput({OLD!r})", shared_place.base) as child:
        assert child.stdin is not None
        # Being told to wait is what ends the other run: so this one has certainly waited.
        with shared_place.files.lock("run", seconds=60, waiting=child.stdin.close):
            pass
        child.stdin = None
        child.wait(60)

    assert shared_place.content() == {KEY: OLD}


def test_a_run_is_held_once_within_a_process_too(place):
    files = place.files
    with files.lock("run", seconds=0), pytest.raises(StoreBusy), files.lock("run", seconds=0):
        pytest.fail("two runs at once")


@posix
def test_a_child_that_is_forked_while_a_thread_writes_waits_for_nobody_that_it_does_not_have(base):
    """The lock between threads is copied with its holder's hold on it, and without the holder."""
    child = run(
        """
import threading, warnings
warnings.simplefilter("ignore")  # that threads and forks do not go together
from data_engine.store.local_files import LocalFiles
files = LocalFiles(base, lock_seconds=20)
inside, done = threading.Event(), threading.Event()
def slow(old):
    inside.set()
    done.wait(30)
    return b"of the parent"
thread = threading.Thread(target=lambda: files.update(key, slow))
thread.start()
inside.wait()
pid = os.fork()
if pid == 0:
    sys.stdout.close()
    try:
        put(b"of the child")
    except StoreBusy:
        os._exit(7)
    os._exit(0)
done.set()
thread.join()
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
        base,
    )

    assert child.stdout == "0\n", child.stderr
    assert on_disk(base) == {KEY: b"of the child"}


@posix
def test_a_child_that_is_forked_within_a_hold_does_not_end_it(base):
    forking = f"""
with files.lock("run", seconds=0):
    if os.fork() == 0:
        sys.exit()
    os.wait()
    {HERE_AND_WAIT}
"""
    with started(forking, base), pytest.raises(StoreBusy), LocalFiles(base).lock("run", seconds=0):
        pytest.fail("two runs at once")


# -------------------------------------------------------------------------------------------------------- power failures


class Killed(BaseException):
    """The process has ended."""


class StrictDisk(Disk):
    """A disk that knows what POSIX promises of it after a power failure: the names that a folder had when it was flushed.

    Attributes:
        die_at: The number of the call that changes or flushes something from which on the process is dead.
    """

    def __init__(self) -> None:
        self.names: dict[str, dict[str, int]] = {}
        self.calls = 0
        self.die_at = 0

    def _step(self) -> None:
        self.calls += 1
        if self.die_at and self.calls >= self.die_at:
            raise Killed

    def flush_folder(self, folder: str) -> None:
        self._step()
        with os.scandir(folder) as entries:
            self.names[folder] = {entry.name: entry.inode() for entry in entries}

    def make_folder(self, path: str) -> None:
        self._step()
        super().make_folder(path)
        self.names[path] = {}

    def remove_folder(self, path: str) -> None:
        self._step()
        super().remove_folder(path)
        self.names.pop(path, None)

    def replace(self, source: str, target: str) -> None:
        self._step()
        super().replace(source, target)

    def unlink(self, path: str) -> None:
        self._step()
        super().unlink(path)

    def flush(self, handle: int) -> None:
        self._step()

    def survives(self, path: Path, base: Path) -> bool:
        """Tell whether a file is there after a power failure."""
        while path != base.parent:
            known = self.names.get(str(path.parent), {}).get(path.name)
            if known is None or (path.exists() and path.stat().st_ino != known):
                return False
            path = path.parent
        return True


def test_what_was_written_survives_a_power_failure_with_all_its_folders(base):
    """Also where an earlier file has gone, and its folders with it."""
    disk = StrictDisk()
    files = LocalFiles(base, disk=disk)
    later = KEY.replace("month=06", "month=07")
    for key in (KEY, "metadata/coverage/x.json", later):
        put(files, OLD, key)
        assert disk.survives(base / key, base)
    assert files.delete(KEY)
    assert not disk.survives(base / KEY, base)
    assert disk.survives(base / later, base)
    assert files.delete(later)
    put(files, NEW)
    assert disk.survives(base / KEY, base)


def test_a_folder_that_is_there_is_flushed_once(files, base):
    put(files, OLD)
    disk = StrictDisk()
    other = LocalFiles(base, disk=disk)
    put(other, NEW)
    first = disk.calls
    put(other, OLD)
    other.update(KEY, lambda old: None)
    parts = len(KEY.split("/"))

    # The draft, the record and its name, the move, the file's own folder; and the name of each folder and of the store.
    assert first == 5 + parts + len(["metadata", "metadata/history"])
    assert disk.calls == first + 5


@pytest.mark.parametrize("verb", ["write", "remove"])
def test_what_a_killed_process_did_is_durable_before_the_next_relies_on_it(tmp_path, verb):
    """The first is killed at each of its calls in turn; the second may find everything done and write nothing at all."""
    for die_at in range(1, 40):
        base = tmp_path / str(die_at)
        disk = StrictDisk()
        if verb == "remove":
            put(LocalFiles(base, disk=disk), OLD)
            disk.calls = 0
        disk.die_at = die_at
        killed = False
        for _ in range(2):
            files = LocalFiles(base, disk=disk)
            try:
                if verb == "write":
                    files.update(KEY, lambda old: None if old == NEW else NEW)
                else:
                    files.delete(KEY)
            except Killed:
                killed = True
            disk.die_at = 0
        assert disk.survives(base / KEY, base) is (verb == "write"), die_at
        if not killed:
            break
    else:
        pytest.fail("killed for ever")
    assert die_at > (8 if verb == "write" else 2)


def test_what_was_not_flushed_when_another_run_died_is_flushed_by_the_next_that_holds_the_store(base):
    """An object outlives the run in which it looked last."""
    disk = StrictDisk()
    files = LocalFiles(base, disk=disk)
    put(files, OLD)
    disk.names.clear()  # another process made it all anew
    files.update(KEY, lambda old: None)
    assert not disk.survives(base / KEY, base)
    with files.lock("run", seconds=0):
        files.update(KEY, lambda old: None)

    assert disk.survives(base / KEY, base)


@posix
@pytest.mark.parametrize(("number", "forgiven"), [(errno.EIO, False), (errno.ENOSPC, False), (errno.EINVAL, True)])
def test_a_folder_that_cannot_be_flushed_is_an_error_unless_the_file_system_knows_no_such_thing(
    files, base, monkeypatch, number, forgiven
):
    put(files, OLD, "another")
    flush = os.fsync

    def refuse(handle: int) -> None:
        path = os.readlink(f"/dev/fd/{handle}")  # noqa: PTH115
        if os.path.isdir(path) and "equities" in path:  # noqa: PTH112
            raise OSError(number, os.strerror(number))
        flush(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    for use in (lambda: put(files, OLD), lambda: files.update(KEY, lambda old: None)):
        if forgiven:
            use()
        else:
            with pytest.raises(StoreError, match=re.escape(f"cannot write {base / KEY}")):
                use()
    monkeypatch.undo()
    assert files.get(KEY) == OLD


@posix
def test_a_folder_that_may_not_be_read_is_flushed_with_everything_else(files, monkeypatch):
    opened, synced = os.open, []

    def refuse(path, flags, *mode, **named):
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, "no")
        return opened(path, flags, *mode, **named)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    put(files, OLD)

    assert synced


@pytest.mark.parametrize("refused", [None, errno.ENOTSUP, errno.EIO])
def test_where_a_flush_ends_in_the_drives_own_memory_the_drive_is_flushed_too(files, monkeypatch, refused):
    """MacOS has a call of its own for that; not every file system knows it."""
    full, plain = [], []

    def fcntl(handle: int, call: int) -> None:
        full.append(call)
        if refused is not None:
            raise OSError(refused, os.strerror(refused))

    monkeypatch.setattr(disk_module, "fcntl", SimpleNamespace(F_FULLFSYNC=51, fcntl=fcntl))
    monkeypatch.setattr(os, "fsync", plain.append)
    if refused == errno.EIO:
        with pytest.raises(StoreError):
            put(files, OLD)
        assert files.get(KEY) is None
    else:
        put(files, OLD)
    assert set(full) == {51}
    assert bool(plain) is (refused == errno.ENOTSUP)


# --------------------------------------------------------------------------------------------------- disks that do not want


@pytest.mark.parametrize("below", ["", "below"])
def test_a_store_whose_path_is_a_file(tmp_path, below):
    (tmp_path / "file").write_bytes(OLD)
    files = LocalFiles(tmp_path / "file" / below)

    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "file")) + ".*file, not a folder"):
        put(files, NEW)
    assert (files.get(KEY), files.size(KEY), list(files.list("metadata")), files.remove_stale_drafts()) == (None, None, [], 0)
    assert files.free_bytes() > 0
    assert on_disk(tmp_path) == {"file": OLD}


def test_a_file_where_a_folder_should_be(files, base):
    put(files, OLD, "equities_1min")

    with pytest.raises(StoreError, match=re.escape(f"cannot write {base / KEY}") + ".*file, not a folder"):
        put(files, NEW)
    assert on_disk(base) == {"equities_1min": OLD}


def test_a_folder_where_a_file_should_be(files, base):
    (base / KEY).mkdir(parents=True)

    for use in (lambda: files.get(KEY), lambda: put(files, NEW)):
        with pytest.raises(StoreError, match=re.escape(f"cannot read {base / KEY}")):
            use()
    with pytest.raises(StoreError, match=re.escape(f"cannot remove {base / KEY}")):
        files.delete(KEY)
    assert on_disk(base) == {}


AS_NOBODY = """
import filelock  # what is needed must be loaded before: nobody may not read root's folders
os.setgroups([]), os.setgid(65534), os.setuid(65534)
for use in (lambda: files.get(key), lambda: put(b"new"), lambda: files.delete(key)):
    try:
        use()
        say("done")
    except StoreError as error:
        say(type(error).__name__ + " " + str(error))
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach: pytest's own belong to who runs it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@as_root
def test_a_store_that_may_only_be_read(public):
    put(LocalFiles(public / "store"), OLD)
    child = run(AS_NOBODY, public / "store")

    locks = re.escape(str(public / "store" / "metadata" / "locks"))
    done, *refused = child.stdout.splitlines()
    assert done == "done", child.stderr
    assert len(refused) == 2
    assert all(re.fullmatch(rf"StoreError cannot lock {locks}/..\.lock: permission denied", line) for line in refused)
    assert on_disk(public / "store") == {KEY: OLD}


@as_root
def test_a_folder_of_a_store_that_may_only_be_read(public):
    """The draft can be written, the move cannot: the draft goes, the file stays."""
    base = public / "store"
    put(LocalFiles(base), OLD)
    for folder, _, names in os.walk(base / "metadata"):
        for path in [Path(folder), *(Path(folder) / name for name in names)]:
            os.chown(path, 65534, 65534)
    child = run(AS_NOBODY, base)

    path = base / KEY
    assert child.stdout.splitlines() == [
        "done",
        f"StoreError cannot write {path}: permission denied",
        f"StoreError cannot remove {path}: permission denied",
    ], child.stderr
    assert on_disk(base) == {KEY: OLD}


@as_root
def test_a_file_that_may_not_be_read(public):
    base = public / "store"
    put(LocalFiles(base), OLD)
    for folder, folders, names in os.walk(base):
        for path in [Path(folder), *(Path(folder) / name for name in (*folders, *names))]:
            os.chown(path, 65534, 65534)
    (base / KEY).chmod(0)
    child = run(AS_NOBODY, base)

    refused = f"StoreError cannot read {base / KEY}: permission denied"
    assert child.stdout.splitlines() == [refused, refused, "done"], child.stderr


@as_root
def test_a_place_where_no_store_may_be_made(public):
    child = run(AS_NOBODY, public / "store")

    done, *refused = child.stdout.splitlines()
    assert done == "done", child.stderr
    assert all(line.startswith(f"StoreError cannot lock {public / 'store'}") for line in refused)
    assert all(line.endswith(": permission denied") for line in refused)
    assert list(public.iterdir()) == []


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small disk; skip where that is not allowed."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@as_root
def test_a_full_disk(tmp_path):
    with mounted(tmp_path / "disk", "256k") as disk:
        files = LocalFiles(disk / "store")
        put(files, OLD)
        before = files.free_bytes()
        with pytest.raises(StoreError, match=re.escape(f"cannot write {disk / 'store' / KEY}") + ".*full"):
            put(files, bytes(1 << 20))

        assert on_disk(disk / "store") == {KEY: OLD}
        facts = os.statvfs(disk)
        assert files.free_bytes() == before == facts.f_bavail * facts.f_frsize
        put(files, NEW)
        assert on_disk(disk / "store") == {KEY: NEW}


@as_root
def test_a_disk_that_is_full_before_the_first_byte(tmp_path):
    with mounted(tmp_path / "disk", "64k") as disk:
        files = LocalFiles(disk / "store")
        put(files, OLD)
        with pytest.raises(OSError, match="No space left"):
            (disk / "ballast").write_bytes(bytes(65536))
        with pytest.raises(StoreError, match=re.escape(str(disk)) + ".*full"):
            put(files, NEW)

        assert on_disk(disk / "store") == {KEY: OLD}


@as_root
def test_a_read_only_file_system(tmp_path):
    with mounted(tmp_path / "disk", "256k") as disk:
        put(LocalFiles(disk / "store"), OLD)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        files = LocalFiles(disk / "store")
        with pytest.raises(StoreError, match=re.escape(str(disk)) + ".*read-only"):
            put(files, NEW)

        assert files.get(KEY) == OLD


@as_root
def test_a_store_across_two_file_systems_is_refused(tmp_path):
    base = tmp_path / "store"
    with mounted(base / "equities_1min", "256k"):
        with pytest.raises(StoreError, match=re.escape(f"cannot write {base / KEY}") + ".*another file system"):
            put(LocalFiles(base), NEW)

        assert on_disk(base) == {}


@posix
def test_too_many_open_files(files, base):
    put(files, OLD)
    child = run(
        """
import filelock, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    while True:
        held.append(open(os.devnull))
except OSError:
    pass
for use in (lambda: files.get(key), lambda: put(b"new")):
    try:
        use()
    except StoreError as error:
        say(error)
for file in held:
    file.close()
say(files.get(key) == b"old" * 1000)
""",
        base,
    )

    reading, locking, intact = child.stdout.splitlines()
    assert intact == "True", child.stderr
    for message, named in ((reading, f"cannot read {base / KEY}: "), (locking, f"cannot lock {base}")):
        assert message.startswith(named)
        assert "`ulimit -n`" in message


def test_a_draft_that_the_disk_does_not_let_go_of_is_an_error_that_names_it(tmp_path: Path) -> None:
    class Failing(Disk):
        def unlink(self, path: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    draft = tmp_path / "metadata" / "drafts" / f"0a-{'0' * 32}.tmp"
    draft.parent.mkdir(parents=True)
    draft.write_bytes(b"half")
    files = LocalFiles(tmp_path, disk=Failing())

    with pytest.raises(StoreError, match=draft.name):
        files.remove_stale_drafts()
