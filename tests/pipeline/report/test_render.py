"""The four files: well-formed, complete, and asking the network for nothing."""

from __future__ import annotations

import builtins
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from calibration.cityscapes import CLASS_NAMES
from pipeline.errors import MissingDependencyError, SinkError
from pipeline.report.evaluate import evaluate
from pipeline.report.pictures import PicturedFrame, picture_frames
from pipeline.report.render import render_html, render_junit, render_markdown, write_report
from pipeline.report.schema import FloatLayer, FloatLayers, Report, SensitivityRow
from pipeline.report.summarise import ReportOptions, summarise
from tests.pipeline.report.doubles import SHAPE, PaintedFrames, contestants, painted

VOID = {"meta", "img", "br", "link", "input", "hr"}
PATCH = (24, 32)
EVIL = "<script>alert(1)</script>|int8"


class Page(HTMLParser):
    """Checks nesting, and collects what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.images = 0
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.images += tag == "img"
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "action"):
                self.fetched.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.ids.add(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element closed in its own tag, as the drawings have them."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _report(frames: PaintedFrames, **options: Any) -> tuple[Report, list[PicturedFrame]]:
    reference, candidate, exact = contestants()
    records = evaluate(frames, reference, candidate, exact, exact_frames=[0, 1], patch=PATCH)
    chosen = ReportOptions(
        **{"reference": "fp32", "candidate": "int8", "patch": PATCH, "resamples": 50, **options}
    )
    report = summarise(records, frames.names, chosen)
    indices = [changed.index for changed in report.changed_frames]
    return report, picture_frames(frames, reference, candidate, indices, patch=PATCH)


@pytest.fixture(scope="module")
def made() -> tuple[Report, list[PicturedFrame]]:
    return _report(
        painted(12, error=0.3),
        max_drop=0.0,
        max_class_drop=0.0,
        provenance={"Candidate": {"path": "x.xml", "frames": [str(i) for i in range(20)]}},
        sensitivity=(SensitivityRow(layer="/stages.0/fc3", drop=0.3, logits_error=0.12),),
    )


def test_the_page_is_whole_and_fetches_nothing(made: tuple[Report, list[PicturedFrame]]) -> None:
    report, pictures = made
    text = render_html(report, pictures, pictures[0])
    page = Page(text)
    assert page.images == 4 * 10 + 2
    assert all(source.startswith("data:image/webp;base64,") for source in page.fetched)
    assert len(page.fetched) == page.images
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    for forbidden in ("url(", "@import", "@font-face"):
        assert forbidden not in style[1]
    beside_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert "//" not in beside_pictures
    assert 'name="viewport"' in text
    shown = " ".join("".join(page.text).split())
    for section in ("Scores", "Classes", "Whose drop is it?", "Where pixels differ", "Patch edges",
                    "Frames that changed most", "Confusions", "Latency", "Sensitivity",
                    "Provenance"):  # fmt: skip
        assert section in shown
    assert f"{report.candidate.miou:.2f}" in shown
    for row in report.classes:
        assert row.name in shown
    for changed in report.changed_frames:
        assert changed.name in shown
    # The verdict comes before everything else.
    assert shown.index("Regression") < shown.index("Scores")
    assert not re.search(r"\bnan\b", shown)


def test_names_cannot_write_markup() -> None:
    report, _pictures = _report(painted(2), candidate=EVIL, provenance={EVIL: {EVIL: [EVIL]}})
    text = render_html(report)
    Page(text)
    assert "<script>alert" not in text
    assert "<script>" not in render_markdown(report)
    assert "\\|int8" in render_markdown(report)
    _xml(report)


def _constant(*labels: int) -> PaintedFrames:
    """Two frames of one truth, one reference label, one candidate label."""
    return PaintedFrames(*([np.full(SHAPE, label, np.uint8)] * 2 for label in labels))


ODD = {
    "one-frame": painted(1),
    "perfect": painted(2, error=0.0),
    "all-wrong": _constant(0, 4, 4),
    "no-class": _constant(0, 0, 255),
    "gains": _constant(0, 4, 0),
}


@pytest.mark.parametrize("frames", ODD.values(), ids=ODD)
def test_odd_results_render(frames: PaintedFrames) -> None:
    report, pictures = _report(frames, left_out=("a: truncated",))
    page = Page(render_html(report, pictures))
    assert not re.search(r"\bnan\b|\binf\b", " ".join(page.text))
    assert render_markdown(report).startswith("### ")
    _xml(report)


def _xml(report: Report) -> ET.Element:
    return ET.fromstring(render_junit(report))  # noqa: S314  our own text


def test_junit_says_what_the_gate_says(made: tuple[Report, list[PicturedFrame]]) -> None:
    for report in (made[0], _report(painted(2), max_drop=99, max_class_drop=99)[0]):
        root = _xml(report)
        suite = root.find("testsuite")
        assert suite is not None
        cases = {case.get("name"): case for case in suite.findall("testcase")}
        assert set(cases) == {"mIoU", *CLASS_NAMES}
        failed = {name for name, case in cases.items() if case.find("failure") is not None}
        expected = {row.name for row in report.classes if not row.passed}
        assert failed == expected | (set() if report.miou_passed else {"mIoU"})
        assert (not failed) == report.passed
        skipped = {name for name, case in cases.items() if case.find("skipped") is not None}
        assert skipped == {row.name for row in report.absent_classes}
        assert suite.get("tests") == str(len(cases))
        assert suite.get("failures") == str(len(failed))
        assert suite.get("skipped") == str(len(skipped))


def test_markdown_has_every_class_and_the_verdict(made: tuple[Report, list[PicturedFrame]]) -> None:
    text = render_markdown(made[0])
    assert "Regression" in text.splitlines()[0]
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    for row in made[0].classes:
        assert row.name + ("" if row.passed else " ❌") in rows


def test_files_are_written_whole(tmp_path: Path, made: tuple[Report, list[PicturedFrame]]) -> None:
    report, pictures = made
    files = write_report(tmp_path / "deep" / "out", report, pictures)
    assert {path.name for path in files.html.parent.iterdir()} == {
        "report.html", "report.json", "report.md", "report.xml",
    }  # fmt: skip
    assert Report.model_validate_json(files.json.read_text()) == report
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SinkError, match="cannot be written"):
        write_report(tmp_path / "file", report)


def test_a_missing_jinja2_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, made: tuple[Report, list[PicturedFrame]]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "jinja2":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match="jinja2") as missing:
        render_html(made[0])
    assert ".[report]" in (missing.value.hint or "")


def test_layers_that_fell_back_to_float_are_named() -> None:
    """In every form; and nothing is said where nothing is known."""
    found = FloatLayers(
        fallback=[FloatLayer(name="stage1|fc3", precision="fp16")], by_design=["<head>"]
    )
    report, pictures = _report(painted(3, error=0.3), float_layers=found)
    page = Page(render_html(report, pictures))
    assert "float-layers" in page.ids
    text = " ".join(" ".join(page.text).split())
    assert (
        "1 heavy layer that was quantized runs in float (left in float by the quantizer: 1)."
        in text
    )
    assert "stage1|fc3 fp16" in text
    assert "<head>" in page.text
    markdown = render_markdown(report)
    assert "- stage1\\|fc3: fp16" in markdown.splitlines()
    assert report.model_dump()["float_layers"] == found.model_dump()
    report, pictures = _report(painted(3, error=0.3))
    assert report.float_layers is None
    assert "float-layers" not in Page(render_html(report, pictures)).ids
    assert "in float" not in render_markdown(report)
