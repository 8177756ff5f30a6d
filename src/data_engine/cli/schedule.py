"""``schedule``: what to install so that a store is updated every night."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_err, print_json
from data_engine.cli.exit_codes import Command, Group
from data_engine.cli.options import open_store, with_settings

if TYPE_CHECKING:
    from data_engine.settings import Settings

_NAME = "data-engine-update"

_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")

_PLAIN = re.compile(r"[\w:/.=,+@-]+", re.ASCII)

_UNSAFE_IN_CMD = re.compile(r"[^\w:\\/.=,+-]")


@dataclass(frozen=True, slots=True)
class Start:
    """When a job starts.

    Attributes:
        new_york: The time in New York, from Monday to Friday.
        local: The time in the zone of this machine: that or later, in summer and in winter.
        days: The days of the week in the zone of this machine, from 0 for Sunday.
    """

    new_york: time
    local: time
    days: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A nightly command.

    Attributes:
        words: The program and its arguments.
        folder: The folder in which it starts, which may have ``.env`` and ``settings.ini``.
        start: When it starts.
    """

    words: tuple[str, ...]
    folder: Path
    start: Start

    @property
    def log(self) -> Path:
        """The file of the job's output, where the system keeps none."""
        return self.folder / f"{_NAME}.log"


@dataclass(frozen=True, slots=True)
class Installation:
    """What to install.

    Attributes:
        files: The content of each file by its path, ``~`` for the home folder.
        commands: What to run afterwards.
        log: Where the output of the runs is.
    """

    files: dict[str, str]
    commands: tuple[str, ...]
    log: str


@click.group(cls=Group, exits="0 1 2 4")
def schedule() -> None:
    """Print how to update a store every night."""


@schedule.command("show", cls=Command, exits="0 1 2 4")
@click.argument("system", type=click.Choice(["systemd", "cron", "launchd", "windows"]))
@click.argument("options", nargs=-1, metavar="[-- UPDATE OPTIONS ...]")
@click.option("--at", default="20:45", show_default=True, metavar="HH:MM", help="Time in New York, Monday to Friday.")
@with_settings
def show(settings: Settings, system: str, options: tuple[str, ...], at: str, as_json: bool) -> None:
    """Print the files to write and the commands to run.

    The job runs `data-engine update --quiet` in the working directory, for the store that this command finds. Nothing is changed.
    Give options of `update` after --, as in: schedule show cron -- --index dow30 --wait 3600
    """
    from data_engine.market.time_range import new_york_date

    store = open_store(settings)
    start = start_of(_clock(at), new_york_date(datetime.now().astimezone()))
    words = (*program(), "update", "--quiet", *_of_store(settings), *_checked(options))
    job = Job(words, Path.cwd(), start)
    _refuse_line_breaks(job)
    made = SYSTEMS[system](job)
    if as_json:
        print_json({"store": store.files.location, "files": made.files, "commands": list(made.commands), "log": made.log})
    else:
        for line in _lines(made):
            click.echo(line)
    if not (job.folder / ".env").is_file():
        print_err(f"The job needs the API keys: write them into {job.folder / '.env'}, as in ALPACA_API_KEY=... on a line")


def program() -> tuple[str, ...]:
    """Return the words that start data-engine from any folder."""
    installed = shutil.which("data-engine", path=str(Path(sys.executable).parent))
    return (installed,) if installed else (sys.executable, "-m", "data_engine")


def _of_store(settings: Settings) -> Iterator[str]:
    yield from ("--base-path", str(settings.base_path))
    if settings.settings_file is not None:
        yield from ("--settings", str(settings.settings_file.absolute()))


def _checked(options: Sequence[str]) -> tuple[str, ...]:
    """Return options of ``update``.

    Raises:
        click.UsageError: If ``update`` has no such option, or not with that value.
    """
    from data_engine.cli.update import update

    update.make_context("update", list(options))
    return tuple(options)


def _clock(text: str) -> time:
    from data_engine.errors import InputError

    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise InputError(f"cannot use --at {text!r}: it is no time of a day; write HH:MM, such as 20:45")
    return time.fromisoformat(text)


def _refuse_line_breaks(job: Job) -> None:
    from data_engine.errors import InputError

    broken = next((word for word in (*job.words, str(job.folder)) if not word.isprintable()), None)
    if broken is not None:
        raise InputError(f"cannot schedule a job with {broken!r}: it has a line break or another character that cannot be shown")


def start_of(clock: time, today: date, local: Callable[[datetime], datetime] = datetime.astimezone) -> Start:
    """Return when a job starts that starts at a time in New York from Monday to Friday.

    Args:
        clock: The time in New York.
        today: The day from which on the next year is looked at: clocks change on other days in other zones.
        local: A function from an instant to the same in the zone of this machine.
    """
    from data_engine.market.exchange_calendar import at_clock

    latest = (-1, time.min)
    for day in (today + timedelta(days=7 * week) for week in range(53)):
        there = local(at_clock(day, clock))
        latest = max(latest, ((there.date() - day).days, there.time().replace(tzinfo=None)))
    shift, at = latest
    return Start(clock, at, tuple((day + shift) % 7 for day in range(1, 6)))


# ----------------------------------------------------------------------------------------------------------- the systems


