"""A claim keeps others away while it is renewed, and not longer. Clocks of two machines are never compared."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable

import pytest

from data_engine.errors import StoreBusy, StoreError
from data_engine.store.s3 import lease as lease_module
from data_engine.store.s3.lease import MARGIN, Lease, LeaseRecord, owner_of


class Slot:
    """One object in memory, with a server's clock that is put forward by hand."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: LeaseRecord | None = None
        self.written = 0
        self.age = 0.0
        self.broken = False

    def read(self) -> LeaseRecord | None:
        with self.lock:
            if self.broken:
                raise StoreError("the line is cut")
            return None if self.seen is None else LeaseRecord(self.seen.content, self.seen.tag, self.age)

    def swap(self, content: bytes, seen: LeaseRecord | None) -> LeaseRecord | None:
        with self.lock:
            if self.broken:
                raise StoreError("the line is cut")
            if (self.seen and self.seen.tag) != (seen and seen.tag):
                return None
            self.written += 1
            self.age = 0.0
            self.seen = LeaseRecord(content, f"tag {self.written}", 0.0)
            return self.seen

    def put(self, content: bytes, age: float = 0.0) -> None:
        with self.lock:
            self.written += 1
            self.seen, self.age = LeaseRecord(content, f"tag {self.written}", 0.0), age


def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def slot() -> Slot:
    return Slot()


def test_a_claim_says_who_holds_it_and_is_let_go(slot):
    lease = Lease(slot, "the place", 60)
    assert not lease.valid
    lease.take(0)
    said = json.loads(slot.seen.content)

    assert lease.valid
    assert set(said) == {"owner", "host", "pid", "since", "seconds", "written"}
    assert owner_of(slot.seen.content) == said["owner"]
    lease.release()
    assert (slot.seen.content, lease.valid) == (b"", False)


def test_another_is_refused_and_told_who_holds_it(slot):
    lease = Lease(slot, "the place", 60)
    lease.take(0)
    waits = []
    try:
        message = r"the place.*process \d+ on .+, since 2\d{3}-.*Z.*0\.1 s.*--wait"
        with pytest.raises(StoreBusy, match=message):
            Lease(slot, "the place", 60).take(0.1, lambda: waits.append("waiting"))
    finally:
        lease.release()

    assert waits == ["waiting"]
    next_one = Lease(slot, "the place", 60)
    next_one.take(0, lambda: waits.append("again"))
    next_one.release()
    assert waits == ["waiting"]


def test_a_claim_is_renewed_for_as_long_as_it_is_held(slot):
    lease = Lease(slot, "the place", 0.3)
    lease.take(0)
    until(lambda: slot.written > 5)

    assert lease.valid
    lease.release()
    written = slot.written
    time.sleep(0.2)
    assert slot.written == written


CLAIM = json.dumps({"owner": "the dead", "host": "far", "pid": 7, "since": "2024-01-01T00:00:00Z", "seconds": 60}).encode()


def test_a_claim_that_was_not_renewed_is_taken_at_once_by_whoever_does_not_wait(slot):
    """It is told by the server's clock alone."""
    slot.put(CLAIM, age=60 + MARGIN - 0.5)
    with pytest.raises(StoreBusy, match="process 7 on far, since 2024-01-01"):
        Lease(slot, "the place", 60).take(0)
    slot.put(CLAIM, age=60 + MARGIN + 0.5)
    lease = Lease(slot, "the place", 60)
    lease.take(0)

    assert owner_of(slot.seen.content) != "the dead"
    lease.release()


def test_whoever_looks_on_for_as_long_as_a_claim_lasts_takes_it_whatever_a_clock_says(slot):
    slot.put(CLAIM.replace(b"60", b"0.3"), age=-1000.0)
    lease = Lease(slot, "the place", 60)
    started = time.monotonic()
    lease.take(30)

    assert time.monotonic() - started >= 0.3
    lease.release()


def test_a_claim_that_goes_on_being_renewed_is_not_taken_by_who_looks_on(slot):
    holder = Lease(slot, "the place", 0.3)
    holder.take(0)

    with pytest.raises(StoreBusy):
        Lease(slot, "the place", 60).take(1.0)
    assert holder.valid
    holder.release()


