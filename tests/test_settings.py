"""Argument, environment, settings.ini, default; and every bad setting is one clear message."""

from __future__ import annotations

import os
import pickle
import re
import traceback
import warnings
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from data_engine.alpaca.credentials import PAIRS, Credentials, check_data_url, find_credentials, missing_credentials_message
from data_engine.errors import ConfigError
from data_engine.settings import Folders, Settings, load_settings, parse_settings, section_for

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folders(tmp_path):
    made = Folders(cwd=tmp_path / "work", config=tmp_path / "config", home=tmp_path / "home")
    for folder in (made.cwd, made.config, made.home):
        folder.mkdir()
    return made


@pytest.fixture
def load(folders):
    """Load settings of a machine that is not this one."""

    def load(environ=None, system="Linux", **arguments) -> Settings:
        return load_settings(environ=environ or {}, system=system, folders=folders, **arguments)

    return load


@pytest.fixture
def ini(folders):
    """Write a settings file, in the working directory if not elsewhere."""

    def write(text: str | bytes, path: Path | None = None) -> Path:
        path = folders.cwd / "settings.ini" if path is None else path
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def said(error: pytest.ExceptionInfo[BaseException]) -> str:
    return str(error.value)


# Systems and defaults


@pytest.mark.parametrize(
    ("system", "section", "threads"),
    [
        ("Windows", "windows", 16), ("Darwin", "macos", 6), ("Linux", "linux", 8),
        ("FreeBSD", "linux", 8), ("SunOS", "linux", 8), ("", "linux", 8),
    ],
)  # fmt: skip
def test_nothing_said_gives_the_defaults_of_the_system(load, folders, system, section, threads):
    assert load(system=system) == Settings(
        base_path=folders.home / "stock_data",
        base_path_source="default",
        api_threads=threads,
        requests_per_minute=None,
        feed=None,
        data_url="https://data.alpaca.markets",
        settings_file=None,
    )
    assert section == section_for(system)


def test_the_environment_and_folders_are_those_of_the_process_where_none_are_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_ENGINE_BASE_PATH", "here")
    monkeypatch.setenv("DATA_ENGINE_THREADS", "3")

    found = load_settings(settings_path=ROOT / "settings.example.ini")
    assert (tmp_path / "here", "DATA_ENGINE_BASE_PATH", 3) == (found.base_path, found.base_path_source, found.api_threads)


@pytest.mark.parametrize("system", ["Windows", "Darwin", "Linux"])
def test_the_example_file_says_what_the_defaults_are(load, folders, system):
    example = load(system=system, settings_path=ROOT / "settings.example.ini")
    default = load(system=system)

    assert [getattr(example, name) for name in ("base_path", "api_threads", "requests_per_minute", "feed", "data_url")] == [
        getattr(default, name) for name in ("base_path", "api_threads", "requests_per_minute", "feed", "data_url")
    ]


def test_each_system_reads_its_own_section(load, ini, folders):
    ini("[windows]\nlocal_storage_dir = C:\\bars\napi_threads=1\n[macos]\napi_threads: 2\n[Linux]\napi_threads = 3\n")

    assert [load(system=system).api_threads for system in ("Windows", "Darwin", "Linux")] == [1, 2, 3]
    assert Path("C:\\bars") == load(system="Windows").base_path


# Precedence

INI = "[linux]\nlocal_storage_dir = /ini\napi_threads = 2\nrequests_per_minute = 200\nfeed = iex\n"
ENVIRON = {
    "DATA_ENGINE_BASE_PATH": "/env", "DATA_ENGINE_THREADS": "3", "DATA_ENGINE_REQUESTS_PER_MINUTE": "1000",
    "DATA_ENGINE_FEED": "otc", "APCA_API_DATA_URL": "http://127.0.0.1:8080/",
}  # fmt: skip
ARGUMENTS = {"base_path": "/arg", "workers": 4, "requests_per_minute": 10_000, "feed": "boats"}


def test_the_file_wins_over_the_default(load, ini):
    file = ini(INI)

    url = "https://data.alpaca.markets"
    assert load() == Settings(Path("/ini"), f"settings.ini [linux]: {file}", 2, 200, "iex", url, file)


