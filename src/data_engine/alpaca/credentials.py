"""Credentials: from the environment, or from a ``.env`` file, and from nowhere else; shown nowhere. And where they may be sent.

Two pairs of names are understood, ours and the one of Alpaca's own tools. The environment wins over the file, and the halves
of two different pairs are never put together.
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from data_engine.errors import ConfigError

PAIRS = (("ALPACA_API_KEY", "ALPACA_SECRET_KEY"), ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"))

_DOTENV_NAME = ".env"

DATA_URL = "https://data.alpaca.markets"
"""Where Alpaca serves market data."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and its secret. Neither is in the repr.

    Attributes:
        key: identifies the account; sent with every request.
        secret: proves it; sent with every request.
        source: where the pair comes from, for people.
    """

    key: str = field(repr=False)
    secret: str = field(repr=False)
    source: str

    def redact(self, text: bytes) -> bytes:
        """Return a text without the pair, whoever repeated it there."""
        return text.replace(self.key.encode(), b"***").replace(self.secret.encode(), b"***")


def find_credentials(
    environ: Mapping[str, str] | None = None, dotenv_path: str | Path | None = None, cwd: Path | None = None
) -> Credentials | None:
    """Return the credentials that the environment or a ``.env`` file holds, or None where there are none.

    In this order: a pair in the environment, a pair in the file, a pair of which each holds a half. Space and quotation
    marks around a value are cut off, an empty value counts as none.

    Args:
        environ: instead of ``os.environ``.
        dotenv_path: the file, which must exist; None looks for ``.env`` in the working directory.
        cwd: instead of the working directory.

    Raises:
        ConfigError: half a pair, two that contradict each other, or a value that cannot be one. The message names the
            variable and never shows its value.
    """
    file = _dotenv_file(dotenv_path, cwd)
    outer = _trimmed(os.environ if environ is None else environ)
    inner = {} if file is None else _trimmed(_read(file))
    found = _pair(outer, "the environment")
    if found is None and file is not None:
        _refuse_contradiction(outer, inner, file)
        found = _pair(inner, str(file)) or _pair({**inner, **outer}, f"the environment and {file}")
    if found is None:
        _refuse_half({**inner, **outer})
    return found


def given_credentials(key: str | None, secret: str | None) -> Credentials:
    """Return the pair that a caller named.

    Raises:
        ConfigError: half a pair, or a value that cannot be one; it is not shown.
    """
    named = {"api_key": _bare(key), "api_secret": _bare(secret)}
    if not all(named.values()):
        raise ConfigError("api_key and api_secret belong together; one of them is missing")
    key, secret = (_checked(name, value) for name, value in named.items())
    return Credentials(key, secret, "the arguments api_key and api_secret")


def missing_credentials_message() -> str:
    """Return what to tell someone who has no credentials."""
    ours, alpacas = (" and ".join(pair) for pair in PAIRS)
    return (
        f"no credentials: set {ours} (or {alpacas}) in the environment or in a file named .env in the working directory; "
        "keys are free at https://alpaca.markets. Without an account, `data-engine demo` shows everything with a simulated market"
    )


def check_data_url(url: object) -> str:
    """Return the address of a market-data server, without a slash at the end.

    Keys travel to it, so it is https; plain http only to this machine (127.0.0.0/8, ::1, localhost).

    Raises:
        ConfigError: another address. The message never shows what may be a secret: user, password, query.
    """
    text = url.strip() if isinstance(url, str) else ""
    if not re.fullmatch(r"[!-~]+", text) or "\\" in text:
        raise ConfigError("the data URL must be an address such as https://data.alpaca.markets, in plain characters")
    if "@" in text:
        raise ConfigError("the data URL must not hold a user or password; credentials come from the environment or a .env file")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError("the data URL has a host or port that cannot be read") from error
    if parts.scheme not in ("https", "http") or not host or not re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:.]+", host):
        raise ConfigError("the data URL must begin with https:// and the name of a host")
    if parts.query or parts.fragment or text[-1] in "?#":
        raise ConfigError("the data URL must not have a query ('?') or fragment ('#')")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(f"the data URL must use https: plain http to {host} would show your keys to everyone on the way")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "::1"):
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _trimmed(values: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables that are ours and not empty, without what surrounds a value that was pasted."""
    trimmed = ((name, _bare(values.get(name))) for name in _names())
    return {name: value for name, value in trimmed if value}


def _bare(value: str | None) -> str:
    return (value or "").strip().strip("'\"").strip()


def _names() -> Iterator[str]:
    return (name for pair in PAIRS for name in pair)


def _pair(values: Mapping[str, str], source: str) -> Credentials | None:
    for names in PAIRS:
        if all(name in values for name in names):
            key, secret = (_checked(name, values[name]) for name in names)
            return Credentials(key, secret, f"{' and '.join(names)} in {source}")
    return None


def _checked(name: str, value: str) -> str:
    """Refuse what would break, or smuggle something into, a request's header."""
    if not re.fullmatch(r"[!-~]+", value):
        raise ConfigError(f"{name} contains a space, a line break or a character that no key has; copy it again")
    return value


def _refuse_contradiction(outer: Mapping[str, str], inner: Mapping[str, str], file: Path) -> None:
    for names in PAIRS:
        if all(name in inner for name in names):
            for name, other in (names, names[::-1]):
                if name in outer and outer[name] != inner[name]:
                    raise ConfigError(
                        f"{name} is set in the environment, but {other} only in {file}, beside another {name}: "
                        f"set {other} in the environment too, or unset {name} there"
                    )


def _refuse_half(values: Mapping[str, str]) -> None:
    for names in PAIRS:
        for name, other in (names, names[::-1]):
            if name in values:
                raise ConfigError(f"{name} is set, but {other} is not: set both, in the environment or a .env file")


def _dotenv_file(named: str | Path | None, cwd: Path | None) -> Path | None:
    start = Path() if cwd is None else Path(cwd)
    if named is None:
        file = start / _DOTENV_NAME
        return file.absolute() if file.is_file() else None  # a folder of that name is someone's virtual environment
    file = start / named
    if not file.exists():
        raise ConfigError(f"there is no file {file} to take credentials from")
    return file


def _read(file: Path) -> Mapping[str, str | None]:
    from dotenv import dotenv_values

    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        # Not `from error`: that one carries the file's bytes.
        raise ConfigError(f"{file}: is not text in UTF-8; save it as UTF-8") from None
    return dotenv_values(stream=io.StringIO(text), interpolate=False)
