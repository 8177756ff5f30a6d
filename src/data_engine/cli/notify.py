"""Tell a webhook how a command ended: `notifying`.

The message is one JSON object. It has no key and no secret, and the address, which may be one, is not printed. Whatever becomes
of it, the exit code of the command stays.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from data_engine.cli.console import print_err
from data_engine.errors import ConfigError, DataEngineError, InputError

if TYPE_CHECKING:
    from data_engine.cli.exit_codes import Ended
    from data_engine.ingest.outcome import IngestionReport
    from data_engine.ingest.recheck import RecheckReport

_VARIABLE = "DATA_ENGINE_NOTIFY"

WHEN = ("failure", "always")

_SECONDS = 15.0  # for the whole message: a webhook that is slow does not hold up a nightly job

_MOST = 100  # failed symbols and notes: some receivers refuse long messages

_LONGEST = 3000  # characters of the text, which a chat shows


def notify_options(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options of a webhook to a command, and passes it an `Ending` as *ending*.

    It goes above `with_settings`, so that settings that cannot be read are told of, too.

    Args:
        name: The name of the command.
    """

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--notify",
            metavar="URL",
            envvar=_VARIABLE,
            help=f"Webhook that gets a JSON summary of failed runs. [env: {_VARIABLE}]",
        )
        @click.option(
            "--notify-when", type=click.Choice(WHEN), default=WHEN[0], show_default=True, help="Runs to tell the webhook of."
        )
        @wraps(command)
        def notified(*arguments: Any, notify: str | None, notify_when: str, **options: Any) -> None:
            ended = click.get_current_context().obj
            with notifying(Webhook.parse(notify, notify_when), name, ended) as ending:
                command(*arguments, ending=ending, **options)

        return notified

    return add