def test_the_environment_wins_over_the_file(load, ini):
    file = ini(INI)

    url = "http://127.0.0.1:8080"
    assert load(ENVIRON) == Settings(Path("/env"), "DATA_ENGINE_BASE_PATH", 3, 1000, "otc", url, file)


def test_an_argument_wins_over_everything(load, ini):
    file = ini(INI)

    url = "http://127.0.0.1:8080"
    assert load(ENVIRON, **ARGUMENTS) == Settings(Path("/arg"), "--base-path", 4, 10_000, "boats", url, file)


def test_the_price_bases_that_the_history_keeps_may_be_none(load, ini):
    assert load().history_bases == 1
    ini("[linux]\nhistory_bases = 0\n")
    assert load().history_bases == 0
    assert load({"DATA_ENGINE_HISTORY_BASES": "4"}).history_bases == 4
    with pytest.raises(ConfigError, match="DATA_ENGINE_HISTORY_BASES must be a whole number from 0 to 1,000, not '-1'"):
        load({"DATA_ENGINE_HISTORY_BASES": "-1"})


def test_an_empty_variable_is_one_that_is_not_set(load):
    assert load() == load(dict.fromkeys([*ENVIRON, "DATA_ENGINE_SETTINGS"], " "))


def test_an_argument_makes_its_variable_irrelevant(load):
    assert load({"DATA_ENGINE_THREADS": "many"}, workers=5).api_threads == 5


@pytest.mark.parametrize(("feed", "text"), [("SIP", "sip"), (" iex ", "iex"), ("account", "account")])
def test_a_feed_is_a_name_in_any_case(load, feed, text):
    assert text == load(feed=feed).feed


def test_a_feed_may_be_alpacas_own_type(load):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # alpaca-py imports what websockets has deprecated
        from alpaca.data.enums import DataFeed

    assert load(feed=DataFeed.IEX).feed == "iex"


def test_settings_cannot_be_changed(load):
    with pytest.raises(FrozenInstanceError):
        load().api_threads = 1


# Which file


def test_the_file_is_the_named_one_then_the_variables_then_here_then_the_users(load, ini, folders, tmp_path):
    users = ini("[linux]\napi_threads = 4\n", folders.config / "settings.ini")
    assert (4, users) == (load().api_threads, load().settings_file)

    ini("[linux]\napi_threads = 3\n")
    assert load().api_threads == 3

    variable = {"DATA_ENGINE_SETTINGS": str(ini("[linux]\napi_threads = 2\n", tmp_path / "b.ini"))}
    assert load(variable).api_threads == 2

    assert load(variable, settings_path=ini("[linux]\napi_threads = 1\n", tmp_path / "a.ini")).api_threads == 1


def test_another_name_of_the_file_is_in_the_source(load, ini, tmp_path):
    path = ini("[linux]\nlocal_storage_dir = /x\n", tmp_path / "mine.ini")

    assert f"mine.ini [linux]: {path}" == load(settings_path=path).base_path_source


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_named_file_must_be_there(load, folders, how):
    with pytest.raises(ConfigError, match=r"absent\.ini") as error:
        load(settings_path="absent.ini") if how == "argument" else load({"DATA_ENGINE_SETTINGS": "absent.ini"})

    assert said(error).startswith("--settings: " if how == "argument" else "DATA_ENGINE_SETTINGS: ")
    assert str(folders.cwd / "absent.ini") in said(error)


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_named_file_must_not_be_a_folder(load, tmp_path, how):
    with pytest.raises(ConfigError, match="is a folder") as error:
        load(settings_path=tmp_path) if how == "argument" else load({"DATA_ENGINE_SETTINGS": str(tmp_path)})

    assert ("--settings" if how == "argument" else "DATA_ENGINE_SETTINGS") in said(error)
    assert str(tmp_path) in said(error)


def test_a_named_file_may_start_at_home(load, ini, folders):
    ini("[linux]\napi_threads = 9\n", folders.home / "mine.ini")

    assert load({"DATA_ENGINE_SETTINGS": "~/mine.ini"}).api_threads == 9


@pytest.mark.parametrize(("named", "value"), [("", ""), ("~bob/x", "~bob/x"), ("a\0b", r"a\\x00b"), (".", "work")])
def test_a_name_that_is_no_file_is_refused(load, named, value):
    with pytest.raises(ConfigError, match=rf"--settings.*{value}"):
        load(settings_path=named)


