"""What the store held after each step, in the world's own memory, against what its history says: `Memory`."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from data_engine.errors import DataEngineError, InputError
from data_engine.store.history.past_files import PastFiles
from data_engine.store.history.store_history import StoreHistory

from .oracle import Violation

if TYPE_CHECKING:
    from data_engine.store.file_store import FileStore

_RECORD = re.compile(rb"data-engine history 1 (\d+) ")

_KEPT = ("equities_", "metadata/coverage/", "metadata/wanted/", "metadata/conflicts/", "metadata/actions/", "metadata/indices/")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

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

    def remember(self, content: dict[str, bytes]) -> None:
        """Keep what the files are after a step, by the instant of the last change that was recorded."""
        records = (_RECORD.match(data) for key, data in content.items() if key.startswith("metadata/history/"))
        instants = [int(match[1]) for match in records if match]
        if instants:
            instant = _EPOCH + timedelta(microseconds=max(instants))
            held = {key: data for key, data in content.items() if key.startswith(_KEPT)}
            if self._held and self._held[-1][0] == instant and self._held[-1][1] != held:
                raise Violation(f"(h) files changed and no record says so: {min(_differing(self._held[-1][1], held))}")
            self._held.append((instant, held))

    def check(self, files: FileStore) -> None:
        """Read some of the past instants again, and compare them with what was kept."""
        history = StoreHistory(files)
        for instant, held in self._random.sample(self._held, min(_INSTANTS, len(self._held))):
            past = PastFiles(files, history, instant)
            try:
                found = dict(_content(past))
            except DataEngineError as error:
                raise Violation(f"(h) the state at {instant} cannot be read: {error}") from error
            if wrong := sorted(_differing(held, found)):
                raise Violation(f"(h) at {instant} {wrong[0]} was otherwise than its history says; {len(wrong)} files differ")
            sizes = {key: size for folder in _folders(past) for key, size in past.sizes(folder)}
            if sizes != {key: len(data) for key, data in held.items()}:
                raise Violation(f"(h) the sizes at {instant} are otherwise than its history says")
        if self._held:
            _refused(history, self._held[0][0] - timedelta(days=400))


def _refused(history: StoreHistory, instant: datetime) -> None:
    try:
        history.check_known(instant, datetime.max.replace(tzinfo=UTC))
    except InputError:
        return
    raise Violation(f"(h) the state at {instant}, before the history begins, is not refused")


def _content(past: PastFiles) -> Iterator[tuple[str, bytes]]:
    for folder in _folders(past):
        for key in past.list(folder):
            content = past.get(key)
            assert content is not None, key
            yield key, content


def _folders(past: PastFiles) -> list[str]:
    return [*(name for name in past.folders("") if name.startswith("equities_")), *(name.rstrip("/") for name in _KEPT[1:])]


def _differing(one: dict[str, bytes], other: dict[str, bytes]) -> set[str]:
    return {key for key in {*one, *other} if one.get(key) != other.get(key)}
