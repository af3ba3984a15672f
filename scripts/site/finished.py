"""What a finished site must hold: it loads nothing from elsewhere, and its links have a form and a target."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
LOADED_RELATIONS = ("stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "modulepreload", "manifest")


class Page(HTMLParser):
    """The links of a page, what it loads, and the names of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.names.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.loaded.append(values[LOADED[tag]])
        if tag == "link" and any(relation in values.get("rel", "") for relation in LOADED_RELATIONS):
            self.loaded.append(values["href"])


def problems_of(folder: Path) -> list[str]:
    """One line for each thing that is wrong with the HTML in folder."""
    pages = {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(folder)
        for target in page.loaded:
            if not is_here(target):
                found.append(f"{where}: loads {target} from another host")
            elif target and not target.startswith("data:") and not file_of(path, target).is_file():
                found.append(f"{where}: loads {target}, which there is not")
        for link in page.links:
            problem = problem_of_link(path, link, pages)
            if problem:
                found.append(f"{where}: {problem}")
    for sheet in sorted(folder.rglob("*.css")):
        text = sheet.read_text()
        if "url(http" in text or "url(//" in text or "@import" in text:
            found.append(f"{sheet.relative_to(folder)}: loads something from another host")
    return found


def is_here(target: str) -> bool:
    parts = urlsplit(target)
    return parts.scheme in ("", "data") and not parts.netloc


def file_of(page: Path, target: str) -> Path:
    return (page.parent / unquote(urlsplit(target).path)).resolve()


def problem_of_link(page: Path, link: str, pages: dict[Path, Page]) -> str | None:
    """None if the link holds; of one to another host only the form is looked at."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        is_well_formed = parts.scheme == "mailto" or (parts.scheme in ("http", "https") and "." in parts.netloc)
        return None if is_well_formed else f"{link} is no address of a page"
    target = file_of(page, link) if parts.path else page
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return f"a link to {link}, which there is not"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].names:
        return f"a link to {link}, and nothing there has that name"
    return None
