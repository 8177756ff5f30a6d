"""Read the patches in this folder, and apply them to a copy of the engine: `mutants`, `broken`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent

ROOT = FOLDER.parents[2]


@dataclass(frozen=True)
class Mutant:
    """One deliberate break.

    Attributes:
        name: The name of the patch.
        patch: The patch.
        what: What it breaks.
        row: The row of issue 15 whose old behaviour it puts back, or ``-``.
        blind: Whether it was written without sight of the worlds.
        caught_by: The test that is run in place of seeds, where a world cannot hold what it breaks.
    """

    name: str
    patch: Path
    what: str
    row: str
    blind: bool
    caught_by: str | None = None

    @property
    def files(self) -> list[str]:
        """The files that it changes."""
        return [line[len("+++ b/") :] for line in self.patch.read_text().splitlines() if line.startswith("+++ b/")]

    @property
    def place(self) -> str:
        """Where files must lie for a world to call what is broken: ``bucket``, ``disk``, or anywhere."""
        places = {"bucket" if "/store/s3/" in path else "disk" if "/store/local_" in path else "" for path in self.files}
        return places.pop() if len(places) == 1 else ""


def mutants() -> list[Mutant]:
    """Return all mutants, by name."""
    return [_read(patch) for patch in sorted(FOLDER.glob("*.patch"))]


def _read(patch: Path) -> Mutant:
    head = patch.read_text().split("\n\n", 1)[0]
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    return Mutant(patch.stem, patch, fields["what"], fields["row"], fields["blind"] == "yes", fields.get("caught-by"))


def apply(mutant: Mutant, folder: Path, *, undo: bool = False) -> str:
    """Apply a patch to the ``src`` in a folder, or undo it; return why that cannot be done, nothing if it was."""
    # Inside a repository, git would take paths from its root.
    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent), "GIT_DIR": str(folder / "none")}
    words = ["git", "apply", *(["--reverse"] if undo else []), str(mutant.patch)]
    return subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=False).stderr


@contextmanager
def broken(mutant: Mutant | None) -> Iterator[Path]:
    """Copy the engine to a temporary folder, and break it there; yield what `PYTHONPATH` is to name."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        folder = Path(place)
        shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        if mutant is not None:
            why = apply(mutant, folder)
            if why:
                raise SystemExit(f"{mutant.name} does not apply any more: {why}")
        yield folder / "src"
