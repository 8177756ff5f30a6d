"""The documentation says what the program does: help texts, links, examples, errors, settings.

``python tests/test_docs.py`` writes the present help texts into docs/reference/command-line.md.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import click
import pytest
from click.testing import CliRunner

from data_engine import errors
from data_engine.cli import program
from data_engine.cli.verify import CONTRADICTION
from data_engine.settings import _KEYS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
COMMAND_LINE = ROOT / "docs/reference/command-line.md"
ERRORS = ROOT / "docs/reference/errors-and-exit-codes.md"
SETTINGS = ROOT / "docs/reference/settings.md"

_FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HELP = re.compile(r"^\$ data-engine ?([a-z -]*?) --help\n")
_VARIABLE = re.compile(r"\b(?:DATA_ENGINE|ALPACA|APCA)_[A-Z_]*[A-Z]\b")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of *page*, its head left out, code marks removed."""
    section = re.split(rf"^#+ {re.escape(heading)}$", text(page), flags=re.MULTILINE)[1]
    rows = re.search(r"(^\|.*\n)+", section, re.MULTILINE)
    assert rows is not None
    cells = [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows[0].splitlines()]
    return cells[2:]


# ---------------------------------------------------------------------------------------------------------- help texts


def shown_help(command: str) -> str:
    """Return what ``--help`` prints on a terminal of 80 columns."""
    with patch.dict(os.environ, {"COLUMNS": "80"}):
        result = CliRunner().invoke(program, [*command.split(), "--help"], prog_name="data-engine")
    assert result.exit_code == 0, result.output
    return str(result.output)


def commands() -> dict[str, click.Command]:
    """Return every command by its words, those of a group after it."""
    found: dict[str, click.Command] = {}
    for word, command in sorted(program.commands.items()):
        found[word] = command
        if isinstance(command, click.Group):
            found.update({f"{word} {inner}": one for inner, one in sorted(command.commands.items())})
    return found


def documented_help() -> dict[str, str]:
    found = {}
    for _, _, block in _FENCE.findall(text(COMMAND_LINE)):
        head = _HELP.match(block)
        if head:
            found[head[1]] = block[head.end() :]
    return found


@pytest.mark.parametrize("command", ["", *commands()])
def test_the_reference_holds_the_help_of_every_command(command):
    assert documented_help().get(command) == shown_help(command), "`python tests/test_docs.py` writes the present help texts"


def test_the_reference_has_no_help_of_a_command_that_is_gone():
    assert set(documented_help()) == {"", *commands()}


# --------------------------------------------------------------------------------------------------------------- links


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", _FENCE.sub("", text(page)), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for link in _LINK.findall(_FENCE.sub("", text(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT) or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_the_index_leads_to_every_page():
    index = ROOT / "docs/index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(text(index))}

    assert {page for page in PAGES if "docs" in page.parts and page != index} - linked == set()


# ------------------------------------------------------------------------------------------------------------- examples


def examples(language: str) -> list[tuple[Path, str]]:
    return [(page, block) for page in PAGES for _, info, block in _FENCE.findall(text(page)) if info.strip() == language]


@pytest.mark.parametrize(("page", "code"), [pytest.param(*example, id=name(example[0])) for example in examples("python")])
def test_every_python_example_compiles_and_imports_what_there_is(page, code):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = ast.parse(code, filename=name(page))
        compile(tree, name(page), "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "data_engine":
            module = import_module(str(node.module))
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert missing == [], f"{node.module} has no {missing}"


@pytest.mark.parametrize(("page", "code"), [pytest.param(*example, id=name(example[0])) for example in examples("console")])
def test_every_console_example_names_commands_and_options_that_there_are(page, code):
    for words in re.findall(r"^\$ (?:[A-Z_]+=\S+ )*data-engine\b(.*)$", code.replace("\\\n", " "), re.MULTILINE):
        parts = words.split()
        known_words = commands()
        named = " ".join(parts[:2]) if " ".join(parts[:2]) in known_words else parts[0] if parts else ""
        command = known_words.get(named) if named and not named.startswith("-") else program
        assert command is not None, f"there is no command {parts[0]!r}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        unquoted = re.sub(r"\"[^\"]*\"|'[^']*'", "", words)
        assert set(re.findall(r"(?<=\s)--[a-z-]+", unquoted)) - known == set()


# ------------------------------------------------------------------------------------------------- errors and exit codes


def error_classes() -> list[type[errors.DataEngineError]]:
    ours = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.DataEngineError)]
    return [one for one in ours if one.__module__ == errors.__name__]


def test_the_table_of_errors_is_that_of_the_code():
    documented = {row[0]: (row[1], row[2], row[3]) for row in table(ERRORS, "Errors")}

    assert documented == {
        one.__name__: (next(base.__name__ for base in one.__bases__), one.code, str(one.exit_code)) for one in error_classes()
    }


def test_the_table_of_exit_codes_names_every_code_there_is():
    documented = {int(row[0]) for row in table(ERRORS, "Exit codes")}

    assert documented == {0, 1, 2, CONTRADICTION, *(one.exit_code for one in error_classes())}


def test_the_readme_gives_exit_codes_the_same_meaning():
    assert table(ROOT / "README.md", "Exit codes") == table(ERRORS, "Exit codes")


# ------------------------------------------------------------------------------------------------------------- settings


def test_every_setting_and_variable_of_the_code_is_documented():
    used = {variable for file in (ROOT / "src").rglob("*.py") for variable in _VARIABLE.findall(text(file))}

    assert {word for word in (*used, *_KEYS) if f"`{word}`" not in text(SETTINGS)} == set()


# -------------------------------------------------------------------------------------------------------- as a program


def write_help() -> None:
    """Put the present help texts into the reference; add blocks for commands that are new."""
    page = text(COMMAND_LINE)
    known = documented_help()
    for command in ("", *commands()):
        words = f"data-engine {command}".strip()
        block = f"```text\n$ {words} --help\n{shown_help(command)}```\n"
        if command in known:
            page = page.replace(f"```text\n$ {words} --help\n{known[command]}```\n", block)
        else:
            page += f"\n## `{words}`\n\n{block}"
    COMMAND_LINE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    write_help()
    sys.exit(0)
