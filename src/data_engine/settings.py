"""Settings: argument, then environment, then ``settings.ini``, then default.

Everything but `load_settings` is arithmetic over its arguments: the system's name, the environment and the folders come in
as values, so that Windows is tested on Linux. A settings file is checked whole, and all its problems are in one message.
"""

from __future__ import annotations

import configparser
import difflib
import os
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_engine.alpaca.credentials import DATA_URL, check_data_url
from data_engine.errors import ConfigError, InputError
from data_engine.market.series import Feed
from data_engine.store.location import DRIVE, parse_location

DEFAULT_FOLDER = "stock_data"

DEFAULT_THREADS = {"windows": 16, "macos": 6, "linux": 8}

SETTINGS_NAME = "settings.ini"

MAX_THREADS, MAX_REQUESTS_PER_MINUTE = 256, 1_000_000

_SECTIONS = {"Windows": "windows", "Darwin": "macos"}

_KEYS = ("local_storage_dir", "api_threads", "requests_per_minute", "feed")

_COMMENT = re.compile(r"\s[#;]")

_VARIABLE = re.compile(r"\$\{?[A-Za-z_]|%[A-Za-z_]+%")

_NO_SECRETS = "credentials come from the environment or a .env file alone"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run works with.

    Attributes:
        base_path: where the store is: an absolute path, or an ``s3://`` address as text.
        base_path_source: who said so: ``--base-path``, ``DATA_ENGINE_BASE_PATH``, ``settings.ini [linux]: /path``, ``default``.
        api_threads: how many requests may be under way at once, 1 to 256.
        requests_per_minute: the limit to keep to, or None to learn it from Alpaca's answers.
        feed: the feed to ask for, or None for the default.
        data_url: where Alpaca's market data are served, without a slash at the end.
        settings_file: the file that was read, or None.
    """

    base_path: Path | str
    base_path_source: str
    api_threads: int
    requests_per_minute: int | None
    feed: str | None
    data_url: str
    settings_file: Path | None


@dataclass(frozen=True, slots=True)
class FileSettings:
    """What a settings file says for one system; None where it says nothing. The fields are those of `Settings`."""

    base_path: Path | str | None = None
    api_threads: int | None = None
    requests_per_minute: int | None = None
    feed: str | None = None


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders that settings are resolved against.

    Attributes:
        cwd: where relative arguments and variables start; searched for ``settings.ini``.
        config: the user's configuration folder for this program; searched last.
        home: what ``~`` is; None where the system knows of none.
    """

    cwd: Path
    config: Path
    home: Path | None

    @classmethod
    def here(cls, cwd: Path | None = None) -> Folders:
        """Return the folders of this process and user.

        Raises:
            ConfigError: the working directory was removed.
        """
        from platformdirs import user_config_path

        home = None
        with suppress(RuntimeError):  # a container that runs as a user of no name
            home = Path.home()
        try:
            return cls(
                Path.cwd() if cwd is None else Path(cwd).absolute(), user_config_path("data_engine", appauthor=False), home
            )
        except FileNotFoundError as error:
            raise ConfigError("the working directory does not exist any more; change to another one") from error


def section_for(system: str) -> str:
    """Return the section for what `platform.system` returns; all but Windows and macOS is ``linux``."""
    return _SECTIONS.get(system, "linux")


