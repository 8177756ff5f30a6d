"""Change many objects of a bucket as one group: all are read and changed, recorded as one commit, and replaced on condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from data_engine.errors import OF_ONE_FILE, DataEngineError
from data_engine.store.file_store import Change
from data_engine.store.history.head import Replaced
from data_engine.store.s3.bucket import StoredObject

_THREADS = 16  # of one group of files


@dataclass(frozen=True, slots=True)
class Round:
    """One attempt to change a group.

    Attributes:
        read: Returns the object of a key, if there is one, and the content of the file that it is.
        base: Returns the number of a record that is there.
        record: Records a commit of files that were read after a record.
        replace: Replaces the object of a key by a content if it still is the one that was read; returns whether it was.
        before_move: Called before each object is replaced.
        failed: The errors of single files, by key; filled.
    """

    read: Callable[[str], tuple[StoredObject | None, bytes | None]]
    base: Callable[[], int]
    record: Callable[[Sequence[Replaced], int], None]
    replace: Callable[[str, StoredObject | None, bytes], bool]
    before_move: Callable[[], None]
    failed: dict[str, DataEngineError]

    def attempt(self, changes: Mapping[str, Change]) -> list[str]:
        """Change the objects; return the keys of those that others have changed meanwhile.

        Raises:
            StoreError: If the service refuses or cannot be reached; some may have been replaced.
        """
        made: dict[str, tuple[StoredObject | None, Replaced]] = {}
        conflicts: list[str] = []
        base = self.base()

        def prepare(key: str, change: Change) -> None:
            with failing_alone(key, self.failed):
                found, known = self.read(key)
                content = change(known)
                if content is not None and (content or known is not None):
                    made[key] = found, Replaced(key, known, content)

        def replace(found: StoredObject | None, one: Replaced) -> None:
            with failing_alone(one.key, self.failed):
                self.before_move()
                if not self.replace(one.key, found, one.new):
                    conflicts.append(one.key)

        at_once([partial(prepare, key, change) for key, change in changes.items()])
        ordered = [made[key] for key in changes if key in made]
        self.record([one for _, one in ordered], base)
        at_once([partial(replace, found, one) for found, one in ordered])
        return [key for key in changes if key in conflicts]


def at_once(calls: Sequence[Callable[[], None]]) -> None:
    """Make calls that wait for the service at the same time; when all have ended, raise the first error."""
    if len(calls) <= 1:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(min(_THREADS, len(calls)), thread_name_prefix="bucket") as pool:
        futures = [pool.submit(call) for call in calls]
    for future in futures:
        future.result()


@contextmanager
def failing_alone(key: str, failed: dict[str, DataEngineError]) -> Iterator[None]:
    """Have an error that concerns one file fail this file alone."""
    try:
        yield
    except OF_ONE_FILE as error:
        failed[key] = error
