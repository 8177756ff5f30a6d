"""Install data-engine with the lowest versions it declares, or with the newest of all, and run the core tests there.

``make lowest`` and ``make newest`` run it, each with the Python that `PYTHON` names. Both build the wheel, so that the tests see
what a user would install. Packages come from the usual registry, with uv where it is on PATH, else with pip.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("alpaca", "mcp", "polars", "s3")
TOOLS = ("pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.100", "exchange_calendars>=4.5", "psutil>=6.0")
# Each dependency at work: columns and files, the calendar, DuckDB and pandas, locks, agents, the network, click and rich.
CORE = (
    "tests/market/test_bars.py",
    "tests/market/test_exchange_calendar.py",
    "tests/store/test_file_store.py",
    "tests/read/test_parquet_storage.py",
    "tests/read/test_duckdb_views.py",
    "tests/ingest/test_pipeline.py",
    "tests/universe/test_index_store.py",
    "tests/agents/test_mcp_server.py",
    "tests/alpaca/test_transport.py",
    "tests/alpaca/test_page_decoder_native.py",
    "tests/cli/test_cli.py",
    "tests/cli/test_update.py",
    "tests/test_hostile_sql.py",
    "tests/test_hostile_environments.py",
    "tests/test_settings.py",
)
# Servers of objects are of the development tools, which have bounds of their own.
WITHOUT = "not moto and not seaweedfs"
SHOW = """
import sys
from importlib.metadata import version
print("Python " + sys.version.split()[0], *(f"{name} {version(name)}" for name in sys.argv[1:]), sep=", ")
"""
VARIABLES = ("DATA_ENGINE_", "ALPACA_", "APCA_", "PYTHON", "VIRTUAL_ENV")


def lowest_of(requirement: str) -> str:
    """Return a requirement such as ``numpy>=1.26`` with the lowest version that it permits."""
    parts = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
    if parts is None:
        raise SystemExit(f"FAILED: {requirement} in pyproject.toml has no lower bound")
    return f"{parts[1]}=={parts[2]}"


def main() -> int:
    """Install, run the tests, and return their exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["lowest", "newest"])
    parser.add_argument("--python", default=sys.executable, help="the interpreter; the one that runs this by default")
    parser.add_argument("rest", nargs="*", help="arguments for pytest, in place of the core tests")
    arguments = parser.parse_args()
    extras = [requirement for extra in EXTRAS for requirement in PROJECT["optional-dependencies"][extra]]
    declared = [*PROJECT["dependencies"], *extras]
    wanted = [lowest_of(one) for one in declared] if arguments.which == "lowest" else [name_of(one) for one in declared]
    with tempfile.TemporaryDirectory(prefix="data-engine-versions-") as folder:
        python = install(arguments.python, Path(folder, "venv"), wanted)
        run([python, "-c", SHOW, *map(name_of, declared)])
        words = [python, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "-k", WITHOUT]
        return run([*words, *(arguments.rest or CORE)], check=False)


def name_of(requirement: str) -> str:
    """Return the name of a required package."""
    return re.split(r"[<>=!~\[; ]", requirement, maxsplit=1)[0]


def install(interpreter: str, venv: Path, wanted: list[str]) -> Path:
    """Make an environment with the wheel, exactly *wanted*, and the tools of the tests; return its Python."""
    python, uv = venv / "bin" / "python", shutil.which("uv")
    if uv:
        run([uv, "venv", "--quiet", "--python", interpreter, venv])
        run([uv, "pip", "install", "--quiet", "--python", python, ROOT, *wanted, *TOOLS])
    else:
        run([interpreter, "-m", "venv", venv])
        run([python, "-m", "pip", "install", "--quiet", ROOT, *wanted, *TOOLS])
    return python


def run(command: list[str | Path], *, check: bool = True) -> int:
    """Print a command, run it in the project's folder without our variables, and return its exit code."""
    words = [str(word) for word in command]
    print("$", " ".join("'versions of'" if word == SHOW else word for word in words), flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
    code = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
    if check and code:
        raise SystemExit(f"FAILED: exit {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
