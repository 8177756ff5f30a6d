"""The cores: as many places as this process may use, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from data_engine import cpu as cores
from data_engine.alpaca import http_client as asking
from data_engine.alpaca import transport
from data_engine.store import file_edit as bar_files

COUNT = "from data_engine.cpu import count; print(count())"


def test_there_is_at_least_one():
    assert 1 <= cores.count() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_a_process_that_is_bound_to_one_core_has_one():
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); {COUNT}"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "1"


def test_no_more_work_at_once_than_places():
    """Twenty threads that compute: those inside at the same time are counted."""
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with cores.CPU_SLOTS:
            with lock:
                inside += 1
                most = max(most, inside)
            sum(range(20_000))
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 <= most <= cores.count()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_all_its_places():
    """Forked while every place is held, by threads that it has no more."""
    code = (
        "import os\n"
        "from contextlib import ExitStack\n"
        "from data_engine.cpu import CPU_SLOTS, count\n"
        "with ExitStack() as held:\n"
        "    for _ in range(count()): held.enter_context(CPU_SLOTS)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        with CPU_SLOTS: os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "7"


def test_inflating_decoding_and_encoding_share_the_places():
    assert transport.CPU_SLOTS is asking.CPU_SLOTS is bar_files.CPU_SLOTS is cores.CPU_SLOTS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_is_forked_by_who_holds_a_place_leaves_it_without_an_error():
    code = (
        "import os\n"
        "from data_engine.cpu import CPU_SLOTS\n"
        "with CPU_SLOTS:\n"
        "    child = os.fork()\n"
        "if child:\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert (ran.stdout, ran.stderr) == ("0\n", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux lists the threads of a process")
@pytest.mark.skipif(cores.count() < 2, reason="numpy starts no threads for one core")
def test_a_command_has_no_threads_of_numpy():
    """They wait for matrices at full speed, and commands have none."""
    code = (
        "import os, sys\n"
        "from data_engine import cli\n"
        "def main():\n"
        "    import numpy\n"
        "    print(len(os.listdir('/proc/self/task')))\n"
        "    return 0\n"
        "cli.main = main\n"
        "cli.run()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout.strip() == "1"
