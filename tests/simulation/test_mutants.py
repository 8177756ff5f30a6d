"""The mutants do not rot: every patch still applies, leaves Python, and the runner tells what catches one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .mutants.__main__ import environ, main
from .mutants.patches import ROOT, apply, broken, mutants

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")

MUTANTS = mutants()


def test_each_patch_applies_to_the_engine_and_leaves_python(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    wrong = {}
    for mutant in MUTANTS:
        why = apply(mutant, tmp_path)
        if why:
            wrong[mutant.name] = why
            continue
        for path in mutant.files:
            assert path.startswith("src/data_engine/"), mutant.name
            compile((tmp_path / path).read_text(), path, "exec")
        assert not apply(mutant, tmp_path, undo=True)

    assert not wrong, "make these patches anew, for the same break"


def test_there_are_enough_of_them_and_each_says_what_it_breaks() -> None:
    rows = {mutant.row for mutant in MUTANTS}

    assert len(MUTANTS) >= 40
    assert sum(mutant.blind for mutant in MUTANTS) >= 15
    assert rows >= {*map(str, (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 20, 21, 22, 23, 24, 25))}
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)


def test_few_are_caught_by_a_test_in_place_of_seeds_and_it_is_there() -> None:
    chosen = [mutant.caught_by for mutant in MUTANTS if mutant.caught_by]

    assert len(chosen) <= 13  # five of them are of the history, where a test looks at more than a seed does
    for test in chosen:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(), test


def test_the_runner_says_which_seed_catches_a_mutant(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["mutants", "backfill-forgotten", "--seeds", "3"])

    assert main() == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("backfill-forgotten")
    assert re.search(r"at seed [123] by \(e\)", line)


def test_a_seed_that_the_engine_as_it_is_violates_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["mutants", "backfill-forgotten", "--seeds", "1"])
    monkeypatch.setattr("simulation.mutants.__main__.is_kept", lambda seed: seed != 1)

    assert main() == 1


def test_the_runner_refuses_a_name_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["mutants", "none-of-them"])

    with pytest.raises(SystemExit):
        main()


def test_what_the_runner_starts_finds_the_broken_engine(tmp_path: Path) -> None:
    """Not the one that is installed: then nothing would ever be caught."""
    mutant = next(one for one in MUTANTS if one.name == "backfill-forgotten")
    with broken(mutant) as source:
        words = [sys.executable, "-c", "import data_engine.ingest.update_targets as one; print(one.__file__)"]
        found = subprocess.run(words, cwd=tmp_path, env=environ(source), capture_output=True, text=True, check=True).stdout

        assert Path(found.strip()) == source / "data_engine/ingest/update_targets.py"
