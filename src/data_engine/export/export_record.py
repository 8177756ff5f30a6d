"""Read and write what an export has written: which bars of which symbol, so that the next one writes only what differs.

The record lies beside what was exported: one file with what the export is of, and one per symbol. A symbol's file is removed
before its bars are touched and written after them, so that an interrupted export never passes for a complete one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_engine.errors import InputError
from data_engine.export.atomic_file import write_whole
from data_engine.export.format import SymbolRecord, Unit
from data_engine.store.partitions import decode_symbol, encode_symbol

FOLDER = ".data-engine-export"

_HEAD = "export.json"

_VERSION = 1


class ExportRecord:
    """The record in a folder.

    Args:
        folder: The folder of the export.
        identity: What the export is of: format, dataset and so on; it must not change.

    Raises:
        InputError: If the folder has another export, or other files.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder / FOLDER
        self._head = {"version": _VERSION, **identity}
        try:
            content = (self._folder / _HEAD).read_bytes()
        except FileNotFoundError:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise InputError(f"cannot export to {folder}: it is not empty and no export; pass another folder") from None
            return
        try:
            stored = json.loads(content)
        except ValueError:
            raise InputError(f"cannot read {self._folder / _HEAD}; remove {folder}, or pass another folder") from None
        differing = [name for name in self._head if stored.get(name) != self._head[name]]
        if differing:
            name = differing[0]
            raise InputError(
                f"cannot export to {folder}: it has an export with {name} {stored.get(name)!r}, not {self._head[name]!r}; "
                "pass another folder"
            )

    def begin(self) -> None:
        """Write what the export is of."""
        write_whole(self._folder / _HEAD, _text(self._head))

    def symbols(self) -> dict[str, SymbolRecord]:
        """Return all symbols that were written whole, in order of their names."""
        return dict(sorted(self._read()))

    def _read(self) -> Iterator[tuple[str, SymbolRecord]]:
        for path in self._folder.glob("symbol=*.json") if self._folder.is_dir() else ():
            with suppress(ValueError, KeyError, TypeError):  # a record that cannot be read is none
                fields = json.loads(path.read_bytes())
                units = tuple(Unit(**unit) for unit in fields["units"])
                yield decode_symbol(path.name[len("symbol=") : -len(".json")]), SymbolRecord(fields["shape"], units)

    def forget(self, symbol: str) -> None:
        """Remove the record of a symbol, whose bars are about to change."""
        self._path(symbol).unlink(missing_ok=True)

    def write(self, symbol: str, shape: Mapping[str, Any], units: Sequence[Unit]) -> None:
        """Write the record of a symbol."""
        write_whole(self._path(symbol), _text({"shape": dict(shape), "units": [asdict(unit) for unit in units]}))

    def _path(self, symbol: str) -> Path:
        return self._folder / f"symbol={encode_symbol(symbol)}.json"


def _text(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"