def test_a_name_that_no_system_takes_is_no_file(load, ini):
    with pytest.raises(ConfigError, match="x" * 300):
        load(settings_path="x" * 300)
    ini(f"[linux]\nlocal_storage_dir = {'x' * 300}\n")
    assert load().base_path_source.startswith("settings.ini")  # for the store to refuse


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody can read")
def test_a_file_that_cannot_be_read_says_so(load):
    with pytest.raises(ConfigError, match="/proc/self/mem"):
        load(settings_path="/proc/self/mem")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the working directory of a process")
def test_a_working_directory_that_is_gone_says_so(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(ConfigError, match="working directory"):
        load_settings(environ={})


def test_a_folder_of_that_name_is_not_the_file(load, folders):
    (folders.cwd / "settings.ini").mkdir()

    assert load().settings_file is None


# Where the store is


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("~", "home", id="home"),
        pytest.param("~/bars", "home/bars", id="below-home"),
        pytest.param("~\\bars", "home/bars", id="below-home-as-windows-writes-it"),
        pytest.param("bars/x", "work/bars/x", id="relative-to-the-files-folder"),
        pytest.param("100%", "work/100%", id="a-percent-sign-means-nothing"),
        pytest.param("%(home)s", "work/%(home)s", id="nothing-is-interpolated"),
        pytest.param('"with space"', "work/with space", id="quotation-marks-are-cut-off"),
        pytest.param("a=b", "work/a=b", id="an-equals-sign"),
        pytest.param(
            "m\N{LATIN SMALL LETTER A WITH DIAERESIS}rkte",
            "work/m\N{LATIN SMALL LETTER A WITH DIAERESIS}rkte",
            id="letters-of-the-world",
        ),
    ],
)
def test_the_folder_of_the_file_is_read(load, ini, tmp_path, text, expected):
    ini(f"[linux]\nlocal_storage_dir = {text}\n")

    assert tmp_path / expected == load().base_path


def test_a_relative_folder_starts_where_it_was_said(load, ini, folders, tmp_path):
    file = ini("[linux]\nlocal_storage_dir = bars\n", folders.config / "settings.ini")

    assert folders.config / "bars" == load(settings_path=file).base_path
    assert folders.cwd / "bars" == load(base_path="bars").base_path
    assert folders.cwd / "bars" == load({"DATA_ENGINE_BASE_PATH": "bars"}).base_path
    assert folders.home / "bars" == load(base_path=Path("~/bars")).base_path


@pytest.mark.parametrize("address", ["s3://bucket", "s3://bucket/a/b", "s3://bucket/", "s3://my.bucket-2/a=b/c_d/"])
def test_an_address_of_an_object_store_is_taken_without_its_last_slash(load, ini, address):
    ini(f"[linux]\nlocal_storage_dir = {address}\n")

    assert [address.rstrip("/")] * 3 == [
        load().base_path,
        load(base_path=address).base_path,
        load({"DATA_ENGINE_BASE_PATH": address}).base_path,
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("a\0b", r"a\\x00b", id="a-nul"),
        pytest.param("s3://", "s3://", id="no-bucket"),
        pytest.param("s3://bucket//a", "s3://bucket/", id="an-empty-part"),
        pytest.param("s3://bucket/a/../b", "s3://bucket/", id="a-way-out"),
        pytest.param("s3://bucket/*", "s3://bucket/", id="a-pattern"),
        pytest.param("s3://bucket/a?b", "s3://bucket/", id="a-query"),
        pytest.param("s3://key:secret@bucket", "AWS", id="credentials"),
        pytest.param("gs://bucket", "gs://bucket", id="another-store"),
        pytest.param(Path("s3://bucket/x"), "s3:/bucket/x", id="an-address-that-a-path-has-spoiled"),
        pytest.param("~bob/bars", "~bob/bars", id="the-home-of-another"),
        pytest.param(7, "7", id="a-number"),
    ],
)
def test_what_names_no_place_is_refused(load, value, why):
    with pytest.raises(ConfigError, match=rf"^--base-path: .*{why}"):
        load(base_path=value)


