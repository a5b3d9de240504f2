"""The report's four files: a page for people, JSON for programs, Markdown for pull requests, JUnit
XML for CI. Each is made whole in memory and written whole, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from calibration.cityscapes import PALETTE_RGB
from pipeline.pages import environment
from pipeline.publish import write_output
from pipeline.report import charts, wording
from pipeline.report.pictures import PicturedFrame
from pipeline.report.schema import Report
from pipeline.report.verdict import signed

MOST_SENSITIVE = 15
"""Layers in the pull-request comment; ``report.json`` has all."""

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ReportFiles:
    """Where the files of a report are."""

    html: Path
    json: Path
    markdown: Path
    junit: Path


def write_report(
    folder: Path,
    report: Report,
    pictures: Sequence[PicturedFrame] = (),
    figure: PicturedFrame | None = None,
) -> ReportFiles:
    """Write ``report.html``, ``.json``, ``.md`` and ``.xml`` into a folder.

    Args:
        folder: made if it is not there; files of an earlier report are replaced.
        report: all figures.
        pictures: of the frames in ``report.changed_frames``.
        figure: the frame to draw patch edges over, if they are known.

    Raises:
        SinkError: the folder cannot be written.
        MissingDependencyError: jinja2 is not installed.
    """
    files = ReportFiles(*(folder / f"report.{ending}" for ending in ("html", "json", "md", "xml")))
    contents = (
        (files.html, render_html(report, pictures, figure)),
        (files.json, render_json(report)),
        (files.markdown, render_markdown(report)),
        (files.junit, render_junit(report)),
    )
    for path, text in contents:
        write_output(path, text.encode())
    return files


def render_json(report: Report) -> str:
    """``report.json``, see ``schema``."""
    return report.model_dump_json(indent=1) + "\n"


def render_html(
    report: Report, pictures: Sequence[PicturedFrame] = (), figure: PicturedFrame | None = None
) -> str:
    """The page: one file without scripts or styles from elsewhere.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    templates = environment(TEMPLATES, why="writing the report")
    templates.filters["signed"] = signed
    span = charts.change_span(
        [(row.drop, row.drop_interval) for row in report.classes], report.limits.max_class_drop
    )
    return templates.get_template("report.html").render(
        report=report,
        charts=charts,
        words=wording,
        span=span,
        swatches={row.name: _css(row.train_id) for row in report.classes},
        provenance={name: wording.facts(part) for name, part in report.provenance.items()},
        pictures={picture.index: picture for picture in pictures},
        figure=figure,
    )


def render_markdown(report: Report) -> str:
    """The pull-request comment: verdict, headline figures, classes folded away."""
    before, after = report.reference, report.candidate
    warning = wording.calibrated(report)
    lines = [
        f"### {'✅ Passed' if report.passed else '❌ Regression'}: "
        f"{_md(after.name)} against {_md(before.name)}",
        "",
        f"{_md(wording.lead(report))} {wording.sureness(report)} {wording.worst(report)}",
        *(f"- {reason}" for reason in report.reasons),
        *(["", f"⚠️ **{_md(warning)}**"] if warning else []),
        "",
        f"| | {_md(before.name)} | {_md(after.name)} | change |",
        "|---|--:|--:|--:|",
    ]
    for title, field in (
        ("mIoU", "miou"),
        ("pixel accuracy", "pixel_accuracy"),
        ("mean class accuracy", "mean_class_accuracy"),
    ):
        old, new = getattr(before, field), getattr(after, field)
        lines.append(f"| {title} | {old:.2f} | {new:.2f} | {signed(new - old)} |")
    old_ms, new_ms = before.latency_ms.frame.p50, after.latency_ms.frame.p50
    lines.append(f"| ms per frame (median) | {old_ms:.1f} | {new_ms:.1f} | {report.speedup:.2f}x |")
    lines += [
        "",
        f"<details><summary>{len(report.classes)} classes over {report.frames} frames</summary>",
        "",
        f"| class | {_md(before.name)} | {_md(after.name)} | change | 95 % interval |",
        "|---|--:|--:|--:|:-:|",
    ]
    for row in report.classes:
        found = row.drop_interval
        between = f"{signed(-found.high)} to {signed(-found.low)}" if found else ""
        mark = "" if row.passed else " ❌"
        lines.append(
            f"| {row.name}{mark} | {row.reference:.2f} | {row.candidate:.2f} "
            f"| {signed(-row.drop)} | {between} |"
        )
    lines += ["", "</details>", ""]
    if report.attribution:
        lines += [wording.attribution(report.attribution), ""]
    if report.patch_edges:
        lines += [f"Patch edges: {wording.edges(report.patch_edges)}", ""]
    lines += _float_layers(report)
    lines += _sensitivity(report)
    if report.left_out:
        lines += [f"{len(report.left_out)} frames could not be scored and were left out.", ""]
    return "\n".join(lines)


