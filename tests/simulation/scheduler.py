"""Threads that pass one baton: exactly one runs, and it changes hands at seams alone, as the seed says.

A seam is whatever reaches the world: a file, a request, a lock, a wait. There a process can be killed (every later seam of it
raises `Killed` and does nothing, so that no ``finally`` tidies up) or its main thread interrupted.
"""

from __future__ import annotations

import random
import threading
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class Killed(BaseException):
    """The process was killed: nothing of it reaches the world any more."""


class Deadlock(Exception):
    """Nobody can go on."""


@dataclass(eq=False)
class Process:
    """A process of the world.

    Attributes:
        name: For the journal.
        kill_at: The number of the seam at which it is killed; None never.
        interrupt_at: The number of the main thread's seam at which Ctrl-C is pressed; None never.
    """

    name: str
    kill_at: int | None = None
    interrupt_at: int | None = None
    seams: int = 0
    main_seams: int = 0
    dead: bool = False


@dataclass(eq=False)
class Thread:
    """A thread of a process."""

    process: Process
    work: Callable[[], None]
    main: bool
    baton: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    waits: Callable[[], bool] | None = None
    done: bool = False
    error: BaseException | None = None


class Scheduler:
    """Who runs next.

    Args:
        seed: Of the choices.
    """

    def __init__(self, seed: object) -> None:
        self.random = random.Random(str(seed))
        self.switches = 0.3
        self._threads: list[Thread] = []
        self._local = threading.local()
        self._driver = threading.Semaphore(0)
        self._stuck: Deadlock | None = None

    @property
    def current(self) -> Thread | None:
        """The thread of the world that calls, None if it is none of the world."""
        return getattr(self._local, "thread", None)

    def run(self, **mains: tuple[Process, Callable[[], Any]]) -> dict[str, Any]:
        """Run the main threads of some processes, and all that they start, to the end; return results or exceptions."""
        results: dict[str, Any] = {}

        def main(name: str, work: Callable[[], Any]) -> Callable[[], None]:
            def run() -> None:
                try:
                    results[name] = work()
                except BaseException as error:  # noqa: BLE001 - the verdict is the caller's
                    results[name] = error

            return run

        for name, (process, work) in mains.items():
            self.spawn(process, main(name, work), main=True)
        self._pass_on()
        self._driver.acquire()
        self._threads.clear()
        if self._stuck is not None:
            stuck, self._stuck = self._stuck, None
            raise stuck
        return results

    def spawn(self, process: Process, work: Callable[[], None], *, main: bool = False) -> Thread:
        thread = Thread(process, work, main)

        def run() -> None:
            thread.baton.acquire()
            self._local.thread = thread
            try:
                work()
            except BaseException as error:  # noqa: BLE001
                thread.error = error
            thread.done = True
            self._pass_on()

        self._threads.append(thread)
        threading.Thread(target=run, daemon=True).start()
        return thread

    def seam(self) -> None:
        """Be at a seam: another thread may go first, and this process may be killed or interrupted."""
        thread = self.current
        if thread is None:
            return
        self._check(thread)
        if self.random.random() < self.switches:
            self._yield(thread)
            self._check_dead(thread)

    def wait(self, ready: Callable[[], bool]) -> None:
        """Let others run until something is so."""
        thread = self.current
        if thread is None:
            assert ready()
            return
        self._check(thread)
        if not ready():
            thread.waits = ready
            self._yield(thread)
            thread.waits = None
            self._check_dead(thread)

    def others_ready(self) -> bool:
        """Tell whether another thread could run now."""
        return any(one is not self.current for one in self._ready())

    def _check(self, thread: Thread) -> None:
        process = thread.process
        process.seams += 1
        if process.kill_at is not None and process.seams >= process.kill_at:
            process.dead = True
        self._check_dead(thread)
        if thread.main:
            process.main_seams += 1
            if process.main_seams == process.interrupt_at:
                raise KeyboardInterrupt

    def _check_dead(self, thread: Thread) -> None:
        if self._stuck is not None:
            raise Killed
        if thread.process.dead:
            raise Killed

    def _ready(self) -> list[Thread]:
        live = (one for one in self._threads if not one.done)
        return [one for one in live if one.waits is None or one.process.dead or self._stuck is not None or one.waits()]

    def _yield(self, thread: Thread) -> None:
        self._pass_on()
        thread.baton.acquire()

    def _pass_on(self) -> None:
        ready = self._ready()
        if not ready and any(not one.done for one in self._threads):
            self._stuck = Deadlock("nobody can go on")
            ready = self._ready()
        if not ready:
            self._driver.release()
            return
        self.random.choice(ready).baton.release()