def test_credentials_in_an_address_are_refused_and_not_shown(load, ini):
    ini("[linux]\nlocal_storage_dir = s3://AKIAKEY:sEcReT@bucket\n")

    for arguments in ({}, {"base_path": "s3://AKIAKEY:sEcReT@bucket"}):
        with pytest.raises(ConfigError, match="s3://") as error:
            load(**arguments)
        assert not re.search("AKIAKEY|sEcReT", str(error.value))


def test_a_user_without_a_home_needs_a_folder(folders):
    homeless = Folders(folders.cwd, folders.config, None)

    with pytest.raises(ConfigError, match="home"):
        load_settings(environ={}, folders=homeless)
    assert Path("/x") == load_settings(environ={}, folders=homeless, base_path="/x").base_path


# Numbers


@pytest.mark.parametrize(
    "value", [0, -1, 257, 1_000_000, 1.5, True, "many", "", "1_0", "+8", "8.0", "\N{ARABIC-INDIC DIGIT EIGHT}", "9" * 5000]
)
def test_a_number_of_threads_out_of_reach_is_refused_wherever_it_is_said(load, value):
    with pytest.raises(ConfigError, match=r"^--workers .*256"):
        load(workers=value)
    if isinstance(value, str) and value:
        with pytest.raises(ConfigError, match=r"^DATA_ENGINE_THREADS .*256"):
            load({"DATA_ENGINE_THREADS": value})


@pytest.mark.parametrize("value", [1, 256, "1", "256", "016"])
def test_a_number_of_threads_within_reach_is_taken(load, value):
    assert int(value) == load(workers=value).api_threads


def test_all_problems_of_arguments_and_environment_are_in_one_error(load):
    environ = {"DATA_ENGINE_FEED": "nyse", "APCA_API_DATA_URL": "ftp://x", "DATA_ENGINE_REQUESTS_PER_MINUTE": "0"}

    with pytest.raises(ConfigError) as error:
        load(environ, base_path="", workers=0)

    sources = [line.replace(":", " ").split()[0] for line in said(error).splitlines()]
    assert sources == ["--base-path", "--workers", "DATA_ENGINE_REQUESTS_PER_MINUTE", "DATA_ENGINE_FEED", "APCA_API_DATA_URL"]


