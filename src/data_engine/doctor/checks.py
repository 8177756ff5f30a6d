"""Check what a run needs: settings, keys, decoder, time zones, store, disk, one request, rate limit and clock."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from data_engine.alpaca.credentials import Credentials, require_credentials
from data_engine.alpaca.native_library import library
from data_engine.doctor.facts import offset_seconds
from data_engine.doctor.probe import BARS, Answer, Probe
from data_engine.errors import (
    ClockError,
    CredentialsRefused,
    DataEngineError,
    InputError,
    Interrupted,
    SourceUnavailable,
    StoreBusy,
    StoreError,
)
from data_engine.market.wording import plural
from data_engine.settings import Settings
from data_engine.store.bar_store import BarStore
from data_engine.store.legacy_files import refuse_legacy_store
from data_engine.store.location import open_file_store
from data_engine.verify.legacy_status import legacy_status

EXIT_ORDER = (
    Interrupted.exit_code,
    CredentialsRefused.exit_code,
    StoreError.exit_code,
    StoreBusy.exit_code,
    SourceUnavailable.exit_code,
    InputError.exit_code,
    1,
)
"""Which exit code comes first where several apply."""

_LITTLE_DISK = 1_000_000_000  # bytes

_LOOKED_AT = 1_000  # series in whose folders files of the legacy pipeline are looked for: a second

_MOST_OFFSET = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: What was checked.
        state: ``ok``, ``warning`` or ``failed``.
        text: What was found, and what to do.
        exit_code: The exit code if it failed.
    """

    name: str
    state: str
    text: str
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``--json`` prints."""
        return {"check": self.name, "state": self.state, "text": self.text, "exit_code": self.exit_code}


def exit_code(checks: list[Check]) -> int:
    """Return the exit code of checks: the first of `EXIT_ORDER` that a failed one has, else 0."""
    codes = {check.exit_code for check in checks if check.state == "failed"}
    return next((code for code in EXIT_ORDER if code in codes), 0)


def failed(name: str, error: DataEngineError) -> Check:
    """Return the check that an error failed."""
    return Check(name, "failed", str(error), error.exit_code)


def local_checks(settings: Settings) -> Iterator[Check]:
    """Yield what can be checked without the network."""
    file = settings.settings_file or "none"
    feed = settings.feed or "sip"
    yield Check("settings", "ok", f"file: {file}; {settings.api_threads} concurrent requests; feed {feed}")
    yield _decoder()
    yield _time_zones()
    yield from _store(settings)


def credentials() -> tuple[Check, Credentials | None]:
    """Return the check of the keys, and the keys; None if there are none."""
    try:
        found = require_credentials()
    except DataEngineError as error:
        return failed("keys", error), None
    return Check("keys", "ok", found.source), found


def online_checks(probe: Probe, settings: Settings, now: datetime) -> Iterator[Check]:
    """Yield what one request shows: whether Alpaca answers, the rate limit, and the clock."""
    day = "2024-06-03T04:00:00Z"
    query = {"symbols": "AAPL", "timeframe": "1Day", "start": day, "end": day, "limit": 1, "adjustment": "raw", "feed": "sip"}
    answer = probe.get(BARS, {**query, "sort": "asc"})
    yield _request(answer, probe.base_url)
    if answer.status != 200:
        return
    limit = answer.headers.get("x-ratelimit-limit")
    own = f"; settings keep to {settings.requests_per_minute}" if settings.requests_per_minute else ""
    yield Check("limit", "ok", (f"{limit} requests per minute" if limit else "the response states none") + own)
    yield _clock(offset_seconds(answer.headers.get("date"), now))


def _decoder() -> Check:
    if library() is not None:
        return Check("decoder", "ok", "compiled")
    return Check("decoder", "warning", "pure Python, which is slower; install with a C compiler to compile it")


def _time_zones() -> Check:
    try:
        ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        return Check("time zones", "failed", "America/New_York is not there; run `pip install tzdata`", InputError.exit_code)
    python = ".".join(map(str, sys.version_info[:3]))
    return Check("time zones", "ok", f"America/New_York is there; Python {python} on {sys.platform}")


def _store(settings: Settings) -> Iterator[Check]:
    """Yield whether the store can be opened, read and written, and how much space is left."""
    where = f"{settings.base_path} ({settings.base_path_source})"
    try:
        store = BarStore(open_file_store(settings.base_path))
        if not store.exists():
            parent = _existing_parent(store.files.folder)
            if parent is not None and not os.access(parent, os.W_OK):
                raise StoreError(f"cannot create a store at {where}: {parent} is not writable; pass --base-path")
            yield Check("store", "ok", f"none yet at {where}; `data-engine ingest` creates it")
        else:
            datasets = list(store.coverage.datasets())
            series = [one for dataset in datasets for one in store.coverage.series(dataset)]
            if store.files.folder is not None and not os.access(store.files.folder, os.W_OK):
                raise StoreError(f"cannot write to store {where}: it is read-only for this user; check its permissions")
            refuse_legacy_store(store.files)
            legacy = legacy_status(store, series[:_LOOKED_AT], series)
            lines = [
                f"{where}: {len(series):,} series in {plural(len(datasets), 'dataset')}",
                *(legacy.lines() if legacy else ()),
            ]
            yield Check("store", "warning" if legacy else "ok", "\n".join(lines))
        free = store.files.free_bytes()
    except DataEngineError as error:
        yield failed("store", error)
        return
    if free is None:
        yield Check("disk", "ok", "free space unknown")
    elif free < _LITTLE_DISK:
        yield Check("disk", "warning", f"{free / 1e6:,.0f} MB free; a year of one-minute bars of 30 symbols takes about 80 MB")
    else:
        yield Check("disk", "ok", f"{free / 1e9:,.1f} GB free")


def _existing_parent(folder: Path | None) -> Path | None:
    return None if folder is None else next((one for one in (folder, *folder.parents) if one.is_dir()), None)


def _request(answer: Answer, base_url: str) -> Check:
    if answer.status == 200:
        return Check("request", "ok", f"{base_url} answered")
    if answer.status == 0:
        text = f"cannot reach {base_url}: {answer.text}; check the network, and proxies in HTTPS_PROXY"
        return Check("request", "failed", text, SourceUnavailable.exit_code)
    if answer.status == 401 or (answer.status == 403 and answer.message == "forbidden."):
        text = f"Alpaca refused the credentials ({answer.status}); check that key and secret are a current pair"
        return Check("request", "failed", text, CredentialsRefused.exit_code)
    text = f"{base_url} answered {answer.status}: {answer.message}; try again later"
    return Check("request", "failed", text, SourceUnavailable.exit_code)


def _clock(ahead: float | None) -> Check:
    if ahead is None:
        return Check("clock", "warning", "the response has no Date to compare with")
    if ahead > _MOST_OFFSET:
        return Check("clock", "failed", f"{ahead:,.0f} s ahead of Alpaca's; set it right", ClockError.exit_code)
    if ahead < -_MOST_OFFSET:
        return Check("clock", "warning", f"{-ahead:,.0f} s behind Alpaca's; set it right")
    return Check("clock", "ok", "within a minute of Alpaca's")
