"""Find credentials, in the environment or a ``.env`` file only, and check the address that they may be sent to.

Two pairs of names are understood, that of data-engine and that of Alpaca's own tools. The environment wins over the file, and
the halves of two different pairs are never put together. Credentials are never shown.
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from data_engine.alpaca.echoes import echoed, echoes
from data_engine.errors import ConfigError
from data_engine.market.clean_text import MOST_CHARACTERS, clean

PAIRS = (("ALPACA_API_KEY", "ALPACA_SECRET_KEY"), ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"))

_OTHER_HALF = {name: other for pair in PAIRS for name, other in (pair, pair[::-1])}

_LONG = 10 * MOST_CHARACTERS

_SHORTEST = 8  # characters of a key or secret

_DOTENV_NAME = ".env"

DATA_URL = "https://data.alpaca.markets"
"""The address of Alpaca's market data."""

TRADING_URL, PAPER_URL = "https://api.alpaca.markets", "https://paper-api.alpaca.markets"
"""The addresses of Alpaca's trading API, for live and paper accounts."""

_PAPER_KEY = "PK"

_URLS = ("APCA_API_DATA_URL", "APCA_API_BASE_URL")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and its secret. Neither is in the repr.

    Attributes:
        key: The identity of the account; sent with every request.
        secret: The proof of the identity; sent with every request.
        source: The place that the pair comes from, for people.
    """

    key: str = field(repr=False)
    secret: str = field(repr=False)
    source: str

    def redact(self, text: str) -> str:
        """Return a text with key and secret replaced by asterisks, in whatever encoding they stand there (`echoes`)."""
        return echoes(self.key, self.secret).sub("***", text)

    def quotable(self, text: str) -> str:
        """Return a text that quotes a server as it may be printed and stored: without the credentials, short, all visible."""
        # Megabytes are cut before they are searched; what was cut in two there is not among what is left.
        parts = (text,) if len(text) < _LONG else (text[:_LONG], f" ({len(text):,} characters) ", text[-_LONG:])
        return clean("".join(map(self.redact, parts)), most=MOST_CHARACTERS)

    def occur_in(self, text: str) -> bool:
        """Tell whether key or secret occur in a text, in whatever encoding."""
        return echoed(text, self.key, self.secret)


def find_credentials(
    environ: Mapping[str, str] | None = None, dotenv_path: str | Path | None = None, cwd: Path | None = None
) -> Credentials | None:
    """Return the credentials in the environment or a ``.env`` file, or None if there are none.

    The order is: a pair in the environment, a pair in the file, a pair with one half in each; of two pairs in one place,
    ``ALPACA_API_KEY`` and ``ALPACA_SECRET_KEY``. Space and quotation marks around a value are cut off; an empty value counts as
    none.

    Args:
        environ: The environment. If None, ``os.environ``.
        dotenv_path: The file, which must exist. If None, ``.env`` in the working directory, if it exists.
        cwd: The working directory. If None, that of the process.

    Raises:
        ConfigError: If there is half a pair, alone or beside a pair of another account, or a value cannot be a key or secret. The
            message names the variable and never shows its value.
    """
    path = _dotenv_file(dotenv_path, cwd)
    environment = _trimmed(os.environ if environ is None else environ)
    content = {} if path is None else _read(path)
    file = _trimmed(content)
    ignored = " and ".join(_without_effect(content))
    if any(environment.keys() >= set(pair) for pair in PAIRS) or path is None:
        _refuse_two_accounts(environment, "the environment")
    found = _pair(environment, f"the environment (ignored in {path}: {ignored})" if ignored else "the environment")
    if found is None and path is not None:
        _refuse_contradiction(environment, file, path)
        _refuse_two_accounts({**file, **environment}, f"the environment and {path}" if environment else str(path))
        passed_over = f" (ignored there: {ignored}; set that in the environment)" if ignored else ""
        found = _pair(file, f"{path}{passed_over}") or _pair({**file, **environment}, f"the environment and {path}{passed_over}")
    if found is None:
        _refuse_half({**file, **environment})
    return found


def ignored_variables(cwd: Path | None = None) -> tuple[str, ...]:
    """Return the variables of the ``.env`` file that would have an effect in the environment, and have none there.

    Args:
        cwd: The working directory. If None, that of the process.

    Raises:
        ConfigError: If the file cannot be read.
    """
    path = _dotenv_file(None, cwd)
    return () if path is None else _without_effect(_read(path))


def _without_effect(content: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the variables of a file that are no credentials: who owns the working directory must not choose where keys go."""
    others = sorted(name for name in content if name.startswith("DATA_ENGINE_"))
    return tuple(name for name in (*_URLS, *others) if _bare(content.get(name)))


