"""``schedule show``: what it prints is read by each system's own rules, and what can be run here is run."""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import time as clock
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from data_engine.cli import schedule
from data_engine.cli.nightly_job import Zone, machine_zone, start_of
from data_engine.sandbox import Sandbox, SimulatedMarket
from running import account, here

NEW_YORK = ZoneInfo("America/New_York")
STRANGE = "stocks of me & $HOME 50% 'x'"
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose name has what each system reads in a way of its own, with keys and an installed program."""
    made = tmp_path / STRANGE
    made.mkdir()
    installed = made / "data-engine"
    installed.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m data_engine "$@"\n')
    installed.chmod(0o755)
    monkeypatch.chdir(made)
    monkeypatch.setattr(schedule, "program", lambda: (str(installed),))
    with Sandbox(SimulatedMarket()) as server:
        words = ("ingest", "AAPL", "--timeframe", "1Day", "--start", "2024-06-03", "--end", "2024-06-03", "--no-actions")
        assert here(*words, "--base-path", made / "store", url=server.url).code == 0
    return made


def shown(system: str, folder: Path, *words: str) -> dict[str, Any]:
    ran = here("schedule", "show", system, "--base-path", folder / "store", "--json", *words, env={})
    assert ran.code == 0, ran.text
    return dict(ran.json)


def words_of(folder: Path, *more: str) -> list[str]:
    return [str(folder / "data-engine"), "update", "--quiet", "--base-path", str(folder / "store"), *more]


def test_systemd_takes_the_units(folder: Path, tmp_path: Path) -> None:
    made = shown("systemd", folder, "--", "--timeframe", "1Day")
    units = [tmp_path / Path(path).name for path in made["files"]]
    for unit, text in zip(units, made["files"].values(), strict=True):
        unit.write_text(text)

    (line,) = re.findall(r"^ExecStart=(.*)$", units[0].read_text(), re.MULTILINE)
    assert [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)] == [
        "/usr/bin/env",
        *words_of(folder, "--timeframe", "1Day"),
    ]
    (line,) = re.findall(r"^WorkingDirectory=(.*)$", units[0].read_text(), re.MULTILINE)
    assert line.replace("%%", "%") == str(folder)
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    (calendar,) = re.findall(r"^OnCalendar=(.*)$", units[1].read_text(), re.MULTILINE)
    for words in (["verify", "--man=no", *map(str, units)], ["calendar", calendar]):
        ran = subprocess.run([analyze, *words], capture_output=True, text=True, timeout=60, check=False)
        said = [line for line in (ran.stdout + ran.stderr).splitlines() if "data-engine-update" in line]
        assert (ran.returncode, said) == (0, []), ran.stdout + ran.stderr


def test_the_line_of_cron_runs_as_cron_runs_it(folder: Path) -> None:
    made = shown("cron", folder, "--", "--no-actions")
    (text,) = made["files"].values()
    *_, line = text.splitlines()
    command = line.split(" ", 5)[5]
    assert not re.search(r"(?<!\\)%", command)  # cron ends the line there
    with Sandbox(SimulatedMarket()) as server:
        (folder / ".env").write_text("ALPACA_API_KEY=any\nALPACA_SECRET_KEY=any\n")
        env = {"PATH": "/usr/bin:/bin", "HOME": str(folder.parent), "APCA_API_DATA_URL": server.url}
        env |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        shell = ["/bin/sh", "-c", command.replace(r"\%", "%")]
        assert subprocess.run(shell, env=env, cwd="/", timeout=120, check=False).returncode == 0
    assert "1 of 1 series up to date" in Path(made["log"]).read_text()


def test_launchd_gets_a_property_list(folder: Path) -> None:
    made = shown("launchd", folder, "--at", "21:30")
    (text,) = made["files"].values()
    agent = plistlib.loads(text.encode())
    strings = [one.text for one in ET.fromstring(text).iterfind("dict/array/string")]
    assert strings == agent["ProgramArguments"] == words_of(folder)
    assert (agent["WorkingDirectory"], agent["StandardErrorPath"]) == (str(folder), made["log"])
    starts = agent["StartCalendarInterval"]
    assert (len(starts), {one["Minute"] for one in starts}) == (5, {30})


def test_the_task_scheduler_gets_a_task(folder: Path) -> None:
    made = shown("windows", folder)
    (text,) = made["files"].values()
    task = ET.fromstring(text)
    days = [one.tag.removeprefix(TASK) for one in task.iterfind(f".//{TASK}DaysOfWeek/*")]
    assert (len(days), "Sunday" in days) == (5, False)
    folders = [one.text for one in task.iterfind(f".//{TASK}WorkingDirectory")]
    assert folders == [str(folder)]
    (arguments,) = [one.text or "" for one in task.iterfind(f".//{TASK}Arguments")]
    # With /s, cmd takes the first and the last quotation mark away, and runs what is between them.
    inner = re.fullmatch(r'/d /s /c "(.*)"', arguments)
    assert inner is not None
    assert re.findall(r'"([^"]*)"|(\S+)', inner[1])[0] == (str(folder / "data-engine"), "")
    assert inner[1].endswith(f'>> "{made["log"]}" 2>&1')


CRONTAB = """#!/bin/sh
if [ "$1" = - ]; then cat > "$HOME/new" && mv "$HOME/new" "$HOME/crontab"; else cat "$HOME/crontab"; fi
"""


def installed_by_cron(home: Path, made: dict[str, Any]) -> list[str]:
    """Write the file and run the commands that were printed, with a `crontab` that keeps its lines in *home*; return them."""
    for path, text in made["files"].items():
        (home / path.removeprefix("~/")).write_text(text)
    (home / "crontab.sh").write_text(CRONTAB)
    (home / "crontab.sh").chmod(0o755)
    (home / "bin").mkdir(exist_ok=True)
    if not (home / "bin" / "crontab").exists():
        (home / "bin" / "crontab").symlink_to(home / "crontab.sh")
    env = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "HOME": str(home)}
    for command in made["commands"]:
        subprocess.run(["/bin/sh", "-c", command], env=env, timeout=60, check=True)
    return (home / "crontab").read_text().splitlines()


def test_a_job_that_is_installed_again_replaces_itself_and_no_other_line(folder: Path, tmp_path: Path) -> None:
    theirs = ["# mine", "0 4 * * * data-engine update --quiet --base-path elsewhere"]
    (tmp_path / "crontab").write_text("\n".join(theirs) + "\n")
    installed_by_cron(tmp_path, shown("cron", folder))
    *before, _, line = installed_by_cron(tmp_path, shown("cron", folder, "--at", "21:30", "--", "--wait", "60"))

    assert before == theirs
    assert "--wait 60" in line


@pytest.mark.parametrize("system", ["systemd", "cron", "launchd", "windows"])
def test_two_stores_have_two_jobs_and_one_store_has_one_however_it_is_named(folder: Path, system: str) -> None:
    shutil.copytree(folder / "store", folder / "other")
    (folder / "link").symlink_to(folder / "store")

    def made(store: str) -> dict[str, Any]:
        ran = here("schedule", "show", system, "--base-path", folder / store, "--json", env={})
        return dict(ran.json)

    one, other, same = made("store"), made("other"), made("link")

    assert set(one["files"]).isdisjoint(other["files"])
    assert one["commands"] != other["commands"]
    assert set(one["files"]) == set(same["files"])
    assert one["commands"] == same["commands"]


def test_what_is_installed_already_is_replaced_by_launchd_and_windows(folder: Path) -> None:
    first, then = shown("launchd", folder)["commands"]
    assert first.startswith("launchctl bootout gui/$(id -u)/data-engine-update-")
    assert then.startswith("launchctl bootstrap gui/$(id -u) ")
    (create,) = shown("windows", folder)["commands"]
    assert create.endswith(" /F")


@pytest.mark.parametrize(
    ("zone", "local", "days"),
    [
        ("America/New_York", "20:45", (1, 2, 3, 4, 5)),
        ("America/Los_Angeles", "17:45", (1, 2, 3, 4, 5)),
        ("UTC", "01:45", (2, 3, 4, 5, 6)),
        ("Europe/Berlin", "02:45", (2, 3, 4, 5, 6)),
        ("Asia/Kolkata", "07:15", (2, 3, 4, 5, 6)),
        ("Australia/Sydney", "12:45", (2, 3, 4, 5, 6)),
    ],
)
def test_in_other_zones_a_job_is_never_early_and_never_long_after(zone: str, local: str, days: tuple[int, ...]) -> None:
    there = ZoneInfo(zone)
    start = start_of(time(20, 45), datetime(2026, 11, 27, 12, tzinfo=UTC), Zone(zone, lambda instant: instant.astimezone(there)))
    assert (f"{start.local:%H:%M}", start.days) == (local, days)
    for day in (date(2026, 11, 28) + timedelta(days=number) for number in range(360)):
        if day.isoweekday() % 7 not in start.days:
            continue
        ran = datetime.combine(day, start.local, there).astimezone(NEW_YORK)
        evening = datetime.combine(ran.date(), time(20, 45), NEW_YORK)
        assert timedelta(0) <= ran - evening <= timedelta(hours=2), day
        assert ran.isoweekday() <= 5


@pytest.mark.skipif(sys.platform == "win32", reason="the zone of a shell is a matter of POSIX")
@pytest.mark.parametrize("system", ["cron", "launchd"])
def test_the_zone_of_the_shell_is_not_that_of_the_machine(folder: Path, system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_in(zone: str) -> dict[str, Any]:
        monkeypatch.setenv("TZ", zone)
        clock.tzset()
        return shown(system, folder)

    try:
        assert made_in("America/New_York") == made_in("Asia/Kolkata")
    finally:
        monkeypatch.delenv("TZ")
        clock.tzset()


def test_the_zone_of_the_machine_is_that_of_its_file_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "zoneinfo" / "Europe"
    folder.mkdir(parents=True)
    (folder / "Berlin").write_bytes(berlin_file().read_bytes())
    (tmp_path / "localtime").symlink_to(folder / "Berlin")
    noon = datetime(2026, 11, 27, 12, tzinfo=UTC)

    there = start_of(time(20, 45), noon, machine_zone(tmp_path / "localtime", "linux"))
    nowhere = start_of(time(20, 45), noon, machine_zone(tmp_path / "none", "linux"))

    assert (f"{there.local:%H:%M}", there.zone) == ("02:45", "Europe/Berlin, UTC+01:00 now")
    assert (f"{nowhere.local:%H:%M}", nowhere.zone) == ("01:45", "UTC, UTC+00:00 now")


def berlin_file() -> Path:
    for folder in (*zoneinfo.TZPATH, str(files("tzdata") / "zoneinfo") if find_spec("tzdata") else ""):
        if (file := Path(folder, "Europe", "Berlin")).is_file():
            return file
    pytest.skip("no file of a time zone")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("cron", "--at", "25:00"), 2),
        (("cron", "--at", "8:45pm"), 2),
        (("cron", "--", "--nonsense"), 2),
        (("cron", "--", "--wait", "soon"), 2),
        (("cron", "--", "--index", "nope"), 2),
        (("cron", "--", "--workers", "lots"), 2),
        (("cron", "--", "--requests-per-minute", "0"), 2),
        (("cron", "--", "--notify", "ftp://x"), 2),
        (("cron", "--", "--dask", "nonsense"), 2),
        (("cron", "--", "--timeframe", "1Min"), 2),
        (("cron", "--", "ZZZQ"), 2),
        (("cron", "--", "AAPL", "--index", "dow30"), 2),
        (("cron", "--", "--settings", "/nope.ini"), 2),
        (("cron", "--", "--base-path", "elsewhere"), 2),
        (("cron", "--", "--base-path=elsewhere"), 2),
        (("cron", "--", "--json"), 2),
        (("cron", "--", "--help"), 2),
        (("cron", "--", "-h"), 2),
        (("at",), 2),
        (("cron", "--base-path", "none"), 4),
    ],
)
def test_what_would_fail_every_night_is_refused_now(folder: Path, words: tuple[str, ...], code: int) -> None:
    store = () if words[1:2] == ("--base-path",) else ("--base-path", "store")
    ran = here("schedule", "show", *store, *words, env={})
    assert (ran.code, "Write" in ran.out, '"files"' in ran.out) == (code, False, False), ran.text


def test_it_says_what_is_written_and_run_and_that_keys_are_needed(folder: Path) -> None:
    ran = here("schedule", "show", "systemd", "--base-path", "store", env=account(None))
    (timer,) = re.findall(r"^Write ~/.config/systemd/user/(data-engine-update-[0-9a-f]{8}.timer):$", ran.out, re.MULTILINE)
    assert f"\n  systemctl --user enable --now {timer}\n" in ran.out
    assert str(folder / ".env") in ran.err
    (folder / ".env").write_text("ALPACA_API_KEY=any\nALPACA_SECRET_KEY=any\n")
    assert ".env" not in here("schedule", "show", "systemd", "--base-path", "store", env={}).err


def test_a_file_without_keys_is_not_taken_for_one_with(folder: Path) -> None:
    (folder / ".env").write_text("OTHER=x\n")
    assert "needs the API keys" in here("schedule", "show", "cron", "--base-path", "store", env={}).err
    (folder / ".env").write_text("ALPACA_API_KEY=half\n")
    assert "ALPACA_SECRET_KEY is not" in here("schedule", "show", "cron", "--base-path", "store", env={}).err


def test_what_is_set_in_this_shell_and_not_in_the_job_is_named_without_its_value(folder: Path) -> None:
    secret = "https://hooks.example.com/secret"
    here_only = {
        "DATA_ENGINE_NOTIFY": secret,
        "DATA_ENGINE_HISTORY_BASES": "2",
        "DATA_ENGINE_THREADS": "3",
        "APCA_API_DATA_URL": "http://127.0.0.1:1",
        "https_proxy": "http://proxy:1",
        "AWS_PROFILE": "unused",
        "DATA_ENGINE_FEED": "",
    }
    ran = here("schedule", "show", "cron", "--base-path", "store", "--", "--workers=2", env=here_only)
    (line,) = [line for line in ran.err.splitlines() if line.startswith("Set in this shell and not in the job")]
    named = [name for name in here_only if name in line]
    assert named == ["DATA_ENGINE_NOTIFY", "DATA_ENGINE_HISTORY_BASES", "APCA_API_DATA_URL", "https_proxy"]
    assert secret not in ran.text


def test_the_job_says_which_variables_of_its_file_have_no_effect(folder: Path) -> None:
    (folder / ".env").write_text("ALPACA_API_KEY=any\nALPACA_SECRET_KEY=any\nDATA_ENGINE_NOTIFY=https://hooks.example.com/x\n")
    with Sandbox(SimulatedMarket()) as server:
        where = {"APCA_API_DATA_URL": server.url, "ALPACA_API_KEY": "", "ALPACA_SECRET_KEY": ""}
        quiet = here("update", "--quiet", "--no-actions", "--base-path", "store", env=where)
        keys = {"ALPACA_API_KEY": "any", "ALPACA_SECRET_KEY": "any"}
        loud = here("update", "--no-actions", "--base-path", "store", env={**where, **keys})
    assert "ignored in .env: DATA_ENGINE_NOTIFY" in quiet.err
    assert "DATA_ENGINE_NOTIFY" in loud.err.splitlines()[0]
    assert "hooks.example.com" not in quiet.text + loud.text
