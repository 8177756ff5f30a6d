"""Compute the earlier content of a file from a later one: `earlier`. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from data_engine.market.bar_parquet import from_parquet, to_parquet
from data_engine.market.bars import EMPTY
from data_engine.store.history.bar_undo import old_bars
from data_engine.store.history.text_edits import edited_text
from data_engine.store.history.undo import Kind, Undo, old_text


def earlier(content: bytes | None, steps: Iterable[Undo]) -> bytes | None:
    """Return what a file held before some changes, or None if there was no file.

    Bars are decoded once and encoded once, however many changes there are. The same bars give the same bytes as long as the
    library that writes Parquet files is the same.

    Args:
        content: The content after the changes; None if there is no file.
        steps: The changes, the latest first.

    Raises:
        ValueError: If one of them is damaged.
    """
    table: pa.Table | None = None
    for step in steps:
        if step.kind is Kind.BARS:
            if table is None:
                table = EMPTY if content is None else from_parquet(content)
            table = old_bars(step.body, table)
            continue
        if step.kind is Kind.EDITS:
            content = edited_text(step.body, _bytes(content, table) or b"")
        elif step.kind is Kind.TEXT:
            content = old_text(step.body, _bytes(content, table) or b"")
        elif step.kind is Kind.WHOLE:
            content = step.body
        else:
            content = None
        table = None
    return _bytes(content, table)


def table_before(table: pa.Table, step: Undo) -> pa.Table:
    """Return the bars of a file before a change; none if there was no file.

    Args:
        table: The bars after it.
        step: The change of a file of bars, whose old bars are kept.

    Raises:
        ValueError: If it is damaged, or the file had no bars that can be read.
    """
    if step.kind is Kind.BARS:
        return old_bars(step.body, table)
    if step.kind is Kind.WHOLE:
        return from_parquet(step.body)
    if step.kind is Kind.ABSENT:
        return EMPTY
    raise ValueError("no bars that can be read")


def _bytes(content: bytes | None, table: pa.Table | None) -> bytes | None:
    return content if table is None else to_parquet(table)