def without_secrets(text: str) -> str:
    """Return a text for people without what the variables of keys hold, here and in ``.env``: one may stand in a wrong place.

    Values of fewer than eight characters are none of Alpaca's, and words of any text.
    """
    content: Mapping[str, str | None] = {}
    with suppress(ConfigError):
        content = {} if (path := _dotenv_file(None, None)) is None else _read(path)
    values = (*_trimmed(os.environ).values(), *_trimmed(content).values())
    secrets = sorted({value for value in values if len(value) >= _SHORTEST}, key=len, reverse=True)
    return echoes(*secrets).sub("***", text) if secrets else text


def require_credentials(key: str | None = None, secret: str | None = None) -> Credentials:
    """Return the pair of two arguments, or that of `find_credentials` if neither is given.

    Raises:
        ConfigError: If there is none, or only half a pair, or a value cannot be a key or secret; it is not shown.
    """
    if key is None and secret is None:
        found = find_credentials()
        if found is None:
            raise ConfigError(missing_credentials_message())
        return found
    named = {"api_key": _bare(key), "api_secret": _bare(secret)}
    if not all(named.values()):
        raise ConfigError("cannot use half a pair of credentials: api_key and api_secret belong together; pass both")
    key, secret = (_checked(name, value) for name, value in named.items())
    return Credentials(key, secret, "the arguments api_key and api_secret")


def missing_credentials_message() -> str:
    """Return the message for missing credentials."""
    ours, alpacas = (" and ".join(pair) for pair in PAIRS)
    return (
        "no credentials\n"
        f"  Set {ours},\n"
        f"  or {alpacas},\n"
        "  in the environment or in a file named .env in the working directory.\n"
        "  Keys are free at https://alpaca.markets; `data-engine demo` needs none."
    )


def check_data_url(url: object) -> str:
    """Return the address of a market-data server, without a slash at the end.

    Credentials are sent to it, so it is https; plain http only to this machine (127.0.0.0/8, ::1, localhost).

    Raises:
        ConfigError: If it is another address. The message never shows what may be a secret: user, password, query.
    """
    return _checked_url(url, "data URL", DATA_URL)


def check_trading_url(url: object) -> str:
    """Return the address of a trading server, without a slash and ``/v2``, which Alpaca's pages show, at the end.

    The rules are those of `check_data_url`.

    Raises:
        ConfigError: If it is another address.
    """
    return _checked_url(url, "trading URL", TRADING_URL).removesuffix("/v2").rstrip("/")


def trading_url_of(key: str) -> str:
    """Return the address of the trading API at which a key is valid."""
    return PAPER_URL if key.startswith(_PAPER_KEY) else TRADING_URL


def _checked_url(url: object, what: str, example: str) -> str:
    text = url.strip() if isinstance(url, str) else ""
    if (flaw := _flaw(text, example)) is not None:
        raise ConfigError(f"cannot use the {what}: {flaw}")
    return text.rstrip("/")