def load_settings(
    *,
    base_path: str | Path | None = None,
    settings_path: str | Path | None = None,
    workers: int | None = None,
    requests_per_minute: int | None = None,
    feed: object = None,
    environ: Mapping[str, str] | None = None,
    system: str | None = None,
    cwd: Path | None = None,
    folders: Folders | None = None,
) -> Settings:
    """Read the settings of a run.

    Each argument wins over its environment variable (``DATA_ENGINE_BASE_PATH``, ``DATA_ENGINE_SETTINGS``,
    ``DATA_ENGINE_THREADS``, ``DATA_ENGINE_REQUESTS_PER_MINUTE``, ``DATA_ENGINE_FEED``; ``APCA_API_DATA_URL`` has none), that
    over the settings file, that over the default. An empty variable is one that is not set. The settings file is the one
    that is named, else ``settings.ini`` in the working directory, else in the user's configuration folder.

    Args:
        base_path: of the store; relative to the working directory.
        settings_path: of the settings file; it must exist.
        workers: threads, 1 to 256.
        requests_per_minute: the limit to keep to.
        feed: a feed's name or alpaca-py's ``DataFeed``.
        environ: instead of ``os.environ``.
        system: instead of what `platform.system` returns.
        cwd: instead of the working directory.
        folders: instead of all folders of this process and user.

    Raises:
        ConfigError: something cannot be used; the message says where it stands and what would do.
    """
    said = _Said(os.environ if environ is None else environ, [])
    folders = Folders.here(cwd) if folders is None else folders
    section = section_for(platform.system() if system is None else system)
    file = find_settings_file(settings_path, said.environ, folders)
    stored = FileSettings() if file is None else parse_settings(_read(file), file=file, section=section, home=folders.home)

    chosen = said.choose(base_path, "DATA_ENGINE_BASE_PATH", lambda value: parse_location(value, folders.home, folders.cwd))
    source = "DATA_ENGINE_BASE_PATH" if base_path is None else "--base-path"
    if chosen is None and file is not None and stored.base_path is not None:
        chosen, source = stored.base_path, f"{file.name} [{section}]: {file}"
        if _meets_a_file(chosen):
            said.problems.append(f"{file}: [{section}] local_storage_dir: {chosen} is a file, or lies below one; name a folder")
    threads = said.choose(workers, "DATA_ENGINE_THREADS", check_threads, "--workers")
    rate = said.choose(requests_per_minute, "DATA_ENGINE_REQUESTS_PER_MINUTE", _rate, "--requests-per-minute")
    named_feed = said.choose(feed, "DATA_ENGINE_FEED", _feed, "--feed")
    url = said.choose(None, "APCA_API_DATA_URL", check_data_url)
    if chosen is None and not said.problems:
        chosen, source = parse_location(f"~/{DEFAULT_FOLDER}", folders.home, folders.cwd), "default"
    if said.problems or chosen is None:
        raise ConfigError("\n".join(said.problems))
    return Settings(
        base_path=chosen,
        base_path_source=source,
        api_threads=threads or stored.api_threads or DEFAULT_THREADS[section],  # 0 was refused
        requests_per_minute=rate if rate is not None else stored.requests_per_minute,
        feed=named_feed if named_feed is not None else stored.feed,
        data_url=url or DATA_URL,
        settings_file=file,
    )


def find_settings_file(named: str | Path | None, environ: Mapping[str, str], folders: Folders) -> Path | None:
    """Return the settings file to read, or None where nobody named one and none lies where they are looked for.

    Raises:
        ConfigError: a file was named, by argument or ``DATA_ENGINE_SETTINGS``, that is not there.
    """
    variable = environ.get("DATA_ENGINE_SETTINGS", "").strip()
    given, source = (named, "--settings") if named is not None else (variable or None, "DATA_ENGINE_SETTINGS")
    if given is None:
        places = (folder / SETTINGS_NAME for folder in (folders.cwd, folders.config))
        return next((place for place in places if _exists(place)), None)
    try:
        path = Path(parse_location(given, folders.home, folders.cwd))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    if not _exists(path):
        raise ConfigError(f"{source}: there is no settings file {path}")
    return path


def parse_settings(text: str, *, file: Path, section: str, home: Path | None) -> FileSettings:
    """Read the text of a settings file for one system.

    ``%`` and ``$`` mean nothing; ``~`` is *home*; a relative ``local_storage_dir`` starts at the file's own folder. Keys
    of ``[DEFAULT]`` count for every system, sections of other systems and other names are not looked at.

    Raises:
        ConfigError: what is wrong with the file, all of it, each with section, key, value and remedy.
    """
    problems: list[str] = []
    values = _section(_parse(text, problems), section, problems)
    read = _Section(section, values, problems)
    read.refuse_unknown()
    made = FileSettings(
        base_path=read.get("local_storage_dir", lambda value: _stored_path(value, home, file.parent, section)),
        api_threads=read.get("api_threads", check_threads),
        requests_per_minute=read.get("requests_per_minute", _rate),
        feed=read.get("feed", _feed),
    )
    if problems:
        head = f"{file}: " if len(problems) == 1 else f"{file}: {len(problems)} things cannot be used\n  "
        raise ConfigError(head + "\n  ".join(problems))
    return made


@dataclass(frozen=True, slots=True)
class _Said:
    """What arguments and environment say; what is wrong with it is collected."""

    environ: Mapping[str, str]
    problems: list[str]

    def choose(self, argument: object, variable: str, check: Callable[[object], _T], option: str = "--base-path") -> _T | None:
        """Check the argument or, where there is none, the variable; None where neither is given."""
        text = self.environ.get(variable, "").strip()
        value, source = (argument, option) if argument is not None else (text or None, variable)
        if value is not None:
            try:
                return check(value)
            except InputError as error:
                self.problems.append(f"{source}: {error}")
        return None


