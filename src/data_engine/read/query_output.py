"""Write the result of a query as CSV or Parquet, streamed, since it may not fit in memory."""

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
    """Return the format of an output: the chosen one, else that of the file's suffix, else ``table``.

    Args:
        chosen: The format that the user chose.
        out: The output file. If None, the output is a terminal or a pipe, which cannot take Parquet.

    Raises:
        InputError: If the format is Parquet and there is no file.
    """
    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    form = chosen or (ending if ending in ("csv", "parquet", "json") else "table")
    if form == "parquet" and out is None:
        raise InputError("cannot write --format parquet to a terminal or a pipe; add --out FILE.parquet")
    return form


def csv_text(relation: duckdb.DuckDBPyRelation) -> Iterator[str]:
    """Yield a result as CSV, some lines at a time: the column names first, values as DuckDB writes them, nothing for NULL."""
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
    """Write a result to a file, through a temporary file beside it, so that a query that fails leaves the old file.

    Args:
        relation: The result, not yet computed.
        out: The file.
        form: The format, ``csv`` or ``parquet``.

    Returns:
        The size in bytes.

    Raises:
        InputError: If the file cannot be written.
        duckdb.Error: If the query fails.
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
        raise InputError(f"cannot write --out {out}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()
    return size
