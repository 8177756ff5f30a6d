"""Build what a release uploads, and check it: ``make dist``.

``build`` makes the source distribution, out of that the wheel of this machine, and has auditwheel give it a tag that an index
takes. ``check`` looks at every file of a folder; with ``--release TAG`` it also holds what only a release needs: the tag is the
version, and the addresses of the project are known.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PYPROJECT["project"]["version"]
ADDRESS = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
# An index takes no wheel for "some Linux": a tag must say which libraries of the system it needs.
TAKEN = re.compile(r"any|(manylinux|musllinux)_\d+_\d+_\w+|manylinux(1|2010|2014)_\w+|macosx_\d+_\d+_\w+|win_amd64|win_arm64")
RELATIVE = re.compile(r"\]\((?![a-z]+:|#)[^)]*\)")
SOURCES = ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE", "docs/index.md", "tests/conftest.py", "mkdocs.yml",
           "src/data_engine/alpaca/page_decoder_native.c")  # fmt: skip


def build(folder: Path) -> None:
    """Build into an empty *folder*."""
    shutil.rmtree(folder, ignore_errors=True)
    made = folder / "made"
    run(["build", "--outdir", made, ROOT])
    (source,) = made.glob("*.tar.gz")
    (wheel,) = made.glob("*.whl")
    shutil.move(source, folder)
    if "-linux_" in wheel.name:
        run(["auditwheel", "repair", "--wheel-dir", folder, wheel])
    else:
        shutil.move(wheel, folder)
    shutil.rmtree(made)


def check(folder: Path, release: str | None) -> list[str]:
    """Return what is wrong with the distributions of a folder, and with a release of them under a tag."""
    files = sorted([*folder.glob("*.whl"), *folder.glob("*.tar.gz")])
    wrong = [] if any(file.suffix == ".whl" for file in files) and any(file.suffix == ".gz" for file in files) else [
        f"{folder} has {', '.join(file.name for file in files) or 'nothing'}: a wheel and a source distribution are needed"
    ]  # fmt: skip
    for file in files:
        metadata = metadata_of(file)
        if metadata["Version"] != VERSION:
            wrong.append(f"{file.name} is version {metadata['Version']}, pyproject.toml says {VERSION}")
        page = str(metadata.get_payload())
        wrong += [f"{file.name} has a page with the relative link {link}" for link in RELATIVE.findall(page)]
        if bool(ADDRESS) != bool(metadata.get_all("Project-URL")):
            wrong.append(f"{file.name} has the addresses {metadata.get_all('Project-URL')}, pyproject.toml {ADDRESS!r}")
        wrong += wrong_wheel(file) if file.suffix == ".whl" else wrong_source(file)
    if release is not None and release != f"v{VERSION}":
        wrong.append(f"the tag {release} is not v{VERSION}")
    if release is not None and not ADDRESS:
        wrong.append(
            "pyproject.toml names no repository ([tool.hatch.metadata.hooks.custom]): the page on the index had no links"
        )
    return wrong


def metadata_of(file: Path) -> Message:
    """Return the metadata of a distribution."""
    if file.suffix == ".whl":
        with ZipFile(file) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            text = archive.read(name).decode()
    else:
        with tarfile.open(file) as archive:
            member = archive.extractfile(f"{file.name.removesuffix('.tar.gz')}/PKG-INFO")
            text = "" if member is None else member.read().decode()
    return Parser().parsestr(text)


def wrong_wheel(file: Path) -> list[str]:
    """Return what is wrong with a wheel."""
    tags = file.stem.split("-")[-1].split(".")
    wrong = [f"{file.name} has the tag {tag}, which no index takes" for tag in tags if not TAKEN.fullmatch(tag)]
    with ZipFile(file) as archive:
        names = set(archive.namelist())
    needed = {"data_engine/py.typed", "data_engine/docs/index.md", "data_engine/README.md"}
    return wrong + [f"{file.name} lacks {name}" for name in sorted(needed - names)]


def wrong_source(file: Path) -> list[str]:
    """Return what is wrong with a source distribution."""
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wrong = [f"{file.name} lacks {name}" for name in SOURCES if name not in names]
    return wrong + [f"{file.name} holds {name}" for name in sorted(names) if name.endswith((".native", ".parquet", ".env"))]


def run(command: list[str | Path]) -> None:
    """Run a module of this Python as a program; the programs beside it are found."""
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    code = subprocess.run([sys.executable, "-m", *words], env=environment, check=False).returncode
    if code:
        raise SystemExit(f"FAILED: exit {code}")


def main() -> int:
    """Build or check, and return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["build", "check"])
    parser.add_argument("--folder", type=Path, default=ROOT / "dist")
    parser.add_argument("--release", metavar="TAG", help="the tag of the release, such as v0.2.0")
    arguments = parser.parse_args()
    if arguments.what == "build":
        build(arguments.folder)
    files = [*arguments.folder.glob("*.whl"), *arguments.folder.glob("*.tar.gz")]
    if files:
        run(["twine", "check", "--strict", *files])
        run(["check_wheel_contents", *(file for file in files if file.suffix == ".whl")])
    wrong = check(arguments.folder, arguments.release)
    for line in wrong:
        print(f"FAILED: {line}", file=sys.stderr)
    if not wrong:
        print("ok:", *(file.name for file in files))
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main())
