"""Write the result of a query as CSV, Parquet or text to a new file, streamed, since it may not fit in memory."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

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


def write(relation: duckdb.DuckDBPyRelation, out: Path, form: str, *, time_zone: str = "UTC") -> int:
    """Write a result to a new file, through a temporary file beside it, so that a query that fails leaves none.

    Args:
        relation: The result, not yet computed.
        out: The file, which must not exist.
        form: The format, ``csv`` or ``parquet``.
        time_zone: The time zone of the instants in CSV.

    Returns:
        The size in bytes.

    Raises:
        InputError: If the file exists or cannot be written.
        duckdb.Error: If the query fails.
    """
    import duckdb

    def write_draft(draft: Path) -> None:
        # Another DuckDB, which no SQL of a user reaches, writes the rows: the one of the query may write nothing.
        with duckdb.connect() as writer:
            with suppress(duckdb.Error):  # not known to every build; it says how instants are written, not which
                writer.execute("SET TimeZone = $1", [time_zone])
            rows = writer.from_arrow(relation.to_arrow_reader(_ROWS))
            if form == "csv":
                rows.write_csv(str(draft), header=True)
            else:
                rows.write_parquet(str(draft), compression="zstd")

    return _write_new(out, write_draft)


def write_text(text: str, out: Path) -> int:
    """Write a text to a new file, and return its size in bytes.

    Raises:
        InputError: If the file exists or cannot be written.
    """
    return _write_new(out, lambda draft: draft.write_bytes(text.encode("utf-8", "backslashreplace")))


def _write_new(out: Path, write_draft: Callable[[Path], object]) -> int:
    """Have a temporary file written and moved to *out*, where no file is; return its size."""
    draft = out.with_name(f".{out.name[:100]}.{uuid4().hex}.part")
    try:
        if os.path.lexists(out):
            raise FileExistsError
        write_draft(draft)
        size = draft.stat().st_size
        # Only one of several writers makes the name; what it makes is replaced at once.
        os.close(os.open(out, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        draft.replace(out)
    except FileExistsError as error:
        raise InputError(f"cannot write --out {out}: it exists; pass another name, or remove it first") from error
    except OSError as error:
        raise InputError(f"cannot write --out {out}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()
    return size
