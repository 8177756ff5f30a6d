"""Read and write what an export has written: which bars of which symbol, so that the next one writes only what differs.

The record lies beside what was exported: one file with what the export is of, and one per symbol. Before a symbol's files are
touched, its record is replaced by one that says they are unfinished, and after they were flushed it is written anew. So an
interrupted export never passes for a complete one, also after a power failure, and what it left is found by the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_engine.errors import InputError, StoreBusy
from data_engine.export.atomic_file import flush, remove, write_whole
from data_engine.export.format import SymbolRecord, Unit
from data_engine.store.disk import DISK
from data_engine.store.partitions import decode_symbol, encode_symbol

FOLDER = ".data-engine-export"

_HEAD = "export.json"

_LOCK = "lock"

_SYMBOLS = "symbol=*.json"

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
        self._top = folder
        self._folder = folder / FOLDER
        self._head = {"version": _VERSION, **identity}
        self._check_head()

    def _check_head(self) -> None:
        folder = self._top
        try:
            content = (self._folder / _HEAD).read_bytes()
        except FileNotFoundError:
            if folder.exists() and not (folder.is_dir() and self._is_unused()):
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

    def _is_unused(self) -> bool:
        """Return whether the folder has nothing, or only what an export left that was interrupted before it wrote anything."""
        return all(path.name == FOLDER for path in self._top.iterdir()) and not any(self._folder.glob(_SYMBOLS))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other exports to the folder; the lock of a killed one is free at once.

        Raises:
            StoreBusy: If another export is writing to the folder.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        release = DISK.acquire(str(self._folder / _LOCK), 0.0)
        if release is None:
            raise StoreBusy(
                f"cannot export to {self._top}: another export is writing to it; run the export again when it has ended"
            )
        try:
            yield
        finally:
            release()

    def begin(self, planned: Mapping[str, SymbolRecord | None]) -> None:
        """Write what the export is of.

        Args:
            planned: What `symbols` returned when the export was planned.

        Raises:
            InputError: If another export has made the folder its own meanwhile.
            StoreBusy: If another export has written to the folder meanwhile.
        """
        self._check_head()
        if self.symbols() != planned:
            raise StoreBusy(f"cannot export to {self._top}: another export wrote to it meanwhile; run the export again")
        write_whole(self._folder / _HEAD, _text(self._head))
        flush((self._folder / _HEAD,), self._top)
        DISK.flush_folder(str(self._top.parent))

    def symbols(self) -> dict[str, SymbolRecord | None]:
        """Return all symbols that have a record, in order of their names; None for those whose files are unfinished."""
        return dict(sorted(self._read()))

    def _read(self) -> Iterator[tuple[str, SymbolRecord | None]]:
        for path in self._folder.glob(_SYMBOLS) if self._folder.is_dir() else ():
            record: SymbolRecord | None = None
            with suppress(ValueError, KeyError, TypeError):  # what a record that cannot be read is of may be anything
                fields = json.loads(path.read_bytes())
                record = SymbolRecord(dict(fields["shape"]), tuple(Unit(**unit) for unit in fields["units"]))
            yield decode_symbol(path.name[len("symbol=") : -len(".json")]), record

    def suspend(self, symbol: str) -> None:
        """Say that the files of a symbol are unfinished: they are about to change. Earlier versions take that for no record."""
        self._write(symbol, {"unfinished": True})

    def forget(self, symbol: str) -> None:
        """Remove the record of a symbol, whose files are gone."""
        remove(self._path(symbol))

    def write(self, symbol: str, shape: Mapping[str, Any], units: Sequence[Unit]) -> None:
        """Write the record of a symbol, whose files are flushed."""
        self._write(symbol, {"shape": dict(shape), "units": [asdict(unit) for unit in units]})

    def _write(self, symbol: str, fields: Mapping[str, Any]) -> None:
        write_whole(self._path(symbol), _text(fields))
        DISK.flush_folder(str(self._folder))

    def _path(self, symbol: str) -> Path:
        return self._folder / f"symbol={encode_symbol(symbol)}.json"


def _text(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode() + b"\n"
