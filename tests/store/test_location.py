"""A place is opened as what it is. Which words name a place is in test_settings.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine import ParquetStorage
from data_engine.errors import ConfigError
from data_engine.store.local_files import LocalFiles
from data_engine.store.location import open_file_store, parse_location
from data_engine.store.s3.s3_files import S3Files
from running import here


def test_a_folder_is_opened_as_one_and_not_made(tmp_path):
    files = open_file_store(tmp_path / "store")

    assert isinstance(files, LocalFiles)
    assert (files.location, files.folder) == (str(tmp_path / "store"), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_address_is_opened_as_a_bucket_and_nothing_is_asked_of_it(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    files = open_file_store("s3://bars/a/b")

    assert isinstance(files, S3Files)
    assert (files.location, files.folder, repr(files)) == ("s3://bars/a/b", None, "S3Files('s3://bars/a/b')")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("s3://bars/a/", "s3://bars/a"),
        ("a", Path("/start/a")),
        ("~/a", Path("/home/a")),
        (r"C:\data", Path(r"C:\data")),
        ("D:/data", Path("D:/data")),
    ],
)
def test_words_name_places(value, place):
    assert parse_location(value, Path("/home"), Path("/start")) == place


def test_every_command_says_what_to_install_where_obstore_is_not(monkeypatch, tmp_path):
    """Exit code 2, and nothing was sent."""
    (tmp_path / "settings.ini").write_text(
        "".join(f"[{name}]\nlocal_storage_dir = s3://bars/a\n" for name in ("linux", "macos", "windows"))
    )
    for name in ("obstore", "obstore.store", "obstore.exceptions"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    commands = [
        [],
        ["ingest", "A", "--start", "2024-06-03"],
        ["update"],
        ["status"],
        ["verify"],
        ["query", "SELECT 1"],
        ["remove", "A"],
    ]
    for words in commands:
        ran = here(*words)
        last = ran.err.splitlines()[-1]
        assert (ran.code, "s3://bars/a" in last, "`pip install obstore`" in last) == (2, True, True), words


def test_a_storage_says_where_it_is_and_no_more(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sEcReT")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAKEY")
    storage = ParquetStorage("s3://bars/a")

    assert repr(storage) == "ParquetStorage('s3://bars/a')"
    assert "sEcReT" not in repr(vars(storage)) + repr(vars(storage.files)) + repr(vars(storage.files._bucket))
    with pytest.raises(ConfigError):
        ParquetStorage("s3://bars//a")
