"""The documentation says what the program does: help texts, links, examples, errors, settings.

``python tests/test_docs.py`` writes the present help texts into docs/reference/command-line.md.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import click
import pytest
from click.testing import CliRunner
from filelock import FileLock

import page_blocks
from data_engine import errors
from data_engine.cli import DOCUMENTATION, program
from data_engine.cli.exit_codes import INCONSISTENT, MEANINGS
from data_engine.sandbox import Sandbox, SimulatedMarket
from data_engine.settings import _KEYS
from running import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
COMMAND_LINE = ROOT / "docs/reference/command-line.md"
README = ROOT / "README.md"
BACKUP = ROOT / "docs/how-to/copy-or-back-up-a-store.md"
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
    return str(result.output).replace(str(DOCUMENTATION), "FOLDER/docs/index.md")


def test_the_help_names_the_documentation_that_is_installed():
    assert DOCUMENTATION == ROOT / "docs/index.md"


def commands() -> dict[str, click.Command]:
    """Return every command by its words, those of a group after it."""
    found: dict[str, click.Command] = {}
    for word, command in sorted(program.commands.items()):
        found[word] = command
        below: dict[str, click.Command] = getattr(command, "commands", {})
        found.update({f"{word} {inner}": one for inner, one in sorted(below.items())})
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
        command = getattr(command, "default_command", command)
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        own, _, passed_on = re.sub(r"\"[^\"]*\"|'[^']*'", "", words).partition(" -- ")
        assert set(re.findall(r"(?<=\s)--[a-z-]+", own)) - known == set()
        of_update = {option for parameter in known_words["update"].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", passed_on)) - of_update == set()


# ------------------------------------------------------------------------------------------------- errors and exit codes


def error_classes() -> list[type[errors.DataEngineError]]:
    ours = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.DataEngineError)]
    return [one for one in ours if one.__module__ == errors.__name__]


def test_the_table_of_errors_is_that_of_the_code():
    documented = {row[0]: (row[1], row[2], row[3]) for row in table(ERRORS, "Errors")}

    assert documented == {
        one.__name__: (next(base.__name__ for base in one.__bases__), one.code, str(one.exit_code)) for one in error_classes()
    }


def test_the_table_of_exit_codes_is_that_of_the_code():
    documented = {int(code): meaning for code, meaning in table(ERRORS, "Exit codes")}

    assert set(documented) == {0, 1, 2, INCONSISTENT, *(one.exit_code for one in error_classes())}
    assert documented == {code: meaning.removesuffix(".") for code, meaning in MEANINGS.items()}


def test_no_other_page_has_a_table_of_exit_codes_of_its_own():
    assert [name(page) for page in PAGES if page != ERRORS and re.search(r"^#+ Exit codes$", text(page), re.MULTILINE)] == []


# ------------------------------------------------------------------------------------------------------------- settings


def test_every_setting_and_variable_of_the_code_is_documented():
    used = {variable for file in (ROOT / "src").rglob("*.py") for variable in _VARIABLE.findall(text(file))}

    assert {word for word in (*used, *_KEYS) if f"`{word}`" not in text(SETTINGS)} == set()


# --------------------------------------------------------------------------------------------------------- modules and tests


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name)
def test_the_files_and_modules_that_a_page_names_are_there(page):
    files = set(re.findall(r"\b(?:src|tests|benchmarks|examples)/[\w./-]*\.\w+", text(page)))
    modules = set(re.findall(r"\bdata_engine(?:\.[a-z]\w*)+", text(page)))

    assert [file for file in sorted(files) if not (ROOT / file).exists()] == []
    assert [module for module in sorted(modules) if not is_there(module)] == []


def is_there(dotted: str) -> bool:
    """Tell whether a dotted name leads to a module, or to something in one."""
    module, _, attribute = dotted.rpartition(".")
    try:
        import_module(dotted)
    except ModuleNotFoundError:
        return module != "" and hasattr(import_module(module), attribute)
    return True


def test_the_page_of_benchmarks_ends_with_what_is_written_about_them():
    """What is changed in one of the two would be lost, or old, after the next run."""
    about = (ROOT / "benchmarks" / "about.md").read_text(encoding="utf-8")

    assert (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").endswith(about)


def test_a_page_has_one_title():
    heads = [(name(page), re.findall(r"^# (.+)$", _FENCE.sub("", text(page)), re.MULTILINE)) for page in PAGES]

    assert [page for page, head in heads if len(head) != 1] == []


# ------------------------------------------------------------------------------------- examples that run


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which ``data-engine demo`` was run: one for all workers."""
    folder = tmp_path_factory.getbasetemp().parent / "pages"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            ran = shell("data-engine demo", folder)
            assert ran.returncode == 0, ran.stderr
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="module")
def alpaca() -> Iterator[str]:
    """Yield the address of a sandbox that stands in Alpaca's place."""
    with Sandbox(SimulatedMarket()) as server:
        yield server.url