def _float_layers(report: Report) -> list[str]:
    """The candidate's layers that fell back to float, by name, where that is known."""
    if report.float_layers is None:
        return []
    fell = [f"- {_md(row.name)}: {_md(row.precision)}" for row in report.float_layers.fallback]
    return [wording.float_layers(report.float_layers), *fell, ""]


def _sensitivity(report: Report) -> list[str]:
    """The most sensitive layers as a table, if they were ranked."""
    if not report.sensitivity:
        return []
    shown = report.sensitivity[:MOST_SENSITIVE]
    lines = [
        f"<details><summary>{wording.sensitivity(report)}</summary>",
        "",
        "| quantized alone | operator | error of the logits | labels changed | mIoU |",
        "|---|---|--:|--:|--:|",
    ]
    for row in shown:
        changed = "" if row.labels_changed is None else f"{row.labels_changed:.2f} %"
        moved = "" if row.drop is None else signed(-row.drop)
        lines.append(
            f"| {_md(row.layer)} | {_md(row.kind or '')} | {100 * row.logits_error:.2f} % "
            f"| {changed} | {moved} |"
        )
    return [*lines, "", "</details>", ""]


def render_junit(report: Report) -> str:
    """JUnit XML: one test case for mIoU, and one for each class; absent classes are skipped."""
    suite = ET.Element("testsuite", name="accuracy", timestamp=report.created_at)
    properties = ET.SubElement(suite, "properties")
    values = {
        "reference.miou": f"{report.reference.miou:.6f}",
        "candidate.miou": f"{report.candidate.miou:.6f}",
        "frames": str(report.frames),
        "patch_edges": report.patch_edges.verdict if report.patch_edges else "not known",
    }
    for name, value in values.items():
        ET.SubElement(properties, "property", name=name, value=value)
    limits = report.limits
    _case(suite, "mIoU", report.drop, limits.max_drop, report.miou_passed)
    for row in report.classes:
        _case(suite, row.name, row.drop, limits.max_class_drop, row.passed)
    for absent in report.absent_classes:
        case = ET.SubElement(suite, "testcase", classname="accuracy", name=absent.name, time="0")
        ET.SubElement(case, "skipped", message="no label of these frames holds the class")
    failed = len(suite.findall("testcase/failure"))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(failed))
    suite.set("errors", "0")
    suite.set("skipped", str(len(report.absent_classes)))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def _case(suite: ET.Element, name: str, drop: float, limit: float, passed: bool) -> None:
    case = ET.SubElement(suite, "testcase", classname="accuracy", name=name, time="0")
    said = f"{name}: {signed(-drop)} points, a loss of {limit:g} is allowed"
    if passed:
        ET.SubElement(case, "system-out").text = said
    else:
        ET.SubElement(case, "failure", message=said, type="regression")


def _css(train_id: int) -> str:
    red, green, blue = PALETTE_RGB[train_id].tolist()
    return f"rgb({red} {green} {blue})"


def _md(text: str) -> str:
    """Text that a Markdown table shows as it is."""
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, "\\" + sign)
    return text
