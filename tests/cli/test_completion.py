"""A shell that asks for the next word gets the commands, options and values that begin like it."""

from __future__ import annotations

import os
import subprocess
import sys

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