@pytest.mark.parametrize("content", [b"garbage", b"[]", b'{"seconds": "many"}'])
def test_a_claim_that_cannot_be_read_lasts_a_minute(slot, content):
    slot.put(content, age=30)
    with pytest.raises(StoreBusy, match=r"process \? on \?"):
        Lease(slot, "the place", 1).take(0)
    slot.put(content, age=70)
    lease = Lease(slot, "the place", 1)
    lease.take(0)
    lease.release()


def test_a_holder_that_was_passed_over_knows_and_leaves_the_claim_of_the_other(slot):
    lease = Lease(slot, "the place", 0.3)
    lease.take(0)
    slot.put(CLAIM)
    until(lambda: not lease.valid)
    lease.release()

    assert slot.seen.content == CLAIM


def test_a_holder_whose_line_is_cut_stops_being_one_before_it_can_be_passed_over(slot):
    lease = Lease(slot, "the place", 0.3)
    lease.take(0)
    slot.broken = True
    until(lambda: not lease.valid)
    slot.broken = False
    # Nobody has taken it meanwhile: it is renewed, and holds again.
    until(lambda: lease.valid)
    slot.broken = True
    lease.release()  # cannot be written, and need not be


def test_a_renewal_whose_answer_was_lost_is_recognised(slot):
    """The object is newer than the holder thinks, but it is the holder's own."""
    lease = Lease(slot, "the place", 0.3)
    lease.take(0)
    slot.put(slot.seen.content)
    written = slot.written
    until(lambda: slot.written > written + 2)

    assert lease.valid
    lease.release()


def test_of_many_who_claim_at_once_one_holds(slot):
    leases = [Lease(slot, "the place", 60) for _ in range(8)]
    taken = []

    def claim(lease: Lease) -> None:
        try:
            lease.take(0)
        except StoreBusy:
            return
        taken.append(lease)

    threads = [threading.Thread(target=claim, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 1
    taken[0].release()


@pytest.mark.parametrize("clock", ["suspend", "day"])
def test_a_holder_that_slept_renews_its_claim_before_it_relies_on_it(slot, monkeypatch, clock):
    """One clock counts the time in suspend; that of a virtual machine that was stopped shows in the time of day alone."""
    lease = Lease(slot, "the place", 60)
    lease.take(0)
    written = slot.written
    assert lease.check()
    assert slot.written == written
    if clock == "suspend":
        awake = lease_module.elapsed
        monkeypatch.setattr(lease_module, "elapsed", lambda: awake() + 3600)
    else:
        today = time.time
        monkeypatch.setattr(time, "time", lambda: today() + 3600)

    assert not lease.valid
    assert lease.check()
    assert (slot.written, lease.valid) == (written + 1, True)
    lease.release()
    assert not lease.check()


@pytest.mark.parametrize("left", [CLAIM, b""], ids=["held", "released"])
def test_a_holder_that_slept_while_another_held_has_lost_it_for_good(slot, monkeypatch, left):
    lease = Lease(slot, "the place", 60)
    lease.take(0)
    slot.put(left)
    awake = lease_module.elapsed
    monkeypatch.setattr(lease_module, "elapsed", lambda: awake() + 3600)

    assert not lease.check()
    monkeypatch.undo()
    assert not lease.check()
    lease.release()
    assert slot.seen.content == left


def test_the_clock_of_a_lease_counts_suspend():
    name = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}.get(sys.platform)
    if name is None:
        pytest.skip("time.monotonic counts it here")

    assert abs(lease_module.elapsed() - time.clock_gettime(getattr(time, name))) < 1


def test_a_recognised_renewal_is_written_again_since_its_age_is_not_known(slot):
    """Its response was lost a while ago: from then on the claim counts, for all that wait."""
    lease = Lease(slot, "the place", 60)
    lease.take(0)
    slot.put(slot.seen.content, age=50)
    lease._until = 0.0

    assert lease.check()
    assert slot.age == 0.0
    lease.release()