@pytest.fixture(scope="module")
def quick_start() -> Iterator[Path]:
    with page_blocks.preloaded() as socket_path:
        yield socket_path


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of a page, with ``data-engine`` on the path; it ends at the first command that fails."""
    bin_folder = folder / "bin"
    if not bin_folder.exists():
        bin_folder.mkdir()
        (bin_folder / "data-engine").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m data_engine "$@"\n')
        (bin_folder / "data-engine").chmod(0o755)
    env = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


RUN = [README, ROOT / "docs/index.md", ROOT / "docs/tutorial.md", *sorted((ROOT / "docs/how-to").glob("*.md"))]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the examples are of a POSIX shell")
@pytest.mark.parametrize("page", [page for page in RUN if any(one.not_run is None for one in page_blocks.blocks(page))], ids=name)
def test_the_blocks_of_a_page_run_after_the_demo_and_print_what_the_page_says(page, demo, alpaca, quick_start, tmp_path):
    reader = page_blocks.Reader(tmp_path / "stocks", demo / "demo_data", alpaca, quick_start)
    try:
        outcomes = reader.read(page)
    finally:
        reader.close()

    assert not outcomes, "\n".join(map(str, outcomes))


def test_few_blocks_are_not_run_and_each_says_why():
    """What needs another program, another machine or an account; a page of which nothing is run is about nothing else."""
    left_out = {one.not_run for page in RUN for one in page_blocks.blocks(page) if one.not_run is not None}

    assert left_out == {
        "the tests run the demo once for all pages",
        "the tests run the demo once for all pages, and are the tests",
        "vectorbt is not installed where the tests run",
        "Spark is not installed where the tests run",
        "matplotlib is not installed where the tests run",
        "needs a bucket; tests/cli/test_store_on_s3.py does the same with one",
        "starts a cluster; tests/ingest/test_dask_pool.py does the same with one",
        "it installs; tests/packaging/try_wheel.py does the same",
        "it needs the checkout; tests/sandbox/test_bots.py runs it",
        "the store is your own, and `make engines` runs the command",
        "`make engines` runs it",
    }


@pytest.mark.parametrize(
    ("said", "printed", "equal"),
    [
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("a\nz\n", "a\nb\nz\n", False),
        ("4 bars in 2.5s\n", "4 bars in 1m 03s\n", True),
        ("4 bars in 2.5s\n", "5 bars in 2.5s\n", False),
        ("one\n", "Store: /x (default)\none\n", True),
        ("Store: /y (default)\none\n", "Store: /x (default)\none\n", False),
        ("now 2026-11-25T13:42:06Z\n", "now 2027-01-02T03:04:05Z\n", True),
        ("then 2024-06-03\n", "then 2024-06-04\n", False),
    ],
)
def test_what_differs_from_run_to_run_is_all_that_is_passed_over(said, printed, equal):
    assert page_blocks.same(said, printed) is equal


def test_the_readme_is_a_screen():
    assert len(text(README).splitlines()) <= 75


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the examples are of a POSIX shell")
@pytest.mark.parametrize("first", ["coverage", "bars"])
def test_the_last_step_of_a_backup_finds_what_a_writer_changed(demo, tmp_path, first):
    """No order is safe while something writes: bars go after their coverage was copied, or coverage comes after the bars were."""
    (script,) = (block for page, block in examples("sh") if page == BACKUP)
    last = script.splitlines()[-1]
    store, copy = tmp_path / "store", tmp_path / "copied"
    shutil.copytree(demo / "demo_data", store)
    parts = ("metadata", "equities_1min") if first == "coverage" else ("equities_1min", "metadata")

    shutil.copytree(store / parts[0], copy / parts[0])
    if first == "coverage":
        ran = run("remove", "KO", "--start", "2024-05-01", "--end", "2024-05-31", "--base-path", store)
    else:
        with Sandbox(SimulatedMarket()) as server:
            ran = run("ingest", "KO", "--start", "2024-07-01", "--end", "2024-07-31", "--base-path", store, url=server.url)
    shutil.copytree(store / parts[1], copy / parts[1])
    checked = shell(last.replace("backup", str(copy)), demo)

    assert ran.code == 0, ran.text
    assert last.startswith("data-engine verify")
    assert checked.returncode == INCONSISTENT, checked.stdout
    assert "KO" in checked.stdout
    assert [name(page) for page in PAGES if re.search("copy the coverage first", text(page), re.IGNORECASE)] == []


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
