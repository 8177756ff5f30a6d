"""A store in a bucket: what is particular to it. What all places have in common is in test_file_store.py."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from data_engine.errors import StoreBusy, StoreError
from data_engine.store.s3 import s3_files as object_files
from data_engine.store.s3.s3_files import S3Files, SingleWriterWarning
from object_server import serving

URL = "s3://bars/store"
KEY = "equities_1min/symbol=A/year=2024/month=06/data.parquet"


@pytest.fixture
def service(monkeypatch):
    with serving() as made:
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        yield made


def add(old: bytes | None) -> bytes:
    return str(int(old or b"0") + 1).encode()


def asked(service, method: str) -> list[str]:
    return [key.removeprefix("store/") for verb, key, _ in service.asked if verb == method]


def until(true, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------ requests


def test_reading_tries_nothing_out_and_writes_nothing(service):
    files = S3Files(URL)
    assert (files.get("x"), files.size("x"), list(files.list("y")), files.folders(""), files.free_bytes()) == (
        None,
        None,
        [],
        [],
        None,
    )
    assert {method for method, _, _ in service.asked} == {"GET", "HEAD"}


def test_a_process_tries_a_service_out_once(service):
    for _ in range(3):
        S3Files(URL).update("x", add)
    S3Files("s3://bars/another").update("x", add)

    probes = {key for method, key, _ in service.asked if method == "PUT" and "probe" in key}
    assert len(probes) == 1
    assert set(service.things) == {"store/x", "another/x"}


def test_a_change_is_one_read_and_one_write_and_no_change_is_one_read(service):
    files = S3Files(URL)
    files.update("x", add)
    del service.asked[:]
    files.update("x", add)
    files.update("x", lambda old: None)

    assert [method for method, _, _ in service.asked] == ["GET", "PUT", "GET"]


def test_a_conflict_reads_again_and_changes_what_is_there_then(service):
    files, seen = S3Files(URL), []
    files.update("x", add)

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) == 1:
            service.put("store/x", b"7")
        return add(old)

    assert files.update("x", change) is True
    assert (seen, service.things["store/x"].content) == ([b"1", b"7"], b"8")


def test_somebody_who_removes_the_file_meanwhile_is_a_conflict_too(service):
    files, seen = S3Files(URL), []
    files.update("x", add)

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        service.things.pop("store/x", None)
        return add(old)

    assert files.update("x", change) is True
    assert (seen, service.things["store/x"].content) == ([b"1", None], b"1")


def test_a_file_that_others_change_again_and_again_is_busy_after_a_while(service):
    files = S3Files(URL, lock_seconds=0.2)
    files.update("x", add)
    numbers = iter(range(10_000))
    service.before = lambda method, key: service.put(key, str(next(numbers)).encode()) if method == "PUT" else None

    with pytest.raises(StoreBusy, match=r"s3://bars/store/x.* 0\.2 s"):
        files.update("x", add)


# --------------------------------------------------------------------------------------------------------- bad luck


def test_a_write_whose_answer_is_lost_is_done_once(service):
    """It is sent again, and refused: its own first attempt has changed the object. That is not somebody else's change."""
    files = S3Files(URL)
    files.update("x", add)
    for _ in range(5):
        lost = iter([True])
        service.unlucky = lambda method, key, lost=lost: method == "PUT" and next(lost, False)
        assert files.update("x", add) is True

    assert service.things["store/x"].content == b"6"


def test_a_new_file_whose_answer_is_lost_is_done_once(service):
    files = S3Files(URL)
    files.write_warning()
    lost = iter([True])
    service.unlucky = lambda method, key: method == "PUT" and next(lost, False)

    assert files.update("x", add) is True
    assert service.things["store/x"].content == b"1"


def test_a_removal_whose_answer_is_lost_is_done(service):
    files = S3Files(URL)
    files.update("x", add)
    lost = iter([True])
    service.unlucky = lambda method, key: method == "DELETE" and next(lost, False)

    assert files.delete("x") is True
    assert service.things == {}


def test_a_service_that_fails_leaves_the_file_and_frees_the_way(service, monkeypatch):
    monkeypatch.setattr("data_engine.store.s3.bucket._RETRY", {"max_retries": 1})
    files = S3Files(URL)
    files.update("x", add)
    service.refuse = lambda method, *_: (503, "SlowDown", "no") if method == "PUT" else None
    with pytest.raises(StoreError, match=r"s3://bars/store/x.*SlowDown"):
        files.update("x", add)
    service.refuse = lambda *_: None

    assert files.update("x", add) is True
    assert service.things["store/x"].content == b"2"


