"""A question to ``/v1/corporate-actions``, and its pages. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from urllib.parse import quote, urlencode

from data_engine.errors import BadAnswer
from data_engine.market.corporate_action import Action, decode

PAGE_LIMIT = 1000
"""The most actions that one answer carries."""

_PATH = "/v1/corporate-actions?"


@dataclass(frozen=True, slots=True)
class ActionsRequest:
    """One question to the endpoint; its pages together are the answer.

    Attributes:
        symbols: whose actions, at least one.
        first: the first process date.
        last: the last process date, included; it may lie in the future.
        limit: actions per page.
    """

    symbols: tuple[str, ...]
    first: date
    last: date
    limit: int = PAGE_LIMIT

    def target(self, token: str | None = None) -> str:
        """Return path and query of the first page, or of the page that *token* names."""
        fields = {
            "symbols": ",".join(self.symbols),
            "start": self.first.isoformat(),
            "end": self.last.isoformat(),
            "limit": str(self.limit),
            "sort": "asc",
            "page_token": token,
        }
        return _PATH + urlencode({name: text for name, text in fields.items() if text is not None}, safe=",", quote_via=quote)

    def __str__(self) -> str:
        names = ", ".join(self.symbols[:3]) + (f" and {len(self.symbols) - 3} more" if len(self.symbols) > 3 else "")
        return f"corporate actions of {names}, processed {self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class ActionsPage:
    """The actions of one answer.

    Attributes:
        actions: of all kinds, sorted.
        token: what to ask for the next page with; None on the last one.
    """

    actions: tuple[Action, ...]
    token: str | None


def read_actions(body: bytes, request: ActionsRequest) -> ActionsPage:
    """Read one answer to *request*.

    Raises:
        BadAnswer: not JSON of the documented shape, a record without a symbol, or without a process date inside the range that
            was asked for.
    """

    def refuse(reason: str) -> BadAnswer:
        return BadAnswer(f"{reason} (answer to: {request})")

    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise refuse(f"the body is not JSON: {error}") from error
    if not isinstance(answer, dict) or not {"corporate_actions", "next_page_token"} <= answer.keys():
        raise refuse("the body is not an object with corporate_actions and next_page_token")
    token = answer["next_page_token"]
    if token is not None and (not isinstance(token, str) or not token):
        raise refuse(f"next_page_token is {token!r}")
    lists = answer["corporate_actions"] or {}
    if not isinstance(lists, dict) or not all(isinstance(records, list) for records in lists.values()):
        raise refuse("corporate_actions is not an object of lists")
    try:
        made = [decode(plural.removesuffix("s"), record) for plural, records in lists.items() for record in records]
    except ValueError as error:
        raise refuse(str(error)) from error
    for action in made:
        if not request.first <= action.process_date <= request.last:
            raise refuse(f"{action.kind} of {action.symbol} was processed on {action.process_date}, outside what was asked for")
    return ActionsPage(tuple(sorted(made, key=lambda action: action.order)), token)
