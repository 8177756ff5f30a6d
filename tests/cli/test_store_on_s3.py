"""The whole program against a bucket, as people run it: on SeaweedFS, a real service of objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from data_engine import ParquetStorage
from data_engine.agents.store_tools import StoreTools
from data_engine.sandbox import Sandbox, SimulatedMarket
from object_server import serving
from running import account, ended, here, rows, run, start
from stores import place_on

WORDS = ("AAPL", "MSFT", "--start", "2024-06-03", "--end", "2024-06-05")


@pytest.fixture
def bucket(seaweedfs, tmp_path_factory, monkeypatch):
    for name, value in seaweedfs.env.items():
        monkeypatch.setenv(name, value)
    return place_on("seaweedfs", seaweedfs, iter(lambda: tmp_path_factory.mktemp("copy"), None))


def parquet(place) -> dict[str, bytes]:
    return {key: data for key, data in place.content().items() if key.endswith(".parquet")}


@contextmanager
def held_back() -> Iterator[tuple[Sandbox, Callable[[], None]]]:
    """Run a sandbox that answers nothing until it is let go."""
    free = threading.Event()
    with Sandbox(SimulatedMarket(), on_request=lambda _: free.wait(25)) as server:
        yield server, free.set


def test_every_command_works_on_a_bucket_as_on_a_disk(bucket, tmp_path):
    """And what lies in the bucket is, byte for byte, what would lie on the disk."""
    disk = tmp_path / "disk"
    with Sandbox(SimulatedMarket()) as server:
        for base in (bucket.base, disk):
            ran = here("ingest", *WORDS, "--index", "two", "--base-path", base, url=server.url)
            assert ran.code == 0, ran.text
            assert ran.err.splitlines()[0].startswith(f"Store: {base} (--base-path) | ")
        assert parquet(bucket) == {path.relative_to(disk).as_posix(): path.read_bytes() for path in disk.rglob("*.parquet")} != {}
        requests = len(server.requests)
        again = here("ingest", *WORDS, "--base-path", bucket.base, "--json", url=server.url)
        assert (again.json["bars_written"], len(server.requests)) == (0, requests)
        assert here("ingest", *WORDS, "--timeframe", "1Day", "--base-path", bucket.base, url=server.url).code == 0
        assert here("update", "--timeframe", "1Day", "--base-path", bucket.base, url=server.url).code == 0
    copied = bucket.copy()

    for words in (
        ("status", "--digest"),
        ("query", "SELECT symbol, count(*) FROM bars_1day GROUP BY ALL ORDER BY 1"),
        ("verify",),
    ):
        answers = [here(*words, "--base-path", base) for base in (bucket.base, copied)]
        assert [(one.code, one.out) for one in answers] == [(0, answers[0].out)] * 2
    for words in (("--to", "nautilus"), ("--to", "qlib", "--session", "regular", "--lossy")):
        made = [tmp_path / f"{words[1]}-of-{name}" for name in ("bucket", "copy")]
        for base, folder in zip((bucket.base, copied), made, strict=True):
            assert here("export", *words, "--base-path", base, folder).code == 0
        exported = [
            {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} for folder in made
        ]
        assert exported[0] == exported[1] != {}
    questions = [StoreTools(ParquetStorage(base)) for base in (bucket.base, copied)]
    counted = [one.query("SELECT count(*) FROM bars_1min", "2024-06-03", "2024-06-05", ["AAPL"]) for one in questions]
    assert counted[0] == counted[1]
    assert (counted[0]["complete"], counted[0]["rows"][0][0] > 0) == (True, True)
    status = here("status", "--json", "--base-path", bucket.base).json
    assert (status["store"], status["bars"]) == (bucket.base, len(rows(copied)) + len(rows(copied, "equities_1day")))
    assert status["bytes"] == sum(map(len, parquet(bucket).values()))
    narrow = here("query", "SELECT DISTINCT symbol FROM bars_1min", "--start", "2024-06-04", "--json", "--base-path", bucket.base)
    assert sorted(narrow.json["rows"]) == [["AAPL"], ["MSFT"]]
    held = parquet(bucket)
    assert here("snapshot", "create", "whole", "--base-path", bucket.base).code == 0
    removed = here("remove", "AAPL", "--base-path", bucket.base)
    assert removed.code == 0, removed.text
    assert ParquetStorage(bucket.base).load("AAPL", "2024-06-01", incomplete="ignore").empty
    assert {key.split("/")[1] for key in bucket.content() if "symbol=AAPL" in key} == {"actions"}  # these are no bars
    # What marks removed files in a bucket is in a copy too: no file there either.
    copied = bucket.copy()
    for words in (("status", "--digest"), ("verify",), ("snapshot", "verify"), ("history", "AAPL")):
        answers = [here(*words, "--base-path", base) for base in (bucket.base, copied)]
        assert [(one.code, one.out) for one in answers] == [(0, answers[0].out)] * 2
    for base in (bucket.base, copied):
        out = tmp_path / f"export of {base == copied}"
        assert here("export", "--to", "parquet", "--as-stored-on", "whole", "--base-path", base, out).code == 0
        assert {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.parquet")} == held


def test_the_place_may_come_from_the_environment_and_from_the_settings(bucket, tmp_path):
    store, error = here("status", env={"DATA_ENGINE_BASE_PATH": bucket.base}).err.splitlines()
    assert store == f"Store: {bucket.base} (DATA_ENGINE_BASE_PATH)"
    assert f"no store at {bucket.base}" in error
    assert "data-engine ingest" in error
    (tmp_path / "settings.ini").write_text(
        "".join(f"[{name}]\nlocal_storage_dir = {bucket.base}/\n" for name in ("linux", "macos", "windows"))
    )
    assert here(env={}).out.splitlines()[0].startswith(f"Store: {bucket.base} (settings.ini ")
    assert bucket.content() == {}


def test_a_damaged_file_in_a_bucket_is_found_and_mended(bucket):
    with Sandbox(SimulatedMarket()) as server:
        assert here("ingest", *WORDS, "--base-path", bucket.base, url=server.url).code == 0
        whole = bucket.content()
        key = "equities_1min/symbol=AAPL/year=2024/month=06/data.parquet"
        bucket.put(key, whole[key][:1000])
        found = here("verify", "--base-path", bucket.base)
        assert (found.code, f"{bucket.base}/{key}" in found.text) == (5, True)
        assert here("verify", "--repair", "--base-path", bucket.base).code == 0
        assert here("ingest", *WORDS, "--base-path", bucket.base, url=server.url).code == 0

    assert bucket.content()[key] == whole[key]


def test_a_second_run_on_a_bucket_ends_with_exit_code_7(bucket):
    words = ("ingest", *WORDS, "--base-path", bucket.base)
    with held_back() as (slow, let_go), start(*words, url=slow.url) as first:
        while not slow.requests:
            assert first.poll() is None
        second = run(*words, "--wait", 0, url=slow.url)
        let_go()
        assert ended(first).code == 0

    assert second.code == 7
    assert f"{bucket.base} is locked" in second.err


def test_a_service_that_ignores_conditions_is_said_to_and_has_one_writer(tmp_path):
    words = ("ingest", *WORDS, "--base-path", "s3://bars/x")
    with held_back() as (slow, let_go), serving(honours=set()) as service:
        env = {**account(slow.url), **service.env}
        with start(*words, env=env) as first:
            while not slow.requests:
                assert first.poll() is None
            second = run(*words, "--wait", 0, env=env)
            let_go()
            told = ended(first)

    assert (told.code, second.code) == (0, 7), told.text + second.text
    assert "If-None-Match" in told.err
    assert "Warning" not in told.err
    assert any(key.endswith("data.parquet") for key in service.things)
    assert service.things["x/metadata/locks/writer.lock"].content == b""


def test_a_bucket_that_may_not_be_written_to_is_exit_code_4():
    def refuse(method, *_):
        return (403, "AccessDenied", "no") if method == "PUT" else None

    with Sandbox(SimulatedMarket()) as server, serving(refuse=refuse) as service:
        ran = run("ingest", *WORDS, "--base-path", "s3://bars/x", env={**account(server.url), **service.env})

        assert (ran.code, server.requests) == (4, [])
    assert "Error: cannot write s3://bars/x/metadata/locks/probe-" in ran.err
    assert "permission denied (AccessDenied: no)" in ran.err


def test_a_lost_object_is_brought_back(bucket):
    with Sandbox(SimulatedMarket()) as server:
        assert here("ingest", *WORDS, "--base-path", bucket.base, url=server.url).code == 0
        whole = parquet(bucket)
        lost = min(whole)
        assert bucket.files.delete(lost)
        ran = here("ingest", *WORDS, "--base-path", bucket.base, url=server.url)

    assert ran.code == 0, ran.text
    assert lost in ran.text
    assert parquet(bucket) == whole
