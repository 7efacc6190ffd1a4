"""Built pages -> links and pictures that lead nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"img", "script", "link", "iframe", "source"}  # what a page loads by itself


class Page(HTMLParser):
    """Links and anchors of one page.

    Attributes:
        links: targets of links, pictures, scripts and styles.
        loaded: those that are loaded without a click.
        anchors: ids.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take what an element names."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)
                if tag in LOADS and dict(attrs).get("rel") not in ("canonical", "index", "search", "next", "prev"):
                    self.loaded.append(value)


def broken_links(folder: Path) -> list[str]:
    """A line for each link inside a built site that has no target, and for each thing loaded from elsewhere."""
    texts = [path for path in folder.rglob("*.html") if "_static" not in path.parts]  # there the theme keeps templates
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in texts}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            fragment = unquote(parts.fragment)
            if not target.exists():
                broken.append(f"{path.relative_to(folder.resolve())}: {link} is not there")
            elif fragment and target in pages and fragment not in pages[target].anchors:
                broken.append(f"{path.relative_to(folder.resolve())}: {link} has no such heading")
        broken += [f"{path.name} loads {link}" for link in page.loaded if urlsplit(link).netloc]
    return sorted(set(broken))
