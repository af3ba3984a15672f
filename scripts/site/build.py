"""Builds the documentation site: puts its pages into build/site/source, and has Sphinx make build/site/html of them.

scripts/site.sh runs it, in the environment of the extra `docs`. Pages are those of docs/ as they are, some from beside
it, and a reference made from stubs and docstrings. Every warning is an error, and so is a page that no section of
pages.toml has, a link from one page to another that does not hold, and anything that a page would load from another
host.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import reference
from finished import problems_of
from sphinx.cmd.build import main as sphinx

TOP = Path(__file__).resolve().parents[2]
DOCS = TOP / "docs"
OUT = TOP / "build" / "site"
SOURCE = OUT / "source"
REPOSITORY = "/".join(filter(None, map(os.environ.get, ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))))  # in a workflow
FENCE = re.compile(r"^```([a-z]+)(?: [^\n]*)?$", re.MULTILINE)  # ```python no-run: the second word is for tests
UNKNOWN_TO_PYGMENTS = {"haproxy": "text"}
PLAIN_LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^)#\s]+)\)")
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def sections() -> list[tuple[str, list[str]]]:
    with open(Path(__file__).parent / "pages.toml", "rb") as file:
        return [(section["title"], section["pages"]) for section in tomllib.load(file)["sections"]]


def source_of(page: str) -> Path:
    """The file that a page of pages.toml is made from."""
    return TOP / page if page.endswith(".md") else DOCS / f"{page}.md"


def staged_name(path: Path) -> str:
    """What the page of a file is called on the site, without suffix: pages of other folders stand in one, too."""
    inside = path.relative_to(DOCS) if path.is_relative_to(DOCS) else path.relative_to(TOP)
    return inside.with_suffix("").as_posix().lower()


def staged_text(path: Path, names: dict[Path, str]) -> str:
    """The text with its links turned to where the pages are on the site; a link to a file that has none is an error."""
    here = Path(names[path]).parent

    def untied(found: re.Match[str]) -> str:
        """A link to a file of the repository that is no page leads there, if we know where it is; else its text."""
        file = (path.parent / found[2]).resolve()
        if "://" in found[2] or file in names or file.suffix == ".png" or not file.exists():
            return found[0]
        return f"[{found[1]}]({REPOSITORY}/blob/main/{file.relative_to(TOP)})" if REPOSITORY else found[1]

    def turned(found: re.Match[str]) -> str:
        target = found[2]
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        file = (path.parent / target).resolve()
        if file in names:
            return f"{found[1]}{'../' * len(here.parts)}{names[file]}.md{found[3]}"
        if file.suffix == ".png" and file.is_file():
            (SOURCE / "plots").mkdir(exist_ok=True)
            shutil.copyfile(file, SOURCE / "plots" / file.name)
            return f"{found[1]}{'../' * len(here.parts)}plots/{file.name}{found[3]}"
        raise SystemExit(f"{path.relative_to(TOP)}: a link to {target}, which is no page of the site (pages.toml)")

    return LINK.sub(turned, PLAIN_LINK.sub(untied, FENCE.sub(language, path.read_text())))


def language(found: re.Match[str]) -> str:
    return "```" + UNKNOWN_TO_PYGMENTS.get(found[1], found[1])


def toctree(title: str, names: list[str]) -> str:
    return "\n".join(["", "```{toctree}", ":hidden:", ":titlesonly:", f":caption: {title}", "", *names, "```", ""])


def stage() -> None:
    """Fill build/site/source."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    made = reference.write_pages(SOURCE / "reference")
    files = {page: source_of(page) for _, pages in sections() for page in pages if page != "reference/index"}
    missing = [page for page, file in files.items() if not file.is_file()]
    if missing:
        raise SystemExit(f"scripts/site/pages.toml names what there is not: {', '.join(missing)}")
    names = {file: staged_name(file) for file in (DOCS / "index.md", *files.values())}
    names[TOP / "README.md"] = "index"  # the start of the repository is the start of the site
    lost = sorted(path.name for path in DOCS.glob("*.md") if path not in names)
    if lost:
        raise SystemExit(f"scripts/site/pages.toml has no section for {', '.join(lost)} of docs/")
    for file, name in names.items():
        if file == TOP / "README.md":
            continue
        target = SOURCE / f"{name}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(staged_text(file, names))
    with open(SOURCE / "index.md", "a") as index:
        index.writelines(
            toctree(
                title,
                [
                    staged_name(files[page]) if page in files else page
                    for page in pages
                    if page in files or page == "reference/index"
                ],
            )
            for title, pages in sections()
        )
    print(f"{len(names) - 1} pages of text, {made} of the reference")


def main() -> int:
    stage()
    html = OUT / "html"
    shutil.rmtree(html, ignore_errors=True)
    here = str(Path(__file__).parent)
    status = sphinx(
        [
            "-q",
            "-W",
            "--keep-going",
            "-n",
            "-j",
            "2",
            "-b",
            "html",
            "-c",
            here,
            "-d",
            str(OUT / "cache"),
            str(SOURCE),
            str(html),
        ]
    )
    if status:
        return status
    (html / ".nojekyll").touch()  # GitHub's pages leave out folders that begin with an underscore, else
    problems = problems_of(html)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
