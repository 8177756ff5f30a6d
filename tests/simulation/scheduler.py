"""Threads of the world: exactly one runs, and another goes on at seams alone, as the seed says.

They are greenlets of one thread of the system: to go on with another costs a microsecond, and nothing runs at the same time.

A seam is whatever reaches the world: a file, a request, a lock, a wait. There a process can be killed (every later seam of it
raises `Killed` and does nothing, so that no ``finally`` tidies up) or its main thread interrupted.
"""

from __future__ import annotations

import gc
import random
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from greenlet import getcurrent, greenlet


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
        kill_before: The number of the change of a file before which it is killed; None never.
        interrupt_at: The number of the main thread's seam at which Ctrl-C is pressed; None never.
        suspend_at: The number of the seam at which its machine is suspended; None never.
        suspend_for: For how many seconds.
    """

    name: str
    kill_at: int | None = None
    kill_before: int | None = None
    interrupt_at: int | None = None
    suspend_at: int | None = None
    suspend_for: float = 0.0
    seams: int = 0
    main_seams: int = 0
    changes: int = 0
    dead: bool = False
    asleep_until: float = 0.0
    at_exit: list[Callable[[], object]] = field(default_factory=list)


@dataclass(eq=False)
class Thread:
    """A thread of a process."""

    process: Process
    work: Callable[[], None]
    main: bool
    daemon: bool = False
    runs: greenlet | None = None
    waits: Callable[[], bool] | None = None
    wakes: float | None = None
    done: bool = False
    error: BaseException | None = None


class Scheduler:
    """Who runs next.

    Args:
        seed: Of the choices.
        tick: How many seconds pass at each seam.

    Attributes:
        elapsed: How many seconds have passed.
        suspended: How many of them in suspend.
        current: The thread that runs, None while none of the world does.
    """

    def __init__(self, seed: object, tick: float = 0.0) -> None:
        self.random = random.Random(str(seed))
        self.switches = 0.3
        self.elapsed = 0.0
        self.suspended = 0.0
        self._tick = tick
        self._threads: list[Thread] = []
        self._driver: greenlet | None = None
        self.current: Thread | None = None
        self._stuck: Deadlock | None = None

    def run(self, **mains: tuple[Process, Callable[[], Any]]) -> dict[str, Any]:
        """Run the main threads of some processes, and all that they start, to the end; return results or exceptions."""
        results: dict[str, Any] = {}

        def main(name: str, process: Process, work: Callable[[], Any]) -> Callable[[], None]:
            def run() -> None:
                try:
                    results[name] = work()
                except BaseException as error:  # noqa: BLE001 - the verdict is the caller's
                    results[name] = error
                self._exit(process)

            return run

        self._driver = getcurrent()
        for name, (process, work) in mains.items():
            self.spawn(process, main(name, process, work), main=True)
        collects = gc.isenabled()
        gc.disable()  # when it comes is not of the seed, and what it ends would run in whichever thread is current
        try:
            while (thread := self._next()) is not None:
                self._switch(thread)
        finally:
            if collects:
                gc.enable()
        self.current = None
        self._threads.clear()
        if self._stuck is not None:
            stuck, self._stuck = self._stuck, None
            raise stuck
        return results

    @property
    def process(self) -> Process | None:
        """The process that runs, None while none of the world does."""
        return None if self.current is None else self.current.process

    def _exit(self, process: Process) -> None:
        """End a process as the interpreter does: threads but daemons end, then what was registered is called, daemons die."""
        process.interrupt_at = None
        self.wait(lambda: all(one.done or one.main or one.daemon for one in self._threads if one.process is process))
        for call in reversed(process.at_exit):
            call()
        process.dead = True

    def spawn(self, process: Process, work: Callable[[], None], *, main: bool = False, daemon: bool = False) -> Thread:
        thread = Thread(process, work, main, daemon)

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001
                thread.error = error
            thread.done = True

        thread.runs = greenlet(run, self._driver)  # at its end the driver goes on, and takes the next
        self._threads.append(thread)
        return thread

    def seam(self, *, changes: bool = False) -> None:
        """Be at a seam: another thread may go first, and this process may be killed or interrupted.

        Args:
            changes: Whether a file is changed, or flushed, behind it.
        """
        thread = self.current
        if thread is None:
            return
        self._check(thread)
        if changes:
            thread.process.changes += 1
            thread.process.dead |= thread.process.changes == thread.process.kill_before
            self._check_dead(thread)
        if self.random.random() < self.switches:
            self._yield(thread)
            self._check_dead(thread)

    def wait(self, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Let others run until something is so, or for some seconds; return whether it is so."""
        thread = self.current
        if thread is None:
            assert ready() or seconds is not None
            return ready()
        self._check(thread)
        if not ready():
            thread.waits = ready
            thread.wakes = None if seconds is None else self.elapsed + max(seconds, 0.0)
            self._yield(thread)
            thread.waits = thread.wakes = None
            self._check_dead(thread)
        return ready()

    def sleep(self, seconds: float) -> None:
        """Let others run for some seconds."""
        self.wait(lambda: False, seconds)

    def others_ready(self) -> bool:
        """Tell whether another thread could run now."""
        return any(one is not self.current for one in self._ready())

    def _check(self, thread: Thread) -> None:
        process = thread.process
        process.seams += 1
        if process.kill_at is not None and process.seams >= process.kill_at:
            process.dead = True
        self._check_dead(thread)
        self.elapsed += self._tick
        if process.seams == process.suspend_at:
            process.asleep_until = self.elapsed + process.suspend_for
            self.suspended += process.suspend_for
            self._yield(thread)
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
        return [one for one in self._threads if not one.done and (self._stuck is not None or self._can_run(one))]

    def _can_run(self, one: Thread) -> bool:
        if one.process.dead:
            return True
        if one.process.asleep_until > self.elapsed:
            return False
        return one.waits is None or one.waits() or (one.wakes is not None and one.wakes <= self.elapsed)

    def _next_time(self) -> float | None:
        """Return when the next thread can run that cannot now."""
        times = []
        for one in self._threads:
            awake = one.process.asleep_until
            if not one.done and (one.waits is None or one.waits()):
                times.append(awake)
            elif not one.done and one.wakes is not None:
                times.append(max(one.wakes, awake))
        return min(times, default=None)

    def _yield(self, thread: Thread) -> None:
        following = self._next()
        assert following is not None  # `thread` itself, at the latest when all are stuck
        if following is not thread:
            self._switch(following)

    def _switch(self, thread: Thread) -> None:
        self.current = thread
        assert thread.runs is not None
        thread.runs.switch()

    def _next(self) -> Thread | None:
        ready = self._ready()
        if not ready and (then := self._next_time()) is not None:
            self.elapsed = max(self.elapsed, then)
            ready = self._ready()
        if not ready and any(not one.done for one in self._threads):
            self._stuck = Deadlock("nobody can go on")
            ready = self._ready()
        return self.random.choice(ready) if ready else None