# Bad files


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("[windows]\n", "[linux] (sections: [windows])", id="no-section"),
        pytest.param("", "[linux] (sections: none)", id="an-empty-file"),
        pytest.param("[mypy]\nstrict = true\n", "--settings", id="the-file-of-another-program"),
        pytest.param("api_threads = 8\n", ", line 1: ", id="no-section-headers"),
        pytest.param("[linux]\nwhat is this\n", "line 2: ", id="a-line-of-prose"),
        pytest.param("[linux]\napi_threads\n", "line 2: ", id="a-key-without-a-value"),
        pytest.param(
            "[linux]\napi_threads = many\n",
            "[linux] api_threads must be a whole number from 1 to 256, not 'many'",
            id="many",
        ),
        pytest.param(
            "[linux]\napi_threads = 0\n", "[linux] api_threads must be a whole number from 1 to 256, not 0", id="no-threads"
        ),
        pytest.param(
            "[linux]\napi_threads = 1000000\n",
            "[linux] api_threads must be a whole number from 1 to 256, not 1000000",
            id="a-million-threads",
        ),
        pytest.param("[linux]\napi_threads =\n", "[linux] api_threads = : is empty", id="an-empty-number"),
        pytest.param("[linux]\nlocal_storage_dir =\n", "[linux] local_storage_dir = : is empty", id="an-empty-folder"),
        pytest.param("[linux]\nlocal_storage_dir = ''\n", "is empty", id="an-empty-folder-in-quotation-marks"),
        pytest.param(
            "[linux]\nrequests_per_minute = -5\n",
            "[linux] requests_per_minute must be a whole number from 1 to 1,000,000, not '-5'",
            id="a-negative-rate",
        ),
        pytest.param("[linux]\nfeed = nyse\n", "[linux] feed = nyse: ", id="an-unknown-feed"),
        pytest.param("[linux]\napi_thread = 8\n", "[linux] api_thread: no such key; use api_threads", id="a-key-misspelt"),
        pytest.param("[linux]\nlocalstoragedir = /x\n", "localstoragedir: no such key; use local_storage_dir", id="no-lines"),
        pytest.param("[linux]\napi_threads = 8\n[windos]\n", "[windos]; use [windows]", id="a-section-misspelt"),
        pytest.param("[linux]\napi_threads = 8 ; fast\n", "[linux] api_threads = 8 ; fast: ", id="a-comment-behind-a-number"),
        pytest.param(
            "[linux]\nlocal_storage_dir = /x  # big disk\n",
            "[linux] local_storage_dir = /x  # big disk: ",
            id="a-comment-behind-a-folder",
        ),
        pytest.param(
            "[linux]\nlocal_storage_dir = /x\n   api_threads = 8\n",
            "[linux] local_storage_dir = /x api_threads = 8: ",
            id="an-indented-key",
        ),
        pytest.param("[linux]\nlocal_storage_dir = $HOME/bars\n", "$HOME/bars: ", id="a-variable"),
        pytest.param("[linux]\nlocal_storage_dir = %USERPROFILE%\\bars\n", "%USERPROFILE%\\bars: ", id="a-variable-of-windows"),
        pytest.param(
            "[linux]\nlocal_storage_dir = C:\\bars\n",
            "[linux] local_storage_dir = C:\\bars: ",
            id="the-path-of-another-system",
        ),
        pytest.param("[linux]\napi_threads = 1\napi_threads = 2\n", "line 3: [linux] api_threads", id="a-key-twice"),
        pytest.param("[linux]\n[macos]\n[linux]\n", "line 3: section [linux]", id="a-section-twice"),
        pytest.param("[linux]\n[Linux]\n", "[linux] and [Linux]", id="a-section-in-two-cases"),
        pytest.param("[linux]\napi_threads = 8\n".encode("utf-16"), "UTF-8", id="utf-16"),
        pytest.param(b"[linux]\nfeed = \xe4\n", "UTF-8", id="another-encoding"),
        pytest.param(b"[linux]\n\0\n", "text", id="a-nul"),
    ],
)
def test_a_bad_file_is_one_clear_message_that_names_it(load, ini, text, problem):
    file = ini(text)

    with pytest.raises(ConfigError) as error:
        load()

    assert str(file) in said(error)
    assert problem in said(error)
    assert "\n" not in said(error)


def test_all_problems_of_a_file_are_in_one_error(load, ini):
    file = ini("[linux]\napi_threads = many\nfeed = nyse\napi_threads = 0\nfeeds = red\nrequests_per_minute =\n")

    with pytest.raises(ConfigError) as error:
        load()

    assert [re.split(r":| must", line)[0] for line in said(error).splitlines()] == [
        str(file), "  line 4", "  [linux] feeds", "  [linux] api_threads", "  [linux] requests_per_minute = ",
        "  [linux] feed = nyse",
    ]  # fmt: skip
    assert f"{file}: 5 " in said(error)


def test_a_bad_file_is_refused_even_where_it_is_overruled(load, ini):
    ini("[linux]\napi_threads = many\n")

    with pytest.raises(ConfigError, match="many"):
        load(workers=4)


def test_keys_and_sections_of_other_programs_are_passed_over(load, ini):
    """As in the file of the legacy pipeline, which a backtester and a database share."""
    ini(
        "[DEFAULT]\nlog_level = INFO\n[linux]\nlocal_storage_dir = /bars\napi_threads = 3\nfee = 0.005\nlocal_log_dir = /logs\n"
        "api_key = ABC\nbroker_token = x\n[backtest]\nverbose\ncash = 10000\ncash = 20000\n[database]\nhost: db %(x)s\n  more\n"
    )

    settings = load()
    assert (str(settings.base_path), settings.api_threads) == ("/bars", 3)


def test_the_sections_of_other_systems_are_not_looked_at(load, ini):
    ini("[linux]\napi_threads = 3\n[windows]\napi_threads = many\n[other]\nx = y\n")

    assert load().api_threads == 3


@pytest.mark.parametrize("below", ["", "/further/down"])
def test_a_folder_that_is_a_file_is_refused(load, ini, tmp_path, below):
    (tmp_path / "taken").write_text("x")
    ini(f"[linux]\nlocal_storage_dir = {tmp_path}/taken{below}\n")

    with pytest.raises(ConfigError, match=r"\[linux\].*local_storage_dir = .*taken"):
        load()
    assert tmp_path / "free" == load(base_path=tmp_path / "free").base_path


