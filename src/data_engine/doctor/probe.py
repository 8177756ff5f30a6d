"""Send single requests and keep their responses as they came: `Probe`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from data_engine.alpaca.credentials import Credentials
from data_engine.alpaca.rate_limit import RateLimiter
from data_engine.alpaca.transport import HttpTransport, TransportFailed
from data_engine.version import __version__

BARS = "/v2/stocks/bars"

ACTIONS = "/v1/corporate-actions"

_WRONG = "X" * 20  # no key of anybody


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, or the lack of one.

    Attributes:
        status: The HTTP status. 0 if there was no response.
        headers: The headers by lower-case name.
        text: The body as text, or the reason why there was no response.
    """

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def is_answer(self) -> bool:
        """Whether it says anything of the service's rules: it does not if there was no response, for a limit, or for a fault."""
        return self.status not in (0, 408, 425, 429) and self.status < 500

    @property
    def content(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None

    @property
    def bars(self) -> dict[str, list[dict[str, Any]]]:
        """The bars by symbol; none if the body has none."""
        content = self.content
        found = content.get("bars") if isinstance(content, dict) else None
        return {symbol: rows for symbol, rows in found.items() if isinstance(rows, list)} if isinstance(found, dict) else {}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The bars of all symbols, by symbol."""
        return [row for symbol in sorted(self.bars) for row in self.bars[symbol]]

    @property
    def times(self) -> list[str]:
        """The timestamps of all bars, by symbol."""
        return [str(row.get("t")) for row in self.rows]

    @property
    def token(self) -> str | None:
        """The name of the next page."""
        content = self.content
        token = content.get("next_page_token") if isinstance(content, dict) else None
        return token if isinstance(token, str) else None

    @property
    def message(self) -> str:
        """The message of a refusal; the start of the body if it is no JSON."""
        content = self.content
        message = content.get("message") if isinstance(content, dict) else None
        return message if isinstance(message, str) else " ".join(self.text.split())[:120]


class Probe:
    """A client without retries, whose answers are not judged. It keeps to the limit that they state, or to a lower one.

    Not safe to share between threads.

    Args:
        credentials: The credentials.
        base_url: The address of the server.
        requests_per_minute: The user's limit. If None, there is none.

    Attributes:
        sent: The paths and queries that were sent.
    """

    def __init__(self, credentials: Credentials, base_url: str, requests_per_minute: int | None = None) -> None:
        self._credentials = credentials
        self._limiter = RateLimiter(requests_per_minute)
        self.base_url = base_url
        self.sent: list[str] = []
        agent = {"User-Agent": f"data-engine/{__version__}"}
        self._right = HttpTransport(
            base_url, {"APCA-API-KEY-ID": credentials.key, "APCA-API-SECRET-KEY": credentials.secret, **agent}, connections=1
        )
        self._wrong = HttpTransport(base_url, {"APCA-API-KEY-ID": _WRONG, "APCA-API-SECRET-KEY": _WRONG, **agent}, connections=1)

    def get(self, path: str, query: Mapping[str, object], *, wrong_keys: bool = False) -> Answer:
        """Send one request and return its answer.

        Args:
            path: The path.
            query: The parameters; None leaves one out.
            wrong_keys: Whether to send credentials that nobody has.
        """
        target = f"{path}?{urlencode({name: value for name, value in query.items() if value is not None})}"
        return self.fetch(target, wrong_keys=wrong_keys)

    def fetch(self, target: str, *, wrong_keys: bool = False) -> Answer:
        """Send one request, of which path and query are written out, and return its answer.

        Args:
            target: The path and the query.
            wrong_keys: Whether to send credentials that nobody has.
        """
        self.sent.append(target)
        time.sleep(self._limiter.acquire(time.monotonic()))
        status: int | None = None
        headers: Mapping[str, str] = {}
        try:
            response = (self._wrong if wrong_keys else self._right).get(target)
            status, headers = response.status, response.headers
        except TransportFailed as error:
            return Answer(0, {}, self._credentials.quotable(str(error)))
        finally:
            self._limiter.answered(time.monotonic(), status, headers, unix=time.time())
        text = response.body.decode("utf-8", "replace")
        if self._credentials.occur_in(text):
            text = "(not shown: it repeats the credentials)"
        shown = {name: self._credentials.quotable(value) for name, value in response.headers.items()}
        return Answer(response.status, shown, text)

    def close(self) -> None:
        """Close the connections."""
        self._right.close()
        self._wrong.close()
