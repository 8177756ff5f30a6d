"""The models of disk, bucket, network and threads do what they stand for: else a world that is not violated would say nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from obstore import exceptions

from data_engine.store.file_store import FileStore

from .bucket import Buckets
from .disk import BASE, Disks, ModelDisk
from .market import Security
from .scheduler import Deadlock, Killed, Mutex, Process, Scheduler
from .vendor import Faults
from .world import Step, World

# -------------------------------------------------------------------------------------------------------------------- disk


def written(disk: ModelDisk, name: str, *, folder_too: bool) -> None:
    handle = disk.create(f"{BASE}/{name}.tmp")
    content = memoryview(b"content")
    while content:
        content = content[disk.write(handle, content) :]
    disk.flush(handle)
    disk.close(handle)
    disk.replace(f"{BASE}/{name}.tmp", f"{BASE}/{name}")
    if folder_too:
        disk.flush_folder(BASE)


def left_by_power_failures(prepare: Callable[[ModelDisk], None], *, journalled: bool) -> set[tuple[str, ...]]:
    found = set()
    for seed in range(60):
        disk = ModelDisk(seed, journalled=journalled)
        prepare(disk)
        disk.fail()
        found.add(tuple(sorted(disk.files())))
    return found


def test_a_name_is_durable_once_its_folder_is_flushed() -> None:
    whole = left_by_power_failures(lambda disk: written(disk, "a", folder_too=True), journalled=False)
    names = left_by_power_failures(lambda disk: written(disk, "a", folder_too=False), journalled=False)

    assert whole == {("a",)}
    assert () in names
    assert ("a",) in names


@pytest.mark.parametrize("journalled", [True, False])
def test_a_strict_disk_keeps_a_later_name_without_an_earlier_one(journalled: bool) -> None:
    def two(disk: ModelDisk) -> None:
        disk.make_folder(f"{BASE}/one")
        disk.make_folder(f"{BASE}/two")
        for folder in ("one", "two"):
            written(disk, f"{folder}/file", folder_too=False)
            disk.flush_folder(f"{BASE}/{folder}")

    found = left_by_power_failures(two, journalled=journalled)

    # Flushing the folders of the files leaves the names of the folders to chance, unless there is a journal.
    assert ("one/file", "two/file") in found
    assert (("two/file",) in found) == (not journalled)


def test_content_that_was_not_flushed_is_torn() -> None:
    def unflushed(disk: ModelDisk) -> None:
        handle = disk.create(f"{BASE}/a")
        content = memoryview(b"0123456789")
        while content:
            content = content[disk.write(handle, content) :]
        disk.flush_folder(BASE)

    sizes = set()
    for seed in range(60):
        disk = ModelDisk(seed, journalled=False)
        unflushed(disk)
        disk.fail()
        sizes.add(len(disk.files()["a"]))

    assert min(sizes) < 5 < max(sizes)


# ------------------------------------------------------------------------------------------------------------------ bucket


def in_a_process(work: Callable[[], Any], begin: Callable[[Scheduler], None], tick: float = 0.0) -> Any:
    scheduler = Scheduler("test", tick)
    begin(scheduler)
    result = scheduler.run(main=(Process("main"), work))["main"]
    if isinstance(result, BaseException):
        raise result
    return result


@pytest.mark.parametrize(
    ("service", "writing", "removing"), [("plain", False, False), ("conditional", True, False), ("removing", True, True)]
)
def test_a_service_knows_what_it_is_named_for(service: str, writing: bool, removing: bool) -> None:
    made = Buckets("test", service)
    bucket = made.files()._bucket

    def work() -> tuple[bool, bool]:
        tag = bucket.put("key", b"one", "create", "me")
        refused = False
        try:
            bucket.put("key", b"two", "create", "me")
        except Exception:  # noqa: BLE001 - a conflict
            refused = True
        bucket.put("key", b"three", "overwrite", "me")
        try:
            bucket.delete("key", tag)
        except Exception:  # noqa: BLE001 - a conflict
            return refused, True
        return refused, bucket.get("key") is not None

    assert in_a_process(work, lambda scheduler: made.begin(scheduler)) == (writing, removing)


def test_requests_are_lost_repeated_and_late() -> None:
    seen = set()
    for seed in range(60):
        made = Buckets(seed, "conditional")
        objects = made.objects

        def work(objects: Any = objects) -> str:
            try:
                objects.put(None, "key", b"one", mode="create", attributes={}, use_multipart=False)
            except exceptions.AlreadyExistsError:
                return "again"
            except exceptions.GenericError:
                return "lost" if "key" in objects.names else "gone"
            return "made"

        came = in_a_process(work, lambda scheduler, made=made: made.begin(scheduler, fails=1.0))  # type: ignore[misc]
        made.end(power_failed=False)
        seen.add((came, "key" in objects.names))

    assert seen == {("again", True), ("lost", True), ("gone", True), ("gone", False)}


# --------------------------------------------------------------------------------------------------- threads and processes


def test_a_suspended_process_goes_on_when_time_has_passed() -> None:
    scheduler = Scheduler("test")
    said: list[tuple[str, float]] = []

    def work(name: str) -> None:
        for _ in range(4):
            scheduler.seam()
            scheduler.sleep(10.0)
        said.append((name, scheduler.elapsed))

    scheduler.run(
        one=(Process("one", suspend_at=3, suspend_for=3600.0), lambda: work("one")), two=(Process("two"), lambda: work("two"))
    )

    assert said[0] == ("two", 40.0)
    assert said[1][0] == "one"
    assert 3600.0 < said[1][1] < 3700.0


def test_nothing_of_a_killed_process_goes_on_and_its_locks_are_free() -> None:
    scheduler = Scheduler("test")
    mutex = Mutex(lambda: scheduler)
    done: list[str] = []

    def dies() -> None:
        with mutex:
            try:
                for _ in range(10):
                    scheduler.seam()
            finally:
                scheduler.seam()
                done.append("tidied up")

    def waits() -> bool:
        scheduler.seam()
        return mutex.acquire(timeout=60.0)

    results = scheduler.run(one=(Process("one", kill_at=5), dies), two=(Process("two"), waits))

    assert isinstance(results["one"], Killed)
    assert results["two"] is True
    assert not done


@pytest.mark.parametrize("when", ["in-another-process", "after-the-step"])
def test_what_a_killed_process_left_behind_does_nothing_when_it_is_collected(when: str) -> None:
    """The lines after a `yield` run when the generator is collected, whoever runs then."""
    scheduler = Scheduler("test")
    places = [Disks("test", journalled=True), Buckets("test", "conditional")]
    for place in places:
        place.begin(scheduler)
    left: list[Iterator[None]] = []

    def dies() -> None:
        opened = [place.files() for place in places]

        def lines(files: FileStore) -> Iterator[None]:
            try:
                yield
            finally:
                files.update("metadata/run", lambda _: b"of the dead")

        for files in opened:
            left.append(lines(files))
            next(left[-1])
        scheduler.sleep(1.0)
        scheduler.seam()

    def collects() -> None:
        scheduler.sleep(10.0)
        if when == "in-another-process":
            left.clear()

    dead = Process("one", kill_at=2)
    scheduler.run(one=(dead, dies), two=(Process("two"), collects))
    left.clear()

    assert dead.dead
    assert [dict(place.content) for place in places] == [{}, {}]


def test_two_that_wait_for_each_other_are_a_deadlock() -> None:
    scheduler = Scheduler("test")
    first, second = Mutex(lambda: scheduler), Mutex(lambda: scheduler)
    holding: set[str] = set()

    def both(name: str, one: Mutex, other: Mutex) -> None:
        one.acquire()
        holding.add(name)
        scheduler.wait(lambda: len(holding) == 2)
        other.acquire()

    with pytest.raises(Deadlock):
        scheduler.run(
            one=(Process("one"), lambda: both("one", first, second)), two=(Process("two"), lambda: both("two", second, first))
        )


# ----------------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("faults", [Faults(page_bars=7), Faults(page=0.3, page_bars=7)], ids=["calm", "faulty"])
def test_the_client_behind_http_brings_what_the_plain_vendor_brings(faults: Faults) -> None:
    files = []
    for wire in (False, True):
        names = ("AAA", "BBB", "CCC")
        now = datetime(2024, 6, 10, 15, tzinfo=UTC)
        made = World("wire", [Security(name, (20, 30), first=date(2024, 5, 1)) for name in names], now, wire=wire)
        made.take(Step("ingest", names, "2024-06-03", "2024-06-06", salt=1, faults=faults if wire else Faults()))
        if wire and faults.page:
            made.take(Step("update", salt=2))
            made.take(Step("update", salt=3))
            assert made.vendor.sent
        files.append({key: data for key, data in made.files.content.items() if key.startswith("equities_1min/")})

    plain, behind = files
    for key, data in plain.items():
        if not faults.page:
            assert behind[key] == data
        assert key in behind
