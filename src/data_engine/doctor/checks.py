"""Check what a run needs: settings, keys, decoder, time zones, store, disk, one request, rate limit and clock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from data_engine.alpaca.bars_protocol import BarsRequest, read_page
from data_engine.alpaca.credentials import Credentials, require_credentials, without_secrets
from data_engine.alpaca.native_library import library
from data_engine.alpaca.refusals import check_json, raise_for_status
from data_engine.alpaca.transport import Response
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.doctor.facts import offset_seconds
from data_engine.doctor.probe import Answer, Probe
from data_engine.errors import (
    BadAnswer,
    ClockError,
    CredentialsRefused,
    DamagedFile,
    DataEngineError,
    InputError,
    Interrupted,
    SourceError,
    SourceUnavailable,
    StoreBusy,
    StoreError,
)
from data_engine.ingest.bar_source import check_source
from data_engine.ingest.task import MOST_AHEAD
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.market.wording import and_more, plural
from data_engine.settings import VARIABLES, Settings
from data_engine.store.bar_store import BarStore
from data_engine.store.file_store import FileStore
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

_LOOKED_AT = 1_000  # series whose coverage is read, and in whose folders the legacy pipeline's files are looked for: seconds

_DAY = TimeRange(datetime(2024, 6, 3, 4, tzinfo=UTC), datetime(2024, 6, 4, 4, tzinfo=UTC))

_USUAL_OFFSET = 60.0  # seconds


class Webhook(Protocol):
    """What ends of runs are told to."""

    @property
    def host(self) -> str:
        """The host and port."""


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
    return Check(name, "failed", without_secrets(str(error)), error.exit_code)


def local_checks(settings: Settings) -> Iterator[Check]:
    """Yield what can be checked without the network."""
    file = settings.settings_file or "none"
    feed = settings.feed or "sip"
    first = f"file: {file}; {settings.api_threads} concurrent requests; feed {feed}"
    lines = (f"{name} = {one['value']} ({one['source']})" for name, one in sources(settings).items())
    yield Check("settings", "ok", "\n".join([first, *lines]))
    yield _decoder()
    yield _time_zones()
    yield from _store(settings)


def sources(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the value of each setting and where it comes from, by its name, without those that have none.

    Args:
        settings: The settings.
    """
    made = {name: {"value": getattr(settings, name), "source": settings.source_of(name)} for name in VARIABLES}
    return {
        name: {**one, "value": str(one["value"]) if name == "base_path" else one["value"]}
        for name, one in made.items()
        if one["value"] is not None
    }


def credentials() -> tuple[Check, Credentials | None]:
    """Return the check of the keys, and the keys; None if there are none."""
    try:
        found = require_credentials()
    except DataEngineError as error:
        return failed("keys", error), None
    return Check("keys", "ok", found.source), found


def notification(webhook: Callable[[], Webhook | None]) -> Iterator[Check]:
    """Yield the check of the webhook that ends of runs are told to; nothing if there is none.

    Args:
        webhook: What a run itself calls.
    """
    try:
        found = webhook()
    except DataEngineError as error:
        yield failed("notify", error)
        return
    if found is not None:
        yield Check("notify", "ok", f"failed runs are told to {found.host}, which is not asked now")


def probe_of(credentials: Credentials | None, settings: Settings | None) -> tuple[Probe | None, list[Check]]:
    """Return what sends requests, or the check that failed, or neither without credentials or settings."""
    if credentials is None or settings is None:
        return None, []
    try:
        return Probe(credentials, settings.data_url, settings.requests_per_minute), []
    except DataEngineError as error:  # a proxy that cannot be used
        return None, [failed("request", error)]


def online_checks(probe: Probe, settings: Settings, now: Callable[[], datetime]) -> Iterator[Check]:
    """Yield what one request shows: whether Alpaca answers, the rate limit, and the clock.

    Args:
        probe: What sends the request.
        settings: The settings.
        now: A function that returns the current time.
    """
    request = BarsRequest(("AAPL",), Dataset(Timeframe.parse("1Day"), Adjustment.parse(None), Feed.SIP), _DAY, limit=1)
    before = now()  # not earlier: the checks of a large store take a while
    answer = probe.fetch(request.target())
    after = now()
    made = _request(answer, request, probe.base_url)
    yield made
    if made.state != "ok":
        return
    limit = answer.headers.get("x-ratelimit-limit")
    own = f"; settings keep to {settings.requests_per_minute}" if settings.requests_per_minute else ""
    yield Check("limit", "ok", (f"{limit} requests per minute" if limit else "the response states none") + own)
    yield _clock(offset_seconds(answer.headers.get("date"), before, after))


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
    """Yield whether a run can read and write the store, with what a run itself calls, and how much space is left."""
    try:
        store = BarStore(open_file_store(settings.base_path))
        store.files.check_writable()
        refuse_legacy_store(store.files)
        store.coverage.requested.refresh()
        series = [one for dataset in store.coverage.datasets() for one in store.coverage.series(dataset)]
        yield _contents(store, series, f"{settings.base_path} ({settings.base_path_source})")
        yield from _series(store, series)
    except DataEngineError as error:
        yield failed("store", error)
        return
    yield _source(store.files, settings.data_url)
    yield _disk(store.files.free_bytes())


