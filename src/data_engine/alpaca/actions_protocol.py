"""Write requests to ``/v1/corporate-actions`` and read their pages. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import ClassVar

from data_engine.alpaca.page_format import query_string, read_envelope, unusable
from data_engine.errors import BadAnswer
from data_engine.market.corporate_action import Action, decode
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
        token: The name of the next page; None on the last one.
    """

    actions: tuple[Action, ...]
    token: str | None


def read_actions(body: bytes, request: ActionsRequest) -> ActionsPage:
    """Return the actions of one page of the response to a request.

    Raises:
        BadAnswer: If the page is not JSON of the documented shape, or a record has no symbol, or no process date inside the
            requested range.
    """
    try:
        actions, token = _decode(body)
        for action in actions:
            if not request.first <= action.process_date <= request.last:
                raise BadAnswer(f"{action.kind} of {action.symbol} was processed on {action.process_date}, outside the range")
    except (ValueError, BadAnswer) as error:
        raise unusable(request, str(error)) from error
    return ActionsPage(tuple(sorted(actions, key=lambda action: action.order)), token)


def _decode(body: bytes) -> tuple[list[Action], str | None]:
    content, token = read_envelope(body, "corporate_actions")
    lists = content or {}
    if not isinstance(lists, dict) or not all(isinstance(records, list) for records in lists.values()):
        raise BadAnswer("corporate_actions is not an object of lists")
    return [decode(plural.removesuffix("s"), record) for plural, records in lists.items() for record in records], token
