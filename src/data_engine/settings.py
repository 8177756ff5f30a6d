"""Read the settings: argument, then environment, then ``settings.ini``, then default.

Only `load_settings` touches the process: the system's name, the environment and the folders are passed to everything else, so
that Windows is tested on Linux. A settings file is checked completely, and one message has all its problems.
"""

from __future__ import annotations

import configparser
import os
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_engine.alpaca.credentials import DATA_URL, check_data_url, check_trading_url
from data_engine.errors import ConfigError, InputError
from data_engine.market.ini_text import OutOfBounds, near_miss, own_sections, read_sections, whole_number
from data_engine.market.series import Feed
from data_engine.store.location import DRIVE, is_below_file, parse_location

DEFAULT_FOLDER = "stock_data"

DEFAULT_THREADS = {"windows": 16, "macos": 6, "linux": 8}

SETTINGS_NAME = "settings.ini"

MAX_THREADS, MAX_REQUESTS_PER_MINUTE, MAX_HISTORY_BASES = 256, 1_000_000, 1_000

DEFAULT_HISTORY_BASES = 1

_SECTIONS = {"Windows": "windows", "Darwin": "macos"}

CREDENTIALS = ("alpaca_api_key", "alpaca_secret_key", "apca_api_key_id", "apca_api_secret_key")

_KEYS = ("local_storage_dir", "api_threads", "requests_per_minute", "feed", "history_bases")

VARIABLES = {
    "base_path": "DATA_ENGINE_BASE_PATH",
    "api_threads": "DATA_ENGINE_THREADS",
    "requests_per_minute": "DATA_ENGINE_REQUESTS_PER_MINUTE",
    "feed": "DATA_ENGINE_FEED",
    "history_bases": "DATA_ENGINE_HISTORY_BASES",
    "data_url": "APCA_API_DATA_URL",
    "trading_url": "APCA_API_BASE_URL",
}
"""The variables of the environment, by the fields of `Settings`."""

_MOST_BYTES = 1 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run.

    Attributes:
        base_path: The store: an absolute path, or an ``s3://`` URL as text.
        base_path_source: The source of the path: ``--base-path``, ``DATA_ENGINE_BASE_PATH``, ``settings.ini [linux]: /path`` or
            ``default``.
        api_threads: The maximum number of concurrent requests, 1 to 256.
        requests_per_minute: The rate limit. If None, it is learned from Alpaca's responses.
        feed: The feed. If None, the default.
        data_url: The URL of Alpaca's market data, without a slash at the end.
        settings_file: The file that was read, or None.
        trading_url: The URL of Alpaca's trading API, without a slash at the end. If None, that of the account's kind.
        history_bases: The number of earlier price bases that the history of an adjusted series keeps, 0 to 1,000.
        sources: Where each field comes from, by its name: an option, a variable, a settings file, or ``default``.
    """

    base_path: Path | str
    base_path_source: str
    api_threads: int
    requests_per_minute: int | None
    feed: str | None
    data_url: str
    settings_file: Path | None
    trading_url: str | None = None
    history_bases: int = DEFAULT_HISTORY_BASES
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def source_of(self, name: str) -> str:
        """Return where a field comes from; ``given`` if the settings were made by a program."""
        return self.sources.get(name, "given")


@dataclass(frozen=True, slots=True)
class FileSettings:
    """The settings in a file for one system. The fields are those of `Settings`; None for those that the file lacks."""

    base_path: Path | str | None = None
    api_threads: int | None = None
    requests_per_minute: int | None = None
    feed: str | None = None
    history_bases: int | None = None


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders that settings are resolved against.

    Attributes:
        cwd: The start of relative arguments and variables; searched for ``settings.ini``.
        config: The user's configuration folder for this program; searched last.
        home: The folder of ``~``. None if the system has none.
    """

    cwd: Path
    config: Path
    home: Path | None

    @classmethod
    def here(cls, cwd: Path | None = None) -> Folders:
        """Return the folders of this process and user.

        Raises:
            ConfigError: If the working directory was removed.
        """
        from platformdirs import user_config_path

        home = None
        with suppress(RuntimeError):  # a container whose user has no name
            home = Path.home()
        try:
            start = Path.cwd() if cwd is None else Path(cwd).absolute()
        except FileNotFoundError as error:
            raise ConfigError("cannot read settings: the working directory does not exist; change to another one") from error
        return cls(start, user_config_path("data_engine", appauthor=False), home)


