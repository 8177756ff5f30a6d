"""The code blocks of the documentation, run as a reader runs them: word for word, page by page, in the order of the page.

A block of ``sh`` is run in a shell, and must succeed. Of ``console``, each command is run, and what is printed below it is
compared; a command that fails is followed by ``$ echo $?``. A block of ``python`` is run in one interpreter per page, and a block
of ``text`` that follows it without a word between is what it prints. ``<!-- not run: REASON -->`` above a block says why not.

``...`` stands for any lines. Lines that name the store, and progress, are left out of what is compared. So is what differs from
run to run (`VARIES`): durations, paths, ports, and what depends on today's date.

``python tests/page_blocks.py PAGE`` runs a page and writes what was printed into it where that differs.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = "/home/me/stocks"  # where the pages are in their own examples

_FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
_PORT = re.compile(r"\b87\d\d\b")
_SANDBOX = re.compile(r"data-engine sandbox\b.*?--port (\d+)")
_SERVING_LINES = 2  # that a sandbox prints when it is ready
_SECONDS = 120.0
SLOW = float(os.environ.get("SLOW", "0"))
"""From how many seconds on a command is printed with its duration; 0 prints none."""

VARIES = (
    # how long it took, and how fast
    (re.compile(r"\b(?:\d+h )?(?:\d+m )?\d+(?:\.\d+)?s\b|\b\d+h \d+m\b"), "TIME"),
    (re.compile(r"[\d,]+/min\b"), "RATE"),
    # the present day, and instants near it
    (re.compile(r"\b20(?:2[5-9]|[3-9]\d)-\d\d-\d\d(?:[T ][\d:.]+(?:Z|\+00:00)?)?"), "NOW"),
    (re.compile(r"\bseed \d{8}\b"), "seed TODAY"),
    # what a market that goes on to today brings
    (re.compile(r"[\d,]+ bars new"), "N bars new"),
    (re.compile(r"[\d,]+ requests?, TIME"), "N requests, TIME"),
    (re.compile(r"\.html  [\d.]+ [kM]B"), ".html  SIZE"),
    # how many requests had a malformed symbol before one told
    (re.compile(r"Requests: [\d,]+"), "Requests: N"),
    # the machine
    (re.compile(r"[\d.]+ [GT]B free"), "FREE"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://HOST"),
)
_LEFT_OUT = re.compile(
    r"^(?:Store: .*|\d+ symbols?, \w+ bars, feed .*|Progress: .*|  Successful: \d+ \| Failed: .*|  Elapsed: .*|  Pages: .*)$"
)


@dataclass
class Block:
    """A fenced block of a page.

    Attributes:
        language: The word after the fence.
        code: The lines inside.
        line: The number of the line of the fence.
        printed: Of ``python``: the block of text that follows, or None.
        not_run: Why it is not run, or None.
    """

    language: str
    code: str
    line: int
    printed: str | None = None
    not_run: str | None = None


@dataclass
class Outcome:
    """What a command of a page did that the page does not say.

    Attributes:
        block: The block.
        command: The command, or the code.
        problem: What differs.
        expected: What the page prints.
        printed: What was printed.
    """

    block: Block
    command: str
    problem: str
    expected: str
    printed: str

    def __str__(self) -> str:
        return (
            f"line {self.block.line}: {self.command}\n  {self.problem}; printed:\n{self.printed}\n  instead of:\n{self.expected}"
        )


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that a reader runs, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        language, code = match[2].strip(), match[3]
        before = text[end : match.start()]
        if language == "text" and found and found[-1].language == "python" and not before.strip():
            found[-1].printed = code
        why = _NOT_RUN.search(before)
        found.append(Block(language, code, text.count("\n", 0, match.start()) + 1, not_run=why[1] if why else None))
        end = match.end()
    return [one for one in found if one.language in ("sh", "console", "python")]


def commands(code: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a ``console`` block, and what is printed below it."""
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        size = 1
        while size < len(lines) and not _complete("".join(lines[:size])):
            size += 1
        yield "".join(lines[:size]).rstrip("\n"), "".join(lines[size:])


def _complete(command: str) -> bool:
    if command.rstrip("\n").endswith("\\"):
        return False
    try:
        shlex.split(command)
    except ValueError:  # a quotation mark that is not closed
        return False
    return True


