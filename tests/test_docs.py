"""What the documentation tells people to type is understood, and what it points at is there."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import build_parser
from pipeline.errors import EdgeError
from pipeline.report import options as report_options
from pipeline.video import options as video_options
from scripts import average_weights, benchmark, make_bundle, show_locality, train

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").rglob("*.md")]
)
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "build_engine.py": lambda: build_parser.build_parser(""),
    "accuracy_report.py": lambda: report_options.build_parser(""),
    "run_video.py": video_options.build_parser,
    "average_weights.py": average_weights.build_parser,
    "benchmark.py": benchmark.build_parser,
    "make_bundle.py": make_bundle.build_parser,
    "show_locality.py": show_locality.build_parser,
    "train.py": train.build_parser,
}
# A synopsis, or a command whose rest the text around it gives.
_SYNOPSIS = re.compile(r"\[|\.\.\.|…|HxW|\bN\b")


def code(page: Path) -> Iterator[str]:
    """Lines of indented and fenced blocks, joined where they end in a backslash; inline code."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    fences = re.compile(r"^```.*?^```", re.M | re.S)
    for block in fences.findall(text):
        yield from block.splitlines()
    text = fences.sub("", text)
    yield from (line for line in text.splitlines() if line.startswith("    "))
    yield from re.findall(r"`([^`]+)`", text)


def commands(page: Path) -> list[tuple[str, list[str]]]:
    found = []
    for piece in code(page):
        match = re.search(r"python3? scripts/(\w+\.py)\b(.*)", " ".join(piece.split()))
        if match and not _SYNOPSIS.search(match[2]):
            words = shlex.split(match[2], comments=True)
            rest = itertools.takewhile(lambda word: not set(word) & set("|&;>"), words)
            found.append((match[1], list(rest)))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_its_commands_are_understood(page: Path) -> None:
    for script, words in commands(page):
        if script == "edge_box.py":
            continue
        try:
            PARSERS[script]().parse_args(words)
        except (EdgeError, argparse.ArgumentError) as error:
            pytest.fail(f"{script} {shlex.join(words)}: {error}")


def test_commands_are_found() -> None:
    """Were they not, the test above could not fail."""
    assert ("build_engine.py", ["--precision", "int8"]) in commands(ROOT / "README.md")
    assert len([c for page in PAGES for c in commands(page)]) > 50
    assert {script for page in PAGES for script, _words in commands(page)} >= set(PARSERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_its_anchors_are_headings(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", text):
        if target.startswith("http"):
            continue
        other = page.parent / target if target else page
        headings = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.M)
        spelled = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        assert anchor in spelled, f"{target}#{anchor}"