def section_for(system: str) -> str:
    """Return the section for a result of `platform.system`; all but Windows and macOS is ``linux``."""
    return _SECTIONS.get(system, "linux")


def load_settings(
    *,
    base_path: str | Path | None = None,
    settings_path: str | Path | None = None,
    workers: int | str | None = None,
    requests_per_minute: int | str | None = None,
    feed: object = None,
    environ: Mapping[str, str] | None = None,
    system: str | None = None,
    cwd: Path | None = None,
    folders: Folders | None = None,
) -> Settings:
    """Read the settings of a run.

    An argument precedes its environment variable (``DATA_ENGINE_BASE_PATH``, ``DATA_ENGINE_SETTINGS``,
    ``DATA_ENGINE_THREADS``, ``DATA_ENGINE_REQUESTS_PER_MINUTE``, ``DATA_ENGINE_FEED``; ``DATA_ENGINE_HISTORY_BASES``,
    ``APCA_API_DATA_URL`` and ``APCA_API_BASE_URL`` have none), which precedes the settings file, which precedes the default. An
    empty variable is unset. Without *settings_path*, the settings file is ``settings.ini`` in the working directory, else in the
    user's configuration folder.

    Args:
        base_path: The store; relative to the working directory.
        settings_path: The settings file, which must exist.
        workers: The maximum number of concurrent requests, 1 to 256.
        requests_per_minute: The rate limit.
        feed: A feed's name, or alpaca-py's ``DataFeed``.
        environ: The environment. If None, ``os.environ``.
        system: The name of the system. If None, that of `platform.system`.
        cwd: The working directory. If None, that of the process.
        folders: All folders. If None, those of this process and user.

    Raises:
        ConfigError: If a setting cannot be used. The message names its source and a remedy.
    """
    inputs = _Inputs(os.environ if environ is None else environ, [], {})
    folders = Folders.here(cwd) if folders is None else folders
    section = section_for(platform.system() if system is None else system)
    file = find_settings_file(settings_path, inputs.environ, folders)
    stored = FileSettings() if file is None else parse_settings(_read(file), file=file, section=section, home=folders.home)

    stored_source = f"{file and file.name} [{section}]: {file}"
    path, source = _base_path(inputs, base_path, folders, stored.base_path, stored_source)
    threads = inputs.get("--workers", workers, "DATA_ENGINE_THREADS", _threads)
    rate = inputs.get("--requests-per-minute", requests_per_minute, "DATA_ENGINE_REQUESTS_PER_MINUTE", _rate)
    feed_name = inputs.get("--feed", feed, "DATA_ENGINE_FEED", _check_feed)
    bases = inputs.get("", None, "DATA_ENGINE_HISTORY_BASES", _bases)
    url = inputs.get("", None, "APCA_API_DATA_URL", check_data_url)
    trading_url = inputs.get("", None, "APCA_API_BASE_URL", check_trading_url)
    if inputs.problems:
        raise ConfigError("\n".join(inputs.problems))
    return Settings(
        base_path=path,
        base_path_source=source,
        api_threads=threads or stored.api_threads or DEFAULT_THREADS[section],  # 0 was refused
        requests_per_minute=rate or stored.requests_per_minute,  # 0 was refused
        feed=feed_name or stored.feed,
        data_url=url or DATA_URL,
        settings_file=file,
        trading_url=trading_url,
        history_bases=next((one for one in (bases, stored.history_bases) if one is not None), DEFAULT_HISTORY_BASES),
        sources={
            name: inputs.sources.get(variable) or (stored_source if getattr(stored, name, None) is not None else "default")
            for name, variable in VARIABLES.items()
        },
    )


