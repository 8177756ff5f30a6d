"""A shell that asks for the next word gets the commands, options and values that begin like it."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def asked(shell: str, instruction: str, **words: str) -> list[str]:
    variables = {"_DATA_ENGINE_COMPLETE": f"{shell}_{instruction}", **words}
    ran = subprocess.run(
        [sys.executable, "-m", "data_engine"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("data-engine in", {"index", "ingest"}),
        ("data-engine ingest --fe", {"--feed"}),
        ("data-engine sandbox --plan ", {"free", "paid"}),
        ("data-engine ingest --csv sp5", {"sp5"}),  # as the name of a file, which the shell completes
    ],
)
def test_the_words_that_begin_like_what_is_typed_are_offered(typed: str, offered: set[str]) -> None:
    lines = asked("bash", "complete", COMP_WORDS=typed, COMP_CWORD=str(typed.count(" ")))

    assert {line.partition(",")[2] for line in lines} == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_calls_the_command(shell: str) -> None:
    if shell == "bash" and sys.platform == "darwin":
        pytest.skip("its bash is older than completion")

    script = "\n".join(asked(shell, "source"))

    assert f"_DATA_ENGINE_COMPLETE={shell}_complete" in script
    assert "data-engine" in script


def bash_is_new_enough() -> bool:
    """Tell whether there is a bash whose completion click can extend."""
    shell = shutil.which("bash")
    if shell is None or sys.platform == "win32":
        return False
    told = re.search(
        r"version (\d+)\.(\d+)", subprocess.run([shell, "--version"], capture_output=True, text=True, check=False).stdout
    )
    return told is not None and (int(told[1]), int(told[2])) >= (4, 4)


@pytest.mark.skipif(not bash_is_new_enough(), reason="no bash 4.4 or newer")
def test_tab_completes_in_an_interactive_bash(tmp_path: Path) -> None:
    import pty

    program = tmp_path / "data-engine"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m data_engine "$@"\n')
    program.chmod(0o755)
    (tmp_path / "my-list-of-symbols.csv").touch()
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TERM": "dumb", "INPUTRC": os.devnull}
    keys, terminal = pty.openpty()
    words = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(
        words, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=tmp_path, start_new_session=True
    ) as shell:
        os.close(terminal)
        shown = b""

        def until(expected: bytes) -> None:
            nonlocal shown
            while expected not in shown:
                assert select.select([keys], [], [], 30)[0], shown
                shown += os.read(keys, 4096)
            shown = b""

        os.write(keys, b'eval "$(_DATA_ENGINE_COMPLETE=bash_source data-engine)"; echo re""ady\n')
        until(b"ready\r\n")
        for typed, completed in (
            (b"data-engine upd\t", b"data-engine update "),
            (b"data-engine export --to n\t", b"--to nautilus "),
            (b"data-engine ingest --csv my\t", b"--csv my-list-of-symbols.csv "),
        ):
            os.write(keys, typed)
            until(completed)
            os.write(keys, b"\x15")  # empties the line; Ctrl-C would also drop what is typed next
        shell.kill()
    os.close(keys)
