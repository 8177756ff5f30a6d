"""Find what the columns in SQL stand for: `Names` puts the expressions in place of the names that SQL gives them.

DuckDB knows them only as it binds the whole statement, so they are looked up by name, wherever it is given: in a select list, a
subquery or a common table expression. A name that is given to several expressions stands for each of them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from data_engine.errors import InputError
from data_engine.market.bars import BAR_SCHEMA
from data_engine.read.statement import parts_of

Tree = dict[str, Any]
"""A part of the syntax tree, as DuckDB's ``json_serialize_sql`` has it."""

_COLUMNS = ("symbol", *BAR_SCHEMA.names, "year", "month")
"""The columns of a view, in order; one of days has no month."""

_CLOCKS = frozenset({"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
"""What is parsed as a column and is the time."""

_RANKS = frozenset({
    "approx_count_distinct", "count", "count_if", "count_star", "cume_dist", "dense_rank", "ntile", "percent_rank", "rank",
    "row_number",
})  # fmt: skip
"""The functions whose value says nothing of the value that they are given."""

_MOST_MEANINGS = 64

_MOST_PARTS = 10_000


class Names:
    """The names that SQL gives to expressions.

    Args:
        parts: The parts of its syntax tree.
        views: The names of its views, in small letters.
    """

    def __init__(self, parts: Collection[Tree], views: Collection[str]) -> None:
        self._views = views
        self._tables = {str(one["key"]).lower(): one["value"]["query_node"] for part in parts for one in entries_of(part)}
        self._given: defaultdict[str, list[Tree]] = defaultdict(list)
        for part in parts:
            self._add_part(part)

    def meanings(self, expression: Tree) -> list[Tree]:
        """Return what an expression stands for, in columns of the views as far as that can be told.

        Columns keep the names of their tables; those that were found under another name have that name as their table. So two
        columns of one table are of the same row.

        Raises:
            InputError: If that is too much.
        """
        return self._meanings(expression, frozenset())

    def _add_part(self, part: Tree) -> None:
        """Add the names that a part of the syntax tree gives."""
        for entry in part.get("select_list") or ():
            self._add(str(entry.get("alias") or ""), entry)
        for kind, expression in _changes(part):
            self._add(kind, expression)
        for entry in entries_of(part):
            self._add_all(entry["value"].get("aliases") or (), entry["value"]["query_node"])
        if part.get("type") == "SET_OPERATION_NODE":
            self._add_all([name for name, _ in self._outputs(_selects(part)[0])], part)
        names = part.get("column_name_alias") or ()
        if part.get("type") == "SUBQUERY" and "subquery" in part:
            self._add_all(names, part["subquery"]["node"])
        elif part.get("type") == "BASE_TABLE":
            name = str(part["table_name"]).lower()
            if name in self._tables:
                self._add_all(names, self._tables[name])
            elif name in self._views:
                for given, column in zip(names, _COLUMNS, strict=False):
                    self._add(given, _column(column))

    def _add_all(self, names: Sequence[str], node: Tree) -> None:
        """Add the names of the first columns of a query."""
        for select in _selects(node):
            for name, (_, expression) in zip(names, self._outputs(select), strict=False):
                self._add(name, expression)

    def _add(self, name: str, expression: Tree) -> None:
        same = expression.get("class") == "COLUMN_REF" and _name_of(expression) == name.lower()
        if name and not same and expression not in self._given[name.lower()]:
            self._given[name.lower()].append(expression)

    def _outputs(self, select: Tree) -> Iterator[tuple[str, Tree]]:
        """Yield the names and the expressions of a select list, as far as they can be counted."""
        source = select.get("from_table") or {}
        for entry in select["select_list"]:
            if entry.get("class") == "STAR":
                if source.get("type") != "BASE_TABLE" or str(source["table_name"]).lower() not in self._views:
                    return
                yield from ((name, _column(name)) for name in _COLUMNS)
            else:
                yield str(entry.get("alias") or (_name_of(entry) if entry.get("class") == "COLUMN_REF" else "")), entry

    def _meanings(self, expression: Tree, used: frozenset[int]) -> list[Tree]:
        choices = {name: self._choices(name, used) for name in {tuple(one["column_names"]) for one in _references(expression)}}
        named = {name: found for name, found in choices.items() if found != [None]}
        text, made = json.dumps(expression), list[Tree]()
        for chosen in product(*named.values()):
            meaning = _replaced(json.loads(text), dict(zip(named, chosen, strict=True)))
            if len(made) >= _MOST_MEANINGS or sum(1 for _ in parts_of(meaning)) > _MOST_PARTS:
                raise InputError("cannot run the SQL: its names stand for too many expressions; simplify it")
            made.append(meaning)
        return made

    def _choices(self, name: tuple[str, ...], used: frozenset[int]) -> list[Tree | None]:
        """Return the expressions that a column may stand for; None is the column itself."""
        plain = name[-1].lower()
        given = [one for one in self._given.get(plain, ()) if id(one) not in used and tells_value(one)]
        found: list[Tree | None] = [meaning for one in given for meaning in self._meanings(one, used | {id(one)})]
        return [None, *found] if plain in _COLUMNS or not found else found


def entries_of(part: Tree) -> list[Tree]:
    """Return the common table expressions that a part defines."""
    found = part.get("cte_map")
    return found["map"] if isinstance(found, dict) else []


def columns_of(expression: Any) -> dict[str, set[tuple[str, ...]]]:
    """Return the columns whose values an expression has or compares, each with the names of the tables before it.

    Those by which a window is divided or sorted are not among them.
    """
    found: dict[str, set[tuple[str, ...]]] = {}
    for one in _references(expression):
        found.setdefault(_name_of(one), set()).add(tuple(one["column_names"][:-1]))
    return found


def tells_value(expression: Tree) -> bool:
    """Tell whether the value of an expression is one of its columns' or computed from them: no rank, count or subquery."""
    return not any(
        one.get("class") == "SUBQUERY" or str(one.get("function_name", "")).lower() in _RANKS for one in parts_of(expression)
    )


def constants_of(expression: Any) -> Iterator[Tree]:
    """Yield the largest parts of an expression that are computed and have no column."""
    left = [expression]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict) and part.get("class") != "TYPE":
            known = part.get("class") in ("FUNCTION", "CAST", "OPERATOR") or _is_clock(part)
            if known and not columns_of(part) and tells_value(part):
                yield part
            else:
                left += part.values()


def _references(expression: Any) -> Iterator[Tree]:
    """Yield the references to columns, without those by which a window is divided or sorted."""
    left = [expression]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            if part.get("class") == "COLUMN_REF":
                if not _is_clock(part):
                    yield part
            else:
                window = part.get("class") == "WINDOW"
                left += [value for key, value in part.items() if not (window and key in ("partitions", "orders"))]


def _is_clock(part: Tree) -> bool:
    return part.get("class") == "COLUMN_REF" and len(part["column_names"]) == 1 and _name_of(part) in _CLOCKS


def _replaced(expression: Tree, chosen: Mapping[tuple[str, ...], Tree | None]) -> Tree:
    """Return an expression, which is changed, with other expressions in place of some of its columns."""
    for reference in list(_references(expression)):
        name = tuple(reference["column_names"])
        found = chosen.get(name)
        if found is None:
            continue
        meant = json.loads(json.dumps(found))
        for inner in _references(meant):
            inner["column_names"] = [".".join(name), inner["column_names"][-1]]
        reference.clear()
        reference.update({**meant, "alias": ""})
    return expression


def _selects(node: Tree) -> list[Tree]:
    """Return the SELECTs whose rows a query has."""
    found, left = [], [node]
    while left:
        one = left.pop(0)
        if one.get("type") == "SELECT_NODE":
            found.append(one)
        else:
            inner = [*(one.get("children") or ()), one.get("left"), one.get("right"), one.get("child")]
            left = [*(part for part in inner if isinstance(part, dict)), *left]
    return found


def _changes(part: Tree) -> Iterator[tuple[str, Tree]]:
    """Yield the names that ``* REPLACE`` and ``* RENAME`` give."""
    if part.get("class") != "STAR":
        return
    for one in part.get("replace_list") or ():
        yield str(one["key"]), one["value"]
    for one in part.get("rename_list") or ():
        old = one["key"]
        yield str(one["value"]), _column(str(old.get("column") if isinstance(old, dict) else old))


def _column(name: str) -> Tree:
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0, "column_names": [name]}


def _name_of(reference: Tree) -> str:
    return str(reference["column_names"][-1]).lower()