def test_what_the_killed_tried_out_is_cleaned_up_after_an_hour(service):
    files = S3Files(URL)
    service.ahead = timedelta(hours=-1, seconds=-10)
    service.put("store/metadata/locks/probe-0123.lock", b"first")
    service.put("store/metadata/locks/run.lock", b"{}")
    service.ahead = timedelta(minutes=-50)
    service.put("store/metadata/locks/probe-4567.lock", b"first")
    service.ahead = timedelta(0)

    assert files.remove_stale_drafts() == 1
    assert sorted(service.things) == ["store/metadata/locks/probe-4567.lock", "store/metadata/locks/run.lock"]


# -------------------------------------------------------------------------------------- services that cannot remove on condition


def test_a_removal_that_knows_no_conditions_empties_the_file_first(service):
    """On condition; so what somebody else writes meanwhile is not removed."""
    service.honours = {"create", "match"}
    files, seen = S3Files(URL), []
    files.update(KEY, add)

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) == 1:
            service.put(f"store/{KEY}", b"new")
        return b""

    del service.asked[:]
    assert files.update(KEY, change) is True
    assert (seen, service.things) == ([b"1", b"new"], {})
    assert asked(service, "DELETE") == [KEY]


def test_nobody_writes_to_a_file_that_is_being_removed(service, monkeypatch):
    """The remover is held up between emptying and removing; a writer waits until the object is gone."""
    service.honours = {"create", "match"}
    files = S3Files(URL)
    files.update(KEY, add)
    emptied, go_on = threading.Event(), threading.Event()

    def hold_up(method: str, key: str) -> None:
        if method == "DELETE":
            emptied.set()
            assert go_on.wait(30)

    service.before = hold_up
    with ThreadPoolExecutor(2) as pool:
        removing = pool.submit(files.delete, KEY)
        assert emptied.wait(30)
        assert (files.get(KEY), files.size(KEY), list(files.list("equities_1min"))) == (None, None, [])
        # Another process has locks of its own: here, files of its own.
        other = S3Files(URL)
        other._shared = object_files.SharedState()
        reads = len(asked(service, "GET"))
        writing = pool.submit(other.update, KEY, lambda old: b"new after " + (old or b"nothing"))
        until(lambda: len(asked(service, "GET")) > reads + 2)
        assert not writing.done()
        go_on.set()
        assert (removing.result(30), writing.result(30)) == (True, True)

    assert service.things[f"store/{KEY}"].content == b"new after nothing"


def test_what_a_killed_remover_emptied_is_written_again_after_a_minute(service):
    service.honours = {"create", "match"}
    files = S3Files(URL, lock_seconds=0.1)
    service.ahead = timedelta(seconds=-30)
    service.put(f"store/{KEY}", b"")
    service.ahead = timedelta(0)
    with pytest.raises(StoreBusy):
        files.update(KEY, add)
    service.ahead = timedelta(seconds=-70)
    service.put(f"store/{KEY}", b"")
    service.ahead = timedelta(0)

    assert files.update(KEY, add) is True
    assert service.things[f"store/{KEY}"].content == b"1"


# ---------------------------------------------------------------------------------------------------------------- holding


def test_a_hold_is_an_object_that_says_who_holds_it_and_is_empty_afterwards(service):
    files = S3Files(URL)
    with files.lock("run", seconds=0):
        said = json.loads(service.things["store/metadata/locks/run.lock"].content)
        assert said["seconds"] == object_files.LEASE_SECONDS == 60

    assert service.things["store/metadata/locks/run.lock"].content == b""
    assert list(files.list("metadata")) == []


def test_a_killed_holder_keeps_others_away_for_a_minute_by_the_servers_clock(service):
    files = S3Files(URL)
    claim = json.dumps({"owner": "x", "host": "far", "pid": 7, "since": "2024-01-01T00:00:00Z", "seconds": 60.0}).encode()
    service.ahead = timedelta(seconds=-55)
    service.put("store/metadata/locks/run.lock", claim)
    service.ahead = timedelta(0)
    with pytest.raises(StoreBusy, match="process 7 on far"), files.lock("run", seconds=0):
        pytest.fail("two at once")
    service.ahead = timedelta(seconds=-68)
    service.put("store/metadata/locks/run.lock", claim)
    service.ahead = timedelta(0)

    with files.lock("run", seconds=0):
        pass


def test_who_lost_the_hold_writes_nothing_more(service):
    files = S3Files(URL, lease_seconds=0.3)
    other = S3Files(URL)
    other._shared = object_files.SharedState()
    with files.lock("run", seconds=0):
        files.update("x", add)
        service.put("store/metadata/locks/run.lock", b'{"owner": "somebody else"}')
        until(lambda: not files._shared.leases[0].valid)
        with pytest.raises(StoreBusy, match=r"s3://bars/store.* 0\.3 s.*again"):
            files.update("x", add)
        other.update("x", add)

    assert service.things["store/x"].content == b"2"
    assert service.things["store/metadata/locks/run.lock"].content == b'{"owner": "somebody else"}'
    files.update("x", add)