@dataclass(slots=True)
class Ending:
    """How a command ended, as far as it is known. Its exit code is made of its parts, so that none can fail unseen.

    Attributes:
        store: The location of the store. If None, it is not known.
        text: The summary for people, of all parts.
        report: The result of the run, if there was one.
        recheck: The result of the recheck after it, if there was one.
        error: The error that ended the command. If None, there was none.
        whole: Whether the command came to its end.
    """

    store: str | None = None
    text: str = ""
    report: IngestionReport | None = None
    recheck: RecheckReport | None = None
    error: BaseException | None = None
    whole: bool = False

    @property
    def parts(self) -> list[IngestionReport | RecheckReport]:
        """The results of all parts of the command."""
        return [one for one in (self.report, self.recheck) if one is not None]

    def finish(self) -> int:
        """Return the exit code of the command, which has come to its end."""
        self.whole = True
        return max((one.exit_code for one in self.parts), default=0)

    def stop(self, error: BaseException) -> None:
        """Take over the error that ends the command, and what it tells of the work until then."""
        self.error = error
        if isinstance(error, DataEngineError):
            self.report, self.recheck = self.report or error.report, self.recheck or error.recheck


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook. Its path and query may be secret, and are not in the repr.

    Attributes:
        url: The address.
        host: The host and port, for messages.
        always: Whether it is told of success, too.
    """

    url: str = field(repr=False)
    host: str
    always: bool

    @classmethod
    def parse(cls, url: str | None, when: str) -> Webhook | None:
        """Return the webhook of ``--notify``, or None if there is none.

        Raises:
            ConfigError: If it is not an https address, or one of this machine. The message shows nothing of it.
        """
        from data_engine.alpaca.credentials import is_loopback_url

        text = (url or "").strip()
        if not text:
            return None
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        usable = re.fullmatch(r"[!-~]+", text) and re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:.]+", host) and "\\" not in text
        if not usable or "@" in parts.netloc or (parts.scheme, is_loopback_url(text)) not in _ALLOWED:
            raise ConfigError(
                "cannot use --notify (DATA_ENGINE_NOTIFY): it must be an https:// address without user and password, or one of "
                "this machine; correct it, or leave it out"
            )
        shown = f"[{host}]" if ":" in host else host
        return cls(text, f"{shown}:{port}" if port else shown, when == "always")


def webhook_of_environment() -> Webhook | None:
    """Return the webhook of a command without ``--notify``, or None if there is none.

    Raises:
        ConfigError: As `Webhook.parse`.
    """
    return Webhook.parse(os.environ.get(_VARIABLE), WHEN[0])


_ALLOWED = {("https", True), ("https", False), ("http", True)}


@contextmanager
def notifying(webhook: Webhook | None, command: str, ended: list[Ended]) -> Iterator[Ending]:
    """Run the block, and have a webhook told how the process ends. The block puts its result into what is yielded.

    Args:
        webhook: The webhook. If None, nothing is sent.
        command: The name of the command.
        ended: What is told the exit code, once it is known.
    """
    ending = Ending()

    def tell(code: int, lost: BaseException | None) -> None:
        if lost is not None:
            ending.stop(lost)
        if webhook is not None and (webhook.always or code != 0):
            _tell(webhook, command, ending, code)

    ended.append(tell)
    try:
        yield ending
    except (DataEngineError, KeyboardInterrupt, click.Abort) as error:
        ending.stop(error)
        raise


def message(command: str, ending: Ending, code: int, now: str) -> dict[str, Any]:
    """Return the object that is sent."""
    from data_engine.alpaca.credentials import without_secrets

    fields: dict[str, Any] = {"text": "", "command": command, "store": ending.store, "time": now, "exit_code": code}
    said = ending.text
    if ending.error is not None or not ending.whole:
        error = ending.error if isinstance(ending.error, DataEngineError) else None
        reason = "interrupted" if ending.error is not None else "internal error in data-engine"
        why = without_secrets(str(error or reason))
        fields["error"] = {"code": error.code if error else reason.split()[0], "message": why}
        said = f"{why}\n{said}".strip()
    if ending.parts:
        fields |= _counts(ending)
    fields["text"] = f"data-engine {command} ended with {code}: {said}"[:_LONGEST]
    return fields


def _counts(ending: Ending) -> dict[str, Any]:
    """Return what all parts of a command did, together."""
    from data_engine.market.bars import NO_CHANGES

    successful, failed = _series(ending)
    changes = sum((one.changes for one in ending.parts), NO_CHANGES)
    return {
        "successful": len(successful),
        "failed": len(failed),
        "failures": [failure for one in ending.parts for failure in one.to_json()["failed"]][:_MOST],
        "notes": [] if ending.report is None else list(ending.report.notes[:_MOST]),
        "bars_written": changes.written,
        "bars_revised": changes.revised,
        "bars_vanished": changes.vanished,
        "bars_removed": changes.removed,
        "requests": sum(one.requests for one in ending.parts),
        "elapsed_seconds": round(sum(one.seconds for one in ending.parts), 3),
    }


def _series(ending: Ending) -> tuple[set[str], set[str]]:
    """Return the series of which no part failed, and the others; a series of two parts counts once."""
    outcomes = () if ending.report is None else ending.report.outcomes
    every, failed = {one.symbol for one in outcomes}, {one.symbol for one in outcomes if one.failure is not None}
    if ending.recheck is not None:
        # The report of a run names the dataset only if there are several.
        names = {
            one: one.symbol if one.symbol in every else f"{one.symbol} ({one.dataset.name})"
            for one in (*ending.recheck.rechecked, *ending.recheck.failed)
        }
        every.update(names.values())
        failed.update(names[one] for one in ending.recheck.failed)
    return every - failed, failed


def _tell(webhook: Webhook, command: str, ending: Ending, code: int) -> None:
    """Send the message, and print a warning if that fails."""
    from datetime import UTC, datetime

    from data_engine.market.time_range import iso

    body = json.dumps(message(command, ending, code, iso(datetime.now(UTC).replace(microsecond=0))), default=str)
    outcome: list[str] = ["no response in time"]
    # A thread, since a server that sends a byte now and then is not silent, and would hold the command up.
    sender = threading.Thread(target=lambda: outcome.append(_send(webhook.url, _redacted(body))), daemon=True)
    try:
        sender.start()
        sender.join(_SECONDS)
    except (KeyboardInterrupt, RuntimeError) as error:  # no thread can be started
        outcome.append("interrupted" if isinstance(error, KeyboardInterrupt) else str(error))
    if outcome[-1]:
        print_err(f"Warning: {webhook.host} was not notified: {outcome[-1]}; the run is not affected")


def _redacted(body: str) -> bytes:
    """Return a body without the credentials, which should not be in it anyway."""
    from data_engine.alpaca.credentials import find_credentials

    with suppress(InputError):  # half a pair, which the run itself has refused
        if (credentials := find_credentials()) is not None:
            body = credentials.redact(body)
    return body.encode()


def _send(url: str, body: bytes) -> str:
    """Send a body, and return why that failed; empty if the server took it."""
    import urllib3
    from urllib3.exceptions import HTTPError

    from data_engine.alpaca.proxy import proxy_for
    from data_engine.version import __version__

    headers = {"Content-Type": "application/json", "User-Agent": f"data-engine/{__version__}"}
    options: dict[str, Any] = {"retries": False, "timeout": urllib3.Timeout(connect=5.0, read=_SECONDS)}
    try:
        proxy = proxy_for(url, os.environ)
        pool = (
            urllib3.PoolManager(**options)
            if proxy is None
            else urllib3.ProxyManager(proxy.url, proxy_headers=dict(proxy.headers), **options)
        )
        with pool:
            response = pool.request("POST", url, body=body, headers=headers, redirect=False, preload_content=False)
            response.close()  # what it says does not matter
    except (HTTPError, OSError, ConfigError) as error:
        return f"no connection ({type(error).__name__})"  # the texts of urllib3 hold the address
    return "" if 200 <= response.status < 300 else f"it answered {response.status}"
