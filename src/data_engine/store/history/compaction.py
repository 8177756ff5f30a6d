"""Put old records of the history of a store into packs, and drop those that are no longer wanted. The caller holds the store.

A pack is written whole, and takes the place of what it holds by its name, which has the numbers that it stands for. Only then are
the files that it replaces removed. A process that is killed between the two leaves files that readers pass over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import takewhile

from data_engine.errors import StoreError
from data_engine.store.file_store import FileStore
from data_engine.store.history.bar_undo import replaces_most
from data_engine.store.history.head import BEGINNING
from data_engine.store.history.pack import Pack, live_packs, pack, pack_key, pack_numbers
from data_engine.store.history.record import FOLDER, Entry, Record, is_cut_off, key_of, load, number_of, recorded_folders
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.history.undo import Kind, Undo
from data_engine.store.partitions import Partition

AGE = timedelta(hours=1)
"""Younger records stay as they are: writers in a bucket that began before may take their numbers for free ones."""

_MANY = 32  # records that are worth a pack

_MOST_BYTES = 64 << 20  # of the records of one pack, before compression


def compact(files: FileStore, now: datetime, *, bases: int) -> int:
    """Put records into a pack if there are many; return how many.

    Of an adjusted series, all bars of a file are replaced when its price base changes. The old ones are kept for the latest
    *bases* of these changes. The last complete record stays a file of its own: writers look for it.

    Args:
        files: The files of the store, which the caller holds.
        now: The current instant.
        bases: The number of earlier price bases to keep.

    Raises:
        StoreError: If a file cannot be read or written.
    """
    keys = list(files.list(FOLDER))
    spans = live_packs(keys)
    numbers = sorted(number for key in keys if (number := number_of(key)) is not None)
    remove_replaced(files, keys, spans)
    loose = [number for number in numbers if not any(first <= number <= last for first, last in spans)]
    if len(loose) < _MANY:
        return 0
    found = _settled(files, loose, now - AGE)
    settled = found.records if found.full else found.records[:-1]
    if len(settled) < _MANY // 2 and not found.full:
        return 0
    chosen = [record for record, _ in settled]
    before = [span for span in spans if span[0] > found.after]
    merged = _to_merge(files, before, chosen, sum(size for _, size in settled))
    packed = [record for span in merged for record in _pack(files, span).records()]
    first = merged[0][0] if merged else next(number for number in loose if number > found.after)
    _write(files, first, chosen[-1].number, _with_bases([*packed, *chosen], bases))
    return len(chosen)


def _to_merge(
    files: FileStore, spans: Sequence[tuple[int, int]], chosen: Sequence[Record], size: int
) -> Sequence[tuple[int, int]]:
    """Return the latest packs that are written anew with some records: small ones, those with earlier price bases."""
    rebased = {entry.key for record in chosen for entry in record.entries if _replaces_all(entry)}
    merged = 0
    for place, span in enumerate(reversed(spans), 1):
        small = place == merged + 1 and (files.size(pack_key(*span)) or 0) <= size
        if small:
            size += files.size(pack_key(*span)) or 0
        if small or (rebased and not rebased.isdisjoint(_pack(files, span).keys)):
            merged = place
    return spans[len(spans) - merged :]


def _pack(files: FileStore, span: tuple[int, int]) -> Pack:
    key = pack_key(*span)
    try:
        return Pack(files.get(key) or b"")
    except ValueError as error:
        raise StoreError(f"cannot read {files.location}/{key}: {error}; run `data-engine verify`") from error


@dataclass(frozen=True, slots=True)
class Pruned:
    """What dropping old records did.

    Attributes:
        begins: The instant from which states can still be read; None if there was nothing to drop.
        records: The number of records that were dropped.
        freed: The bytes that were freed.
    """

    begins: datetime | None = None
    records: int = 0
    freed: int = 0


def prune(files: FileStore, before: datetime, now: datetime, *, dry_run: bool = False) -> Pruned:
    """Drop what is only needed for states before an instant. Records stay that a pack would not take since they are too young.

    Args:
        files: The files of the store, which the caller holds.
        before: The instant. The state at it, and all later ones, can be read afterwards.
        now: The current instant.
        dry_run: Whether to say only what would be dropped; nothing is freed then.

    Raises:
        StoreError: If a file cannot be read or written.
    """
    history = StoreHistory(files)
    packed = (record for found in history.packs.values() for record in found.records())
    records = sorted([*packed, *history.records], key=lambda record: record.number)
    until = min(before, now - AGE)
    dropped = list(takewhile(lambda record: record.instant <= until, records[:-1]))
    if len(dropped) < 2:  # the first one is what the history begins with
        return Pruned()
    last = dropped[-1]
    if dry_run:
        return Pruned(last.instant, len(dropped))
    size = sum(size for _, size in files.sizes(FOLDER))
    beginning = Record(last.number, last.instant, BEGINNING, last.number, tuple(_seen(files, history, last.instant)))
    end = max([last.number, *(span[1] for span in history.packs)])
    kept = [record for record in records[len(dropped) :] if record.number <= end]
    _write(files, 1, end, [beginning, *kept])
    return Pruned(last.instant, len(dropped), size - sum(size for _, size in files.sizes(FOLDER)))


def _seen(files: FileStore, history: StoreHistory, instant: datetime) -> Iterable[Entry]:
    """Yield what the record says that the history then begins with: each file of which it is known what it was."""
    found = set(history.links)
    if history.damaged is not None:  # what its records say of other files is gone
        found.update(key for folder in recorded_folders(files.folders("")) for key in files.list(folder))
    for key in sorted(found):
        _, chain = history.present(key)
        if not chain.known_at(instant):
            continue
        later = chain.later_than(instant)
        mark = later[-1].entry.before if later else chain.present
        if mark is not None:
            yield Entry(key, mark, mark, Undo(Kind.SEEN))


@dataclass(slots=True)
class _Settled:
    """Records that can be put into a pack.

    Attributes:
        records: The records, with the sizes of their files.
        full: Whether they fill a pack.
        after: The number of a record before them that is damaged or of a newer version, and is in no pack; 0 if there is none.
    """

    records: list[tuple[Record, int]] = field(default_factory=list)
    full: bool = False
    after: int = 0


def _settled(files: FileStore, numbers: Sequence[int], until: datetime) -> _Settled:
    """Return the first complete records until an instant that are worth a pack, with none between them that must stay."""
    found = _Settled()
    size = 0
    for number in numbers:
        content = files.get(key_of(number)) or b""
        try:
            record = load(number, content)
        except ValueError:
            if is_cut_off(content):
                continue  # of a killed writer
            if len(found.records) > _MANY // 2:
                break
            found, size = _Settled(after=number), 0
            continue
        if record.instant > until:
            break
        size += _bytes(record)
        if size > _MOST_BYTES and found.records:  # one is packed however large it is, such as the first one of a large store
            found.full = True
            break
        found.records.append((record, len(content)))
    return found


def _write(files: FileStore, first: int, last: int, records: Sequence[Record]) -> None:
    content = pack(records)
    files.update(pack_key(first, last), lambda _: content)
    keys = list(files.list(FOLDER))
    remove_replaced(files, keys, live_packs(keys))


def remove_replaced(files: FileStore, keys: Iterable[str], spans: Sequence[tuple[int, int]]) -> None:
    """Remove the records and packs that a pack stands for, the earliest first."""

    def held(first: int, last: int) -> bool:
        return any(start <= first and last <= end for start, end in spans)

    replaced = []
    for key in keys:
        number, span = number_of(key), pack_numbers(key)
        if (number is not None and held(number, number)) or (span is not None and span not in spans and held(*span)):
            replaced.append(key)
    if replaced:
        files.flush(FOLDER)  # a process that was killed may have left a pack whose name a power failure would take
    for key in replaced:
        files.delete(key)


def _with_bases(records: Sequence[Record], bases: int) -> list[Record]:
    """Return records without the bars of price bases that are too old to be kept."""
    kept: dict[str, int] = {}
    made: list[Record] = []
    for record in reversed(records):
        entries = []
        for entry in record.entries:
            if _replaces_all(entry):
                kept[entry.key] = kept.get(entry.key, 0) + 1
                if kept[entry.key] > bases:
                    entry = replace(entry, undo=Undo(Kind.LOST))
            entries.append(entry)
        made.append(replace(record, entries=tuple(entries)))
    return made[::-1]


def _replaces_all(entry: Entry) -> bool:
    """Tell whether an entry has the bars of an earlier price base: those of a whole file of an adjusted series."""
    partition = Partition.parse(entry.key) if entry.undo.kind in (Kind.WHOLE, Kind.BARS) else None
    if partition is None or entry.before is None or entry.after is None or partition.series.dataset.adjustment.is_raw:
        return False
    known = replaces_most(entry.undo.body) if entry.undo.kind is Kind.BARS else True
    return 2 * len(entry.undo.body) >= entry.before.size if known is None else known


def _bytes(record: Record) -> int:
    return sum(200 + len(entry.undo.body) for entry in record.entries)
