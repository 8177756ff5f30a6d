"""Compiles the decoder while the wheel is built. Where there is no C compiler, the wheel is pure Python and complete.

The compiler is `CC` or what the system calls one; `CFLAGS` and `LDFLAGS` are added. `DATA_ENGINE_PURE=1` asks for no compiled
code. The flags are those that gcc and clang share; Microsoft's compiler has others and is not asked.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

FOLDER = "data_engine/source"
SOURCE = "compiled_page.c"
LIBRARY = "compiled_page.native"  # as in compiled_page.py


class CompiledPage(BuildHookInterface[Any]):
    """Puts the library into the wheel; for an editable installation, which is this very folder, beside its source."""

    _scratch: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the wheel after this kind of machine; it fits every Python, of which the library knows nothing."""
        source = Path(self.root, "src", FOLDER, SOURCE)
        if version == "editable":
            library = source.with_name(LIBRARY)
            library.unlink(missing_ok=True)  # what an earlier build left may be of an older source
        else:
            self._scratch = Path(tempfile.mkdtemp())
            library = self._scratch / LIBRARY
        compiler = None if os.environ.get("DATA_ENGINE_PURE") == "1" else find_compiler()
        if compiler is None:
            self.app.display_info("no C compiler: pages are decoded without compiled code")
            return
        trouble = compile_library(compiler, source, library)
        if trouble is not None:
            self.app.display_warning(f"pages are decoded without compiled code; {trouble}")
            return
        # No manylinux or musllinux: that the library runs on other distributions was not looked into.
        tag = next(tag.platform for tag in sys_tags() if "manylinux" not in tag.platform and "musllinux" not in tag.platform)
        if version != "editable":
            build_data["force_include"][str(library)] = f"{FOLDER}/{LIBRARY}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{tag}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Take away what is in the wheel now."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch)


def find_compiler() -> list[str] | None:
    """Return the command that compiles C, or None."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in (named,) if named else (["cc"], ["gcc"], ["clang"]):
        if shutil.which(command[0]):
            return command
    return None


def compile_library(compiler: list[str], source: Path, library: Path) -> str | None:
    """Compile *source* and move the result to *library*; return what went wrong, None where nothing did."""
    flags = ["-std=c99", "-O3", "-shared", "-fvisibility=hidden"]
    if sys.platform != "win32":
        flags.append("-fPIC")
    added = (shlex.split(os.environ.get(name, "")) for name in ("CFLAGS", "LDFLAGS"))
    made = library.with_suffix(f".{os.getpid()}")
    command = [*compiler, *flags, *(word for words in added for word in words), "-o", str(made), str(source)]
    try:
        done = subprocess.run(  # noqa: S603 - whoever builds names the compiler
            command, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode != 0:
            return f"{shlex.join(command)} ended with {done.returncode}:\n{done.stderr.strip()}"
        made.replace(library)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{shlex.join(command)}: {error}"
    finally:
        made.unlink(missing_ok=True)
    return None
