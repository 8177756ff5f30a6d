"""A value in a file: what a change makes of it is there and returned; what a change leaves as it is, is not written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_engine.store.document import update_document
from data_engine.store.local_files import LocalFiles

KEY = "metadata/value.json"


def numbers(content: bytes | None) -> list[int]:
    made: list[int] = [] if content is None else json.loads(content)
    return made


def change(files: LocalFiles, by: Callable[[list[int]], list[int]]) -> list[int]:
    return update_document(
        files, KEY, by, load=numbers, seal=lambda made: [*made, 0], dump=lambda made: json.dumps(made).encode()
    )


def test_a_value_is_changed_sealed_written_and_returned(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)

    assert change(files, lambda before: [*before, 1]) == [1, 0]
    assert change(files, lambda before: [*before, 2]) == [1, 0, 2, 0]
    assert (tmp_path / KEY).read_bytes() == b"[1, 0, 2, 0]"


def test_an_unchanged_value_is_neither_sealed_nor_written(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    assert change(files, lambda before: before) == []
    assert not (tmp_path / KEY).exists()
    change(files, lambda before: [1])
    (tmp_path / KEY).write_bytes(b"[1,   0]")

    assert change(files, lambda before: list(before)) == [1, 0]
    assert (tmp_path / KEY).read_bytes() == b"[1,   0]"


def test_a_change_that_is_tried_again_returns_what_was_written_last(tmp_path: Path) -> None:
    """A bucket calls a change once more when somebody was faster: the second one counts."""

    class Contested(LocalFiles):
        def update(self, key, change):
            change(b"[7]")
            return super().update(key, change)

    files = Contested(tmp_path)

    assert change(files, lambda before: [*before, 1]) == [1, 0]
    assert numbers(files.get(KEY)) == [1, 0]


def test_a_change_that_fails_leaves_the_value(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    change(files, lambda before: [1])

    def fails(before: list[int]) -> list[int]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        change(files, fails)
    assert numbers(files.get(KEY)) == [1, 0]
