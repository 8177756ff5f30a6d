"""Check the site that was built: each link and picture of each page leads to a file, each anchor to a place in it.

mkdocs checks the links of the pages' sources; this also sees those of the menu, the docstrings and the theme. Nothing may
be loaded from another host. Links to other hosts are listed by host, and not opened.
"""

from __future__ import annotations

import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Links(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, what it loads and how it can be linked to."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag in ("a", "link") and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.links.append(values["src"])
        if tag in ("script", "img", "iframe") or (tag == "link" and values.get("rel") == "stylesheet"):
            self.loaded.append(values.get("src") or values.get("href", ""))


def main() -> int:
    """Check all pages, and return an exit code."""
    root = Path(sys.argv[1]).resolve()
    pages = {file: Links(file.read_text(encoding="utf-8")) for file in sorted(root.rglob("*.html"))}
    broken: list[str] = []
    hosts: Counter[str] = Counter()
    for file, page in pages.items():
        name = file.relative_to(root)
        broken += [f"{name} loads {one} of another host" for one in page.loaded if urlsplit(one).netloc]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("mailto", "data", "javascript"):
                continue
            if parts.netloc:
                hosts[parts.netloc] += 1
                continue
            # The page for what is not found names everything from the root of the site.
            start = root if parts.path.startswith("/") or file.name == "404.html" else file.parent
            target = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                broken.append(f"{name} leads to {link}: no such file")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors and file.name != "404.html":
                broken.append(f"{name} leads to {link}: no such place")
    for line in sorted(set(broken)):
        print(f"FAILED: {line}", file=sys.stderr)
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values()):,} links, {len(set(broken))} broken")
    print("other hosts:", ", ".join(f"{host} {count}" for host, count in hosts.most_common()) or "none")
    return min(len(broken), 1)


if __name__ == "__main__":
    sys.exit(main())
