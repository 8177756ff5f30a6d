"""Build the wheel, install it where nothing else is, and use it as a new user would. Run by ``make wheel``.

The wheel that passed is left in ``dist``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UV = shutil.which("uv")
INSIDE = (
    "data_engine/__init__.py",
    "data_engine/py.typed",
    "data_engine/examples/dow30.csv",
    *(f"data_engine/report/{name}" for name in ("page.html", "page.css", "page.js")),
    "data_engine/README.md",
    "data_engine/docs/index.md",
)
ADDRESS = "https://example.com/someone/data-engine"
NEVER_INSIDE = ("tests/", "docs/", "benchmarks/", "examples/", ".venv/", "src/")
NATIVE = "data_engine/alpaca/page_decoder_native.native"
VARIABLES = ("DATA_ENGINE_", "ALPACA_", "APCA_", "PYTHON", "VIRTUAL_ENV")
STAR = """
import data_engine
from data_engine import *
missing = [name for name in data_engine.__all__ if name not in globals()]
assert not missing, missing
print(data_engine.__file__)
"""


class Failed(Exception):
    """A check did not hold."""


def main() -> int:
    """Try the wheel and return an exit code."""
    with tempfile.TemporaryDirectory(prefix="data-engine-wheel-") as folder:
        try:
            wheel = build(Path(folder) / "built")
            compiled = look_inside(wheel)
            programs = install(wheel, Path(folder) / "venv")
            use(programs, Path(folder))
            if compiled:
                use_without_compiled_code(programs, Path(folder))
                use_the_source(Path(folder))
        except Failed as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
        (ROOT / "dist").mkdir(exist_ok=True)
        shutil.copy2(wheel, ROOT / "dist")
        print(f"ok: dist/{wheel.name}")
    return 0


def build(folder: Path, source: Path = ROOT, **environment: str) -> Path:
    """Build the wheel of a folder or a source distribution with uv, else with pip, and return its path."""
    if UV:
        run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, source], **environment)
    else:
        run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source], **environment)
    found = list(folder.glob("*.whl"))
    expect(len(found) == 1, f"one wheel was to be built, found {found}")
    # Any Python 3 either way; with compiled code, of one kind of machine.
    expected = f"data_engine-{PROJECT['version']}-py3-none-"
    expect(found[0].name.startswith(expected), f"the wheel is {found[0].name}, not {expected}")
    pure = "DATA_ENGINE_PURE" in environment or not can_compile(folder)
    expect(found[0].name.endswith("-any.whl") == pure, f"the wheel is {found[0].name}, pure was {'' if pure else 'not '}due")
    return found[0]


def can_compile(folder: Path) -> bool:
    """Return whether a C compiler can build a library of two lines."""
    named = os.environ.get("CC")
    compiler = shlex.split(named) if named else [next(filter(shutil.which, ("cc", "gcc", "clang")), "cc")]
    (folder / "two.c").write_text("#include <string.h>\nunsigned long two(const char *text) { return strlen(text); }\n")
    try:
        made = [*compiler, "-shared", "-fPIC", "-o", str(folder / "two.so"), str(folder / "two.c")]
        return subprocess.run(made, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def look_inside(wheel: Path) -> bool:
    """Check the files of the wheel; return whether compiled code is among them."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    expect((NATIVE in names) == (not wheel.name.endswith("-any.whl")), f"{wheel.name} holds {NATIVE}: {NATIVE in names}")
    for name in INSIDE:
        expect(name in names, f"{name} is not in the wheel")
    unexpected = [name for name in names if name.startswith(NEVER_INSIDE)]
    expect(not unexpected, f"these do not belong in the wheel: {unexpected[:5]}")
    expect(any(name.endswith("LICENSE") for name in names), "the licence is not in the wheel")
    print(f"  holds {len(names)} files, {', '.join(INSIDE[1:])} and the licence among them")
    return NATIVE in names


def install(wheel: Path, venv: Path) -> Path:
    """Install the wheel and its runtime dependencies into a new environment; return the folder of its programs."""
    programs = venv / ("Scripts" if os.name == "nt" else "bin")
    if UV:
        run([UV, "venv", "--quiet", "--python", sys.executable, venv])
        run([UV, "pip", "install", "--quiet", "--python", programs / "python", wheel])
    else:
        run([sys.executable, "-m", "venv", venv])
        run([programs / "python", "-m", "pip", "install", "--quiet", wheel])
    return programs


