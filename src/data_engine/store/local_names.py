"""Make the names of files and folders durable in a folder on this machine, and make folders: `LocalNames`.

A file survives a power failure under its name once its folder was flushed, and each folder on the way to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from data_engine.store.disk import Disk, parent_of, reported

_ATTEMPTS = 100


class LocalNames:
    """What is known to be durable of the names below a folder. Safe between threads.

    Args:
        disk: The calls of the operating system.
        base: The folder.
    """

    def __init__(self, disk: Disk, base: str) -> None:
        self._disk = disk
        self._base = base
        # Folders whose names are durable, up to the base, and folders in which all names are; as of the last `forget`.
        self._reachable: set[str] = set()
        self._flushed: set[str] = set()
        self.renew()

    def renew(self) -> None:
        """Free the lock between threads."""
        self._folders_change = self._disk.mutex()

    def forget(self) -> None:
        """Rely on nothing that was flushed before: another process may have made or removed it anew."""
        self._reachable, self._flushed = set(), set()

    # ----------------------------------------------------------------------------------------------------------- flushing

    def flush_name(self, path: str) -> None:
        """Make the name of a file durable, and the names of the folders on the way to it."""
        folder, flushed = parent_of(path), self._flushed
        flushed.discard(folder)
        self._disk.flush_folder(folder)
        self.flush_way(folder)
        flushed.add(folder)

    def flush_absence(self, path: str) -> None:
        """Make it durable that there is no file of a name; its folder may be gone, too."""
        folder, flushed = parent_of(path), self._flushed
        flushed.discard(folder)
        place = folder
        while len(place) >= len(self._base):
            try:
                self._disk.flush_folder(place)
            except (FileNotFoundError, NotADirectoryError):
                place = parent_of(place)
            else:
                break
        flushed.add(folder)

    def flush_way(self, folder: str) -> None:
        """Make the names of a folder and of its parents durable: who made them may not have flushed them yet."""
        way = self._unreachable(folder)
        for place in reversed(way):
            self._disk.flush_folder(parent_of(place))
        with self._folders_change:
            self._reachable.update(way)

    def flush_seen(self, path: str, there: bool) -> None:
        """Make durable what the caller saw of a file that it leaves as it is: once per folder, and after each `forget`.

        The caller relies on it, and who wrote or removed the file may have been killed before it was flushed.
        """
        if self.is_flushed(path, there):
            return
        with reported("write", path):
            (self.flush_name if there else self.flush_absence)(path)

    def flush_seen_in(self, folder: str) -> None:
        """Make durable what the caller saw of the files of a folder, or that there is none, whatever was flushed before."""
        path = f"{folder}/"
        with reported("write", folder):
            try:
                self.flush_name(path)
            except (FileNotFoundError, NotADirectoryError):
                self.flush_absence(path)

    def is_flushed(self, path: str, there: bool) -> bool:
        """Tell whether it is durable that there is a file of a name, or none."""
        folder = parent_of(path)
        return folder in self._flushed and (not there or folder in self._reachable)

    def touch(self, path: str) -> None:
        """Note that a file is about to come to a name, or to go from it."""
        self._flushed.discard(parent_of(path))

    def flush_together(self, paths: Iterable[str], system: int | None) -> None:
        """Make the names of files durable, and those of the folders on the way to them, each folder once.

        Args:
            paths: The files, which are there.
            system: A handle of their file system, which is flushed as a whole. If None, the folders are, at the same time.
        """
        folders = {parent_of(path) for path in paths}
        flushed = self._flushed
        flushed -= folders
        ways = {place for folder in folders for place in self._unreachable(folder)}
        if system is not None:
            self._disk.flush_system(system)
        else:
            to_flush = sorted(folders | {parent_of(place) for place in ways})
            self._disk.together([_flush_of(self._disk, folder) for folder in to_flush])
        with self._folders_change:
            self._reachable.update(ways)
        flushed |= folders

    def _unreachable(self, folder: str) -> list[str]:
        """Return a folder and its parents, as far as their names are not known to be durable."""
        way: list[str] = []
        # A folder with a file cannot be removed, and one that was removed is forgotten at once.
        with self._folders_change:
            for place in self._way(folder):
                if place in self._reachable:
                    break
                way.append(place)
        return way

    def _way(self, folder: str) -> Iterator[str]:
        """Yield a folder of the store, and its parents up to the base."""
        while len(folder) > len(self._base):
            yield folder
            folder = parent_of(folder)
        yield self._base

    # ------------------------------------------------------------------------------------------------------------ folders

    def make_folder(self, folder: str) -> None:
        """Make a folder and its parents, which another process may be removing at the same time, since they are empty."""
        disk, parent = self._disk, parent_of(folder)
        for _ in range(_ATTEMPTS):
            try:
                disk.make_folder(folder)
            except FileNotFoundError:
                if parent == folder:
                    raise
                self.make_folder(parent)
            except FileExistsError:
                if disk.is_folder(folder):
                    return
                # One check per folder: between two (exists, is no folder) another process could remove it.
                if disk.is_file(folder):
                    raise
            else:
                self._reachable.discard(folder)
                if len(folder) <= len(self._base):
                    disk.flush_folder(parent)
                return
        disk.make_folder(folder)

    def remove_empty(self, folder: str) -> None:
        """Remove a folder if it is empty, and then its parents below the base."""
        while folder != self._base:
            with self._folders_change:
                try:
                    self._disk.remove_folder(folder)
                except OSError:  # not empty: so are its parents
                    break
                self._reachable.discard(folder)
            folder = parent_of(folder)


def _flush_of(disk: Disk, folder: str) -> Callable[[], None]:
    def flush() -> None:
        with reported("write", folder):
            disk.flush_folder(folder)

    return flush
