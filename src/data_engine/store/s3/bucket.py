"""Request objects of a bucket of S3, or of a service with its protocol, through obstore, which only this module imports.

obstore itself reads endpoint, region and credentials from the usual AWS variables. It is an extra, imported when a bucket is
opened.
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

_OF_TODAY = ("RequestTimeout", "ExpiredToken", "InvalidToken")
"""The codes of status 400 that say nothing of what a service knows."""

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN")

_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)

_RETRY: Any = {"max_retries": 8, "retry_timeout": timedelta(seconds=90)}

_CLIENT = {"timeout": "60s", "connect_timeout": "10s"}

_WRITER = "data-engine-write"  # metadata of an object: the write that made it

_NO_CREDENTIALS = (
    "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from a profile with "
    '`eval "$(aws configure export-credentials --format env)"`'
)

_NO_BUCKET = "no such bucket; create it or pass another URL"


class Conflict(StoreError):
    """The object is not the one that the request was conditional on."""


class NotSupported(StoreError):
    """The service has refused a request: perhaps it does not know a part of it, such as a condition."""


class Unanswered(StoreError):
    """Nothing says what became of a request: it may have been carried out, or still be."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was when it was read.

    Attributes:
        content: The content.
        tag: The ETag of the content; a write can be conditional on it.
        writer: The identifier of the write that made it.
        modified: The time of that write, by the server's clock.
    """

    content: bytes
    tag: str
    writer: str | None
    modified: datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing."""

    key: str
    size: int
    modified: datetime


