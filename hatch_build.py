"""Compiles the decoder while the wheel is built, and makes the project's page for a package index out of README.md.

Where there is no C compiler, the wheel is pure Python and complete. The compiler is `CC` or what the system calls one; `CFLAGS`
and `LDFLAGS` are added. `DATA_ENGINE_PURE=1` asks for no compiled code; with `DATA_ENGINE_COMPILED=1`, a build without it fails.
The flags are those that gcc and clang share; Microsoft's compiler has others and is not asked.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface
from packaging.tags import sys_tags

FOLDER = "data_engine/alpaca"
SOURCE = "page_decoder_native.c"
LIBRARY = "page_decoder_native.native"  # as in native_library.py
SUM = "page_decoder_native.sum.native"
LOADER = "native_library.py"


class CompiledPage(BuildHookInterface[Any]):
    """Puts the library into the wheel; for an editable installation, which is this very folder, beside its source."""

    _scratch: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the wheel after this kind of machine; it fits every Python, of which the library knows nothing."""
        source = Path(self.root, "src", FOLDER, SOURCE)
        self._scratch = Path(tempfile.mkdtemp())
        library = self._scratch / LIBRARY
        trouble = compile_library(source, library) or try_library(source, library)
        if version == "editable":
            trouble = put(library, source.with_name(LIBRARY)) or put(library.with_name(SUM), source.with_name(SUM)) or trouble
        elif trouble is None:
            # The library was loaded by this Python, so its machine is that of the wheel, whatever `CC` may build for.
            # No manylinux or musllinux: auditwheel gives such a tag, after it has looked at what the library needs.
            platform = next(tag.platform for tag in sys_tags() if not tag.platform.startswith(("manylinux", "musllinux")))
            build_data["force_include"][str(library)] = f"{FOLDER}/{LIBRARY}"
            build_data["force_include"][str(library.with_name(SUM))] = f"{FOLDER}/{SUM}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{oldest_macos(platform, os.environ.get('MACOSX_DEPLOYMENT_TARGET', ''))}"
        if trouble is not None and os.environ.get("DATA_ENGINE_COMPILED") == "1":
            raise RuntimeError(f"DATA_ENGINE_COMPILED=1, but the decoder cannot be compiled: {trouble}")
        if trouble is not None:
            self.app.display_warning(f"pages are decoded without compiled code: {trouble}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Take away what is in the wheel now."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


class ProjectPage(MetadataHookInterface):
    """Sets the addresses of the project and the text of its page, for both of which pyproject.toml names the repository.

    An index shows README.md without the files beside it: relative links become absolute, to the files of this version. While no
    address is known, they become plain words, and the picture is left out.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``urls`` and ``readme``."""
        repository, documentation = (self.config[name].rstrip("/") for name in ("repository", "documentation"))
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, repository, metadata["version"])}
        metadata["urls"] = {}
        if repository:
            metadata["urls"] = {
                "Documentation": documentation or f"{repository}/blob/v{metadata['version']}/docs/index.md",
                "Repository": repository,
                "Issues": f"{repository}/issues",
                "Changelog": f"{repository}/blob/main/CHANGELOG.md",
            }


def absolute(text: str, repository: str, version: str) -> str:
    """Return a page of the repository with absolute links and pictures, or without them if there is no address."""
    relative = r"\((?![a-z]+:|#)([^)\s]+)\)"
    pictures, links = rf"!\[([^\]]*)\]{relative}", rf"(?<!!)\[([^\]]*)\]{relative}"
    if not repository:
        return re.sub(links, r"\1", re.sub(rf"{pictures}\n*", "", text))
    text = re.sub(pictures, rf"![\1]({repository}/raw/v{version}/\2)", text)
    return re.sub(links, rf"[\1]({repository}/blob/v{version}/\2)", text)


def oldest_macos(platform: str, target: str) -> str:
    """Return the tag of the oldest macOS that the compiler was told to build for; that of another system as it is."""
    parts = re.fullmatch(r"macosx_\d+_\d+_(\w+)", platform)
    if parts is None or not target:
        return platform
    major, _, minor = target.partition(".")
    return f"macosx_{major}_{minor or 0}_{parts[1]}"


def compile_library(source: Path, library: Path) -> str | None:
    """Make *library* of *source*; return why there is none, None where there is."""
    if os.environ.get("DATA_ENGINE_PURE") == "1":
        return "DATA_ENGINE_PURE=1"
    try:
        named = words("CC")
        compiler = next(
            (command for command in ([named] if named else [["cc"], ["gcc"], ["clang"]]) if shutil.which(command[0])), None
        )
        if compiler is None:
            return f"there is no {shlex.join(named) or 'C compiler'}"
        command = [*compiler, "-std=c99", "-O3", "-shared", "-fvisibility=hidden", *([] if os.name == "nt" else ["-fPIC"])]
        # Without the start files of the C run-time: those of `-funsafe-math-optimizations` change the arithmetic of the process.
        own = ["-fno-fast-math", "-fno-unsafe-math-optimizations", *([] if os.name == "nt" else ["-nostartfiles"])]
        # What the library says it was made of; native_library.py holds it against the source that it finds.
        command += [f"-DSOURCE_CRC={zlib.crc32(source.read_bytes())}u", *words("CFLAGS"), *words("LDFLAGS"), *own]
        command += ["-o", str(library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode != 0 or not library.exists():
        return f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr.strip()}"
    return None


def try_library(source: Path, library: Path) -> str | None:
    """Have a process of its own load *library* and read a page with it; return why it is of no use, None where it is.

    A library for another machine, or one that ends the process, is none. Its checksum is written beside it.
    """
    command = [sys.executable, str(source.with_name(LOADER)), str(library), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)  # noqa: S603
        if done.returncode == 0:
            library.with_name(SUM).write_text(hashlib.sha256(library.read_bytes()).hexdigest(), encoding="ascii")
            return None
        trouble = f"the compiled code cannot be used by this Python ({done.returncode}): {done.stderr.strip()[-500:]}"
        library.unlink()
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return trouble


def words(variable: str) -> list[str]:
    """Return the words of an environment variable, as a shell would."""
    return shlex.split(os.environ.get(variable, ""), posix=os.name != "nt")


def put(library: Path, place: Path) -> str | None:
    """Put *library* at *place*, or nothing where there is none: what is there may be of an older source; return why it failed."""
    try:
        if not library.exists():
            place.unlink(missing_ok=True)
            return None
        beside = place.with_suffix(f".{os.getpid()}.native")
        shutil.copyfile(library, beside)
        beside.replace(place)
    except OSError as error:
        return str(error)
    return None
