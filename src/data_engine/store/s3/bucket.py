"""A bucket of S3, or of a service that speaks its protocol, through obstore. Nothing else in this package knows obstore.

Endpoint, region and credentials are the usual AWS variables, read by obstore itself: they never pass through here. obstore is an
extra, imported when a bucket is opened.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from data_engine.errors import ConfigError, StoreError

_T = TypeVar("_T")

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN")

_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)

_RETRY: Any = {"max_retries": 8, "retry_timeout": timedelta(seconds=90)}

_CLIENT = {"timeout": "60s", "connect_timeout": "10s"}

_WRITER = "data-engine-write"  # metadata of an object: which write made it

_NO_CREDENTIALS = (
    "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (profiles are not read; "
    '`eval "$(aws configure export-credentials --format env)"` sets them from one)'
)


class Conflict(StoreError):
    """The object is not, or no longer, the one that was to be replaced."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was when it was read.

    Attributes:
        content: all of it.
        tag: of this content (its ETag); a write can be made to depend on it.
        writer: the word that its writer left on it.
        modified: when it was written, by the server's clock.
    """

    content: bytes
    tag: str
    writer: str | None
    modified: datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as a listing shows it."""

    key: str
    size: int
    modified: datetime


class Bucket:
    """One prefix of one bucket, and the few requests that the store makes of it.

    Args:
        store: of obstore.
        location: for people.
        endpoint: of the service; None is Amazon's own.
        with_headers: makes the same store with more headers in each request; None where there is no such thing.
    """

    def __init__(
        self,
        store: Any,
        location: str,
        endpoint: str | None = None,
        with_headers: Callable[[Mapping[str, str]], Any] | None = None,
    ) -> None:
        import obstore
        from obstore import exceptions

        self.location = location
        self.endpoint = endpoint
        self._obstore = obstore
        self._exceptions = exceptions
        self._store = store
        self._with_headers = with_headers

    def __repr__(self) -> str:
        return f"Bucket({self.location!r})"

    @classmethod
    def open(cls, url: str) -> Bucket:
        """Return the bucket of an address ``s3://bucket/prefix``. Nothing is asked of it.

        Raises:
            ConfigError: obstore is not installed, the address or a variable cannot be used, or there are no credentials.
        """
        name, prefix = parts_of(url)
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise ConfigError(f"a store at {url} needs one more package: pip install 'data-engine[s3]'") from None
        endpoint = endpoint_of(os.environ)
        if os.environ.get("AWS_PROFILE") and not any(os.environ.get(word) for word in ("AWS_ACCESS_KEY_ID", *_ROLES)):
            raise ConfigError(f"AWS_PROFILE is set, but {_NO_CREDENTIALS}")
        # One object a request: bulk deletion is a protocol of its own, which not every service speaks.
        config: Any = {"disable_bulk_delete": True, **({"endpoint": endpoint} if endpoint else {})}
        client: Any = {**_CLIENT, "allow_http": (endpoint or "").startswith("http:")}

        def make(headers: Mapping[str, str]) -> Any:
            options: Any = {**client, "default_headers": dict(headers)}
            return S3Store(name, prefix=prefix or None, config=config, client_options=options, retry_config=_RETRY)

        try:
            store = make({})
        except (BaseError, ValueError) as error:
            trouble = _text(error)
        else:
            return cls(store, url, endpoint, make)
        raise ConfigError(f"{url}: {trouble}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, both or none")

    def get(self, key: str) -> Stored | None:
        """Return an object, or None where there is none."""

        def read() -> Stored:
            found = self._obstore.get(self._store, key)
            meta = found.meta
            writer = found.attributes.get(_WRITER)
            return Stored(bytes(found.bytes()), meta["e_tag"] or "", writer, meta["last_modified"])

        return self._ask("read", key, read)

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None where there is none."""
        head = self._ask("read", key, lambda: self._obstore.head(self._store, key))
        return None if head is None else int(head["size"])

    def put(self, key: str, content: bytes, mode: Any, writer: str) -> str:
        """Write a whole object in one request; return its tag.

        Args:
            key: of the object.
            content: of the object.
            mode: ``create`` where there must be none, a tag that the present one must have, ``overwrite`` to ask nothing.
            writer: a word that tells this write from all others.

        Raises:
            Conflict: there is one, or another one, or none any more.
        """
        condition = mode if mode in ("create", "overwrite") else {"e_tag": mode}
        made = self._ask(
            "write",
            key,
            lambda: self._obstore.put(
                self._store, key, content, mode=condition, attributes={_WRITER: writer}, use_multipart=False
            ),
        )
        if made is None:
            raise StoreError(f"cannot write {self.location}/{key}: there is no such bucket")
        return made["e_tag"] or ""

    @property
    def can_delete_on_condition(self) -> bool:
        """Whether `delete` can be given a tag. That the server looks at it is another question."""
        return self._with_headers is not None

    def delete(self, key: str, tag: str | None = None) -> None:
        """Remove an object; that there is none is no error.

        Args:
            key: of the object.
            tag: remove it only while it has this one.

        Raises:
            Conflict: it has another one.
        """
        store = self._store
        if tag is not None:
            if self._with_headers is None:
                raise TypeError("this store cannot remove on condition")
            # obstore has no parameter for it. The header is not signed, and need not be.
            store = self._with_headers({"If-Match": tag})
        self._ask("remove", key, lambda: self._obstore.delete(store, key))

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Yield the objects below a folder by key, page by page as they are wanted.

        S3 lists in the order of the keys. Services that are file systems inside (SeaweedFS) list folder by folder, ``A/x`` before
        ``A-B/x``: there it is the order within each thousand.
        """
        pages = self._obstore.list(self._store, prefix, chunk_size=1000)
        while (page := self._ask("list", prefix, lambda: next(pages, ()))) is not None and page:
            for meta in sorted(page, key=lambda meta: str(meta["path"])):
                yield Listed(meta["path"], meta["size"], meta["last_modified"])

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders right below a folder, sorted; of the whole prefix where it is empty."""
        found = self._ask("list", prefix, lambda: self._obstore.list_with_delimiter(self._store, prefix or None))
        return sorted(path.rsplit("/", 1)[-1] for path in (found or {"common_prefixes": ()})["common_prefixes"])

    def _ask(self, verb: str, key: str, call: Callable[[], _T]) -> _T | None:
        """Make a request; None where there is no such object.

        Raises:
            Conflict: a condition was not met.
            StoreError: whatever else the server, or the way to it, had to say.
        """
        try:
            return call()
        except FileNotFoundError as error:
            text = _text(error)
            if "NoSuchBucket" not in text:
                return None
        except (self._exceptions.AlreadyExistsError, self._exceptions.PreconditionError):
            raise Conflict from None
        except self._exceptions.BaseError as error:
            text = _text(error)
        # Outside the handler: what the server said may repeat what it was sent.
        raise StoreError(f"cannot {verb} {self.location}/{key}: {_reason(text)}")


def parts_of(url: str) -> tuple[str, str]:
    """Return bucket and prefix of an address.

    Raises:
        ConfigError: it is not of the form ``s3://bucket/prefix``.
    """
    match = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]*)((?:/[^/]+)*)/?", url)
    if match is None or re.search(r"[?#%*\\]|/\.\.?(/|$)", url):
        raise ConfigError(f"{url!r} is not an address of the form s3://bucket/prefix, in plain characters")
    return match[1], match[2].removeprefix("/")


def endpoint_of(environ: Mapping[str, str]) -> str | None:
    """Return where the service is, or None for Amazon's own.

    Raises:
        ConfigError: not an https address; plain http is for this machine alone.
    """
    variable = next((name for name in _ENDPOINTS if environ.get(name, "").strip()), None)
    if variable is None:
        return None
    url = environ[variable].strip().rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.scheme not in ("http", "https") or not host or "@" in url or parts.query or parts.fragment:
        raise ConfigError(f"{variable} must be an address such as https://s3.example.com, without user, password or query")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(f"{variable} must use https: plain http to {host} would show your bars to everyone on the way")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(error: Exception) -> str:
    """Return what an error says, without its dump of internals and without credentials, whoever repeated them."""
    text = str(error).split("\n\nDebug source")[0]
    for name in _SECRETS:
        secret = os.environ.get(name, "")
        text = text.replace(secret, "***") if len(secret) > 3 else text
    return text


def _reason(text: str) -> str:
    """Make one sentence of what the server, or the way to it, said."""
    code, message = (match[1] if (match := re.search(f"<{tag}>([^<]*)</{tag}>", text)) else "" for tag in ("Code", "Message"))
    status = match[1] if (match := re.search(r"status code: (\d{3})", text)) else ""
    if "/latest/api/token" in text or "/latest/meta-data" in text:
        return _NO_CREDENTIALS
    if code == "NoSuchBucket":
        return "there is no such bucket"
    if code in ("SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"):
        return f"the AWS credentials were refused ({code}: {message})"
    if status in ("401", "403"):
        return f"permission denied ({code or status}{f': {message}' if message else ''})"
    if "redirect without LOCATION" in text or code == "PermanentRedirect":
        return "the bucket is in another region; set AWS_REGION to it"
    if code:
        return f"{code}: {message}"
    return " ".join(text.rpartition(" - ")[2].split())[:300]