def _contents(store: BarStore, series: Sequence[Series], where: str) -> Check:
    """Return what is in the store, and what of the legacy pipeline."""
    if not store.exists():
        return Check("store", "ok", f"none yet at {where}; `data-engine ingest` creates it")
    datasets = len({one.dataset for one in series})
    legacy = legacy_status(store, series[:_LOOKED_AT], series)
    lines = [f"{where}: {len(series):,} series in {plural(datasets, 'dataset')}", *(legacy.lines() if legacy else ())]
    return Check("store", "warning" if legacy else "ok", "\n".join(lines))


def _series(store: BarStore, series: Sequence[Series]) -> Iterator[Check]:
    """Yield whether runs can work on the first series: what is known of them and of their tickers can be read."""
    if not series:
        return
    looked_at = series[:_LOOKED_AT]
    changes = ActionStore(store.files).ticker_changes()
    damaged = [one for one in looked_at if changes.problem_of(one.symbol) is not None or not _is_readable(store, one)]
    of = f"{len(looked_at):,}" + (f" (of {len(series):,})" if len(series) > len(looked_at) else "")
    if not damaged:
        yield Check("series", "ok", f"the coverage of {of} can be read")
        return
    text = (
        f"cannot read what is known of {len(damaged):,} of {of} series ({and_more([str(one) for one in damaged], 3)}), which no "
        "run works on; run `data-engine verify`"
    )
    yield Check("series", "failed" if len(damaged) == len(looked_at) else "warning", text, StoreError.exit_code)


def _is_readable(store: BarStore, series: Series) -> bool:
    try:
        store.coverage.read(series, fingerprints=False)
    except DamagedFile:
        return False
    return True


def _source(files: FileStore, url: str) -> Check:
    """Return whether the store may be filled from the address in use."""
    try:
        check_source(files, url)
    except DataEngineError as error:
        return failed("source", error)
    return Check("source", "ok", url)


def _disk(free: int | None) -> Check:
    if free is None:
        return Check("disk", "ok", "free space unknown")
    if free < _LITTLE_DISK:
        return Check("disk", "warning", f"{free / 1e6:,.0f} MB free; a year of one-minute bars of 30 symbols takes about 80 MB")
    return Check("disk", "ok", f"{free / 1e9:,.1f} GB free")


def _request(answer: Answer, request: BarsRequest, base_url: str) -> Check:
    """Return whether an answer is one that a run could use, by the client's own judgement."""
    if answer.status == 0:
        text = f"cannot reach {base_url}: {answer.text}; check the network, and proxies in HTTPS_PROXY"
        return Check("request", "failed", text, SourceUnavailable.exit_code)
    body = answer.text.encode()
    response = Response(answer.status, answer.headers, body, len(body))
    try:
        if answer.status != 200:
            raise_for_status(response, request)
            raise SourceUnavailable(f"{base_url} answered {answer.status}: {answer.message}; try again later")
        check_json(response, request)
        read_page(body, request)
    except CredentialsRefused as error:
        return failed("request", error)
    except BadAnswer as error:
        text = (
            f"{base_url} does not answer as Alpaca does: {error}; check the network: a proxy or a login page may answer instead"
        )
        return Check("request", "failed", text, SourceUnavailable.exit_code)
    except SourceError as error:
        return Check("request", "failed", str(error), SourceUnavailable.exit_code)
    return Check("request", "ok", f"{base_url} answered")


def _clock(ahead: float | None) -> Check:
    if ahead is None:
        return Check("clock", "warning", "the response has no Date to compare with")
    if ahead > MOST_AHEAD.total_seconds():
        return Check("clock", "failed", f"{ahead:,.0f} s ahead of Alpaca's; set it right", ClockError.exit_code)
    if ahead > _USUAL_OFFSET:
        most = f"{MOST_AHEAD.total_seconds():,.0f} s"
        return Check("clock", "warning", f"{ahead:,.0f} s ahead of Alpaca's; set it right: runs refuse more than {most}")
    if ahead < -_USUAL_OFFSET:
        return Check("clock", "warning", f"{-ahead:,.0f} s behind Alpaca's; set it right")
    return Check("clock", "ok", "within a minute of Alpaca's")
