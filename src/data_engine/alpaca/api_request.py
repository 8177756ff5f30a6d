"""Define what `http_client` needs of a request and of a page of its response."""

from __future__ import annotations

from typing import ClassVar, Protocol


class ApiRequest(Protocol):
    """A request that can be sent: it says where its pages are, and prints for people.

    Attributes:
        carries_text: Whether text of the server is stored, and not only numbers and symbols that were requested.
    """

    carries_text: ClassVar[bool]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols whose data are requested."""

    def target(self, token: str | None = None) -> str:
        """Return path and query of the first page, or of the page that *token* names."""


class ApiPage(Protocol):
    """One page of a response."""

    @property
    def token(self) -> str | None:
        """The name of the next page; None on the last one."""
