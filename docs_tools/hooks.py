"""Build the site from docs/ as it is, and add the menu, the pages beside docs/, the reference of Python and the live report.

Read by mkdocs (mkdocs.yml). The pages in docs/ stay readable where they lie, without the site.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ADDRESSES = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]
# Pages of the repository that pages of docs/ lead to, and where the site has them.
BESIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md", "LICENSE": None}
REPORT, API = "live-report.html", "reference/python-classes.md"

_GROUP = re.compile(r"^### (.+)$")
_ENTRY = re.compile(r"^- \[(.+?)\]\(([^)#]+\.md)\)")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


def menu(index: str) -> list[Any]:
    """Return the menu that the lists of the first page make: a group per heading, an entry per item that is a whole page.

    Args:
        index: The text of docs/index.md.
    """
    groups: list[tuple[str, list[Any]]] = []
    for line in index.partition("\n## Pages\n")[2].splitlines():
        if group := _GROUP.match(line):
            groups.append((group[1], []))
        elif entry := _ENTRY.match(line):
            groups[-1][1].append({entry[1].replace("`", ""): site_path(entry[2], "index.md")})
    return [{"Home": "index.md"}, *({name: entries} for name, entries in groups)]


def site_path(link: str, page: str) -> str:
    """Return the page of the site that a link leads to, as a path below docs/.

    Args:
        link: The link, relative to *page*, which may lead out of docs/.
        page: The page with the link, as a path below docs/.
    """
    target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return target.removeprefix("docs/") if target.startswith("docs/") else BESIDE.get(target) or target


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the menu and, if they are known, the addresses."""
    config.nav = menu((ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    for group in config.nav:
        if "Reference" in group:
            group["Reference"].insert(2, {"Python classes and functions": API})
        if "Operate" in group:
            group["Operate"].append({"A live report (simulated)": REPORT})
        if "Contributing" in group:
            group["Contributing"] += [{"Security": "security.md"}, {"Changes": "changelog.md"}]
    config.repo_url = ADDRESSES["repository"] or None
    config.site_url = ADDRESSES["documentation"] or None
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for name, page in BESIDE.items():
        if page is not None:
            files.append(File.generated(config, page, content=_from_root((ROOT / name).read_text(encoding="utf-8"), page)))
    files.append(File.generated(config, API, content=classes()))
    files.append(File.generated(config, REPORT, content=report()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - of the plugin
    """Lead links out of docs/ to the pages of the site."""
    here = page.file.src_uri
    if here in BESIDE.values() or here == API:
        return markdown
    text = _LINK.sub(lambda link: relative(site_path(link[1], here), here) + (link[2] or ""), markdown)
    if here == "how-to/see-a-store-on-a-page.md":
        text = text.replace(
            "\n## What it shows\n", f"\n[Open the report of the demo](../{REPORT}), as it is.\n\n## What it shows\n", 1
        )
    return text


def relative(target: str, page: str) -> str:
    """Return the link from a page to a target, both as paths below docs/."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def _from_root(text: str, page: str) -> str:
    """Return the text of a page of the repository's root, with the links that its page on the site has."""
    return _LINK.sub(lambda link: relative(site_path(f"../{link[1]}", "index.md"), page) + (link[2] or ""), text)


def classes() -> str:
    """Return the page of everything that `data_engine` and `data_engine.sandbox` export, and of the errors."""
    source = (ROOT / "src" / "data_engine" / "__init__.py").read_text(encoding="utf-8")
    homes = re.findall(r'^    "(\w+)": "([\w.]+)",$', source, re.MULTILINE)
    names = [f"data_engine.{home}.{name}" for name, home in homes if name != "__version__"]
    source = (ROOT / "src" / "data_engine" / "sandbox" / "__init__.py").read_text(encoding="utf-8")
    served = [f"data_engine.sandbox.{home}.{name}" for name, home in re.findall(r'^    "(\w+)": "(\w+)",$', source, re.MULTILINE)]
    text = (
        "# Python classes and functions\n\nThis page is generated from the docstrings. "
        "[Python API](python-api.md) explains how they belong together.\n"
        "Import the names below from `data_engine`, those of the sandbox from `data_engine.sandbox`.\n"
    )
    for name in (*names, *served):
        short = f"data_engine.sandbox.{name.rpartition('.')[2]}" if name in served else f"data_engine.{name.rpartition('.')[2]}"
        text += f"\n::: {name}\n    options:\n      heading: {short}\n      toc_label: {short.removeprefix('data_engine.')}\n"
    return text + "\n::: data_engine.errors\n"


def report() -> str:
    """Return the report of the demo: made now, by the program that is documented."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "data_engine", "demo"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False, timeout=600)
        if done.returncode:
            raise SystemExit(f"the demo ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        page = Path(folder, "demo_data-report.html").read_text(encoding="utf-8")
        return page.replace(str(Path(folder).resolve()), "/home/me/stocks")  # where the other pages have it, too
