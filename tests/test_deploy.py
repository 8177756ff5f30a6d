"""The files of examples/deploy: they validate, they name what there is, and what can be run without their systems runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_engine import __version__
from data_engine.sandbox import Sandbox, SimulatedMarket
from running import KEY, SECRET, account, count, run

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "examples" / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
MANIFESTS = sorted((DEPLOY / "kubernetes").iterdir())
SBATCH = DEPLOY / "slurm" / "ingest.sbatch"
CONTAINERFILE = DEPLOY / "container" / "Containerfile"


def tool(name: str) -> str:
    """Return the path of a program, ours or the system's; skip the test where there is none."""
    found = shutil.which(name, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def check(*words: object, **options: Any) -> str:
    ran = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120, check=False, **options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def setting(unit: str, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", (DEPLOY / "systemd" / unit).read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def bin_folder(folder: Path) -> Path:
    """Return a folder with a ``data-engine`` and a ``dask`` in it, as an installation would have them."""
    folder.mkdir(parents=True)
    for name, module in (("data-engine", "data_engine"), ("dask", "dask")):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


# ------------------------------------------------------------------------------------------------------------- systemd


def test_the_units_are_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    there = bin_folder(tmp_path / "opt")
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/data-engine/bin", str(there)))

    said = check(analyze, "verify", "--man=no", *(tmp_path / unit.name for unit in UNITS))

    assert [line for line in said.splitlines() if str(tmp_path) in line or line.startswith(("dask-", "data-engine-"))] == []


def test_the_timer_is_after_the_days_bars_are_final() -> None:
    said = check(tool("systemd-analyze"), "calendar", setting("data-engine-update.timer", "OnCalendar"))

    assert "Mon..Fri *-*-* 20:45:00 America/New_York" in said


def test_what_the_service_starts_runs(tmp_path: Path) -> None:
    store = tmp_path / "var"
    with Sandbox(SimulatedMarket()) as server:
        words = ("ingest", "AAPL", "--start", "2024-06-03", "--end", "2024-06-03", "--base-path", store)
        assert run(*words, url=server.url).code == 0
        command = setting("data-engine-update.service", "ExecStart").replace("/var/lib/stocks", str(store))
        command = command.replace("/opt/data-engine/bin", str(bin_folder(tmp_path / "opt")))
        said = check(*shlex.split(command), env={**os.environ, **account(server.url)})

    assert "1 of 1 series up to date" in said
    assert setting("data-engine-update.service", "SuccessExitStatus") == "7"  # another run holds the store


# ---------------------------------------------------------------------------------------------------------------- cron


def test_the_line_of_cron_runs(tmp_path: Path) -> None:
    store, keys = tmp_path / "var", tmp_path / "keys"
    line = (DEPLOY / "cron" / "data-engine").read_text().splitlines()[-1]
    when, user, command = line.split(" ", 5)[:5], *line.split(" ", 6)[5:]
    for path, ours in (
        ("/var/lib/stocks", store),
        ("/etc/data-engine/keys", keys),
        ("/opt/data-engine/bin", bin_folder(tmp_path / "opt")),
    ):
        command = command.replace(path, str(ours))
    with Sandbox(SimulatedMarket()) as server:
        words = ("ingest", "AAPL", "--start", "2024-06-03", "--end", "2024-06-03", "--base-path", store)
        assert run(*words, url=server.url).code == 0
        keys.write_text("".join(f"{name}={text}\n" for name, text in account(server.url).items()))
        check("/bin/sh", "-c", command)

    assert (when, user) == (["45", "20", "*", "*", "1-5"], "stocks")
    assert "%" not in command  # cron makes a line's end of it
    assert f" {store}: 1 of 1 series up to date" in (store / "update.log").read_text()


# ----------------------------------------------------------------------------------------------------------- kubernetes


def documents(manifest: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(manifest.read_text()) if one]


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    return spec.get("template", {}).get("spec", {}).get("containers", [])  # type: ignore[no-any-return]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_the_manifests_are_kubernetes_own(manifest: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for document in documents(manifest):
        # A field that the schema does not know is a fault too.
        validator.validate(document, validator.latest_version(), strict=True)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_what_the_manifests_name_is_there(manifest: Path) -> None:
    every = documents(manifest)
    secrets = {one["metadata"]["name"] for one in every if one["kind"] == "Secret"}
    claims = {one["metadata"]["name"] for one in every if one["kind"] == "PersistentVolumeClaim"}
    for document in (one for one in every if one["kind"] in ("CronJob", "Deployment", "Job")):
        for container in containers(document):
            assert container["image"].endswith(f":{__version__}")
            assert {one["secretRef"]["name"] for one in container.get("envFrom", [])} <= secrets
        named = re.findall(r"'claimName': '([^']+)'", str(document))
        assert set(named) <= claims


def test_the_keys_are_in_the_workers_alone_and_everybody_knows_the_scheduler() -> None:
    every = documents(DEPLOY / "kubernetes" / "dask.yaml")
    pods = {one["metadata"]["name"]: containers(one)[0] for one in every if one["kind"] in ("Deployment", "Job")}
    have_keys = {name for name, pod in pods.items() if "alpaca-keys" in str(pod.get("envFrom"))}
    (service,) = (one for one in every if one["kind"] == "Service")
    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"

    assert have_keys == {"dask-worker"}
    assert address in pods["dask-worker"]["command"]
    assert pods["data-engine-ingest"]["args"][-2:] == ["--dask", address]
    assert all("replace-me" in str(one["stringData"]) for one in every if one["kind"] == "Secret")


# ---------------------------------------------------------------------------------------------------------------- slurm


def test_the_script_of_slurm_is_sound() -> None:
    check("bash", "-n", SBATCH)
    check(tool("shellcheck"), SBATCH)


@pytest.mark.skipif(sys.platform != "linux", reason="the script is bash")
@pytest.mark.slow
def test_the_script_of_slurm_runs_where_srun_starts_its_tasks_here(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask's distributed is not installed: pip install '.[dask]'")
    path = bin_folder(tmp_path / "bin")
    (path / "srun").write_text('#!/bin/bash\n[[ $1 == --ntasks=2 ]] || exit 9\nshift\n"$@" &\n"$@" &\nwait\n')
    (path / "hostname").write_text("#!/bin/sh\necho 127.0.0.1\n")
    for name in ("srun", "hostname"):
        (path / name).chmod(0o755)
    (tmp_path / ".config").mkdir()
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "2"}
    with Sandbox(SimulatedMarket()) as server:
        (tmp_path / ".config" / "alpaca").write_text(f"ALPACA_API_KEY={KEY}\nALPACA_SECRET_KEY={SECRET}\n")
        env = {**os.environ, **slurm, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "APCA_API_DATA_URL": server.url}
        env["PATH"] = f"{path}{os.pathsep}{env['PATH']}"
        words = ("AAPL", "MSFT", "--start", "2024-06-03", "--end", "2024-06-14", "--base-path", tmp_path / "store")
        said = check("bash", SBATCH, *words, env=env)

    assert "Successful: 2/2" in said
    assert count(tmp_path / "store") > 0


# ------------------------------------------------------------------------------------------------------------ a container


def test_the_containerfile_is_sound() -> None:
    check(tool("hadolint"), CONTAINERFILE)


def test_the_containerfile_takes_what_there_is() -> None:
    text = CONTAINERFILE.read_text()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    (extras,) = re.findall(r'"\.\[([a-z0-9,]+)\]"', text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    # What the wheel is built of: hatchling looks for the file of its hook by itself.
    assert {"pyproject.toml", "hatch_build.py", "README.md", *project["license-files"], *wheel["force-include"]} <= {
        name.removeprefix("./") for name in copied
    }
    assert f"data-engine:{__version__}" in text
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
