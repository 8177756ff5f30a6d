"""An object store below the bucket: `Objects` stands for the module `obstore`. Every request is a seam, and may go wrong.

A request can be carried out without a response, and then be sent again, by the client or not; it can fail; or it can fail for
its sender and be carried out later, under its condition. Services differ: *conditional* ones know ``If-Match`` and
``If-None-Match`` of a write, *removing* ones of a removal too, and those that know neither respond as if they were met.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from types import SimpleNamespace
from typing import Any

from obstore import exceptions
from sortedcontainers import SortedDict

from data_engine.store.history.head import Head
from data_engine.store.removal_mark import is_file
from data_engine.store.s3.bucket import Bucket
from data_engine.store.s3.capabilities import LOCKS
from data_engine.store.s3.s3_files import S3Files
from data_engine.store.s3.shared_state import SharedState

from .scheduler import Mutex, OfProcess, Scheduler

URL = "s3://simulated/store"

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Stored:
    """An object."""

    content: bytes
    tag: str
    attributes: Mapping[str, str]
    modified: datetime

    def meta(self, key: str) -> dict[str, Any]:
        return {"path": key, "size": len(self.content), "e_tag": self.tag, "last_modified": self.modified}


class Found:
    """What `obstore.get` returns."""

    def __init__(self, key: str, stored: Stored) -> None:
        self.meta = stored.meta(key)
        self.attributes = dict(stored.attributes)
        self._content = stored.content

    def bytes(self) -> bytes:
        return self._content


class Objects:
    """The objects of a bucket.

    Args:
        seed: Of what goes wrong.
        service: ``conditional``, ``removing`` or ``plain``.
    """

    def __init__(self, seed: object, service: str) -> None:
        self.service = service
        self.scheduler: Scheduler | None = None
        self.fails = 0.0
        self._random = random.Random(f"bucket {seed}")
        self.names: SortedDict[str, Stored] = SortedDict()
        self._late: list[Callable[[], None]] = []
        self._before = 0.0  # seconds of earlier steps

    def begin(self, scheduler: Scheduler, fails: float, seconds: float) -> None:
        """Begin a step, some seconds after the last one."""
        self.deliver(everything=True)
        if self.scheduler is not None:
            self._before += self.scheduler.elapsed
        self._before += seconds
        self.scheduler, self.fails = scheduler, fails

    def deliver(self, *, everything: bool = False) -> None:
        """Carry out what was delayed on its way, or some of it."""
        for late in list(self._late):
            if everything or self._random.random() < 0.1:
                self._late.remove(late)
                late()

    def _seam(self, *, changes: bool = False) -> None:
        if self.scheduler is not None:
            self.scheduler.seam(changes=changes)
            self.deliver()

    def _now(self) -> datetime:
        assert self.scheduler is not None
        return (BEGIN + timedelta(seconds=self._before + self.scheduler.elapsed)).replace(microsecond=0)

    def _request(self, carry_out: Callable[[], Any], *, late: bool) -> Any:
        """Carry out a change, or not, or later, or twice."""
        self._seam(changes=True)
        luck = self._random.random()
        if self.scheduler is None or self.scheduler.current is None or luck >= self.fails:
            done = carry_out()
            self._seam()
            return done
        kind = self._random.choice(("again", "again", "lost", "failed", "late"))
        if kind == "again":
            carry_out()
            self._seam()
            return carry_out()  # the client sends again what got no response
        if kind == "lost":
            carry_out()
        elif kind == "late" and late:
            self._late.append(lambda: _quietly(carry_out))
        self._seam()
        raise exceptions.GenericError("the request timed out")

    # --------------------------------------------------------------------------------------------- functions of `obstore`

    def get(self, store: object, key: str) -> Found:
        self._seam()
        return Found(key, self._there(key))

    def head(self, store: object, key: str) -> dict[str, Any]:
        self._seam()
        return self._there(key).meta(key)

    def _there(self, key: str) -> Stored:
        if self.scheduler is not None and self.scheduler.current is not None and self._random.random() < self.fails / 4:
            raise exceptions.GenericError("the request timed out")
        if key not in self.names:
            raise FileNotFoundError(f"NoSuchKey {key}")
        return self.names[key]

    def put(
        self, store: object, key: str, content: bytes, *, mode: Any, attributes: Mapping[str, str], use_multipart: bool
    ) -> dict[str, Any]:
        assert not use_multipart
        tag = md5(content, usedforsecurity=False).hexdigest()

        def carry_out() -> dict[str, Any]:
            there = self.names.get(key)
            if self.service != "plain":
                if mode == "create" and there is not None:
                    raise exceptions.AlreadyExistsError(key)
                if isinstance(mode, dict) and (there is None or there.tag != mode["e_tag"]):
                    raise exceptions.PreconditionError(key)
            self.names[key] = Stored(bytes(content), tag, dict(attributes), self._now())
            return {"e_tag": tag}

        made: dict[str, Any] = self._request(carry_out, late=self.service != "plain")
        return made

    def delete(self, store: Any, key: str) -> None:
        wanted = store.headers.get("If-Match")

        def carry_out() -> None:
            there = self.names.get(key)
            if wanted is not None and self.service == "removing" and (there is None or there.tag != wanted):
                raise exceptions.PreconditionError(key)
            self.names.pop(key, None)

        self._request(carry_out, late=True)

    def list(self, store: object, prefix: str, *, chunk_size: int) -> Iterator[list[dict[str, Any]]]:
        self._seam()
        keys = self._below(f"{prefix}/" if prefix else "")
        for first in range(0, len(keys), chunk_size):
            yield [self.names[key].meta(key) for key in keys[first : first + chunk_size] if key in self.names]

    def list_with_delimiter(self, store: object, prefix: str | None) -> dict[str, Any]:
        self._seam()
        start = f"{prefix}/" if prefix else ""
        below = (key[len(start) :] for key in self._below(start))
        return {"common_prefixes": sorted({start + name.split("/")[0] for name in below if "/" in name})}

    def _below(self, start: str) -> list[str]:
        return list(self.names.irange(start, f"{start}\U0010ffff"))


def _quietly(change: Callable[[], Any]) -> None:
    """Carry out what nobody waits for any more."""
    try:
        change()
    except exceptions.BaseError:
        return


def _with_headers(headers: Mapping[str, str]) -> SimpleNamespace:
    return SimpleNamespace(headers=dict(headers))


class Buckets:
    """Where the files of a world are: a bucket, opened anew by each process, on whatever machine.

    Args:
        seed: Of the bucket.
        service: What it knows of conditions.
    """

    def __init__(self, seed: object, service: str) -> None:
        self.objects = Objects(seed, service)

    @property
    def content(self) -> dict[str, bytes]:
        """All files, by key."""
        return {
            key: stored.content
            for key, stored in self.objects.names.items()
            if is_file(key, len(stored.content)) and not key.startswith(f"{LOCKS}/")
        }

    def begin(self, scheduler: Scheduler, full_at: int | None = None, fails: float = 0.0, hours: float = 0.0) -> None:
        self.objects.begin(scheduler, fails, 3600 * hours)

    def files(self) -> S3Files:
        """Return the files, as a process opens them."""
        objects = self.objects

        def mutex(*, again: bool = False) -> Any:
            return Mutex(lambda: objects.scheduler, again=again)

        files = S3Files(URL, store=_with_headers({}))
        files._bucket = Bucket(_with_headers({}), URL, "the simulation", _with_headers)
        files._bucket._obstore = OfProcess(objects, objects.scheduler)  # type: ignore[assignment]
        stripes = [mutex() for _ in files._shared.stripes]
        files._shared = SharedState(mutex(again=True), stripes, [], None, mutex(), Head(mutex()))
        return files

    def at_risk(self) -> dict[str, bytes] | None:
        """Return None: what is there is durable."""
        return None

    def end(self, *, power_failed: bool) -> None:
        """End a step: what was sent by then arrives."""
        self.objects.deliver(everything=True)
