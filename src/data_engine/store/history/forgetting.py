"""Drop the values that earlier records keep of bars whose removal was not to be kept: `drop_forgotten`.

The record of such a removal has no old content, so that no earlier state of the file can be read. What the records before it keep
of the file is of no use then. Each of them is replaced whole, in any order: if the process is killed, the same states are refused
as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from data_engine.errors import DamagedFile
from data_engine.store.file_store import FileStore
from data_engine.store.history.chain import live_numbers
from data_engine.store.history.compaction import remove_replaced
from data_engine.store.history.head import has_values
from data_engine.store.history.pack import Pack, live_packs, pack, pack_numbers
from data_engine.store.history.record import FOLDER, Record, dump, load, number_of
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.history.undo import Kind, Undo

_WITHOUT_VALUES = (Kind.ABSENT, Kind.SEEN, Kind.LOST)


@dataclass(frozen=True, slots=True)
class _Removal:
    """The latest removal of bars of a file that was not to be kept.

    Attributes:
        number: The number of its record.
        live: The numbers of the records of the file that happened.
    """

    number: int
    live: frozenset[int]

    def covers(self, record: Record) -> bool:
        """Tell whether what a record keeps of the file is of the bars before the removal."""
        return record.number < self.number or (record.base < self.number and record.number not in self.live)


def drop_forgotten(files: FileStore, actor: str) -> int:
    """Drop what the history keeps of files whose bars somebody has removed and not wanted to be kept; return how many bytes.

    Args:
        files: The files of the store, which the caller holds.
        actor: Who has removed them. What one of his runs has left that was killed is dropped, too.

    Raises:
        DamagedFile: If a part of the history cannot be read; what can be is done.
        StoreError: If a file cannot be read or written.
    """
    keys = list(files.list(FOLDER))
    remove_replaced(files, keys, live_packs(keys))
    history = StoreHistory(files)
    removals = {
        key: removal for key in history.links if has_values(key) and (removal := _removal(history, key, actor)) is not None
    }
    dropped = sum(_drop(files, key, removals) for key in list(files.list(FOLDER))) if removals else 0
    if removals and history.damaged is not None:
        raise DamagedFile(
            f"cannot forget all that the history keeps of the bars: cannot read {files.location}/{history.damaged}; "
            "drop it with `data-engine history prune`"
        )
    return dropped


def _removal(history: StoreHistory, key: str, actor: str) -> _Removal | None:
    links = history.links[key]
    lost = [link.number for link in links if link.entry.undo.kind is Kind.LOST and link.actor == actor]
    if not lost:
        return None
    _, chain = history.present(key)
    live = live_numbers(chain.present, history.links[key])
    return next((_Removal(number, frozenset(live)) for number in lost if number in live), None)


def _drop(files: FileStore, key: str, removals: Mapping[str, _Removal]) -> int:
    """Replace a file of the history by one without the values; return how many bytes were dropped."""
    dropped = 0

    def change(content: bytes | None) -> bytes | None:
        nonlocal dropped
        records = _records(key, content or b"")
        made = [_without(record, removals) for record in records]
        dropped = sum(map(_bytes, records)) - sum(map(_bytes, made))
        if not dropped:
            return None
        (one, *_) = made
        return dump(one.instant, one.actor, one.base, one.entries) if pack_numbers(key) is None else pack(made)

    files.update(key, change)
    return dropped


def _records(key: str, content: bytes) -> list[Record]:
    """Return the records of a file of the history; none if it cannot be read."""
    number = number_of(key)
    try:
        if number is not None:
            return [load(number, content)]
        return Pack(content).records() if pack_numbers(key) is not None else []
    except ValueError:
        return []


def _without(record: Record, removals: Mapping[str, _Removal]) -> Record:
    entries = []
    for entry in record.entries:
        removal = removals.get(entry.key)
        is_kept = removal is None or not removal.covers(record) or entry.undo.kind in _WITHOUT_VALUES
        entries.append(entry if is_kept else replace(entry, undo=Undo(Kind.LOST)))
    return replace(record, entries=tuple(entries))


def _bytes(record: Record) -> int:
    return sum(len(entry.undo.body) for entry in record.entries)
