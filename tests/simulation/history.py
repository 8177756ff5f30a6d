"""What the store held after each step, in the world's own memory, against what its history says: `Memory`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from data_engine.errors import HistoryEnds, InputError
from data_engine.store.history.past_files import PastFiles
from data_engine.store.history.record import FOLDER, instant_of
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.history.undo import Kind
from data_engine.store.partitions import Partition

from .oracle import Violation

if TYPE_CHECKING:
    from data_engine.store.file_store import FileStore

_KEPT = ("equities_", "metadata/coverage/", "metadata/wanted/", "metadata/conflicts/", "metadata/actions/", "metadata/indices/")

_INSTANTS = 4
"""So many past instants of a seed are read again at its end."""


class Memory:
    """All files of a store after each step.

    Args:
        seed: Of the instants that are read again.
    """

    def __init__(self, seed: object) -> None:
        self._random = random.Random(f"history {seed}")
        self._held: list[tuple[datetime, dict[str, bytes]]] = []
        self._unsure: list[set[str]] = []  # the files of each that a power failure may have undone
        self._failing: list[tuple[datetime, datetime]] = []  # when reading a file could fail

    def remember(self, content: dict[str, bytes], *, power_failed: bool, reading_fails: bool = False) -> None:
        """Keep what the files are after a step, by the instant of the last change that was recorded.

        When the power fails, what a killed process did without a flush is undone. Then its record never happened, though the file
        was seen as it says.
        """
        instants = list(_instants(content))
        if instants:
            instant = max(instants)
            held = {key: data for key, data in content.items() if key.startswith(_KEPT)}
            if reading_fails:
                self._failing.append((self._held[-1][0] if self._held else datetime.min.replace(tzinfo=UTC), instant))
            if power_failed and self._held:
                self._forget(_differing(self._held[-1][1], held))
            elif self._held and self._held[-1][0] == instant and self._held[-1][1] != held:
                raise Violation(f"(i) files changed and no record says so: {min(_differing(self._held[-1][1], held))}")
            self._held.append((instant, held))
            self._unsure.append(set())

    def _forget(self, keys: set[str]) -> None:
        last = self._held[-1][1]
        for key in keys:
            for (_, held), unsure in zip(reversed(self._held), reversed(self._unsure), strict=True):
                if held.get(key) != last.get(key):
                    break
                unsure.add(key)

    def check(self, files: FileStore) -> None:
        """Read some of the past instants again, and compare them with what was kept."""
        history = StoreHistory(files)
        remembered = list(zip(self._held, self._unsure, strict=True))
        for (instant, held), unsure in self._random.sample(remembered, min(_INSTANTS, len(remembered))):
            past = PastFiles(files, history, instant)
            found = dict(self._content(past, history, unsure))
            if wrong := sorted(_differing(held, found) - unsure):
                raise Violation(f"(i) at {instant} {wrong[0]} was otherwise than its history says; {len(wrong)} files differ")
            sizes = {key: size for folder in _folders(past) for key, size in past.sizes(folder) if key not in unsure}
            if sizes != {key: len(data) for key, data in held.items() if key not in unsure}:
                raise Violation(f"(i) the sizes at {instant} are otherwise than its history says")
        if self._held:
            _refused(history, self._held[0][0] - timedelta(days=400))

    def _content(self, past: PastFiles, history: StoreHistory, unsure: set[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the files of a past state; add those to *unsure* that are refused by name, as they may be.

        Two processes have changed them at the same time, they are of a price base that is no longer kept, or they could not be
        read when they were removed.
        """
        for folder in _folders(past):
            for key in past.list(folder):
                try:
                    content = past.get(key)
                except HistoryEnds as error:
                    named = "two processes" in str(error) or _is_of_dropped_base(key, history) or self._was_unread(key, history)
                    if not named:
                        raise Violation(f"(i) the state at {past.instant} cannot be read: {error}") from error
                    unsure.add(key)
                    continue
                assert content is not None, key
                yield key, content

    def _was_unread(self, key: str, history: StoreHistory) -> bool:
        """Tell whether a file was removed that could not be read, when reading could fail."""
        unread = [link for link in history.links.get(key, ()) if link.entry.before is not None and not link.entry.before.size]
        return any(since < link.instant <= until for link in unread for since, until in self._failing)


def _instants(content: dict[str, bytes]) -> Iterator[datetime]:
    """Yield the instants of the records that are complete."""
    for key, data in content.items():
        if key.startswith(FOLDER):
            with suppress(ValueError):
                yield instant_of(data)


def _refused(history: StoreHistory, instant: datetime) -> None:
    try:
        history.check_known(instant, datetime.max.replace(tzinfo=UTC))
    except InputError:
        return
    raise Violation(f"(i) the state at {instant}, before the history begins, is not refused")


def _is_of_dropped_base(key: str, history: StoreHistory) -> bool:
    partition = Partition.parse(key)
    adjusted = partition is not None and not partition.series.dataset.adjustment.is_raw
    return adjusted and any(link.entry.undo.kind is Kind.LOST for link in history.links[key])


def _folders(past: PastFiles) -> list[str]:
    return [*(name for name in past.folders("") if name.startswith("equities_")), *(name.rstrip("/") for name in _KEPT[1:])]


def _differing(one: dict[str, bytes], other: dict[str, bytes]) -> set[str]:
    return {key for key in {*one, *other} if one.get(key) != other.get(key)}
