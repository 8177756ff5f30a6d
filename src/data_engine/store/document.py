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
        except ValueError as error:
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
        edit = self.edit(change)
        self.files.update(self.key, edit.rewrite)
        return edit.value

    def edit(self, change: Callable[[_Value], _Value]) -> DocumentEdit[_Value]:
        """Return the same change for `FileStore.update` or `FileStore.update_many`."""
        return DocumentEdit(self, change)


class DocumentEdit(Generic[_Value]):
    """A change of the value in a file.

    Args:
        document: The file.
        change: Value to value.
    """

    def __init__(self, document: Document[_Value], change: Callable[[_Value], _Value]) -> None:
        self._document = document
        self._change = change
        self._made: list[_Value] = []

    @property
    def value(self) -> _Value:
        """What the change has made of the value the last time."""
        return self._made[0]

    def rewrite(self, content: bytes | None) -> bytes | None:
        """Return the new content of the file, or None if the value stays as it is.

        Raises:
            DamagedFile: If the content cannot be read.
        """
        before = self._document.parse(content)
        after = self._change(before)
        self._made[:] = [after if after == before else self._document.seal(after)]
        return None if after == before else self._document.dump(self._made[0])