def find_settings_file(named: str | Path | None, environ: Mapping[str, str], folders: Folders) -> Path | None:
    """Return the settings file to read, or None if no file is named and none exists in the folders that are searched.

    Raises:
        ConfigError: If the file that an argument or ``DATA_ENGINE_SETTINGS`` names does not exist.
    """
    source = "--settings" if named is not None else "DATA_ENGINE_SETTINGS"
    given = named if named is not None else environ.get("DATA_ENGINE_SETTINGS", "").strip() or None
    if given is None:
        # A named pipe of that name, or a folder, is somebody else's, and reading a pipe would block.
        places = (folder / SETTINGS_NAME for folder in (folders.cwd, folders.config))
        return next((place for place in places if _is_settings_file(place)), None)
    if not str(given).strip():
        raise ConfigError(f"{source} is empty; pass the settings file, or leave it out")
    try:
        path = Path(parse_location(given, folders.home, folders.cwd))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    if os.path.isdir(path):  # noqa: PTH112 - unlike pathlib's, this never raises
        raise ConfigError(f"cannot read {source} {path}: is a folder; pass the settings file")
    if not os.path.exists(path):  # noqa: PTH110 - as above
        raise ConfigError(f"{source}: {path} does not exist; pass an existing file")
    return path


def _is_settings_file(place: Path) -> bool:
    """Tell whether there is a file; a link whose file is gone was to be one, and without it another store would be used."""
    if os.path.islink(place) and not os.path.exists(place):  # noqa: PTH110, PTH114 - unlike pathlib's, these never raise
        raise ConfigError(f"cannot read {place}: it is a link to a file that does not exist; correct the link, or remove it")
    return os.path.isfile(place)  # noqa: PTH113 - as above