def test_a_mark_and_line_ends_of_windows_are_tolerated(load, ini):
    ini(b"\xef\xbb\xbf; made with Notepad\r\n[linux]\r\napi_threads = 3\r\n")

    assert load().api_threads == 3


def test_credentials_in_a_file_are_refused_and_not_shown(load, ini):
    ini("[linux]\nalpaca_secret_key = hunter2\n")

    with pytest.raises(ConfigError, match=r"\.env") as error:
        load()
    assert "hunter2" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("line", ["hunter2", "[linux]\nhunter2\n", "x = hunter2\n"])
def test_a_line_that_cannot_be_read_is_not_shown(line, tmp_path):
    with pytest.raises(ConfigError) as error:
        parse_settings(line, file=tmp_path / "f.ini", section="linux", home=None)

    assert "hunter2" not in said(error)


# The address of the server


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://data.alpaca.markets", "https://data.alpaca.markets"),
        ("https://data.alpaca.markets/", "https://data.alpaca.markets"),
        (" https://proxy.example:8443/alpaca/ ", "https://proxy.example:8443/alpaca"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://127.8.9.10:1", "http://127.8.9.10:1"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("HTTP://LOCALHOST:80", "HTTP://LOCALHOST:80"),
    ],
)
def test_https_and_this_machine_are_accepted(url, expected):
    assert expected == check_data_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("http://data.alpaca.markets", "data.alpaca.markets", id="plain-http"),
        pytest.param("http://localhost.evil.example", "plain http", id="a-name-that-begins-like-this-machine"),
        pytest.param("http://127.0.0.1.evil.example", "plain http", id="a-name-that-begins-like-its-address"),
        pytest.param("http://0.0.0.0", "plain http", id="every-address"),
        pytest.param("http://127.1", "plain http", id="a-short-form"),
        pytest.param("http://2130706433", "plain http", id="an-address-as-a-number"),
        pytest.param("http://[::ffff:10.0.0.1]", "plain http", id="an-address-inside-another"),
        pytest.param("https://user:hunter2@data.alpaca.markets", "user or password", id="a-password"),
        pytest.param("http://127.0.0.1\\@evil.example", "plain characters", id="a-backslash"),
        pytest.param("https://x/?key=hunter2", "query", id="a-query"),
        pytest.param("https://x/#hunter2", "fragment", id="a-fragment"),
        pytest.param("https://x?", "query", id="an-empty-query"),
        pytest.param("ftp://x", "https://", id="another-protocol"),
        pytest.param("data.alpaca.markets", "https://", id="no-protocol"),
        pytest.param("hunter2", "https://", id="a-key-in-the-wrong-place"),
        pytest.param("https://", "https://", id="no-host"),
        pytest.param("https://a_b%2e", "https://", id="a-strange-host"),
        pytest.param("https://x:port", "host or port", id="a-port-that-is-none"),
        pytest.param("https://x:99999", "host or port", id="a-port-out-of-range"),
        pytest.param("https://[::1", "host or port", id="an-open-bracket"),
        pytest.param("https://x/\r\nX-Evil: 1", "plain characters", id="a-line-break"),
        pytest.param(
            "https://d\N{CYRILLIC SMALL LETTER A}ta.alpaca.markets", "plain characters", id="a-letter-that-looks-like-another"
        ),
        pytest.param("", "must be an address", id="nothing"),
        pytest.param(None, "must be an address", id="none"),
    ],
)
def test_any_other_address_is_refused_without_showing_a_secret(url, why):
    with pytest.raises(ConfigError, match=why) as error:
        check_data_url(url)

    assert "hunter2" not in said(error)


# Credentials

OURS, ALPACAS = PAIRS


def pair(names, key="K", secret="S") -> dict[str, str]:
    return dict(zip(names, (key, secret), strict=True))


@pytest.fixture
def dotenv(tmp_path):
    def write(text: str | bytes | dict[str, str]) -> Path:
        if isinstance(text, dict):
            text = "".join(f"{name}={value}\n" for name, value in text.items())
        path = tmp_path / ".env"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def found(tmp_path, environ=None) -> tuple[str, str] | None:
    credentials = find_credentials(environ or {}, cwd=tmp_path)
    return None if credentials is None else (credentials.key, credentials.secret)