class OfProcess:
    """What a process calls, until it is dead. What collects its garbage then, and so ends its generators, does nothing.

    Args:
        called: What is called.
        scheduler: Which process runs now; that is the one.
    """

    def __init__(self, called: Any, scheduler: Scheduler | None) -> None:
        self._called = called
        self._scheduler = scheduler
        self._process = None if scheduler is None else scheduler.process

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._called, name)
        process, scheduler = self._process, self._scheduler
        if process is None or scheduler is None or not callable(found):
            return found

        def call(*words: Any, **named: Any) -> Any:
            if process.dead:
                raise Killed if scheduler.process is process else GeneratorExit
            return found(*words, **named)

        self.__dict__[name] = call
        return call


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


class Mutex:
    """`threading.Lock`, or `threading.RLock`, between the threads of a process of the world."""

    def __init__(self, scheduler: Callable[[], Scheduler | None], *, again: bool = False) -> None:
        self._scheduler = scheduler
        self._again = again
        self._owner: Thread | None = None
        self._depth = 0

    def _free(self) -> bool:
        owner, scheduler = self._owner, self._scheduler()
        if owner is None or owner.done or owner.process.dead:
            return True
        return self._again and scheduler is not None and owner is scheduler.current

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self._scheduler()
        if scheduler is None or scheduler.current is None:
            return True
        if not self._free():
            if not blocking or not timeout:
                return False
            if not scheduler.wait(self._free, None if timeout < 0 else timeout):
                return False
        self._depth = self._depth + 1 if self._owner is scheduler.current else 1
        self._owner = scheduler.current
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._owner, self._depth = None, 0

    def __enter__(self) -> Mutex:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None, /
    ) -> None:
        self.release()


class Event:
    """`threading.Event`."""

    def __init__(self, scheduler: Callable[[], Scheduler | None]) -> None:
        self._scheduler = scheduler
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        scheduler = self._scheduler()
        if scheduler is not None and not self._set:
            scheduler.wait(self.is_set, timeout)
        return self._set


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
        def __init__(self, *, target: Callable[..., None], args: tuple[Any, ...] = (), daemon: bool = False, **_: object) -> None:
            self._work = lambda: target(*args)
            self._daemon = daemon

        def start(self) -> None:
            thread = scheduler.current
            assert thread is not None
            self._thread = scheduler.spawn(thread.process, self._work, daemon=self._daemon)

        def join(self) -> None:
            scheduler.wait(lambda: self._thread.done)

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

    def event() -> Event:
        return Event(lambda: scheduler)

    def mutex() -> Mutex:
        return Mutex(lambda: scheduler)

    return types.SimpleNamespace(Thread=Started, Condition=Condition, Lock=mutex, Event=event)


def exits(scheduler: Scheduler) -> types.SimpleNamespace:
    """Return what stands for the module `atexit`."""

    def calls() -> list[Callable[[], object]]:
        thread = scheduler.current
        return thread.process.at_exit if thread is not None else []  # a generator of a killed process is collected later

    def unregister(call: Callable[[], object]) -> None:
        calls()[:] = [one for one in calls() if one != call]

    return types.SimpleNamespace(register=lambda call: calls().append(call), unregister=unregister)


def clock_of(scheduler: Scheduler, now: float = 1.7e9) -> types.SimpleNamespace:
    """Return what stands for the module `time`: all its clocks count suspend."""

    def told() -> float:
        return now + scheduler.elapsed

    return types.SimpleNamespace(monotonic=told, time=told, sleep=scheduler.sleep)


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
