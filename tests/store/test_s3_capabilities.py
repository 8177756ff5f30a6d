"""What a service honours is found out by trying, and by nothing else."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from data_engine.errors import StoreError
from data_engine.store.s3 import capabilities as conditions
from data_engine.store.s3.bucket import Bucket
from data_engine.store.s3.capabilities import ConditionalLock, PollingLock, probe
from object_server import Service, serving


def bucket_of(service: Service, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in service.env.items():
        monkeypatch.setenv(name, value)
    return Bucket.open("s3://bars/a")


KINDS = {
    "all": ({"create", "match", "delete"}, (True, True)),
    "no-delete": ({"create", "match"}, (True, False)),
    "create-alone": ({"create"}, (False, False)),
    "match-alone": ({"match", "delete"}, (False, False)),
    "nothing": (set(), (False, False)),
}


@pytest.mark.parametrize(("honours", "expected"), KINDS.values(), ids=KINDS)
def test_a_probe_finds_the_conditions_that_a_service_supports(monkeypatch, honours, expected):
    """And nothing is left of the trial."""
    with serving(honours=honours) as service:
        found = probe(bucket_of(service, monkeypatch))

        assert (found.writing, found.removing) == expected
        assert service.things == {}


def test_the_real_services_and_the_memory_honour_conditions(place):
    found = probe(place.files._bucket) if not place.on_disk else None
    if found is None:
        pytest.skip("a disk has locks")

    assert (found.writing, found.removing) == (True, place.kind != "memory")
    assert place.content() == {}


def test_a_service_that_refuses_conditions_supports_none(monkeypatch):
    """Some answer 501; that is an answer, too."""

    def refuse(method, key, headers):
        return (501, "NotImplemented", "no such header") if "if-match" in headers or "if-none-match" in headers else None

    with serving(refuse=refuse) as service:
        found = probe(bucket_of(service, monkeypatch))

        assert (found.writing, found.removing) == (False, False)
        assert service.things == {}


def test_a_service_that_refuses_only_conditional_removals_supports_the_others(monkeypatch):
    def refuse(method, key, headers):
        return (501, "NotImplemented", "no such header") if method == "DELETE" and "if-match" in headers else None

    with serving(refuse=refuse) as service:
        found = probe(bucket_of(service, monkeypatch))

        assert (found.writing, found.removing) == (True, False)
        assert service.things == {}


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_condition_that_was_not_answered_is_no_finding(monkeypatch, method):
    """Whoever took the service for one without conditions would overwrite what others write at the same time."""

    def refuse(verb, key, headers):
        return (
            (400, "RequestTimeout", "too slow")
            if verb == method and ("if-match" in headers or "if-none-match" in headers)
            else None
        )

    with serving(refuse=refuse) as service, pytest.raises(StoreError, match="RequestTimeout"):
        probe(bucket_of(service, monkeypatch))


@pytest.mark.parametrize("lost", range(10))
def test_a_probe_whose_request_is_sent_again_finds_the_same(monkeypatch, lost):
    """Seed 950000125: a write conflicted with itself, and two runs wrote the history of one bucket without conditions."""
    changes = iter(range(100))
    with serving(unlucky=lambda *_: next(changes) == lost) as service:
        found = probe(bucket_of(service, monkeypatch))

        assert (found.writing, found.removing) == (True, True)
        assert next(changes) > lost, "so many requests are not made"
        assert service.things == {}


@pytest.mark.parametrize("answer", [(401, "", "who?"), (403, "AccessDenied", "no"), (400, "ExpiredToken", "old")])
def test_a_condition_that_was_refused_for_another_reason_is_no_finding(monkeypatch, answer):
    def refuse(method, key, headers):
        return answer if "if-match" in headers or "if-none-match" in headers else None

    with serving(refuse=refuse) as service, pytest.raises(StoreError):
        probe(bucket_of(service, monkeypatch))


def test_a_place_that_may_not_be_written_to_is_an_error_and_no_finding(monkeypatch):
    with serving(refuse=lambda method, *_: (403, "AccessDenied", "no") if method == "PUT" else None) as service:
        bucket = bucket_of(service, monkeypatch)

        with pytest.raises(StoreError, match=r"s3://bars/a/metadata/locks/probe-[0-9a-f]+.lock.*permission denied"):
            probe(bucket)


@pytest.mark.parametrize("ahead", [timedelta(hours=-3), timedelta(0), timedelta(days=1)], ids=str)
def test_an_age_is_told_by_the_servers_clock_whatever_this_machines_says(monkeypatch, ahead):
    with serving(ahead=ahead) as service:
        bucket = bucket_of(service, monkeypatch)
        honours = probe(bucket)
        bucket.put("x", b"1", "create", "one")
        service.ahead -= timedelta(seconds=100)
        bucket.put("y", b"1", "create", "one")

        assert -2 < honours.age(bucket.get("x").modified) < 30
        assert 98 < honours.age(bucket.get("y").modified) < 130


# ------------------------------------------------------------------------------------------------------------------ slots


def test_of_two_who_claim_a_slot_at_once_one_is_refused(monkeypatch):
    with serving() as service:
        bucket = bucket_of(service, monkeypatch)
        slots = [ConditionalLock(bucket, "lock", probe(bucket)) for _ in range(2)]
        first = slots[0].swap(b"first", None)
        assert slots[1].swap(b"second", None) is None
        seen = slots[1].read()
        second = slots[1].swap(b"second", seen)

        assert (seen.content, seen.tag) == (first.content, first.tag)
        assert slots[0].swap(b"first again", first) is None
        assert slots[0].read().tag == second.tag
        assert slots[1].swap(b"", second).content == b""


def test_where_nothing_is_honoured_of_those_who_claim_at_once_the_last_is_the_writer(monkeypatch):
    """All of them look before any has written: the worst that can happen."""
    monkeypatch.setattr(conditions, "_SETTLE_SECONDS", 1.0)
    looked = threading.Barrier(3)
    local = threading.local()

    def together(method: str, key: str) -> None:
        if method == "PUT" and "lock" in key and not getattr(local, "met", False):
            local.met = True
            looked.wait(30)

    with serving(honours=set()) as service:
        bucket = bucket_of(service, monkeypatch)
        honours = probe(bucket)
        service.before = together
        results: dict[int, object] = {}

        def claim(number: int) -> None:
            results[number] = PollingLock(bucket, "x/claim.lock", honours).swap(b'{"owner": "%d"}' % number, None)

        threads = [threading.Thread(target=claim, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [number for number, made in results.items() if made is not None]

        assert len(winners) == 1
        assert service.things["a/x/claim.lock"].content == b'{"owner": "%d"}' % winners[0]


def test_a_claim_that_took_too_long_to_write_is_not_relied_on(monkeypatch):
    monkeypatch.setattr(conditions, "_SETTLE_SECONDS", 0.0)
    with serving(honours=set()) as service:
        bucket = bucket_of(service, monkeypatch)

        assert PollingLock(bucket, "claim.lock", probe(bucket)).swap(b'{"owner": "me"}', None) is None
