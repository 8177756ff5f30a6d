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
from data_engine.errors import ConfigError, DataEngineError, InputError, Interrupted

if TYPE_CHECKING:
    from data_engine.ingest.outcome import IngestionReport

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
            with notifying(Webhook.parse(notify, notify_when), name) as ending:
                command(*arguments, ending=ending, **options)

        return notified

    return add


@dataclass(slots=True)
class Ending:
    """How a command ended, as far as it is known.

    Attributes:
        store: The location of the store. If None, it is not known.
        exit_code: The exit code. If None, the command did not come to its end.
        text: The summary for people.
        report: The result of the run, if there was one.
        error: The error that ended the command. If None, there was none.
    """

    store: str | None = None
    exit_code: int | None = None
    text: str = ""
    report: IngestionReport | None = None
    error: BaseException | None = None


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
def notifying(webhook: Webhook | None, command: str) -> Iterator[Ending]:
    """Run the block, then tell a webhook how it ended. The block puts its result into what is yielded.

    Args:
        webhook: The webhook. If None, nothing is sent.
        command: The name of the command.
    """
    ending = Ending()
    try:
        yield ending
    except (DataEngineError, KeyboardInterrupt, click.Abort) as error:
        ending.error = error
        ending.report = getattr(error, "report", None)
        ending.exit_code = getattr(error, "exit_code", Interrupted.exit_code)
        raise
    finally:
        if webhook is not None and (webhook.always or ending.exit_code != 0):
            _tell(webhook, command, ending)


def message(command: str, ending: Ending, now: str) -> dict[str, Any]:
    """Return the object that is sent."""
    report = ending.report
    code = 1 if ending.exit_code is None else ending.exit_code
    fields: dict[str, Any] = {"text": "", "command": command, "store": ending.store, "time": now, "exit_code": code}
    said = ending.text
    if ending.error is not None or ending.exit_code is None:
        error = ending.error if isinstance(ending.error, DataEngineError) else None
        reason = "interrupted" if ending.error is not None else "internal error in data-engine"
        fields["error"] = {"code": error.code if error else reason.split()[0], "message": str(error or reason)}
        said = f"{said}\n{error or reason}".strip()
    if report is not None:
        whole = report.to_json()
        failed, notes = whole["failed"], whole["notes"]
        numbers = ("bars_written", "bars_revised", "bars_vanished", "bars_removed", "requests", "elapsed_seconds")
        fields |= {"successful": len(whole["successful"]), "failed": len(failed), "failures": failed[:_MOST]}
        fields |= {"notes": notes[:_MOST], **{name: whole[name] for name in numbers}}
    fields["text"] = f"data-engine {command} ended with {code}: {said}"[:_LONGEST]
    return fields


def _tell(webhook: Webhook, command: str, ending: Ending) -> None:
    """Send the message, and print a warning if that fails."""
    from datetime import UTC, datetime

    from data_engine.market.time_range import iso

    body = json.dumps(message(command, ending, iso(datetime.now(UTC).replace(microsecond=0))), default=str)
    outcome: list[str] = ["no response in time"]
    # A thread, since a server that sends a byte now and then is not silent, and would hold the command up.
    sender = threading.Thread(target=lambda: outcome.append(_send(webhook.url, _redacted(body))), daemon=True)
    sender.start()
    sender.join(_SECONDS)
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
