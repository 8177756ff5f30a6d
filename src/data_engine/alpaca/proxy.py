"""Find the proxy that the usual variables name: ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``, in either case. Pure.

Only https goes through a proxy, in a tunnel: the keys are inside TLS, which ends at the host and not at the proxy. Plain http
goes to this machine only, and never to a proxy.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from data_engine.errors import ConfigError

_NAMES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    Attributes:
        url: The address, without user and password.
        headers: The headers for the proxy alone.
    """

    url: str
    headers: Mapping[str, str]

    @property
    def name(self) -> str:
        """The host and port, for messages."""
        return urlsplit(self.url).netloc

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"


def proxy_for(base_url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for an address, or None if requests go there directly.

    Raises:
        ConfigError: If the proxy that a variable names cannot be used. The message shows no user or password.
    """
    parts = urlsplit(base_url)
    if parts.scheme != "https":
        return None
    name, value = next(((name, text) for name in _NAMES if (text := environ.get(name, "").strip())), ("", ""))
    if not value or _excluded(parts.hostname or "", environ):
        return None
    url = value if "://" in value else f"http://{value}"
    wrong = f"cannot use the proxy of {name}: it must be http://HOST:PORT or https://HOST:PORT; correct or unset the variable"
    try:
        address = urlsplit(url)
        host, port = address.hostname, address.port
    except ValueError:
        raise ConfigError(wrong) from None
    if address.scheme not in ("http", "https") or not host or not re.fullmatch(r"[A-Za-z0-9._:-]+", host):
        raise ConfigError(wrong)
    shown = f"[{host}]" if ":" in host else host
    headers = {}
    if address.username is not None:
        pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
        headers["proxy-authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(f"{address.scheme}://{shown}" + (f":{port}" if port else ""), headers)


def _excluded(host: str, environ: Mapping[str, str]) -> bool:
    """Tell whether ``NO_PROXY`` names a host: itself, a domain above it, or ``*``."""
    names = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").lower().split(",")
    bare = (name.strip().lstrip(".").partition(":")[0] for name in names)
    return any(name == "*" or (name and (host == name or host.endswith(f".{name}"))) for name in bare)
