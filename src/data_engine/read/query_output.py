"""What a query answers, as CSV or Parquet: streamed, so that it may be larger than memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from data_engine.errors import InputError

if TYPE_CHECKING:
    import duckdb


_ROWS = 20_000


def format_of(chosen: str | None, out: Path | None) -> str:
    """Return the format that is meant: the one chosen, else what the file's name ends with, else a table for people.

    Raises:
        InputError: Parquet without a file; it is nothing for a terminal, or a pipe.
    """
    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    form = chosen or (ending if ending in ("csv", "parquet", "json") else "table")
    if form == "parquet" and out is None:
        raise InputError("--format parquet needs a file: add --out FILE.parquet")
    return form


def csv_text(relation: duckdb.DuckDBPyRelation) -> Iterator[str]:
    """Yield a result as CSV, piece by piece: a line of names first, values as DuckDB writes them, nothing where there is none."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(relation.columns)
    for batch in relation.project("COLUMNS(*)::VARCHAR").to_arrow_reader(_ROWS):
        lines.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def write(relation: duckdb.DuckDBPyRelation, out: Path, form: str) -> int:
    """Write a result to a file, by way of another beside it: a query that fails leaves what was there.

    Args:
        relation: the result, not yet read.
        out: the file.
        form: ``csv`` or ``parquet``.

    Returns:
        The size in bytes.

    Raises:
        InputError: the file cannot be written.
        duckdb.Error: the query failed.
    """
    draft = out.with_name(f".{out.name}.part")
    try:
        if form == "csv":
            relation.write_csv(str(draft), header=True)
        else:
            relation.write_parquet(str(draft), compression="zstd")
        size = draft.stat().st_size
        draft.replace(out)
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()
    return size