def _flaw(url: str, example: str) -> str | None:
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        return f"it must be an address such as {example}, in plain characters"
    if "@" in url:
        return "it must not hold a user or password; credentials come from the environment or a .env file"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "its host or port cannot be read"
    if parts.scheme not in ("https", "http") or not re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:.]+", host or ""):
        return "it must begin with https:// and the name of a host"
    if parts.query or parts.fragment or url[-1] in "?#":
        return "it must not have a query ('?') or fragment ('#')"
    if parts.scheme == "http" and not _is_loopback(host or ""):
        return f"plain http to {host} would send your keys unencrypted; use https"
    return None


def is_loopback_url(url: str) -> bool:
    """Tell whether an address is one of this machine; one that cannot be read is not."""
    try:
        return _is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "::1"):
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _trimmed(values: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables of `PAIRS` that are not empty, without what surrounds a pasted value."""
    trimmed = ((name, _bare(values.get(name))) for name in _OTHER_HALF)
    return {name: value for name, value in trimmed if value}


def _bare(value: str | None) -> str:
    return (value or "").strip().strip("'\"").strip()


def _pair(values: Mapping[str, str], source: str) -> Credentials | None:
    for names in PAIRS:
        if values.keys() >= set(names):
            key, secret = (_checked(name, values[name]) for name in names)
            others = [name for name in _OTHER_HALF if name not in names and name in values]
            another = len(others) == len(names) and {values[name] for name in others} != {key, secret}
            ignored = f", not {' and '.join(others)}" if another else ""
            return Credentials(key, secret, f"{' and '.join(names)} in {source}{ignored}")
    return None


def _checked(name: str, value: str) -> str:
    """Refuse what would break a request's header, or smuggle something into it."""
    if not re.fullmatch(r"[!-~]+", value):
        raise ConfigError(f"{name} contains a space, a line break or a character that no key has; copy it again")
    return value


def _refuse_contradiction(environment: Mapping[str, str], file: Mapping[str, str], path: Path) -> None:
    for name, other in _OTHER_HALF.items():
        if name in environment and file.keys() >= {name, other} and environment[name] != file[name]:
            raise ConfigError(
                f"{name} is set in the environment, but {other} only in {path}, with another {name}; "
                f"set {other} in the environment too, or unset {name} there"
            )


def _refuse_two_accounts(values: Mapping[str, str], where: str) -> None:
    """Refuse half a pair beside a whole one of another account: the new keys may be half set, and the old ones left over."""
    if all(values.keys() >= set(pair) for pair in PAIRS):
        return  # ours go first, and the source names the others
    for ours, alpacas in zip(*PAIRS, strict=True):
        if ours in values and alpacas in values and values[ours] != values[alpacas]:
            one, other = (" and ".join(pair) for pair in PAIRS)
            raise ConfigError(
                f"{ours} and {alpacas} in {where} differ, and are to name one account; unset either {one}, or {other}"
            )


def _refuse_half(values: Mapping[str, str]) -> None:
    for name, other in _OTHER_HALF.items():
        if name in values:
            raise ConfigError(f"{name} is set, but {other} is not; set both in the environment or in a `.env` file")


def _dotenv_file(named: str | Path | None, cwd: Path | None) -> Path | None:
    file = Path(cwd or "", named or _DOTENV_NAME)
    if named is None:
        return file.absolute() if file.is_file() else None  # a folder of that name is someone's virtual environment
    if not file.exists():
        raise ConfigError(f"cannot read credentials: {file} does not exist; pass an existing file")
    return file


_MOST_BYTES = 1 << 20


def _read(file: Path) -> Mapping[str, str | None]:
    from dotenv import dotenv_values

    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"cannot use {file}: it is larger than {_MOST_BYTES >> 20} MiB, which no file of credentials is")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot use {file}: it cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        # Not `from error`: that one carries the file's bytes.
        raise ConfigError(f"cannot use {file}: it is not text in UTF-8; save it as UTF-8") from None
    return dotenv_values(stream=io.StringIO(text), interpolate=False)
