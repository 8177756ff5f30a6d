"""The house: which module may know which, as a table. A new module finds its row here before it finds its reviewer."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import data_engine

ROOT = Path(data_engine.__file__).parent

# Imports point upwards in this table: a module knows modules of earlier rows alone, and none of its own row.
ROWS = (
    ("pure", "errors retry report ranges"),
    ("pure", "series spans pacing bars index_names"),
    ("pure", "sessions partitions bars_page digest marks universes"),
    ("pure", "coverage plain_page agreement sanity strays findings dated_lists session_hours actions"),
    ("pure", "planning compiled_page holes resampling months candles action_book renames adjusting"),
    ("pure", "drift runs wire"),
    ("pure", "refusals"),
    ("edge", "cores"),
    ("edge", "version credentials transport files symbols progress bucket leases"),
    ("edge", "conditions rosters documents"),
    ("edge", "object_files"),
    ("edge", "places coverage_store asking object_views action_store history"),
    ("edge", "settings alpaca"),
    ("edge", "metadata bar_files views results"),
    ("walker", "adjusted gathering"),
    ("walker", "reading"),
    ("walker", "completeness"),
    ("walker", "inspection chain wishes storage"),
    ("walker", "examination importing removal standing strangers tasks charts"),
    ("walker", "auditing cluster_pace mending verification runner"),
    ("walker", "dask_worker overview"),
    ("walker", "dask_runner fetching html_page"),
    ("walker", "job"),
    ("walker", "ingestion"),
    ("walker", "pipeline"),
    ("walker", "run_ingestion"),
    ("cli", "cli"),
    ("cli", "__main__"),
)
KIND = {module: kind for kind, modules in ROWS for module in modules.split()}
ROW = {module: number for number, (_, modules) in enumerate(ROWS) for module in modules.split()}

# Edges do not import each other; these stand on the seams below them, and here is all that they stand on.
STANDS_ON = {
    "transport": {"cores"},
    "conditions": {"bucket", "leases"},
    "rosters": {"symbols"},
    "object_files": {"bucket", "conditions", "files", "leases"},
    "places": {"bucket", "files", "object_files"},
    "settings": {"credentials", "places"},  # check_data_url, storage_path
    "documents": {"files"},
    "coverage_store": {"documents", "files", "version"},
    "action_store": {"documents", "files", "version"},
    "asking": {"cores", "transport", "credentials", "version"},
    "alpaca": {"asking", "symbols", "transport"},
    "history": {"files"},
    "metadata": {"files", "places", "rosters", "settings", "symbols"},
    "bar_files": {"cores", "files", "coverage_store", "places", "settings"},
    "views": {"coverage_store", "object_views"},
}

# The rehearsal server shares words with the package and nothing else, so that it can judge the rest.
SANDBOX_KNOWS = {"errors", "ranges", "series", "sessions"}

# What touches the world: not for pure modules. Functions that read the clock are looked for by name.
WORLD = {
    "os", "io", "pathlib", "shutil", "tempfile", "glob", "socket", "ssl", "http", "urllib.request", "urllib3", "requests",
    "subprocess", "threading", "multiprocessing", "concurrent", "asyncio", "time", "random", "secrets", "uuid", "platform",
    "logging", "duckdb", "filelock", "sqlite3", "dotenv", "platformdirs",
}  # fmt: skip
EXCUSED = {
    "pacing": {"threading"},  # arithmetic shared by threads: a lock, and nothing that waits
    "compiled_page": {"pathlib"},  # arithmetic in C, which lies beside it
}
CLOCKS = {"now", "utcnow", "today"}

HEAVY = ("pandas", "pyarrow", "duckdb", "alpaca", "numpy", "urllib3", "holidays")
VAGUE = {"utils", "util", "helpers", "helper", "common", "core", "manager", "misc", "base"}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text("utf-8")) for name, file in FILES.items()}
TOP = [name for name in TREES if name and not name.startswith(("cli", "sandbox"))]
PACKAGES = {name for name in TOP if FILES[name].name == "__init__.py"}
# A module is known by its last name, in whichever package it lies; the packages themselves hold nothing but their docstring.
MODULES = {name.rsplit(".", 1)[-1]: tree for name, tree in TREES.items() if name in TOP and name not in PACKAGES}
PURE = [name for name in MODULES if KIND.get(name) == "pure"]


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield all imports that run, also those inside functions; not those for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        yield from statements(node)


def imported(tree: ast.AST) -> set[str]:
    """Return the dotted names of all that is imported."""
    found: set[str] = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif node.module == "data_engine" or (node.module or "").removeprefix("data_engine.") in PACKAGES:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        else:
            assert node.level == 0, "imports are absolute"
            found.add(node.module or "")
    return found


def ours(tree: ast.AST) -> set[str]:
    """Return which of our modules are imported, by their last names; of `cli` and `sandbox` the package."""
    parts = [name.split(".")[1:] for name in imported(tree) if name.startswith("data_engine.")]
    return {part[1] if part[0] in PACKAGES and len(part) > 1 else part[0] for part in parts}


def test_every_row_has_its_modules():
    assert set(KIND) - {"cli"} - set(MODULES) == set()
    assert len(MODULES) == len(set(TOP) - PACKAGES), "a last name is one module's"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_upwards(module):
    assert module in ROW, "a new module needs its row in ROWS"
    assert {other for other in ours(MODULES[module]) if ROW.get(other, 99) >= ROW[module]} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if KIND.get(name) == "edge"])
def test_edges_do_not_import_each_other(module):
    edges = {other for other in ours(MODULES[module]) if KIND.get(other) == "edge"}

    assert edges == STANDS_ON.get(module, set())


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_touch_nothing(module):
    touched = {
        name for name in imported(MODULES[module]) for world in WORLD if name == world or name.startswith(world + ".")
    } - EXCUSED.get(module, set())
    calls = {node.func for node in ast.walk(MODULES[module]) if isinstance(node, ast.Call)}
    clocks = {func.attr for func in calls if isinstance(func, ast.Attribute) and func.attr in CLOCKS}
    opened = {func.id for func in calls if isinstance(func, ast.Name) and func.id in ("open", "input", "print")}

    assert (touched, clocks, opened) == (set(), set(), set())


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_says_what_it_is_and_holds_nothing_itself(package):
    (docstring,) = TREES[package].body
    assert isinstance(docstring, ast.Expr)


def test_the_sandbox_shares_words_and_nothing_else():
    known = {other for name, tree in TREES.items() if name.startswith("sandbox") for other in ours(tree)}
    users = {name for name, tree in TREES.items() if "sandbox" in ours(tree) and not name.startswith(("sandbox", "cli"))}

    assert known - {"sandbox"} <= SANDBOX_KNOWS
    assert users == set()


def test_only_the_command_line_prints():
    printing = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }

    assert [name for name in sorted(printing) if not name.startswith("cli")] == []


def test_no_name_is_vague():
    words = {word for name in TREES for part in name.split(".") for word in part.split("_")}

    assert words & VAGUE == set()


@pytest.mark.parametrize("module", FILES)
def test_a_module_is_one_idea(module):
    assert len(FILES[module].read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", FILES)
def test_a_module_says_what_it_is(module):
    assert ast.get_docstring(TREES[module])


def test_broad_excepts_are_named_nowhere_but_in_the_command_line():
    """`except Exception` once, where no traceback may reach a user; bare ones and BaseException never in the library."""
    broad: list[str] = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                kinds = {word.id for word in ast.walk(node.type) if isinstance(word, ast.Name)} if node.type else {"all"}
                if kinds & {"all", "Exception"}:
                    broad.append(name)

    assert broad == ["cli"]


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after *code*."""
    tail = "\nimport sys; sys.stderr.write('\\n' + ' '.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, timeout=60, check=True)
    return set(run.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import data_engine",
        "import data_engine.cli",
        "from data_engine.cli import main; assert main(['--help']) == 0",
        "from data_engine.cli import main; assert main(['ingest', '--help']) == 0",
        "from data_engine.cli import main; assert main(['--version']) == 0",
    ],
    ids=["import", "import-cli", "help", "help-of-ingest", "version"],
)
def test_starting_is_light(code):
    assert loaded_by(code) & set(HEAVY) == set()


def test_importing_the_package_loads_nothing_of_it():
    assert {name for name in loaded_by("import data_engine") if name.startswith("data_engine")} == {"data_engine"}


def test_what_is_exported_is_there_and_sorted():
    assert all(getattr(data_engine, name) is not None for name in data_engine.__all__)
    assert data_engine.__all__ == sorted(data_engine.__all__, key=lambda name: (not name[0].isupper(), name))
    assert dir(data_engine) == data_engine.__all__
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = data_engine.Nonsense


def test_what_the_contract_names_is_exported():
    contract = "IngestionPipeline AlpacaClient ParquetStorage MetadataStore SymbolLoader"
    functions = "ingest_single_symbol ingest_symbol_list ingest_from_csv"

    assert set(contract.split() + functions.split()) <= set(data_engine.__all__)


def test_the_version_is_the_installed_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", data_engine.__version__)
