"""A release: one version, a change log that tells of it, and a workflow that needs no secret."""

from __future__ import annotations

import datetime
import re
import tomllib
from pathlib import Path

import hoop
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = ROOT / "CHANGELOG.md"
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
RELEASED = re.compile(r"\[(\d+)\.(\d+)\.(\d+)] - (\d{4}-\d{2}-\d{2})(?: \[YANKED])?")
GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "For contributors"}
USE = re.compile(r"uses: (\S+)")
PINNED = re.compile(r"[\w./-]+@[0-9a-f]{40}")


def test_the_version_stands_in_the_package_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "hoop.__version__"}
    stated = re.findall(r'^__version__ = "(.*)"$', (ROOT / "src" / "hoop" / "__init__.py").read_text(), re.MULTILINE)
    assert stated == [hoop.__version__]
    assert re.fullmatch(r"\d+\.\d+\.\d+", hoop.__version__)


def test_the_change_log_has_the_form_of_keep_a_changelog() -> None:
    text = CHANGELOG.read_text()
    assert text.startswith("# Changelog\n") and "https://keepachangelog.com/en/" in text
    first, *others = HEADING.findall(text)
    assert first == "[Unreleased]"
    releases = []
    for heading in others:
        found = RELEASED.fullmatch(heading)
        assert found is not None, f"not [1.2.3] - YYYY-MM-DD: {heading}"
        releases.append((tuple(int(number) for number in found.groups()[:3]), datetime.date.fromisoformat(found[4])))
    assert releases == sorted(releases, reverse=True), "the newest comes first"
    assert len({version for version, _ in releases}) == len(releases)
    groups = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert set(groups) <= GROUPS


def test_the_change_log_tells_of_this_version() -> None:
    sections = HEADING.split(CHANGELOG.read_text())
    newest, text = sections[3:5]
    assert newest.startswith(f"[{hoop.__version__}] - ")
    assert "### " in text and "\n- " in text


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_no_workflow_needs_a_secret(path: Path) -> None:
    text = path.read_text()
    assert "secrets." not in text and "password:" not in text
    assert "\npermissions:\n  contents: read\n" in text


def test_what_publishes_is_pinned_and_trusted() -> None:
    text = (ROOT / ".github" / "workflows" / "wheels.yml").read_text()
    assert [use for use in USE.findall(text) if not PINNED.fullmatch(use)] == []
    publish = text.partition("\n  publish:\n")[2]
    assert "id-token: write" in publish and "attestations: true" in publish
    assert "needs: [release-check, wheels, sdist]" in publish
    assert "id-token: write" not in text.partition("\n  publish:\n")[0], "only the job that publishes has an identity"
