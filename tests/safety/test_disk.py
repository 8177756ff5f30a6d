"""Disks that do not want: the store stays whole, the message names the path, and the next run on a better disk completes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_engine.sandbox import Sandbox

from .harness import Snapshot, Stage, bars_on, check_whole, coverage_on, drafts_on, same, served, snapshot, truth_of
from .market import MIDDLE, NOW, SYMBOLS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks and mounts are POSIX")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount or become another")
NOBODY = 65534


@pytest.fixture(scope="module")
def expected(stage: Stage, tmp_path_factory) -> Snapshot:
    base = tmp_path_factory.mktemp("undisturbed")
    stage.forks.run(replace(stage.job(), base=str(base)))
    return snapshot(base)


@pytest.fixture(scope="module")
def half(stage: Stage, tmp_path_factory) -> Path:
    """A store with the bars until May."""
    base = tmp_path_factory.mktemp("half")
    stage.forks.run(replace(stage.job(end=MIDDLE), base=str(base)))
    return base


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach: pytest's own belong to who runs it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small disk; skip where that is not allowed."""
    folder.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def intact(base: Path, stage: Stage, before: Path | None = None) -> None:
    """Check that a store is whole, and that every bar it had before is still there."""
    check_whole(base, [truth_of(stage.original)])
    assert drafts_on(base) == []
    for symbol in SYMBOLS if before is not None else ():
        assert bars_on(before, symbol).items() <= bars_on(base, symbol).items()


