"""What to install so that a command runs every night: `SYSTEMS`, from a `Job` to the files and commands of each system.

Each job is named by its store. So a second store has a job of its own, and a job that is installed again replaces itself.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from hashlib import sha256
from pathlib import Path
from zoneinfo import ZoneInfo

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
        zone: The name of that zone and its difference from UTC, for people.
    """

    new_york: time
    local: time
    days: tuple[int, ...]
    zone: str = "the time zone of this machine"


@dataclass(frozen=True, slots=True)
class Job:
    """A nightly command.

    Attributes:
        words: The program and its arguments.
        folder: The folder in which it starts, which may have ``.env`` and ``settings.ini``.
        start: When it starts.
        store: The location of the store.
    """

    words: tuple[str, ...]
    folder: Path
    start: Start
    store: str

    @property
    def name(self) -> str:
        """The name of the job, the same for the same store, whatever its options."""
        return f"data-engine-update-{sha256(self.store.encode()).hexdigest()[:8]}"

    @property
    def log(self) -> Path:
        """The file of the job's output, where the system keeps none."""
        return self.folder / f"{self.name}.log"


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


@dataclass(frozen=True, slots=True)
class Zone:
    """A time zone.

    Attributes:
        name: The name, for people.
        local: A function from an instant to the same in the zone.
    """

    name: str
    local: Callable[[datetime], datetime] = datetime.astimezone


def machine_zone(file: Path = Path("/etc/localtime"), system: str = sys.platform) -> Zone:
    """Return the time zone in which the system starts jobs: that of the machine, whatever ``TZ`` says in this shell.

    Args:
        file: What cron and launchd read; where it is missing, they take UTC.
        system: The name of the system. Windows has no such file, and tells programs its zone.
    """
    if system == "win32":
        return Zone("the time zone of this machine")
    try:
        with file.open("rb") as stream:
            zone = ZoneInfo.from_file(stream)
    except (OSError, ValueError):
        return Zone("UTC", lambda instant: instant.astimezone(UTC))
    _, found, name = str(file.resolve()).partition("/zoneinfo/")
    known = found and re.fullmatch(r"\w+([/+_-]\w+)*", name)
    return Zone(name if known else str(file), lambda instant: instant.astimezone(zone))


def start_of(clock: time, now: datetime, zone: Zone) -> Start:
    """Return when a job starts that starts at a time in New York from Monday to Friday.

    Args:
        clock: The time in New York.
        now: The instant from which on the next year is looked at: clocks change on other days in other zones.
        zone: The time zone of this machine.
    """
    from data_engine.market.exchange_calendar import at_clock
    from data_engine.market.time_range import new_york_date

    latest, today = (-1, time.min), new_york_date(now)
    for day in (today + timedelta(days=7 * week) for week in range(53)):
        there = zone.local(at_clock(day, clock))
        latest = max(latest, ((there.date() - day).days, there.time().replace(tzinfo=None)))
    shift, at = latest
    days = tuple((day + shift) % 7 for day in range(1, 6))
    offset = zone.local(now).isoformat(timespec="minutes")[-6:]
    return Start(clock, at, days, f"{zone.name}, UTC{offset} now")


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
        {f"{folder}/{job.name}.service": service, f"{folder}/{job.name}.timer": timer},
        (
            "systemctl --user daemon-reload",
            f"systemctl --user enable --now {job.name}.timer",
            "loginctl enable-linger",  # else the timer stops when the user logs out
        ),
        f"journalctl --user --unit {job.name}",
    )


def for_cron(job: Job) -> Installation:
    """Return a line of the user's crontab. Its end is the job's name, by which the commands find the line of an earlier one."""
    start = job.start
    days = ",".join(map(str, start.days))
    command = f"cd {shlex.quote(str(job.folder))} && {shlex.join(job.words)} >>{shlex.quote(str(job.log))} 2>&1"
    mark = f"# {job.name}"
    line = f"{start.local.minute} {start.local.hour} * * {days} " + command.replace("%", r"\%")  # cron ends a line at a %
    text = f"# {_said(start)} {mark}\n{line} {mark}\n"
    path = f"~/{job.name}.cron"
    return Installation({path: text}, (f"(crontab -l 2>/dev/null | grep -v ' {mark}$'; cat {path}) | crontab -",), str(job.log))


def _said(start: Start) -> str:
    """Return the time of a start, and the zone by whose clock the system keeps it."""
    return f"{start.new_york:%H:%M} New York, or up to two hours later, by the clock of this machine ({start.zone})"


def for_launchd(job: Job) -> Installation:
    """Return an agent of macOS. If the Mac sleeps then, it starts when it wakes."""
    import plistlib  # reads XML, too, which `--help` need not wait for

    at = job.start.local
    path = f"~/Library/LaunchAgents/{job.name}.plist"
    agent = {
        "Label": job.name,
        "ProgramArguments": list(job.words),
        "WorkingDirectory": str(job.folder),
        "StartCalendarInterval": [{"Weekday": day, "Hour": at.hour, "Minute": at.minute} for day in job.start.days],
        "StandardOutPath": str(job.log),
        "StandardErrorPath": str(job.log),
    }
    text = plistlib.dumps(agent, sort_keys=False).decode().replace("<plist", f"<!-- {_said(job.start)} -->\n<plist", 1)
    return Installation(
        {path: text},
        (f"launchctl bootout gui/$(id -u)/{job.name} 2>/dev/null || true", f"launchctl bootstrap gui/$(id -u) {path}"),
        str(job.log),
    )


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
    path = f"{job.name}.xml"
    return Installation({path: text}, (f"schtasks /Create /TN {job.name} /XML {path} /F",), str(job.log))


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
