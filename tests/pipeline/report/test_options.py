"""Options of the report's command that argparse cannot judge."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.report.options import parse_exact


@pytest.mark.parametrize(("text", "expected"), [("all", None), ("none", 0), ("7", 7)])
def test_how_many_exact_frames(text: str, expected: int | None) -> None:
    assert parse_exact(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "some", "9" * 5000])
def test_a_number_of_exact_frames_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--exact"):
        parse_exact(text)
