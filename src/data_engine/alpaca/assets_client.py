"""Fetch the list of securities from Alpaca's trading API: `AssetsClient`.

The trading API is another host than that of market data, with a rate limit of its own. Keys of paper accounts are valid at one
host, those of live accounts at another.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from data_engine.alpaca.assets_protocol import AssetsPage, AssetsRequest, Status, read_assets
from data_engine.alpaca.credentials import check_trading_url, is_loopback_url, require_credentials, trading_url_of
from data_engine.alpaca.http_client import ApiSession
from data_engine.alpaca.retry import RetryPolicy
from data_engine.errors import ConfigError


class AssetsClient:
    """The list of securities of Alpaca's trading API. Safe to share between threads; each process makes its own.

    Example:
        >>> with AssetsClient() as client:
        ...     active = client.assets("active")

    Args:
        api_key: The key. If None, like *api_secret* from the environment or a ``.env`` file.
        api_secret: The secret of the key.
        base_url: The address. If None, ``APCA_API_BASE_URL``, else ``https://paper-api.alpaca.markets`` for a key that begins
            with ``PK``, and ``https://api.alpaca.markets`` for others. Plain http only to this machine.
        policy: The rule for repeating requests. If None, the defaults of `RetryPolicy`.

    Attributes:
        base_url: The address of the server.
        credentials_source: The place that the credentials come from, for people.

    Raises:
        ConfigError: If there are no credentials, the URL would send them unencrypted, or market data come from this machine
            (``APCA_API_DATA_URL``) and the address of the trading API is not named.
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_secret: str | None = None,
        base_url: str | None = None,
        *,
        policy: RetryPolicy | None = None,
    ) -> None:
        credentials = require_credentials(api_key, api_secret)
        named = base_url or os.environ.get("APCA_API_BASE_URL", "").strip()
        if not named and is_loopback_url(os.environ.get("APCA_API_DATA_URL", "").strip()):
            # Of a rehearsal: neither should its keys leave this machine, nor real securities mix with simulated bars.
            raise ConfigError(
                "cannot fetch the list of securities: APCA_API_DATA_URL names a server on this machine, but APCA_API_BASE_URL is "
                "not set; set both, or neither"
            )
        self.base_url = check_trading_url(named) if named else trading_url_of(credentials.key)
        self.credentials_source = credentials.source
        self._session = ApiSession(credentials.key, credentials.secret, self.base_url, connections=1, policy=policy)

    def __repr__(self) -> str:
        return f"AssetsClient({self.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @property
    def requests(self) -> int:
        """The number of requests sent so far, answered or not."""
        return self._session.requests

    def assets(self, status: Status) -> AssetsPage:
        """Return all US securities of a status, and what could not be read, as it can be shown.

        Args:
            status: ``active``, or ``inactive`` for those that left; a few of these still trade.

        Raises:
            BadAnswer: If the response cannot be trusted.
            SourceError: If Alpaca refuses, or gives no usable response.
        """
        page = self._session.get_json(AssetsRequest(status), None, read_assets)
        return AssetsPage(page.assets, tuple(map(self._session.quotable, page.unusable)))
