"""``doctor``: whether everything that a run needs is there, and whether Alpaca's service is what data-engine assumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_engine.cli.console import print_err, print_json, print_text
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import complete_file, store_options

if TYPE_CHECKING:
    from datetime import datetime

    from data_engine.doctor.conformance import Finding
    from data_engine.doctor.probe import Probe

_NAME, _TEXT = 9, 22  # columns at which the names and the texts of checks begin

_SIGNS = {"ok": "ok", "warning": "WARNING", "failed": "FAILED", "as_assumed": "ok", "differs": "DIFFERS", "unclear": "unclear"}


@click.command(cls=Command, exits="0 1 2 3 4 6 130")
@click.option("--conformance", is_flag=True, help="Compare Alpaca's service with what data-engine assumes.")
@click.option(
    "--out",
    metavar="FILE",
    shell_complete=complete_file,
    help="With --conformance: new file to send in. [default: named by the time]",
)
@store_options
@click.pass_context
def doctor(
    context: click.Context, conformance: bool, out: str | None, base_path: str | None, settings_path: str | None, as_json: bool
) -> None:
    """Check settings, keys, store, network and clock.

    Sends one request and leaves the store as it is. The exit code is that of the first check that failed, in the order
    3, 4, 6, 2.

    With --conformance, sends about 40 more requests, prints what is assumed and what was observed, and writes both to a file
    that has no keys. Exits with 1 if a fact differs.
    """
    from datetime import UTC, datetime

    from data_engine.cli.notify import webhook_of_environment
    from data_engine.doctor import checks
    from data_engine.errors import DataEngineError, InputError
    from data_engine.settings import load_settings

    if out is not None and not conformance:
        raise InputError("cannot use --out without --conformance; pass both")
    found: list[checks.Check] = []
    fields: dict[str, Any] = {}
    try:
        settings = load_settings(base_path=base_path, settings_path=settings_path)
    except DataEngineError as error:
        found.append(checks.failed("settings", error))
        settings = None
    keys, credentials = checks.credentials()
    if settings is not None:
        found += checks.local_checks(settings)
    found += [keys, *checks.notification(webhook_of_environment)]
    probe, refused = checks.probe_of(credentials, settings)
    found += refused
    if settings is not None and probe is not None:
        try:
            found += checks.online_checks(probe, settings, lambda: datetime.now(UTC))
            if conformance and checks.exit_code(found) == 0:
                _print_checks(found, as_json=as_json)
                fields = _conformance(probe, datetime.now(UTC), out, as_json=as_json)
        finally:
            probe.close()
    if not fields:
        _print_checks(found, as_json=as_json)
    code = checks.exit_code(found) or (1 if fields.get("differ") else 0)
    if as_json:
        told = {} if settings is None else checks.sources(settings)
        print_json({"checks": [one.to_json() for one in found], "settings": told, **fields, "exit_code": code})
    context.exit(code)


def _print_checks(found: list[Any], *, as_json: bool) -> None:
    for one in found:
        _print_line(_SIGNS[one.state], one.name, one.text, err=as_json)


def _print_line(sign: str, name: str, text: str, *, err: bool) -> None:
    first, *others = text.splitlines() or [""]
    print_text(f"{sign:<{_NAME}}{name:<{_TEXT - _NAME}}{first}", err=err, indent=_TEXT)
    for line in others:
        print_text(f"{'':<{_TEXT}}{line.strip()}", err=err, indent=0)


def _conformance(probe: Probe, now: datetime, out: str | None, *, as_json: bool) -> dict[str, Any]:
    """Ask, print and write what was observed, and return the fields for the JSON object."""
    from data_engine.doctor import conformance

    path = _new_file(out or f"data-engine-conformance-{now:%Y%m%dT%H%M%SZ}.json")
    print_err("Sending about 40 requests...")
    probe.sent.clear()
    answers = conformance.ask(probe, now)
    findings = conformance.judge(answers)
    for one in findings:
        _print_finding(one, err=as_json)
    written = conformance.record(findings, answers, probe, now)
    _write(path, json.dumps(written, indent=1))
    differ = [one.fact.name for one in findings if one.state == "differs" and not one.fact.open]
    surprising = [one.fact.name for one in findings if one.state == "differs" and one.fact.open]
    total = len(findings)
    fit = sum(1 for one in findings if one.fits)
    print_text(f"{len(answers)} requests: {fit} of {total} facts are as assumed, {len(differ)} differ", err=as_json)
    if surprising:
        print_text(f"Of facts that no source establishes, otherwise: {', '.join(surprising)}", err=as_json)
    click.echo(f"{path}: please send it in; it has no keys", err=as_json)
    return {"differ": differ, "otherwise": surprising, "file": str(path), "facts": [one.to_json() for one in findings]}


def _print_finding(one: Finding, *, err: bool) -> None:
    sign = "open" if one.fact.open and one.state == "differs" else _SIGNS[one.state]
    print_text(f"{sign:<{_NAME}}{one.fact.name}: {one.fact.assumed}", err=err, indent=_NAME)
    if one.state != "as_assumed":
        print_text(f"{'':<{_NAME}}observed: {one.observed}", err=err, indent=0)


def _new_file(name: str) -> Path:
    from data_engine.errors import InputError

    path = Path(name).absolute()
    if path.exists() or not path.parent.is_dir():
        raise InputError(f"cannot write {path}: it exists already, or its folder does not; pass another --out")
    return path


def _write(path: Path, text: str) -> None:
    from data_engine.errors import InputError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; pass another --out") from error
