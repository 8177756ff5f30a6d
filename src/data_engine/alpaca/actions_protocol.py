"""Write requests to ``/v1/corporate-actions`` and read their pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import ClassVar

from data_engine.alpaca.page_format import query_string, read_envelope, unusable
from data_engine.errors import BadAnswer
from data_engine.market.corporate_action import Action, concerned_symbols, decode
from data_engine.market.wording import and_more

PAGE_LIMIT = 1000
"""The maximum number of actions in one page."""


@dataclass(frozen=True, slots=True)
class ActionsRequest:
    """A request to the endpoint; its pages together are the response.

    Attributes:
        symbols: The symbols, at least one.
        first: The first process date.
        last: The last process date, included; it may lie in the future.
        limit: The maximum number of actions per page.
    """

    symbols: tuple[str, ...]
    first: date
    last: date
    limit: int = PAGE_LIMIT
    carries_text: ClassVar[bool] = True

    def target(self, token: str | None = None) -> str:
        """Return path and query of the first page, or of the page that *token* names."""
        fields = {
            "symbols": ",".join(self.symbols),
            "start": self.first.isoformat(),
            "end": self.last.isoformat(),
            "limit": self.limit,
            "sort": "asc",
            "page_token": token,
        }
        return f"/v1/corporate-actions?{query_string(fields)}"

    def __str__(self) -> str:
        return f"corporate actions of {and_more(self.symbols, 3)}, processed {self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class ActionsPage:
    """The actions of one page.

    Attributes:
        actions: The actions of all kinds, sorted.
        broken: Why records cannot be used, by the symbols that they concern.
        token: The name of the next page; None on the last one.
    """

    actions: tuple[Action, ...]
    token: str | None
    broken: Mapping[str, str] = field(default_factory=dict)


def read_actions(body: bytes, request: ActionsRequest) -> ActionsPage:
    """Return the actions of one page of the response to a request.

    Raises:
        BadAnswer: If the page is not JSON of the documented shape, or a record names no symbol.
    """
    broken: dict[str, str] = {}
    try:
        lists, token = _decode(body)
        found = [_read(request, broken, plural.removesuffix("s"), record) for plural in lists for record in lists[plural]]
    except (ValueError, BadAnswer) as error:
        raise unusable(request, str(error)) from error
    actions = sorted((action for action in found if action is not None), key=lambda action: action.order)
    return ActionsPage(tuple(actions), token, broken)


def _decode(body: bytes) -> tuple[dict[str, list[object]], str | None]:
    content, token = read_envelope(body, "corporate_actions")
    lists = content or {}
    if not isinstance(lists, dict) or not all(isinstance(records, list) for records in lists.values()):
        raise BadAnswer("corporate_actions is not an object of lists")
    return lists, token


def _read(request: ActionsRequest, broken: dict[str, str], kind: str, record: object) -> Action | None:
    """Return the action of a record, or None if it has no process date inside the requested range: then its symbols are *broken*.

    Raises:
        ValueError: If the record names no symbol.
    """
    concerned = concerned_symbols(kind, record)
    try:
        action = decode(kind, record)
        if request.first <= action.process_date <= request.last:
            return action
        fault = f"{kind} of {action.symbol} was processed on {action.process_date}, outside the range"
    except ValueError as error:
        if not concerned:
            raise
        fault = str(error)
    broken.update((symbol, str(unusable(request, fault))) for symbol in concerned)
    return None