def use(programs: Path, folder: Path) -> None:
    """Run the installed program in an empty folder, without our variables in the environment."""
    work = folder / "work"
    work.mkdir()
    version = run([programs / "data-engine", "--version"], work)
    expect(version.strip() == f"data-engine {PROJECT['version']}", f"--version says {version!r}")
    expect("Commands:" in run([programs / "data-engine", "--help"], work), "--help lists no commands")
    home = run([programs / "python", "-c", STAR], work).strip()
    expect(Path(home).is_relative_to(programs.parent.resolve()), f"the package was imported from {home}")
    shown = run([programs / "data-engine", "demo"], work)
    files = list((work / "demo_data").glob("equities_1min/**/*.parquet"))
    expect("Successful: 32/32" in shown and len(files) == 96, f"the demo made {len(files)} files:\n{shown}")
    print(f"  the demo ended 0 and made {len(files)} files")
    run([programs / "data-engine", "report", "--quick", "--base-path", "demo_data"], work)
    expect((work / "data-engine-report.html").stat().st_size > 100_000, "report wrote no page")


def use_without_compiled_code(programs: Path, folder: Path) -> None:
    """Remove the compiled code: the demo must write the same files, byte for byte."""
    python = programs / "python"
    there = "from data_engine.alpaca.page_decoder_native import library; print(library() is not None)"
    expect(run([python, "-c", there], folder).strip() == "True", "the compiled code cannot be loaded")
    home = Path(run([python, "-c", "import data_engine; print(data_engine.__file__)"], folder).strip()).parent
    (home.parent / NATIVE).unlink()
    expect(run([python, "-c", there], folder).strip() == "False", "the compiled code is still there")
    work = folder / "without"
    work.mkdir()
    run([programs / "data-engine", "demo"], work)
    made = [
        {path.relative_to(place): path.read_bytes() for path in (place / "demo_data").glob("equities_1min/**/*.parquet")}
        for place in (folder / "work", work)
    ]
    expect(made[0] == made[1], "with and without compiled code the demo makes different files")
    print(f"  without compiled code the same {len(made[1])} files")


def use_the_source(folder: Path) -> None:
    """Build a source distribution of a project with an address, of that a pure wheel, and read its page for an index."""
    copy = folder / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "dist", "demo_data*", "*.native", "__pycache__"))
    project = (copy / "pyproject.toml").read_text(encoding="utf-8")
    named = re.sub(r'^repository = ".*?"', f'repository = "{ADDRESS}"', project, flags=re.MULTILINE)
    (copy / "pyproject.toml").write_text(named, encoding="utf-8")
    run([sys.executable, "-m", "build", "--sdist", "--outdir", folder / "source", copy])
    (source,) = (folder / "source").glob("*.tar.gz")
    wheel = build(folder / "pure", source, DATA_ENGINE_PURE="1")
    expect(not look_inside(wheel), "a pure wheel was asked for")
    for page, address in ((page_of(wheel), ADDRESS), (page_of(next((folder / "built").glob("*.whl"))), None)):
        relative = re.findall(r"\]\((?![a-z]+:|#)[^)]*\)", page)
        expect(not relative, f"an index shows the page without these files: {relative[:3]}")
        picture = f"![The report of a store: coverage by month, and candles]({address}/raw/v{PROJECT['version']}/docs/report.png)"
        expect((picture in page) == (address is not None), f"the picture is not at {address}")
        expect((f"Project-URL: Issues, {address}/issues" in page) == (address is not None), f"no address {address}")
    print("  the source distribution builds, and its page has absolute links")


def page_of(wheel: Path) -> str:
    """Return the metadata of a wheel, whose text is the page that an index shows."""
    with ZipFile(wheel) as archive:
        return archive.read(f"data_engine-{PROJECT['version']}.dist-info/METADATA").decode()


def run(command: list[str | Path], folder: Path | None = None, **more: str) -> str:
    """Print a command, run it, and return its output."""
    words = [str(word) for word in command]
    print(
        "$", " ".join([Path(words[0]).name, *(word if "\n" not in word else "'from data_engine import *'" for word in words[1:])])
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)} | more
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600)
    expect(done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def expect(holds: bool, otherwise: str) -> None:
    """Raise `Failed` if a check does not hold."""
    if not holds:
        raise Failed(otherwise)


if __name__ == "__main__":
    sys.exit(main())