class Lock:
    """A lock between the threads and processes of the world; that of a killed process is free."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.owner: Thread | None = None

    @property
    def free(self) -> bool:
        return self.owner is None or self.owner.process.dead or self.owner.done

    @contextmanager
    def held(self) -> Iterator[None]:
        self._scheduler.wait(lambda: self.free)
        self.owner = mine = self._scheduler.current
        try:
            yield
        finally:
            if self.owner is mine:
                self.owner = None


class Executor:
    """`ThreadPoolExecutor`, with threads of the world."""

    def __init__(self, scheduler: Scheduler, workers: int) -> None:
        self._scheduler = scheduler
        self._workers = workers
        self._queue: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._busy = 0

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._queue.append((future, work, arguments))
        if self._busy < self._workers:
            self._busy += 1
            thread = self._scheduler.current
            assert thread is not None
            self._scheduler.spawn(thread.process, self._work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            for future, _, _ in self._queue:
                future.cancel()
            self._queue.clear()
        if wait:
            self._scheduler.wait(lambda: self._busy == 0)

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _work(self) -> None:
        try:
            while self._queue:
                future, work, arguments = self._queue.pop(0)
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    self._scheduler.seam()
                    result = work(*arguments)
                except BaseException as error:  # noqa: BLE001 - as the executor of the standard library
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            self._busy -= 1


def threads(scheduler: Scheduler) -> types.SimpleNamespace:
    """Return what stands for the module `threading`: its threads and conditions are the world's."""

    class Started:
        def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...] = (), **_: object) -> None:
            self._work = lambda: target(*args)

        def start(self) -> None:
            thread = scheduler.current
            assert thread is not None
            scheduler.spawn(thread.process, self._work)

    class Condition:
        # No seam is inside of these blocks: they are atomic since one thread runs.
        def __enter__(self) -> Condition:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing was locked."""

        def notify_all(self) -> None:
            """Whoever waits looks by itself."""

        def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
            scheduler.wait(predicate)
            return True

    return types.SimpleNamespace(Thread=Started, Condition=Condition, Lock=threading.Lock, local=threading.local)


class Inline:
    """`ThreadPoolExecutor` for readers: one after the other, in this thread."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to end."""

    def map(self, work: Callable[..., Any], *values: Iterable[Any]) -> list[Any]:
        return [work(*one) for one in zip(*values, strict=False)]


@dataclass
class Waited:
    """What `concurrent.futures.wait` returns, the futures in an order that the seed says."""

    done: list[Future[Any]]
    not_done: list[Future[Any]]


def wait_for(
    scheduler: Scheduler, futures: Collection[Future[Any]], timeout: float | None = None, return_when: str = "ALL_COMPLETED"
) -> Waited:
    """`concurrent.futures.wait` in the world."""
    enough = any if return_when == "FIRST_COMPLETED" else all
    scheduler.wait(lambda: not futures or enough(future.done() for future in futures))
    if return_when == "FIRST_COMPLETED" and scheduler.random.random() < 0.3:
        scheduler.seam()  # a slow display: more of them end meanwhile
    done = [future for future in futures if future.done()]
    scheduler.random.shuffle(done)
    return Waited(done, [future for future in futures if not future.done()])