@pytest.mark.parametrize("names", PAIRS)
def test_a_pair_is_found_in_the_environment_or_the_file(tmp_path, dotenv, names):
    assert find_credentials(pair(names), cwd=tmp_path) == Credentials("K", "S", f"{names[0]} and {names[1]} in the environment")
    file = dotenv(pair(names))
    assert find_credentials({}, cwd=tmp_path) == Credentials("K", "S", f"{names[0]} and {names[1]} in {file}")
    assert find_credentials({}, dotenv_path=file) == find_credentials({}, cwd=tmp_path)


def test_no_credentials_are_none(tmp_path):
    assert find_credentials({}, cwd=tmp_path) is None
    assert find_credentials({"ALPACA_API_KEY": "", "APCA_API_KEY_ID": "  "}, cwd=tmp_path) is None


@pytest.mark.parametrize(
    ("environ", "file", "expected"),
    [
        pytest.param({**pair(OURS, "1"), **pair(ALPACAS, "2")}, {}, "1", id="our-names-go-first"),
        pytest.param({}, {**pair(OURS, "1"), **pair(ALPACAS, "2")}, "1", id="our-names-go-first-in-the-file"),
        pytest.param(pair(OURS, "1"), pair(OURS, "2"), "1", id="the-environment-wins-over-the-file"),
        pytest.param(pair(ALPACAS, "1"), pair(OURS, "2"), "1", id="whatever-the-names"),
        pytest.param({OURS[0]: "2", **pair(ALPACAS, "2")}, {}, "2", id="a-half-of-the-other-names-that-agrees"),
        pytest.param({OURS[0]: "1"}, {OURS[1]: "S"}, "1", id="each-holds-a-half"),
        pytest.param({OURS[0]: "1"}, pair(OURS, "1"), "1", id="a-half-that-agrees"),
        pytest.param({OURS[0]: ""}, pair(OURS, "2"), "2", id="an-empty-half-is-none"),
    ],
)
def test_which_pair_is_taken(tmp_path, dotenv, environ, file, expected):
    dotenv(file)

    assert (expected, "S") == found(tmp_path, environ)


@pytest.mark.parametrize("names", PAIRS)
@pytest.mark.parametrize("there", [0, 1])
@pytest.mark.parametrize("where", ["environment", "file"])
def test_half_a_pair_names_the_missing_variable(tmp_path, dotenv, names, there, where):
    half = {names[there]: "hunter2"}
    if where == "file":
        dotenv(half)

    with pytest.raises(ConfigError, match=f"^{names[there]} .*{names[1 - there]}") as error:
        found(tmp_path, half if where == "environment" else {})
    assert "hunter2" not in said(error)


def test_halves_of_two_pairs_are_never_put_together(tmp_path, dotenv):
    file = dotenv(pair(OURS, "hunter1", "hunter2"))

    with pytest.raises(ConfigError, match=r"ALPACA_API_KEY.*ALPACA_SECRET_KEY") as error:
        found(tmp_path, {"ALPACA_API_KEY": "hunter3"})
    assert str(file) in said(error)
    assert "hunter" not in said(error)


@pytest.mark.parametrize(
    ("environ", "file", "named"),
    [
        pytest.param({OURS[0]: "hunter1", **pair(ALPACAS, "hunter2")}, {}, "the environment", id="half-a-new-pair"),
        pytest.param({ALPACAS[1]: "hunter1", **pair(OURS, "K", "hunter2")}, {}, "the environment", id="the-other-half"),
        pytest.param({OURS[0]: "hunter1"}, pair(ALPACAS, "hunter2"), ".env", id="half-in-the-environment-beside-a-file"),
    ],
)
def test_half_a_pair_beside_a_pair_of_another_account_is_refused(tmp_path, dotenv, environ, file, named):
    dotenv(file)

    with pytest.raises(ConfigError, match=r"differ.*ALPACA_API_KEY.*APCA_API_KEY_ID") as error:
        found(tmp_path, environ)
    assert named in said(error)
    assert "hunter" not in said(error)