def fill(disk: Path) -> Path:
    """Leave not one byte free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        facts = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_frsize)
    return ballast


# ------------------------------------------------------------------------------------------------------------- full disks


@as_root
@pytest.mark.parametrize("filled_at", [1, 7, 15])
def test_a_disk_that_fills_up_during_a_run(stage, expected, half, tmp_path, filled_at):
    """Somebody else takes the last byte while the run waits for its n-th answer."""
    with mounted(tmp_path / "disk", "size=96m") as disk:
        base = disk / "store"
        shutil.copytree(half, base)
        numbers = iter(range(1, 10_000))

        def fill_up(_record) -> None:
            if next(numbers) == filled_at:
                fill(disk)

        with served(stage.original, on_request=fill_up) as sandbox:
            told = stage.forks.run(replace(stage.job(url=sandbox.url, workers=1), base=str(base)))

        assert (told["code"], told["kind"]) == (4, "StoreError"), told
        assert f"cannot write {base}" in told["error"]
        assert told["error"].endswith("the disk is full")
        intact(base, stage, half)
        (disk / "ballast").unlink()
        assert stage.forks.run(replace(stage.job(), base=str(base)))["code"] == 1
        same(base, expected)


@as_root
def test_a_disk_that_is_full_before_the_run(stage, half, tmp_path):
    """Nothing is asked for that could not be kept."""
    with mounted(tmp_path / "disk", "size=8m") as disk:
        base = disk / "store"
        shutil.copytree(half, base)
        before = snapshot(base)
        ballast = fill(disk)
        told = stage.forks.run(replace(stage.job(), base=str(base)))

        assert told["code"] == 4, told
        assert str(base) in told["error"]
        assert "free" in told["error"]
        assert told.get("requests", 0) == 0
        assert snapshot(base).differences(before) == []
        ballast.unlink()


@as_root
def test_a_disk_without_room_for_another_file(stage, expected, half, tmp_path):
    """All its inodes are taken, though there are bytes enough."""
    with mounted(tmp_path / "disk", "size=96m,nr_inodes=110") as disk:
        base = disk / "store"
        shutil.copytree(half, base)
        for number in range(200):
            try:
                (disk / f"ballast{number}").touch()
            except OSError:
                break
        (disk / "ballast0").unlink()
        told = stage.forks.run(replace(stage.job(), base=str(base)))

        assert (told["code"], told["kind"]) == (4, "StoreError"), told
        assert str(base) in told["error"]
        assert told["error"].endswith("the disk is full")
        intact(base, stage, half)
        for path in disk.glob("ballast*"):
            path.unlink()
        assert stage.forks.run(replace(stage.job(), base=str(base)))["code"] == 1
        same(base, expected)


@as_root
def test_a_disk_that_is_read_only(stage, expected, half, tmp_path):
    """As Linux makes a disk that fails."""
    with mounted(tmp_path / "disk", "size=96m") as disk:
        base = disk / "store"
        shutil.copytree(half, base)
        before = snapshot(base)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        told = stage.forks.run(replace(stage.job(), base=str(base)))

        assert (told["code"], told["kind"]) == (4, "StoreError"), told
        assert str(base) in told["error"]
        assert told["error"].endswith("the file system is read-only")
        assert snapshot(base).differences(before) == []
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert stage.forks.run(replace(stage.job(), base=str(base)))["code"] == 1
        same(base, expected)


# ------------------------------------------------------------------------------------------------------------ permissions


@as_root
def test_a_store_of_somebody_else(stage, half, public):
    base = public / "store"
    shutil.copytree(half, base)
    before = snapshot(base)
    told = stage.forks.run(replace(stage.job(), base=str(base), uid=NOBODY))

    assert told["code"] == 4, told
    assert str(base) in told["error"]
    assert told["error"].endswith("permission denied")
    assert snapshot(base).differences(before) == []


@as_root
@pytest.mark.usefixtures("half")  # so that the process that forks has loaded all that a run needs
def test_a_folder_where_nobody_may_make_a_store(stage, public):
    told = stage.forks.run(replace(stage.job(), base=str(public / "store"), uid=NOBODY))

    assert told["code"] == 4, told
    assert str(public / "store") in told["error"]
    assert told["error"].endswith("permission denied")
    assert list(public.iterdir()) == []


def give(base: Path, uid: int) -> None:
    for path in (base, *base.rglob("*")):
        os.chown(path, uid, uid)


@as_root
@pytest.mark.parametrize("lost", ["equities_1min/symbol=CON", "metadata/coverage/equities_1min", "metadata/drafts"])
def test_one_folder_of_somebody_else(stage, expected, half, public, lost):
    """As after one run with sudo."""
    base = public / "store"
    shutil.copytree(half, base)
    give(base, NOBODY)
    give(base / lost, 0)
    told = stage.forks.run(replace(stage.job(), base=str(base), uid=NOBODY))

    assert told["code"] in (1, 4), told
    words = told.get("error") or " ".join(failed["message"] for failed in told["failed"])
    assert str(base) in words
    assert "permission denied" in words
    intact(base, stage, half)
    give(base, NOBODY)
    assert stage.forks.run(replace(stage.job(), base=str(base), uid=NOBODY))["code"] == 1
    same(base, expected)


@as_root
@pytest.mark.parametrize("kind", ["bars", "coverage"])
def test_one_file_that_may_not_be_read(stage, expected, half, public, kind):
    base = public / "store"
    shutil.copytree(half, base)
    give(base, NOBODY)
    name = {
        "bars": "equities_1min/symbol=CON/year=2024/month=05/data.parquet",
        "coverage": "metadata/coverage/equities_1min/symbol=CON.json",
    }[kind]
    (base / name).chmod(0)
    told = stage.forks.run(replace(stage.job(), base=str(base), uid=NOBODY))

    assert told["code"] in (1, 4), told
    words = told.get("error") or " ".join(failed["message"] for failed in told["failed"])
    assert f"cannot read {base / name}: permission denied" in words
    (base / name).chmod(0o644)
    intact(base, stage, half)
    assert stage.forks.run(replace(stage.job(), base=str(base), uid=NOBODY))["code"] == 1
    same(base, expected)


# -------------------------------------------------------------------------------------------------- files that are folders


@pytest.mark.parametrize("below", ["", "below/it"])
def test_a_store_whose_path_is_a_file(stage, tmp_path, below):
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    told = stage.forks.run(replace(stage.job(), base=str(path / below)))

    assert told["code"] == 4, told
    assert str(path) in told["error"]
    assert told["error"].endswith("a part of the path is a file, not a folder")
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "where",
    [
        "metadata",
        "metadata/locks",
        "metadata/coverage",
        "metadata/coverage/equities_1min",
        "equities_1min",
        "equities_1min/symbol=CON",
        "equities_1min/symbol=CON/year=2024/month=05",
    ],
)
def test_a_file_where_the_store_needs_a_folder(stage, expected, tmp_path, where):
    base = tmp_path / "store"
    path = base / where
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    told = stage.forks.run(replace(stage.job(), base=str(base)))

    assert told["code"] in (1, 4), told
    words = told.get("error") or " ".join(failed["message"] for failed in told["failed"])
    assert str(path) in words
    assert path.read_bytes() == b"mine"
    path.unlink()
    check_whole(base, [truth_of(stage.original)])
    assert stage.forks.run(replace(stage.job(), base=str(base)))["code"] == 1
    same(base, expected)


@pytest.mark.parametrize(
    "where",
    [
        "equities_1min/symbol=CON/year=2024/month=05/data.parquet",
        "metadata/coverage/equities_1min/symbol=CON.json",
        "metadata/locks/run.lock",
    ],
)
def test_a_folder_where_the_store_needs_a_file(stage, expected, tmp_path, where):
    base = tmp_path / "store"
    (base / where).mkdir(parents=True)
    told = stage.forks.run(replace(stage.job(), base=str(base)))

    assert told["code"] in (1, 4), told
    words = told.get("error") or " ".join(failed["message"] for failed in told["failed"])
    assert str(base / where) in words
    (base / where).rmdir()
    check_whole(base, [truth_of(stage.original)])
    assert stage.forks.run(replace(stage.job(), base=str(base)))["code"] == 1
    same(base, expected)


def test_a_foreign_file_among_the_drafts_is_left_alone(stage, expected, tmp_path):
    base = tmp_path / "store"
    foreign = base / "metadata" / "drafts" / "notes.tmp"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    told = stage.forks.run(replace(stage.job(), base=str(base)))

    assert told["code"] == 1, told
    assert foreign.read_bytes() == b"mine"
    foreign.unlink()
    same(base, expected)


@as_root
def test_one_file_that_cannot_be_replaced_fails_its_symbol_alone(stage, half, tmp_path):
    """As on Windows, where a reader holds it open; here it is a mount point, which the system calls busy, too."""
    base = tmp_path / "store"
    shutil.copytree(half, base)
    path = base / "equities_1min/symbol=CON/year=2024/month=05/data.parquet"
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    if subprocess.run(["mount", "--bind", copy, path], capture_output=True, check=False).returncode:
        pytest.skip("no mount here")
    try:
        told = stage.forks.run(replace(stage.job(), base=str(base)))
        intact(base, stage, half)
    finally:
        subprocess.run(["umount", path], check=True)

    assert {failed["symbol"]: failed["message"] for failed in told["failed"]}["CON"] == f"cannot write {path}: file in use"
    assert told["code"] != 4, told
    assert {failed["symbol"] for failed in told["failed"]} == {"CON", "ZZZ"}


# --------------------------------------------------------------------------------------------------------- too many files


@pytest.mark.parametrize("spare", [0, 1, 2, 3, 5, 8, 12, 20])
def test_a_limit_of_open_files(stage, expected, half, tmp_path, spare):
    """With hardly a handle to spare a run ends in words; with a few it works. Never is anything lost."""
    base = tmp_path / "store"
    shutil.copytree(half, base)
    # stdin, stdout, stderr, two ends of pipes, and what the process that forks has open besides.
    told = stage.forks.run(replace(stage.job(workers=8, tries=2), base=str(base), open_file_store=8 + spare))

    assert told["code"] in (1, 4, 6), told
    if told["code"] == 4:
        assert str(base) in told["error"]
        assert "too many open files" in told["error"]
    intact(base, stage, half)
    assert stage.forks.run(replace(stage.job(), base=str(base)))["code"] == 1
    same(base, expected)


# -------------------------------------------------------------------------------------------------------------- the clock


def at(stage: Stage, base: Path, now: datetime, **named):
    with Sandbox(stage.original, clock=lambda: min(now, NOW)) as sandbox:
        return stage.forks.run(replace(stage.job(url=sandbox.url, **named), base=str(base), now=now.isoformat()))


@pytest.mark.parametrize("back", [timedelta(minutes=1), timedelta(hours=3), timedelta(days=5), timedelta(days=3000)])
def test_a_clock_that_goes_back_between_two_runs(stage, expected, tmp_path, back):
    """What was there stays there, and nothing of the time that has not come yet is claimed anew."""
    base = tmp_path / "store"
    stage.forks.run(replace(stage.job(), base=str(base)))
    told = at(stage, base, NOW - back)

    assert told["code"] in (0, 1, 2), told
    assert {name: data for name, data in snapshot(base).files.items() if "equities" in name} == expected.files
    check_whole(base, [truth_of(stage.original)])
    assert stage.forks.run(replace(stage.job(), base=str(base)))["code"] == 1
    same_but_failures(base, expected)


def same_but_failures(base: Path, expected: Snapshot) -> None:
    # When ZZZ was found empty is what the wrong clock said.
    found, wanted = (one.without("empty_since").without("failure") for one in (snapshot(base), expected))
    assert found.differences(wanted) == []


def test_a_clock_that_was_behind_and_is_put_right(stage, expected, tmp_path):
    base = tmp_path / "store"
    at(stage, base, NOW - timedelta(days=9))
    check_whole(base, [truth_of(stage.original)])
    stage.forks.run(replace(stage.job(), base=str(base)))

    same_but_failures(base, expected)


def test_a_clock_that_is_ahead_claims_nothing_of_the_days_that_have_not_come(stage, tmp_path):
    """The server says what time it is, in the Date header of every answer."""
    base = tmp_path / "store"
    really = datetime.now(UTC)
    with Sandbox(stage.original) as sandbox:
        ahead = (really + timedelta(days=20)).isoformat()
        told = stage.forks.run(replace(stage.job(url=sandbox.url), base=str(base), now=ahead))

    assert "clock is ahead" in str(told)
    for symbol in SYMBOLS:
        assert coverage_on(base, symbol) == {}, symbol  # not even the wish: it reached into the future


# ---------------------------------------------------------------------------------------------------- on the command line


def test_the_command_line_says_it_in_one_line_and_exits_with_4(stage, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    made = subprocess.run(
        [sys.executable, "-m", "data_engine", "ingest", "AAPL", "--start", "2024-06-03", "--base-path", tmp_path / "file"],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
            "ALPACA_API_KEY": "key",
            "ALPACA_SECRET_KEY": "secret",
            "APCA_API_DATA_URL": stage.sandboxes[0].url,
        },
        timeout=60,
    )

    assert made.returncode == 4, made.stderr
    last = made.stderr.splitlines()[-1]
    assert last.startswith("Error: cannot")
    assert str(tmp_path / "file") in last
    assert "Traceback" not in made.stderr
