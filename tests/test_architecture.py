"""The house: which package may know which, and which modules may touch the world. A new module finds its place here first."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import data_engine

ROOT = Path(data_engine.__file__).parent

# A package imports packages of lower ranks alone; docs/explanation/architecture.md has the story.
RANKS = (
    "errors cpu version",
    "market",
    "store alpaca sandbox",
    "corporate_actions settings",
    "universe",
    "read verify",
    "ingest",
    "report doctor export agents",
    "cli",
    "__main__",
)
RANK = {name: number for number, names in enumerate(RANKS, start=1) for name in names.split()}

# What the ranks would allow, or people would be tempted to, and what must never be.
NEVER = {
    "verify": {"alpaca", "ingest"},
    "read": {"alpaca", "ingest"},
    "store": {"alpaca", "settings"},
    "alpaca": {"store"},
    "sandbox": {"alpaca", "store"},
    "market": {"store"},
    "corporate_actions": {"settings"},
}

# Of the pipeline, the modules that know the vendor by name; all others know `BarSource`.
KNOW_ALPACA = {"ingest.pipeline", "ingest.bar_source", "ingest.dask.dask_worker", "ingest.dask.shared_rate_limit"}

# What touches the world, by kind; and, below, the modules that may. All others may not.
WORLD = {
    "clock": {"time"},
    "randomness": {"random", "secrets", "uuid"},
    "threads": {"threading", "concurrent", "asyncio", "queue"},
    "processes": {"subprocess", "multiprocessing", "signal", "platform"},
    "files": {"os", "io", "pathlib", "shutil", "tempfile", "glob", "filelock", "sqlite3", "dotenv", "platformdirs"},
    "sockets": {"socket", "ssl", "http", "urllib.request", "urllib3", "requests", "select"},
    "duckdb": {"duckdb"},
    "logging": {"logging"},
}
CLOCKS = {"now", "utcnow", "today"}  # methods that read the clock, whoever has them
MAY = {
    "agents.sql_scope": "duckdb",
    "agents.store_tools": "clock duckdb threads",
    "alpaca.assets_client": "files",  # `os`: the variables that name the addresses
    "alpaca.client": "clock",
    "alpaca.credentials": "files",
    "alpaca.http_client": "clock files randomness threads",  # `os`: the number of processors
    "alpaca.native_library": "files",
    "alpaca.rate_limit": "threads",  # a lock, and nothing that waits
    "alpaca.time_limit": "clock threads",
    "alpaca.transport": "files sockets",  # `os`: the variables that name a proxy
    "cpu": "files threads",
    "doctor.probe": "clock",
    "export.atomic_file": "files",
    "export.data_engine_bundle": "files",
    "export.engine_export": "files",
    "export.export_record": "files",
    "export.bar_export": "files",
    "export.format": "files",
    "export.nautilus_catalog": "files",
    "export.qlib_features": "files",
    "export.state_export": "files",
    "export.zipline_bundle": "files",
    "ingest.api": "files",
    "ingest.dask.dask_pool": "clock files logging processes randomness threads",
    "ingest.dask.dask_worker": "files processes randomness threads",
    "ingest.dask.shared_rate_limit": "clock threads",
    "ingest.dispatcher": "clock threads",
    "ingest.import_in_place": "files threads",
    "ingest.import_lists": "files",
    "ingest.import_sources": "files",
    "ingest.pipeline": "clock",
    "ingest.progress": "clock",
    "ingest.worker_pool": "threads",
    "read.bar_reader": "duckdb threads",
    "read.duckdb_views": "duckdb files threads",
    "read.open_query": "clock",
    "read.parquet_storage": "clock duckdb",
    "read.query_output": "duckdb files randomness",
    "read.statement": "duckdb",
    "read.view_files": "files",
    "report.charts": "threads",
    "report.html_page": "files randomness",
    "sandbox.assets": "files randomness",
    "sandbox.connection": "clock files sockets",
    "sandbox.corporate_actions": "files randomness",
    "sandbox.listings": "files",
    "sandbox.pages": "threads",
    "sandbox.rate_limit": "clock threads",
    "sandbox.replay": "files",
    "sandbox.response_file": "files",
    "sandbox.server": "clock files sockets threads",
    "settings": "files processes",
    "store.coverage_store": "clock randomness",
    "store.file_store": "files",
    "store.disk": "clock files randomness threads",
    "store.history.head": "clock",
    "store.history.snapshots": "clock",
    "store.history.past_files": "files threads",
    "store.local_access": "files",
    "store.local_drafts": "files",
    "store.local_files": "files",
    "store.local_history": "files",
    "store.local_locks": "files",
    "store.location": "files",
    "store.requested": "randomness",
    "store.s3.bucket": "files",
    "store.s3.capabilities": "clock randomness",
    "store.s3.lease": "clock files randomness sockets threads",
    "store.s3.s3_files": "clock files randomness",
    "store.s3.shared_state": "files threads",
    "store.s3.s3_group": "threads",
    "store.s3.s3_history": "randomness",
    "universe.index_files": "files",
    "universe.index_store": "clock files",
    "universe.symbol_lists": "files",
    "verify.file_check": "files",
    "verify.verify": "threads",
}

HEAVY = ("pandas", "pyarrow", "duckdb", "alpaca", "numpy", "urllib3", "holidays", "mcp", "pydantic", "anyio")
VAGUE = {"utils", "util", "helpers", "helper", "common", "core", "manager", "misc", "base"}
COMMANDS = (
    "ingest import update schedule actions status index universe verify audit recheck history snapshot query export mcp remove "
    "report sandbox demo doctor"
)


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(file.read_text("utf-8")) for name, file in FILES.items()}
PACKAGES = {name for name, file in FILES.items() if name and file.name == "__init__.py"}
MODULES = [name for name in TREES if name and name not in PACKAGES]
LIBRARY = [name for name in MODULES if not name.startswith("cli.") and name != "__main__"]


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield all imports that run, also those inside functions; not those for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        yield from statements(node)


def imported(tree: ast.AST) -> set[str]:
    """Return the whole dotted names of the modules that are imported."""
    found: set[str] = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            continue
        assert node.level == 0, "imports are absolute"
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            found.add(name if name.removeprefix("data_engine.") in TREES else str(node.module))
    return found


def ours(name: str) -> set[str]:
    """Return which of our modules a module imports, by their dotted names below the package."""
    return {other.removeprefix("data_engine.") for other in imported(TREES[name]) if other.startswith("data_engine.")}


def package_of(name: str) -> str:
    return name.split(".")[0]


def neighbours(name: str) -> set[str]:
    """Return the top-level packages and modules that a module imports, its own aside."""
    return {package_of(other) for other in ours(name)} - {package_of(name)}


def touched(name: str) -> set[str]:
    """Return which kinds of the world a module touches."""
    modules = imported(TREES[name])
    kinds = {kind for kind, names in WORLD.items() if any((m + ".").startswith(f"{one}.") for m in modules for one in names)}
    calls = [node.func for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    if any(isinstance(func, ast.Attribute) and func.attr in CLOCKS for func in calls):
        kinds.add("clock")
    if any(isinstance(func, ast.Name) and func.id in ("open", "input") for func in calls):
        kinds.add("files")
    return kinds


def test_the_top_of_the_package_is_a_short_list():
    beside = {file.name for file in ROOT.iterdir() if not file.name.startswith("__")} - {"py.typed"}

    assert {name.removesuffix(".py") for name in beside} == set(RANK) - {"__main__"}
    assert len(beside) <= 18


@pytest.mark.parametrize("module", MODULES)
def test_a_package_imports_lower_ranks_only(module):
    allowed = {name for name, rank in RANK.items() if rank < RANK[package_of(module)]}

    assert neighbours(module) - allowed == set()


@pytest.mark.parametrize("module", MODULES)
def test_what_must_never_be_imported_is_not(module):
    assert neighbours(module) & NEVER.get(package_of(module), set()) == set()


def test_only_the_listed_modules_of_the_pipeline_know_the_vendor():
    assert {name for name in MODULES if package_of(name) == "ingest" and "alpaca" in neighbours(name)} == KNOW_ALPACA


def test_whose_a_series_is_is_asked_with_all_that_its_coverage_tells():
    """Callers of `ticker_change_of` left out the first bar; but those of a name without a series pass the coverage now."""
    asking = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "ticker_change_of" for alias in node.names)
    }

    assert asking == {"corporate_actions.ticker_of_day", "universe.member_series"}


def test_no_module_imports_itself_in_a_circle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in ours(name) & set(TREES):
                visit(other, (*path, name))
            done.add(name)

    for name in TREES:
        visit(name, ())


@pytest.mark.parametrize("module", LIBRARY)
def test_what_a_module_touches_of_the_world_is_what_it_may(module):
    assert touched(module) == set(MAY.get(module, "").split())


def test_what_touches_the_world_is_there():
    assert set(MAY) - set(LIBRARY) == set()


@pytest.mark.parametrize("package", sorted(PACKAGES - {"cli", "sandbox"}))
def test_a_package_says_what_it_is_and_holds_nothing_itself(package):
    (docstring,) = TREES[package].body
    assert isinstance(docstring, ast.Expr)


def test_only_the_command_line_knows_the_sandbox():
    assert {package_of(name) for name in MODULES if "sandbox" in neighbours(name)} == {"cli"}


def test_every_command_has_a_file_of_its_name():
    from data_engine.cli import program

    files = {name.removeprefix("cli.") for name in MODULES if package_of(name) == "cli"}

    assert set(program.commands) == set(COMMANDS.split())
    assert {"import_files" if name == "import" else name for name in program.commands} <= files


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


def test_status_loads_none_of_the_checks_of_verify(tmp_path):
    """They took a tenth of its time on 10,000 series."""
    bars = {
        "timestamp": pd.to_datetime(["2024-06-03T14:00Z"]),
        "open": 1.0,
        "high": 1.0,
        "low": 1.0,
        "close": 1.0,
        "vwap": 1.0,
        "volume": 1,
        "trade_count": 1,
    }
    data_engine.ParquetStorage(tmp_path).store(pd.DataFrame({"symbol": "AAPL", **bars}))
    loaded = loaded_by(f"from data_engine.cli import main; assert main(['status', '--base-path', {str(tmp_path)!r}]) == 0")

    assert "data_engine.verify.status" in loaded
    assert loaded & {f"data_engine.verify.{name}" for name in ("verify", "held_bars", "series_check", "price_checks")} == set()


OF_HELP = "cli cli.console cli.exit_codes cli.lazy_commands cli.output errors market market.clean_text"

NOT_FOR_HELP = "asyncio decimal email http json logging socket ssl subprocess tempfile traceback xml zoneinfo"


def test_the_help_loads_click_and_no_command():
    loaded = loaded_by("from data_engine.cli import main; assert main(['--help']) == 0") - loaded_by("pass")

    assert {name for name in loaded if name.startswith("data_engine.")} == {f"data_engine.{name}" for name in OF_HELP.split()}
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"click", "data_engine"}
    assert loaded & set(NOT_FOR_HELP.split()) == set()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the allocator is as it is")
@pytest.mark.parametrize("words", ["ingest A --start 2024-01-02", "update", "recheck", "audit"])
def test_commands_that_fetch_choose_the_allocator_before_arrow_is_loaded(words: str, tmp_path: Path):
    """It was chosen after the settings, which came to load Arrow: twice the memory, and a quarter more time with 32 workers."""
    code = (
        "import sys; from data_engine.cli import main; main(sys.argv[1:]); "
        "print(sys.modules['pyarrow'].default_memory_pool().backend_name)"
    )
    kept = {name: value for name, value in os.environ.items() if "ALPACA" not in name and name != "ARROW_DEFAULT_MEMORY_POOL"}
    arguments = [*words.split(), "--base-path", str(tmp_path / "none")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True, env=kept
    )
    assert done.stdout.split()[-1] == "system", done.stderr


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