HOLD = """
import sys
from data_engine.store.s3.s3_files import S3Files
with S3Files(sys.argv[1], lease_seconds=1.0).lock("run", seconds=0):
    print("here", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_was_killed_keeps_others_away_for_as_long_as_its_claim_lasts(shared_place):
    """With a real SIGKILL, and a real clock, on a real service."""
    if shared_place.on_disk:
        pytest.skip("the kernel frees the locks of the dead at once: test_file_store.py")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, shared_place.base], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"here\n"
        with pytest.raises(StoreBusy), shared_place.files.lock("run", seconds=2.5):
            pytest.fail("it is renewed")
        child.kill()
        child.wait(30)

        with shared_place.files.lock("run", seconds=30):
            pass


# ----------------------------------------------------------------------------------- services that ignore conditions altogether


@pytest.fixture
def ignorant(service, monkeypatch):
    monkeypatch.setattr("data_engine.store.s3.capabilities._SETTLE_SECONDS", 0.2)
    service.honours = set()
    return service


def test_where_conditions_are_ignored_that_is_said(ignorant):
    text = S3Files(URL).write_warning()
    assert text is not None
    for named in ("s3://bars/store", "If-Match", "If-None-Match", "exit code 7"):
        assert named in text


def test_where_conditions_are_ignored_the_first_write_warns(ignorant):
    files = S3Files(URL)
    with pytest.warns(SingleWriterWarning, match="If-None-Match"), files.lock("run", seconds=0):
        files.update("x", add)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with files.lock("run", seconds=0):
            assert files.update("x", lambda old: b"" if old == b"1" else None) is True

    assert "store/x" not in ignorant.things


WRITE = """
import sys, warnings
warnings.simplefilter("ignore")
from data_engine.store.s3 import capabilities as conditions
conditions._SETTLE_SECONDS = 0.2
from data_engine.errors import StoreBusy
from data_engine.store.s3.s3_files import S3Files
try:
    S3Files(sys.argv[1]).update("x", lambda old: str(int(old or b"0") + 1).encode())
    print("written", flush=True)
except StoreBusy as error:
    print(error.exit_code, error, flush=True)
sys.stdin.read()
"""


def test_where_conditions_are_ignored_a_second_process_is_refused_until_the_first_has_ended(ignorant):
    def started() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", WRITE, URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with started() as first:
        assert first.stdout.readline() == "written\n"
        with started() as second:
            refused = second.stdout.readline()
            assert (refused[:2], "s3://bars/store" in refused, "--wait" in refused) == ("7 ", True, True)
        first.stdin.close()
        first.wait(30)
        assert ignorant.things["store/metadata/locks/writer.lock"].content == b""
        with started() as third:
            assert third.stdout.readline() == "written\n"

    assert ignorant.things["store/x"].content == b"2"


def test_where_conditions_are_ignored_the_threads_of_one_process_lose_nothing(ignorant):
    both = S3Files(URL), S3Files(URL)
    both[0].write_warning()
    with both[0].lock("run", seconds=0), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: both[number % 2].update("x", add), range(60)))

    assert ignorant.things["store/x"].content == b"60"


def test_where_conditions_are_ignored_a_process_holds_once(ignorant):
    both, waits = (S3Files(URL), S3Files(URL)), []
    both[0].write_warning()
    with (
        both[0].lock("run", seconds=0),
        pytest.raises(StoreBusy, match=r"s3://bars/store.* 0\.05 s"),
        both[1].lock("run", seconds=0.05, waiting=lambda: waits.append("waiting")),
    ):
        pytest.fail("two at once")
    with both[1].lock("run", seconds=0):
        pass

    assert waits == ["waiting"]


# ---------------------------------------------------------------------------------------------------------- what it costs others


def test_a_store_on_a_disk_imports_nothing_of_all_this(tmp_path):
    code = f"""
import sys
from data_engine import ParquetStorage, MetadataStore
from data_engine.cli import main
storage = ParquetStorage({str(tmp_path / "store")!r})
MetadataStore(storage.files.location).store("x", ["A"])
with storage.files.lock("run", seconds=0):
    storage.files.remove_stale_drafts()
main(["status", "--base-path", storage.files.location])
main(["query", "SELECT 1", "--base-path", storage.files.location])
sys.stderr.write("\\n" + " ".join(sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(ran.stderr.splitlines()[-1].split())

    assert "data_engine.read.duckdb_views" in loaded
    ours = {f"data_engine.{name}" for name in ("store.s3.s3_files", "store.s3.lease", "read.s3_dataset")}
    assert {"obstore", "boto3", *ours} & loaded == set()
    assert (tmp_path / "store" / "metadata" / "indices" / "x.csv").is_file()