def for_systemd(job: Job) -> Installation:
    """Return a service and a timer of the user's systemd."""
    folder = "~/.config/systemd/user"
    # systemd takes fewer characters in the path of a program than in its arguments.
    words = job.words if _PLAIN.fullmatch(job.words[0]) else ("/usr/bin/env", *job.words)
    service = f"""[Unit]
Description=Update the stock bars

[Service]
Type=oneshot
WorkingDirectory={str(job.folder).replace("%", "%%")}
ExecStart={" ".join(map(_systemd_word, words))}
# 7: another run has locked the store; the next night continues
SuccessExitStatus=7
# After a stop, what arrived is stored within seconds
TimeoutStopSec=30
"""
    timer = f"""[Unit]
Description=Update the stock bars every weekday

[Timer]
OnCalendar=Mon..Fri {job.start.new_york:%H:%M} America/New_York
RandomizedDelaySec=5m
# If the machine was off that night, run at the next start
Persistent=true

[Install]
WantedBy=timers.target
"""
    return Installation(
        {f"{folder}/{_NAME}.service": service, f"{folder}/{_NAME}.timer": timer},
        (
            "systemctl --user daemon-reload",
            f"systemctl --user enable --now {_NAME}.timer",
            "loginctl enable-linger",  # else the timer stops when the user logs out
        ),
        f"journalctl --user --unit {_NAME}",
    )


def for_cron(job: Job) -> Installation:
    """Return a line of the user's crontab."""
    start = job.start
    days = ",".join(map(str, start.days))
    command = f"cd {shlex.quote(str(job.folder))} && {shlex.join(job.words)} >>{shlex.quote(str(job.log))} 2>&1"
    line = f"{start.local.minute} {start.local.hour} * * {days} " + command.replace("%", r"\%")  # cron ends a line at a %
    text = f"# {start.new_york:%H:%M} New York, or up to two hours later, in the time zone of this machine\n{line}\n"
    path = f"~/{_NAME}.cron"
    return Installation({path: text}, (f"(crontab -l 2>/dev/null; cat {path}) | crontab -",), str(job.log))


def for_launchd(job: Job) -> Installation:
    """Return an agent of macOS. If the Mac sleeps then, it starts when it wakes."""
    import plistlib  # reads XML, too, which `--help` need not wait for

    at = job.start.local
    path = f"~/Library/LaunchAgents/{_NAME}.plist"
    agent = {
        "Label": _NAME,
        "ProgramArguments": list(job.words),
        "WorkingDirectory": str(job.folder),
        "StartCalendarInterval": [{"Weekday": day, "Hour": at.hour, "Minute": at.minute} for day in job.start.days],
        "StandardOutPath": str(job.log),
        "StandardErrorPath": str(job.log),
    }
    text = plistlib.dumps(agent, sort_keys=False).decode()
    return Installation({path: text}, (f"launchctl bootstrap gui/$(id -u) {path}",), str(job.log))


def for_windows(job: Job) -> Installation:
    """Return a task of the Task Scheduler. It starts later if the machine was off."""
    from xml.sax.saxutils import escape  # imports urllib.request, which `--help` need not wait for

    days = "".join(f"<{_WEEKDAYS[day]} />" for day in job.start.days)
    line = f"{' '.join(map(_cmd_word, job.words))} >> {_cmd_word(str(job.log))} 2>&1"
    # No encoding is declared: the file may be UTF-8, or UTF-16 as PowerShell writes it.
    text = f"""<?xml version="1.0"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>Update the stock bars every weekday</Description>
  </RegistrationInfo>
  <Triggers>
    <CalendarTrigger>
      <StartBoundary>2024-01-01T{job.start.local:%H:%M}:00</StartBoundary>
      <Enabled>true</Enabled>
      <ScheduleByWeek>
        <DaysOfWeek>{days}</DaysOfWeek>
        <WeeksInterval>1</WeeksInterval>
      </ScheduleByWeek>
    </CalendarTrigger>
  </Triggers>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
  </Settings>
  <Actions>
    <Exec>
      <Command>cmd.exe</Command>
      <Arguments>{escape(f'/d /s /c "{line}"')}</Arguments>
      <WorkingDirectory>{escape(str(job.folder))}</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
"""
    path = f"{_NAME}.xml"
    return Installation({path: text}, (f"schtasks /Create /TN {_NAME} /XML {path}",), str(job.log))


SYSTEMS: dict[str, Callable[[Job], Installation]] = {
    "systemd": for_systemd,
    "cron": for_cron,
    "launchd": for_launchd,
    "windows": for_windows,
}


def _systemd_word(word: str) -> str:
    """Return a word as systemd reads it: in quotation marks, without its specifiers and variables."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return text if _PLAIN.fullmatch(word) else f'"{text}"'


def _cmd_word(word: str) -> str:
    """Return a word as the shell of Windows reads it."""
    return f'"{word}"' if not word or _UNSAFE_IN_CMD.search(word) else word


def _lines(made: Installation) -> Iterator[str]:
    """Yield what to install, as text."""
    for path, content in made.files.items():
        yield f"Write {path}:"
        yield ""
        yield content
    yield "Then run:"
    yield ""
    yield from (f"  {command}" for command in made.commands)
    yield ""
    yield f"Output of the runs: {made.log}"
