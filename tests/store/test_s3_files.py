"""A store in a bucket: what is particular to it. What all places have in common is in test_file_store.py."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine import AlpacaClient, IngestionPipeline
from data_engine.errors import StoreBusy, StoreError
from data_engine.ingest import series_files
from data_engine.market.bar_parquet import to_parquet
from data_engine.market.bars import BAR_SCHEMA
from data_engine.sandbox import Sandbox, SimulatedMarket
from data_engine.store.removal_mark import tombstone
from data_engine.store.s3 import lease as lease_module
from data_engine.store.s3 import s3_files as object_files
from data_engine.store.s3 import shared_state
from data_engine.store.s3.lease import LockLost
from data_engine.store.s3.s3_files import S3Files, SingleWriterWarning
from data_engine.store.s3.shared_state import SharedState
from object_server import serving
from running import HASTY, SECRET
from running import KEY as KEY_ID

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


def test_the_sizes_of_the_files_of_a_folder_are_one_request(service):
    files = S3Files(URL)
    folder = "equities_1day/symbol=A/year="
    keys = [f"{folder}{year}/data.parquet" for year in range(2000, 2024)]
    for length, key in enumerate(keys[:-1], start=1):
        files.update(key, lambda _, length=length: b"x" * length)
    files.delete(keys[3])
    del service.asked[:]

    lengths = [None if key in (keys[3], keys[-1]) else length for length, key in enumerate(keys, start=1)]
    assert files.sizes_of(keys) == lengths
    assert len(service.asked) == 1
    assert files.sizes_of(keys[4:5]) == [5]
    assert files.sizes_of([]) == []
    assert files.sizes_of([keys[0], "metadata/none"]) == [1, None]


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


# ------------------------------------------------------------------------------------------------------------- removals


@pytest.mark.parametrize("key", [KEY, "metadata/coverage/equities_1min/symbol=A.json"])
@pytest.mark.parametrize("honours", [{"create", "match", "delete"}, {"create", "match"}], ids=["all", "no-delete"])
def test_a_removed_file_is_gone_for_every_reader(service, honours, key):
    """Where it cannot be removed on condition a mark stays: for bars one that every reader of Parquet can read."""
    service.honours = honours
    files = S3Files(URL)
    files.update(key, add)
    assert files.delete(key) is True
    things = {name: thing for name, thing in service.things.items() if "/history/" not in name}
    left = {name: thing.content for name, thing in things.items() if thing.content}

    assert (files.get(key), files.size(key), list(files.list("equities_1min")), files.delete(key)) == (None, None, [], False)
    assert set(left) == (set() if "delete" in honours or key != KEY else {f"store/{KEY}"})
    for content in left.values():
        table = pq.read_table(io.BytesIO(content))
        assert (table.num_rows, table.schema.names) == (0, BAR_SCHEMA.names)
        assert table.schema.types == BAR_SCHEMA.types
    assert files.update(key, add) is True
    assert service.things[f"store/{key}"].content == b"1"


def test_no_bar_file_is_as_small_as_the_mark_of_a_removed_one():
    one = pa.table(
        {name: pa.array([0], "int64").cast(kind) for name, kind in zip(BAR_SCHEMA.names, BAR_SCHEMA.types, strict=True)}
    )

    assert len(to_parquet(one.cast(BAR_SCHEMA))) > 2 * len(tombstone(KEY))


def test_a_removal_is_conditional_on_what_was_read(service):
    service.honours = {"create", "match"}
    files, seen = S3Files(URL), []
    files.update(KEY, add)

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        if len(seen) == 1:
            service.put(f"store/{KEY}", b"new")
        return b""

    assert files.update(KEY, change) is True
    assert (seen, files.get(KEY)) == ([b"1", b"new"], None)


@pytest.mark.parametrize(
    "honours", [{"create", "match", "delete"}, {"create", "match"}, set()], ids=["all", "no-delete", "nothing"]
)
def test_no_request_that_comes_late_removes_a_new_file(service, monkeypatch, honours):
    """Each request to remove is carried out once more, after the file was written anew: the network was slow."""
    monkeypatch.setattr("data_engine.store.s3.capabilities._SETTLE_SECONDS", 0.2)
    service.honours = honours
    files = S3Files(URL)
    warned = pytest.warns(SingleWriterWarning) if not honours else contextlib.nullcontext()
    with warned, files.lock("run", seconds=0):
        files.update(KEY, add)
        del service.asked[:]
        assert files.delete(KEY) is True
        late = [(key, headers) for method, key, headers in service.asked if method == "DELETE"]
        files.update(KEY, add)
        for key, headers in late:
            if not service.fails(service.things[key], headers, "DELETE"):
                service.things.pop(key)

        assert files.get(KEY) == b"1"


def test_a_new_file_in_the_place_of_a_removed_one_stays(service):
    """Another process writes between the two requests of a removal."""
    files = S3Files(URL)
    files.update(KEY, add)
    service.before = lambda method, key: service.put(key, b"new") if method == "DELETE" else None

    assert files.delete(KEY) is True
    assert files.get(KEY) == b"new"


# ---------------------------------------------------------------------------------------------------------------- holding


def test_a_hold_whose_first_answer_is_lost_is_held(service):
    """The claim is sent again, and refused: it is there already."""
    files = S3Files(URL)
    files.write_warning()
    lost = iter([True])
    service.unlucky = lambda method, key: method == "PUT" and key.endswith("run.lock") and next(lost, False)

    with files.lock("run", seconds=0):
        files.update("x", add)
    assert next(lost, None) is None


def test_a_write_of_which_nothing_is_known_keeps_others_away_until_it_can_no_longer_come(service, monkeypatch):
    """Else the next run would find the file as it was, rely on it, and then lose what it relied on."""
    monkeypatch.setattr("data_engine.store.s3.bucket._RETRY", {"max_retries": 1})
    files = S3Files(URL)
    files.update("x", add)
    service.refuse = lambda method, key, *_: (504, "GatewayTimeout", "no") if method == "PUT" and key.endswith("x") else None
    with pytest.raises(StoreError, match="GatewayTimeout"), files.lock("run", seconds=0):
        files.update("x", add)

    with pytest.raises(StoreBusy), files.lock("run", seconds=0):
        pytest.fail("two at once")
    service.refuse = lambda *_: None
    later = S3Files(URL)
    later._shared = SharedState()
    claim = service.things["store/metadata/locks/run.lock"].content
    service.ahead = timedelta(seconds=-70)
    service.put("store/metadata/locks/run.lock", claim)
    service.ahead = timedelta(0)
    with later.lock("run", seconds=0):
        later.update("x", add)


def test_a_write_that_is_refused_keeps_nobody_away(service):
    files = S3Files(URL)
    files.update("x", add)
    service.refuse = lambda method, key, *_: (403, "AccessDenied", "no") if method == "PUT" and key.endswith("x") else None
    with pytest.raises(StoreError, match="permission denied"), files.lock("run", seconds=0):
        files.update("x", add)

    with files.lock("run", seconds=0):
        pass


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
    other._shared = SharedState()
    with files.lock("run", seconds=0):
        files.update("x", add)
        service.put("store/metadata/locks/run.lock", b'{"owner": "somebody else"}')
        until(lambda: not files._shared.leases[0].valid)
        with pytest.raises(LockLost, match=r"s3://bars/store.* 0\.3 s.*again") as caught:
            files.update("x", add)
        # Not the failure of one file, as `StoreBusy` would be: it ends the run.
        assert (caught.value.code, caught.value.exit_code) == ("store_busy", 7)
        assert not isinstance(caught.value, StoreBusy)
        other.update("x", add)

    assert service.things["store/x"].content == b"2"
    assert service.things["store/metadata/locks/run.lock"].content == b'{"owner": "somebody else"}'
    files.update("x", add)


def test_a_machine_that_slept_looks_at_the_lock_before_it_writes(service, monkeypatch):
    """The process was not running, so that no renewal failed; only the clock that counts suspend tells."""
    files = S3Files(URL)
    other = S3Files(URL)
    other._shared = SharedState()
    with files.lock("run", seconds=0):
        files.update("x", add)
        awake = lease_module.elapsed
        monkeypatch.setattr(lease_module, "elapsed", lambda: awake() + 3600)
        files.update("x", add)  # nobody took it: it is renewed, and the run goes on
        service.things["store/metadata/locks/run.lock"].modified -= timedelta(seconds=70)
        with other.lock("run", seconds=0):
            other.update("x", add)
        monkeypatch.setattr(lease_module, "elapsed", lambda: awake() + 7200)
        with pytest.raises(LockLost):
            files.update("x", add)

    assert service.things["store/x"].content == b"3"


class SmallPages(AlpacaClient):
    """A client that asks for few bars a page."""

    def request(self, *args, **named):
        made = super().request(*args, **named)
        return None if made is None else replace(made, limit=2000)


def test_a_run_whose_lock_is_lost_ends_and_sends_no_more(service, monkeypatch):
    """What was requested when it was lost may still come; the first write tells."""
    monkeypatch.setattr(series_files, "LONG_GROUP_BARS", series_files.GROUP_BARS)
    sent, stolen = [], []
    with Sandbox(SimulatedMarket(), on_request=sent.append) as sandbox:
        client = SmallPages(KEY_ID, SECRET, base_url=sandbox.url, policy=HASTY)
        pipeline = IngestionPipeline(4, URL, client=client)

        def steal(method: str, key: str) -> None:
            if method == "PUT" and "equities_1min/symbol=" in key and not stolen:
                stolen.append(len(sent))
                service.put("store/metadata/locks/run.lock", b'{"owner": "somebody else"}')
                for lease in shared_state.SHARED[service.url, URL].leases:
                    lease._until = 0.0

        service.before = steal
        with pytest.raises(LockLost) as caught:
            pipeline.ingest_symbols(["AAPL", "MSFT", "NVDA", "AMZN"], "2024-03-01", "2024-06-28")
        client.close()

    assert stolen[0] < 90  # four tasks of 16 pages until their first files are written together
    assert len(sent) <= stolen[0] + 40  # of 136: what was under way, until the next write
    assert caught.value.exit_code == 7


def test_a_child_that_is_forked_holds_no_lease_of_its_parent(service):
    files = S3Files(URL)
    with files.lock("run", seconds=0):
        shared, (lease,) = files._shared, files._shared.leases
        with shared.lock, shared.stripes[0]:
            shared_state._after_fork()
            assert shared.leases == []
            assert shared.stripes[0].acquire(blocking=False)
        lease._process -= 1
        lease.release()  # as the child's copy would
        assert service.things["store/metadata/locks/run.lock"].content
        lease._process += 1

    assert service.things["store/metadata/locks/run.lock"].content == b""


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

    assert files.get("x") is None


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