@dataclass(frozen=True, slots=True)
class _Section:
    """The keys of one section; what is wrong with them is collected."""

    name: str
    values: Mapping[str, str]
    problems: list[str]

    def get(self, key: str, check: Callable[[object], _T]) -> _T | None:
        if key not in self.values:
            return None
        value = self.values[key].strip()
        shown = "(not shown)" if "@" in value else value.replace("\n", " ")  # credentials, in an address
        try:
            if not value:
                raise ConfigError("is empty; give a value, or remove the line for the default")
            if "\n" in value:
                raise ConfigError("runs over several lines; a line that begins with spaces belongs to the one above")
            if _COMMENT.search(value):
                raise ConfigError("holds a comment; comments need a line of their own")
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            return check(value[1:-1] if quoted else value)
        except InputError as error:
            self.problems.append(f"[{self.name}] {key} = {shown}: {error}")
            return None

    def refuse_unknown(self) -> None:
        # Without their values: people try to put credentials here.
        for key in self.values:
            if key not in _KEYS:
                close = difflib.get_close_matches(key, _KEYS, n=1)
                remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(_KEYS)}"
                secret = re.search(r"key|secret|token|password", key)
                self.problems.append(f"[{self.name}] {key}: no such key; " + (_NO_SECRETS if secret else remedy))


def _parse(text: str, problems: list[str]) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)  # its own messages quote whole lines: never shown
    try:
        parser.read_string(text)
    except configparser.DuplicateOptionError as error:
        problems.append(f"line {error.lineno}: [{error.section}] {error.option} is given twice; remove one")
    except configparser.DuplicateSectionError as error:
        problems.append(f"line {error.lineno}: section [{error.section}] is there twice; make it one")
    except configparser.MissingSectionHeaderError as error:
        problems.append(f"line {error.lineno}: stands in no section; the first line is [windows], [macos] or [linux]")
        return parser
    except configparser.ParsingError as error:
        problems += [f"line {line}: is neither 'key = value' nor a [section]" for line, _ in error.errors]
        return parser
    else:
        return parser
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with suppress(configparser.Error):  # look at the rest all the same
        parser.read_string(text)
    return parser


def _section(parser: configparser.ConfigParser, section: str, problems: list[str]) -> Mapping[str, str]:
    found = [name for name in parser.sections() if name.strip().lower() == section]
    if len(found) == 1:
        return parser[found[0]]
    if found:
        problems.append(f"has the sections {' and '.join(f'[{name}]' for name in found)}; make it one")
    elif not problems or parser.sections():
        there = ", ".join(f"[{name}]" for name in parser.sections()) or "none"
        problems.append(
            f"has no section [{section}] for this system (sections: {there}); add one, or, if the file belongs to another "
            "program, name yours with --settings or DATA_ENGINE_SETTINGS"
        )
    return {}


def _stored_path(value: object, home: Path | None, start: Path, section: str) -> Path | str:
    text = str(value)
    if _VARIABLE.search(text):
        raise ConfigError("variables are not replaced; write the folder itself, or ~ for your home")
    if section != "windows" and DRIVE.match(text):
        raise ConfigError(f"is a path of Windows, in the section [{section}]")
    return parse_location(text, home, start)


def _whole(value: object, most: int, what: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ConfigError(f"{what} must be a whole number from 1 to {most:,}, was {value!r}")
    return value


def check_threads(value: object) -> int:
    """Return how many requests may be under way at once.

    Raises:
        ConfigError: not a whole number from 1 to 256.
    """
    return _whole(value, MAX_THREADS, "the number of threads")


_rate = partial(_whole, most=MAX_REQUESTS_PER_MINUTE, what="the requests per minute")


def _feed(value: object) -> str:
    return Feed.parse(value).value


def _exists(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112 - unlike pathlib's, these never raise


def _meets_a_file(path: Path | str) -> bool:
    """Tell whether a file stands where a folder has to be."""
    with suppress(OSError):
        for place in (path, *path.parents) if isinstance(path, Path) else ():
            if place.exists():
                return not place.is_dir()
    return False


def _read(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not text in UTF-8; save it as UTF-8") from error
    if "\0" in text:
        raise ConfigError(f"{file}: is not a text file")
    return text