def test_of_two_pairs_the_one_that_is_not_used_is_named(tmp_path):
    both = find_credentials({**pair(OURS, "hunter1"), **pair(ALPACAS, "hunter2")}, cwd=tmp_path)
    same = find_credentials({**pair(OURS, "1"), **pair(ALPACAS, "1")}, cwd=tmp_path)

    assert both.source == f"{' and '.join(OURS)} in the environment, not {' and '.join(ALPACAS)}"
    assert same.source == f"{' and '.join(OURS)} in the environment"


@pytest.mark.parametrize("value", [" K ", "'K'", '"K"', "K\n", "' K '"])
def test_what_surrounds_a_pasted_value_is_cut_off(tmp_path, value):
    assert found(tmp_path, pair(OURS, value)) == ("K", "S")


@pytest.mark.parametrize(
    "value",
    ["hunter 2", "hunter\n2", "hunter\r\nX: 2", "hunter\0", "hunter\t2", "hunterä", "hunter\x7f", "hunter\N{NO-BREAK SPACE}2"],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_value_that_would_break_a_header_is_refused_and_not_shown(tmp_path, value, which):
    environ = {**pair(ALPACAS), ALPACAS[which]: value}

    with pytest.raises(ConfigError, match=ALPACAS[which]) as error:
        found(tmp_path, environ)
    assert "hunter" not in "".join(traceback.format_exception(error.value))


def test_a_file_as_people_write_it_is_read(tmp_path, dotenv):
    dotenv("\ufeff# keys\r\nexport ALPACA_API_KEY='K'\r\nALPACA_SECRET_KEY = \"a${HOME}#b\"  # secret\r\nOTHER=1\r\n")

    assert found(tmp_path) == ("K", "a${HOME}#b")


def test_the_process_environment_is_not_changed(tmp_path, dotenv, monkeypatch):
    for name in (*OURS, *ALPACAS):
        monkeypatch.delenv(name, raising=False)
    dotenv(pair(OURS))
    monkeypatch.chdir(tmp_path)

    assert find_credentials() is not None
    assert find_credentials({}) == find_credentials()
    monkeypatch.setenv("ALPACA_API_KEY", "K")


def test_a_file_in_another_encoding_is_refused_without_its_content(tmp_path, dotenv):
    dotenv(b"ALPACA_API_KEY=hunter\xe4\n")

    with pytest.raises(ConfigError, match="UTF-8") as error:
        found(tmp_path)
    assert "hunter" not in "".join(traceback.format_exception(error.value))


def test_a_named_file_of_credentials_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="absent"):
        find_credentials({}, dotenv_path="absent", cwd=tmp_path)
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        find_credentials({}, dotenv_path=tmp_path)


def test_a_virtual_environment_called_dot_env_is_no_file(tmp_path):
    (tmp_path / ".env").mkdir()

    assert find_credentials({}, cwd=tmp_path) is None


def test_credentials_show_neither_half():
    credentials = Credentials("hunter1", "hunter2", "a test")

    for text in (repr(credentials), str(credentials), f"{credentials}", f"{[credentials]}"):
        assert "hunter" not in text
    assert "a test" in repr(credentials)
    assert credentials == pickle.loads(pickle.dumps(credentials))
    with pytest.raises(FrozenInstanceError):
        credentials.key = "x"


def test_the_message_without_credentials_says_what_to_do():
    lines = missing_credentials_message().splitlines()

    assert lines[0] == "no credentials"
    assert all(name in "\n".join(lines) for name in (*OURS, *ALPACAS, ".env", "data-engine demo"))
    assert max(map(len, lines)) <= 80


def test_a_link_whose_settings_file_is_gone_is_an_error_and_chooses_no_other_store(tmp_path):
    (tmp_path / "settings.ini").symlink_to(tmp_path / "gone.ini")

    with pytest.raises(ConfigError, match=r"settings\.ini: it is a link to a file that does not exist"):
        load_settings(environ={}, cwd=tmp_path)


def test_an_empty_name_of_a_settings_file_has_a_remedy_for_settings(tmp_path):
    with pytest.raises(ConfigError, match=r"^--settings is empty; pass the settings file, or leave it out$"):
        load_settings(settings_path="", environ={}, cwd=tmp_path)
