"""Read and write one value in one small file of a store, such as the coverage of a series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from data_engine.errors import DamagedFile
from data_engine.store.file_store import FileStore

_Value = TypeVar("_Value")


def _as_it_is(value: _Value) -> _Value:
    return value


@dataclass(frozen=True, slots=True)
class Document(Generic[_Value]):
    """A value that a file holds. Changes are atomic between threads and processes, as those of the file store are.

    Attributes:
        files: The store's files.
        key: The path of the file in the store.
        name: What the file is, for messages, such as ``the coverage of AAPL``.
        remedy: What a user can do about a damaged file, for messages.
        empty: The value if there is no file.
        load: Content to value; raises `ValueError` if the content is none.
        dump: Value to content.
        seal: Adds to a new value who wrote it and when.
    """

    files: FileStore
    key: str
    name: str
    remedy: str
    empty: _Value
    load: Callable[[bytes], _Value]
    dump: Callable[[_Value], bytes]
    seal: Callable[[_Value], _Value] = _as_it_is

    def read(self) -> _Value:
        """Return the value, or *empty* if there is no file.

        Raises:
            DamagedFile: If the content cannot be read. Other files are not affected.
        """
        return self.parse(self.files.get(self.key))

    def parse(self, content: bytes | None) -> _Value:
        """Return the value of a content that was read already.

        Raises:
            DamagedFile: If the content cannot be read.
        """
        if content is None:
            return self.empty
        try:
            return self.load(content)
        except (ValueError, RecursionError) as error:
            path = f"{self.files.location}/{self.key}"
            raise DamagedFile(f"cannot read {self.name}: {error} in {path}; {self.remedy}") from error

    def update(self, change: Callable[[_Value], _Value]) -> _Value:
        """Replace the value by what *change* makes of it, and return that; if it is equal, nothing is written.

        Args:
            change: Value to value; it may be called more than once.

        Raises:
            DamagedFile: If the content cannot be read; it is left as it is.
            StoreError: If the file cannot be written.
        """
        made: list[_Value] = []

        def rewrite(content: bytes | None) -> bytes | None:
            before = self.parse(content)
            after = change(before)
            made[:] = [after if after == before else self.seal(after)]
            return None if after == before else self.dump(made[0])

        self.files.update(self.key, rewrite)
        return made[0]
