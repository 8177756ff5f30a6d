"""``data-engine`` in a process that was forked from one with everything imported, so that a command starts in some milliseconds.

``python tests/preloaded.py SOCKET`` serves; ``python tests/preloaded.py SOCKET WORDS`` runs ``data-engine WORDS`` there, with the
streams, the environment and the working directory of the caller, passes signals on, and ends as it ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def ask(path: str, words: list[str]) -> int:
    """Run a command in the server and return its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        request = json.dumps({"words": words, "cwd": os.getcwd(), "env": dict(os.environ)}).encode()  # noqa: PTH109
        socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(request)
        child = int.from_bytes(_exactly(server, 4), "big")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(child, number))
        return _exactly(server, 1)[0]


def _exactly(peer: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        part = peer.recv(size - len(got))
        if not part:
            raise SystemExit("the server is gone")
        got += part
    return got


def serve(path: str) -> None:
    """Import everything, then run each command in a process of its own, until killed."""
    import duckdb  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children that serve
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(caller)
            caller.close()


def _answer(caller: socket.socket) -> None:
    """Run one command and send its process id and its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(caller, 4, 3)
    request = json.loads(_exactly(caller, int.from_bytes(head, "big")))
    child = os.fork()
    if child:
        for one in streams:
            os.close(one)
        caller.sendall(child.to_bytes(4, "big"))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        caller.sendall(bytes([code if code >= 0 else 128 - code]))
        os._exit(0)
    caller.close()
    for number, one in enumerate(streams):
        os.dup2(one, number)
        os.close(one)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.argv = ["data-engine", *request["words"]]
    import data_engine.cli

    try:
        data_engine.cli.run()
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