class Bucket:
    """A prefix of a bucket, and the requests that a store needs.

    Args:
        store: The store of obstore.
        location: The URL, for messages.
        endpoint: The URL of the service. If None, Amazon's.
        with_headers: A function that returns the same store with more headers in each request. If None, there is none.
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
        """Return the bucket of a URL ``s3://bucket/prefix``, without a request.

        Raises:
            ConfigError: If obstore is not installed, the URL or a variable cannot be used, or there are no credentials.
        """
        name, prefix = parts_of(url)
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise ConfigError(f"cannot open {url}: obstore is not installed; run `pip install obstore`") from None
        endpoint = endpoint_of(os.environ)
        if os.environ.get("AWS_PROFILE") and not any(os.environ.get(word) for word in ("AWS_ACCESS_KEY_ID", *_ROLES)):
            raise ConfigError(f"cannot open {url}: AWS_PROFILE is not read and there are {_NO_CREDENTIALS}")
        # One object per request: not every service has bulk deletion.
        config: Any = {"disable_bulk_delete": True, **({"endpoint": endpoint} if endpoint else {})}
        client: Any = {**_CLIENT, "allow_http": (endpoint or "").startswith("http:")}

        def make(headers: Mapping[str, str]) -> Any:
            options: Any = {**client, "default_headers": dict(headers)}
            return S3Store(name, prefix=prefix or None, config=config, client_options=options, retry_config=_RETRY)

        try:
            store = make({})
        except (BaseError, ValueError) as error:
            reason = _text(error)
        else:
            return cls(store, url, endpoint, make)
        raise ConfigError(f"cannot open {url}: {reason}; set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or none")

    def get(self, key: str) -> StoredObject | None:
        """Return an object, or None if there is none."""

        def read() -> StoredObject:
            found = self._obstore.get(self._store, key)
            meta = found.meta
            writer = found.attributes.get(_WRITER)
            return StoredObject(bytes(found.bytes()), meta["e_tag"] or "", writer, meta["last_modified"])

        return self._request("read", key, read)

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if there is none."""
        head = self._request("read", key, lambda: self._obstore.head(self._store, key))
        return None if head is None else int(head["size"])

    def put(self, key: str, content: bytes, mode: Any, writer: str) -> str:
        """Write a whole object in one request; return its tag.

        Args:
            key: The key of the object.
            content: The content.
            mode: The condition: ``create`` if there must be no object, the tag that it must have, or ``overwrite`` for none.
            writer: A unique identifier of this write.

        Raises:
            Conflict: If the condition is not met.
        """
        condition = mode if mode in ("create", "overwrite") else {"e_tag": mode}
        made = self._request(
            "write",
            key,
            lambda: self._obstore.put(
                self._store, key, content, mode=condition, attributes={_WRITER: writer}, use_multipart=False
            ),
        )
        if made is None:
            raise StoreError(f"cannot write {self.location}/{key}: {_NO_BUCKET}")
        return made["e_tag"] or ""

    @property
    def can_delete_on_condition(self) -> bool:
        """Whether `delete` can send a condition; the server may ignore it."""
        return self._with_headers is not None

    def delete(self, key: str, tag: str | None = None) -> None:
        """Remove an object, if there is one.

        Args:
            key: The key of the object.
            tag: The tag that it must have. If None, any: only for a key that is used once, since a request that is delayed on
                its way would remove what is there then.

        Raises:
            Conflict: If it has another tag.
        """
        store = self._store
        if tag is not None:
            if self._with_headers is None:
                raise TypeError("no conditional delete")
            # obstore has no parameter for it. The header need not be signed.
            store = self._with_headers({"If-Match": tag})
        self._request("remove", key, lambda: self._obstore.delete(store, key))

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Yield the objects below a folder by key, requesting each page as it is needed.

        S3 lists by key. Services on a file system (SeaweedFS) list by folder, ``A/x`` before ``A-B/x``: there the order holds
        within each page of 1,000.
        """
        pages = self._obstore.list(self._store, prefix, chunk_size=1000)
        while (page := self._request("list", prefix, lambda: next(pages, ()))) is not None and page:
            for meta in sorted(page, key=lambda meta: str(meta["path"])):
                yield Listed(meta["path"], meta["size"], meta["last_modified"])

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders right below a folder, sorted; if it is empty, of the whole prefix."""
        found = self._request("list", prefix, lambda: self._obstore.list_with_delimiter(self._store, prefix or None))
        return sorted(path.rsplit("/", 1)[-1] for path in (found or {"common_prefixes": ()})["common_prefixes"])

    def _request(self, verb: str, key: str, call: Callable[[], _T]) -> _T | None:
        """Return the response to a request, or None if there is no such object.

        Raises:
            Conflict: If a condition was not met.
            NotSupported: If the service has refused it: perhaps it does not know what was requested.
            Unanswered: If there was no answer, or one that does not say what became of it.
            StoreError: If the service has refused it otherwise.
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
        # Outside the handler, without the original error, which may repeat what was sent.
        raise _kind(text)(f"cannot {verb} {self.location}/{key}: {_reason(text)}")


def parts_of(url: str) -> tuple[str, str]:
    """Return the bucket and the prefix of a URL.

    Raises:
        ConfigError: If it is not of the form ``s3://bucket/prefix``.
    """
    match = re.fullmatch(r"s3://([A-Za-z0-9][A-Za-z0-9._-]*)((?:/[^/]+)*)/?", url)
    if match is None or re.search(r"[?#%*\\]|/\.\.?(/|$)", url):
        raise ConfigError(f"{url!r} is not of the form s3://BUCKET/PREFIX in plain characters; correct the URL")
    return match[1], match[2].removeprefix("/")


def endpoint_of(environ: Mapping[str, str]) -> str | None:
    """Return the URL of the service, or None for Amazon's.

    Raises:
        ConfigError: If it is not an https URL; plain http is allowed only to this machine.
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
        raise ConfigError(f"{variable} must be a URL such as https://s3.example.com, without user, password or query")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(f"{variable} must use https: plain http to {host} is not encrypted")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _kind(text: str) -> type[StoreError]:
    """Return the error for the text of a failed request."""
    if re.search(r"status code: (400|405|501)", text) and not any(code in text for code in _OF_TODAY):
        return NotSupported
    return StoreError if re.search(r"status code: [34]\d\d", text) and "RequestTimeout" not in text else Unanswered


def _text(error: Exception) -> str:
    """Return the text of an error, without internals and without credentials, which a server may repeat."""
    text = str(error).split("\n\nDebug source")[0]
    for name in _SECRETS:
        secret = os.environ.get(name, "")
        text = text.replace(secret, "***") if len(secret) > 3 else text
    return text


def _reason(text: str) -> str:
    """Return the reason of a failed request, in one line."""
    code, message = _found("<Code>([^<]*)</Code>", text), _found("<Message>([^<]*)</Message>", text)
    status = _found(r"status code: (\d{3})", text)
    if "/latest/api/token" in text or "/latest/meta-data" in text:
        return _NO_CREDENTIALS
    if code == "NoSuchBucket":
        return _NO_BUCKET
    if code in ("SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"):
        return f"AWS credentials refused ({code}: {message})"
    if status in ("401", "403"):
        return f"permission denied ({': '.join(filter(None, (code or status, message)))})"
    if "redirect without LOCATION" in text or code == "PermanentRedirect":
        return "the bucket is in another region; set AWS_REGION"
    return f"{code}: {message}" if code else " ".join(text.rpartition(" - ")[2].split())[:300]


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