def parse_settings(text: str, *, file: Path, section: str, home: Path | None) -> FileSettings:
    """Read the text of a settings file for one system.

    ``%`` and ``$`` have no meaning; ``~`` is *home*; a relative ``local_storage_dir`` starts at the file's folder. Keys of
    ``[DEFAULT]`` count for every system. Keys and sections of other programs are ignored; what is nearly ours is a problem.

    Raises:
        ConfigError: If the file cannot be used: all its problems, each with section, key, value and remedy.
    """
    problems: list[str] = []
    values = _section(read_sections(own_sections(text, DEFAULT_THREADS), problems), section, problems)
    problems += [problem for key in values if (problem := _misnamed(section, key))]

    def get(key: str, check: Callable[[object], _T]) -> _T | None:
        if key not in values:
            return None
        value = values[key].strip()
        try:
            return check(_unquoted(value))
        except InputError as error:
            shown = "(not shown)" if "@" in value else value.replace("\n", " ")  # a URL may have credentials
            bounded = isinstance(error, OutOfBounds)
            problems.append(f"[{section}] {key} {error}" if bounded else f"[{section}] {key} = {shown}: {error}")
            return None

    settings = FileSettings(
        base_path=get("local_storage_dir", lambda value: _stored_path(value, home, file.parent, section)),
        api_threads=get("api_threads", _threads),
        requests_per_minute=get("requests_per_minute", _rate),
        feed=get("feed", _check_feed),
        history_bases=get("history_bases", _bases),
    )
    if problems:
        one = ", " if problems[0].startswith("line ") else ": "
        heading = f"{file}{one}" if len(problems) == 1 else f"{file}: {len(problems)} problems\n  "
        raise ConfigError(heading + "\n  ".join(problems))
    return settings


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Arguments and environment, what is wrong with them, and which of the two each value came from, by its variable."""

    environ: Mapping[str, str]
    problems: list[str]
    sources: dict[str, str]

    def get(self, option: str, argument: object, variable: str, check: Callable[[object], _T]) -> _T | None:
        """Return the checked argument or, if it is None, the checked variable; None if neither is given or the check fails."""
        value = argument if argument is not None else self.environ.get(variable, "").strip() or None
        if value is not None:
            self.sources[variable] = (option or "given") if argument is not None else variable
            try:
                return check(value)
            except InputError as error:
                name = option if argument is not None else variable
                self.problems.append(f"{name} {error}" if isinstance(error, OutOfBounds) else f"{name}: {error}")
        return None


def _base_path(
    inputs: _Inputs, argument: object, folders: Folders, stored: Path | str | None, stored_source: str
) -> tuple[Path | str, str]:
    """Return where the store is, and the source of that."""
    given = inputs.get(
        "--base-path", argument, "DATA_ENGINE_BASE_PATH", lambda value: parse_location(value, folders.home, folders.cwd)
    )
    if given is not None:
        return given, "--base-path" if argument is not None else "DATA_ENGINE_BASE_PATH"
    if stored is not None:
        if is_below_file(stored):
            inputs.problems.append(f"{stored_source}: local_storage_dir = {stored}: is a file or below one; name a folder")
        return stored, stored_source
    if inputs.problems:
        return "", ""  # without the default, which a user without a home folder does not have: `load_settings` raises anyway
    return parse_location(f"~/{DEFAULT_FOLDER}", folders.home, folders.cwd), "default"


def _unquoted(value: str) -> str:
    """Return a value of a settings file without quotation marks around it."""
    if not value:
        raise ConfigError("is empty; give a value, or remove the line for the default")
    if "\n" in value:
        raise ConfigError("has several lines; a line that begins with spaces continues the line above")
    if re.search(r"\s[#;]", value):
        raise ConfigError("has a comment; move the comment to its own line")
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _misnamed(section: str, key: str) -> str | None:
    """Return the problem of a key that is nearly one of ours, or None; without its value, which may be a credential."""
    if key in CREDENTIALS:
        return f"[{section}] {key}: not read from a settings file; set credentials in the environment or a .env file"
    meant = near_miss(key, _KEYS)
    return f"[{section}] {key}: no such key; use {meant}" if meant else None


def _section(parser: configparser.ConfigParser, section: str, problems: list[str]) -> Mapping[str, str]:
    found = [name for name in parser.sections() if name.strip().lower() == section]
    meant = {name: near_miss(name.strip().lower(), tuple(DEFAULT_THREADS)) for name in parser.sections()}
    problems += [f"has a section [{name}]; use [{close}]" for name, close in meant.items() if close]
    if len(found) == 1:
        return parser[found[0]]
    if found:
        problems.append(f"has the sections {' and '.join(f'[{name}]' for name in found)}; merge them")
    elif not problems or parser.sections():
        present = ", ".join(f"[{name}]" for name in parser.sections()) or "none"
        problems.append(
            f"has no section [{section}] (sections: {present}); add it or, if the file belongs to another program, name another "
            "file with --settings or DATA_ENGINE_SETTINGS"
        )
    return {}


def _stored_path(value: object, home: Path | None, start: Path, section: str) -> Path | str:
    text = str(value)
    if re.search(r"\$\{?[A-Za-z_]|%[A-Za-z_]+%", text):
        raise ConfigError("has a variable, which is not replaced; write the folder, or ~ for your home folder")
    if section != "windows" and DRIVE.match(text):
        raise ConfigError(f"is a path of Windows in section [{section}]; move it to [windows]")
    return parse_location(text, home, start)


_threads = partial(whole_number, most=MAX_THREADS)

_rate = partial(whole_number, most=MAX_REQUESTS_PER_MINUTE)

_bases = partial(whole_number, most=MAX_HISTORY_BASES, least=0)


def check_threads(value: object) -> int:
    """Return the maximum number of concurrent requests.

    Raises:
        ConfigError: If *value* is not a whole number from 1 to 256.
    """
    try:
        return _threads(value)
    except OutOfBounds as error:
        raise ConfigError(f"max_workers {error}") from None


def _check_feed(value: object) -> str:
    return Feed.parse(value).value


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"cannot read {file}: larger than {_MOST_BYTES >> 20} MiB, which no settings file is")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {file}: not UTF-8 text; save it as UTF-8") from error
    if "\0" in text:
        raise ConfigError(f"cannot read {file}: not a text file")
    return text
