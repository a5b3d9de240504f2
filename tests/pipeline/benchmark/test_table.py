"""The README's table, the published schema and the page: current, complete, and honest."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.benchmark.contenders import BF16, INT8
from pipeline.benchmark.page import render, write_page
from pipeline.benchmark.schema import Benchmark
from pipeline.benchmark.table import (
    BEGIN,
    END,
    SCHEMA_NAME,
    as_markdown,
    figure,
    main,
    read_result,
    rewrite,
)
from pipeline.errors import SinkError, UsageError
from tests.pipeline.benchmark.samples import NAMES, benchmark

ROOT = Path(__file__).parents[3]


def test_the_published_schema_is_the_one_in_use() -> None:
    """``benchmark.schema.json`` is ``Benchmark.model_json_schema(mode="serialization")``."""
    path = ROOT / "docs" / "benchmarks" / SCHEMA_NAME
    assert json.loads(path.read_text()) == Benchmark.model_json_schema(mode="serialization")


def test_the_readmes_table_is_what_the_kept_results_give() -> None:
    results = str(ROOT / "docs" / "benchmarks")
    assert main(["--readme", str(ROOT / "README.md"), "--results", results, "--check"]) == 0


def test_a_result_comes_back_from_its_json() -> None:
    made = benchmark({INT8: "no int8"})
    assert Benchmark.model_validate_json(made.model_dump_json()) == made


def test_the_table_is_written_between_the_markers_and_nowhere_else(tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results"
    results.mkdir()
    (results / SCHEMA_NAME).write_text("{}")  # no result, though it lies there
    (results / "one.json").write_text(benchmark().model_dump_json())
    readme.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    arguments = ["--readme", str(readme), "--results", str(results)]
    assert main([*arguments, "--check"]) == 1
    assert "old" in readme.read_text()
    assert main(arguments) == 0
    text = readme.read_text()
    assert text.startswith(f"before\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nafter\n")
    assert "old" not in text
    assert all(name in text for name in NAMES)
    assert "[results/one.json](results/one.json)" in text
    assert "| 3 | **missed** |" in text
    assert main([*arguments, "--check"]) == 0
    assert main(arguments) == 0
    assert readme.read_text() == text


@pytest.mark.parametrize("text", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN}"])
def test_markers_that_are_not_there(text: str) -> None:
    with pytest.raises(UsageError, match="once each"):
        rewrite(text, {})


def test_losses_and_gaps_are_shown() -> None:
    text = as_markdown(benchmark({BF16: "this CPU has no BF16 | really"}))
    assert "| openvino bf16 | not measured: this CPU has no BF16 \\| really |" in text
    assert "**missed**" in text
    assert "~" not in text
    assert all(f"| {name} |" in text for name in NAMES)
    assert "Not a quiet machine" not in text
    widths = [
        line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")
    ]
    blocks = [b for b in text.split("\n\n") if b.startswith("|")]
    assert len(widths) == sum(len(b.splitlines()) for b in blocks)
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_a_loaded_machines_ratios_are_marked() -> None:
    text = as_markdown(benchmark(loaded="other processes took 58% of the CPUs"))
    assert "**Not a quiet machine: other processes took 58% of the CPUs" in text
    assert "| ~" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1234.5, "1234"), (99.94, "99.9"), (9.876, "9.88"), (0.0123, "0.012")],
)
def test_figures_are_short(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"schema_version": "2.0"}'])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.json.*not a benchmark's result"):
        read_result(tmp_path / "bad.json")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    made = benchmark({BF16: "no <b>BF16</b>"}, loaded="it <i>was</i> busy")
    path = tmp_path / "page.html"
    write_page(path, made)
    page = _Page()
    page.feed(path.read_text())
    assert path.read_text() == render(made)
    assert page.links == []
    assert not {"script", "b", "i", "cpu"} & set(page.tags)
    for expected in (*NAMES, "no <b>BF16</b>", "it <i>was</i> busy", "A <CPU>", "missed", "stem"):
        assert expected in page.text
    assert page.tags.count("svg") == len(NAMES) - 1


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", benchmark())
