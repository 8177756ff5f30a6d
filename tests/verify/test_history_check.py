"""`verify` checks the history: what is damaged of it, and what it does not explain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from data_engine.store.history import compaction
from data_engine.store.history.record import FOLDER
from data_engine.store.local_files import LocalFiles
from data_engine.verify.history_check import history_findings

KEY = "metadata/coverage/equities_1min/symbol=A.json"


@pytest.fixture
def files(tmp_path):
    files = LocalFiles(tmp_path / "store")
    for number in range(6):
        files.update(KEY, lambda _, number=number: b"content %d " % number * 40)
    return files


def codes(files, *, quick=False):
    return [(finding.code, finding.key) for finding in history_findings(files, [], quick=quick)]


@pytest.mark.parametrize("packed", [False, True])
def test_a_sound_history_has_no_finding_and_a_changed_byte_of_it_has_one(files, tmp_path, packed, monkeypatch):
    if packed:
        monkeypatch.setattr(compaction, "_MANY", 3)
        compaction.compact(files, datetime.now(UTC) + timedelta(hours=2), bases=1)
    assert codes(files) == codes(files, quick=True) == []
    key = next(iter(files.list(FOLDER)))
    path = tmp_path / "store" / key
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    assert codes(files, quick=True) == [("history_damaged", key)]


def test_a_store_without_a_history_has_no_finding(tmp_path):
    assert codes(LocalFiles(tmp_path)) == []


def test_a_file_that_a_hand_has_changed_is_named(files, tmp_path):
    (tmp_path / "store" / KEY).write_bytes(b"by hand")
    assert codes(files) == [("history_ends", KEY)]
    assert codes(files, quick=True) == []
    files.update(KEY, lambda _: b"and changed again")
    assert codes(files) == []


def test_the_record_of_a_writer_that_was_killed_is_no_damage(files, tmp_path):
    (tmp_path / "store" / FOLDER / "000000000008").write_bytes(b"data-engine hist")
    assert codes(files) == []
