"""A document: a change is written and returned; a value that a change leaves as it is, is not written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_engine.errors import DamagedFile
from data_engine.store.document import Document
from data_engine.store.file_store import FileStore
from data_engine.store.local_files import LocalFiles

KEY = "metadata/value.json"


def numbers(content: bytes) -> list[int]:
    value: list[int] = json.loads(content)
    return value


def document(files: FileStore) -> Document[list[int]]:
    """Return a document whose seal is a 0 at the end."""
    return Document(
        files,
        KEY,
        "the list of numbers",
        "`repair-it`",
        [],
        load=numbers,
        dump=lambda value: json.dumps(value).encode(),
        seal=lambda value: [*value, 0],
    )


def append(*more: int) -> Callable[[list[int]], list[int]]:
    return lambda before: [*before, *more]


def test_a_value_is_changed_sealed_written_and_returned(tmp_path: Path) -> None:
    value = document(LocalFiles(tmp_path))

    assert value.update(append(1)) == [1, 0]
    assert value.update(append(2)) == [1, 0, 2, 0]
    assert (tmp_path / KEY).read_bytes() == b"[1, 0, 2, 0]"
    assert value.read() == [1, 0, 2, 0]


def test_an_unchanged_value_is_neither_sealed_nor_written(tmp_path: Path) -> None:
    value = document(LocalFiles(tmp_path))
    assert value.update(append()) == []
    assert not (tmp_path / KEY).exists()
    value.update(append(1))
    (tmp_path / KEY).write_bytes(b"[1,   0]")

    assert value.update(append()) == [1, 0]
    assert (tmp_path / KEY).read_bytes() == b"[1,   0]"


def test_a_change_that_is_tried_again_returns_what_was_written_last(tmp_path: Path) -> None:
    """A bucket calls a change once more when another process was faster: the second call counts."""

    class Contested(LocalFiles):
        def update(self, key, change):
            change(b"[7]")
            return super().update(key, change)

    value = document(Contested(tmp_path))

    assert value.update(append(1)) == [1, 0]
    assert value.read() == [1, 0]


def test_a_change_that_fails_leaves_the_value(tmp_path: Path) -> None:
    value = document(LocalFiles(tmp_path))
    value.update(append(1))
    failure = RuntimeError()

    def fails(before: list[int]) -> list[int]:
        raise failure

    with pytest.raises(RuntimeError) as caught:
        value.update(fails)
    assert caught.value is failure
    assert value.read() == [1, 0]


def test_damage_is_named_with_its_remedy_and_left_as_it_is(tmp_path: Path) -> None:
    value = document(LocalFiles(tmp_path))
    value.update(append(1))
    (tmp_path / KEY).write_bytes(b"[1,")

    for use in (value.read, lambda: value.update(append(2))):
        with pytest.raises(DamagedFile) as caught:
            use()
        for named in ("the list of numbers", f"{tmp_path}/{KEY}", "`repair-it`"):
            assert named in str(caught.value)
    assert (tmp_path / KEY).read_bytes() == b"[1,"