class Reader:
    """Someone who reads one page and types what it says, in a folder where ``make demo`` was run.

    Args:
        folder: An empty folder.
        demo: The store that the demo made, or None.
        url: The address of a sandbox that stands in Alpaca's place.
        preloaded: The socket of ``preloaded.py``. If None, each command starts a Python of its own.
    """

    def __init__(self, folder: Path, demo: Path | None, url: str, preloaded: Path | None = None) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        if demo is not None:
            shutil.copytree(demo, folder / "demo_data")
        (folder / "examples").symlink_to(ROOT / "examples")
        self._ports: dict[str, str] = {}
        self._servers: list[subprocess.Popen[bytes]] = []
        self._python: subprocess.Popen[str] | None = None
        self._work = Path(tempfile.mkdtemp(prefix="page-"))
        self._shell = self._start_shell(url, preloaded)

    def _start_shell(self, url: str, preloaded: Path | None) -> subprocess.Popen[str]:
        bin_folder = self._work / "bin"
        bin_folder.mkdir()
        ours = "-m data_engine" if preloaded is None else f"-S -E {shlex.quote(str(ROOT / 'tests/preloaded.py'))} {preloaded}"
        for name, words in (("data-engine", ours), ("python", "")):
            script = bin_folder / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
            script.chmod(0o755)
        activate = self.folder / ".venv" / "bin" / "activate"
        activate.parent.mkdir(parents=True)
        activate.write_text(f"PATH={shlex.quote(str(bin_folder))}:$PATH\n")
        private = re.compile(r"(?:ALPACA|APCA|DATA_ENGINE|AWS)_")
        env = {name: value for name, value in os.environ.items() if not private.match(name)}
        home = self._work / "home"
        home.mkdir()
        env |= {
            "PATH": f"{bin_folder}{os.pathsep}{env.get('PATH', '')}",
            "HOME": str(home),
            "PYTHONIOENCODING": "utf-8",
            "COLUMNS": "80",
            "APCA_API_DATA_URL": url,
            "APCA_API_BASE_URL": url,
        }
        env.pop("XDG_CONFIG_HOME", None)
        return subprocess.Popen(
            ["/bin/bash", "--noprofile", "--norc"],
            cwd=self.folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    # ------------------------------------------------------------------------------------------------------------ doing

    def read(self, page: Path) -> list[Outcome]:
        """Run the blocks of a page and return what differs from what it says."""
        return [outcome for block in blocks(page) if block.not_run is None for outcome in self._block(block)]

    def _block(self, block: Block) -> Iterator[Outcome]:
        if block.language == "sh":
            code, printed = self.run(block.code)
            if code:
                yield Outcome(block, block.code, f"exit code {code}", "", printed)
            return
        if block.language == "python":
            code, printed = self.run_python(block.code)
            if code or (block.printed is not None and not same(block.printed, self.tidy(printed))):
                yield Outcome(block, block.code, "differs", block.printed or "", self.tidy(printed))
            return
        found = list(commands(block.code))
        for (command, expected), after in zip(found, [*(command for command, _ in found[1:]), ""], strict=True):
            code, printed = self.run(command)
            printed = self.tidy(printed)
            if code and after != "echo $?":
                yield Outcome(block, command, f"exit code {code}", expected, printed)
            elif expected.strip() and not same(expected, printed):
                yield Outcome(block, command, "differs", expected, printed)

    def run(self, script: str) -> tuple[int, str]:
        """Run a script in the reader's shell and return its exit code and what it printed."""
        for port in _PORT.findall(script):
            self._ports.setdefault(port, free_port())
        script = _PORT.sub(lambda match: self._ports[match[0]], script)
        served = _SANDBOX.search(script)
        if served is not None and not script.rstrip().endswith("&") and "\n" not in script.strip():
            return self._serve(script)
        file, out = self._work / "command.sh", self._work / "out.txt"
        file.write_text(script + "\n", encoding="utf-8")
        shell = self._shell
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write(f"source {file} >{out} 2>&1 </dev/null; __code=$?; echo $__code; (exit $__code)\n")
        shell.stdin.flush()
        began = time.monotonic()
        code = int(shell.stdout.readline())
        if SLOW and time.monotonic() - began > SLOW:
            print(f"{time.monotonic() - began:6.1f} s  {script.strip()}")
        if served is not None:
            wait_for(int(served[1]))
        return code, out.read_text(encoding="utf-8")

    def _serve(self, script: str) -> tuple[int, str]:
        """Run a sandbox as in a second terminal, until the page ends."""
        out = self._work / f"server-{len(self._servers)}.txt"
        with out.open("wb") as target:
            self._servers.append(
                subprocess.Popen(["/bin/bash", "-c", f"exec {script}"], cwd=self.folder, env=self._environment(), stdout=target)
            )
        wait_for(int(_SANDBOX.search(script)[1]))  # type: ignore[index]
        end = time.monotonic() + _SECONDS
        while out.read_text(encoding="utf-8").count("\n") < _SERVING_LINES:
            assert time.monotonic() < end, "the sandbox does not say where it is"
            time.sleep(0.02)
        return 0, out.read_text(encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        shell = self._shell
        assert shell.stdin is not None
        assert shell.stdout is not None
        out = self._work / "env"
        shell.stdin.write(f"env -0 >{out}; echo 0\n")
        shell.stdin.flush()
        shell.stdout.readline()
        return dict(one.split("=", 1) for one in out.read_text(encoding="utf-8").split("\0") if "=" in one)

    def run_python(self, code: str) -> tuple[int, str]:
        """Run code in the reader's interpreter, which keeps its names from block to block."""
        if self._python is None:
            self._python = subprocess.Popen(
                [sys.executable, "-c", _INTERPRETER],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
        python = self._python
        assert python.stdin is not None
        assert python.stdout is not None
        file, out, env = (self._work / name for name in ("block.py", "block.txt", "env"))
        file.write_text(code, encoding="utf-8")
        self._environment()
        python.stdin.write(f"{file}\t{out}\t{env}\n")
        python.stdin.flush()
        return int(python.stdout.readline()), out.read_text(encoding="utf-8")

    def close(self) -> None:
        """End everything that the page started."""
        for process in (self._python, self._shell):
            if process is not None:
                assert process.stdin is not None
                process.stdin.close()
        for one in self._servers:
            one.terminate()
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGTERM)  # what the shell left in the background
        for process in (self._python, self._shell, *self._servers):
            if process is not None:
                process.wait(timeout=20)
                if process.stdout is not None:
                    process.stdout.close()
        shutil.rmtree(self._work, ignore_errors=True)

    def tidy(self, printed: str) -> str:
        """Return what was printed, with the page's paths and ports."""
        printed = printed.replace(str(self.folder.resolve()), HOME).replace(str(self.folder), HOME)
        printed = printed.replace(str(self._work / "home"), "/home/me")
        for port, actual in self._ports.items():
            printed = printed.replace(actual, port)
        return printed


@contextmanager
def preloaded() -> Iterator[Path]:
    """Start the server of `preloaded.py` and yield its socket."""
    with tempfile.TemporaryDirectory(prefix="de-") as folder:
        path = Path(folder) / "s"
        with subprocess.Popen([sys.executable, ROOT / "tests/preloaded.py", path], stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                yield path
            finally:
                server.kill()


_INTERPRETER = """
import os, sys, traceback
names = {"__name__": "__main__"}
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    file, out, env = line.rstrip("\\n").split("\\t")
    os.environ.update(one.split("=", 1) for one in open(env, encoding="utf-8").read().split("\\0") if "=" in one)
    target = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1), os.dup2(target, 2), os.close(target)
    failed = 0
    try:
        exec(compile(open(file, encoding="utf-8").read(), "<page>", "exec"), names)
    except BaseException:
        traceback.print_exc()
        failed = 1
    sys.stdout.flush(), sys.stderr.flush()
    print(failed, file=answers, flush=True)
"""


def free_port() -> str:
    """Return a port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until something listens on a port."""
    end = time.monotonic() + _SECONDS
    while True:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, f"nothing listens on {port}"
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------------- comparing


def same(expected: str, printed: str) -> bool:
    """Tell whether what was printed is what a page says."""
    expected_lines = _lines(expected)
    said = [line for line in expected_lines if _LEFT_OUT.match(line)]
    lines = [line for line in _lines(printed) if said or not _LEFT_OUT.match(line)]
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line) + r"\n" for line in expected_lines)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def _lines(text: str) -> list[str]:
    for pattern, name in VARIES:
        text = pattern.sub(name, text)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


# ---------------------------------------------------------------------------------------------------------------- as a program


def shown(printed: str) -> str:
    """Return what was printed as a page shows it."""
    return "".join(f"{line}\n" for line in printed.splitlines() if not _LEFT_OUT.match(line))


def write(page: Path, outcomes: list[Outcome]) -> None:
    """Write into a page what was printed where it differs."""
    text = page.read_text(encoding="utf-8")
    for one in outcomes:
        before = one.expected if one.block.language == "python" else f"$ {one.command}\n{one.expected}"
        after = shown(one.printed) if one.block.language == "python" else f"$ {one.command}\n{shown(one.printed)}"
        if before and text.count(before) == 1:
            text = text.replace(before, after)
    page.write_text(text, encoding="utf-8")


def main(names: list[str]) -> int:
    """Run pages; with ``--write`` first, write what differs into them."""
    from data_engine.sandbox import Sandbox, SimulatedMarket

    writing = names[:1] == ["--write"]
    differing = 0
    with tempfile.TemporaryDirectory() as name, Sandbox(SimulatedMarket()) as server, preloaded() as socket_path:
        demo = Path(os.environ.get("DEMO_STORE", f"{name}/demo/demo_data"))
        if not demo.exists():
            made = Reader(demo.parent, None, server.url, socket_path)
            print(made.run("data-engine demo")[1])
            made.close()
        for number, page in enumerate(map(Path, names[writing:])):
            began = time.monotonic()
            reader = Reader(Path(name) / str(number) / "stocks", demo, server.url, socket_path)
            try:
                outcomes = reader.read(page)
            finally:
                reader.close()
            print(f"{page}: {len(outcomes)} differ, {time.monotonic() - began:.1f} s")
            differing += len(outcomes)
            for one in outcomes:
                print(one)
            if writing:
                write(page, outcomes)
    return differing > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
