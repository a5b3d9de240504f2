"""Label maps and the curve of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.cityscapes import CLASS_NAMES, IGNORE
from pipeline.errors import UsageError
from pipeline.training.curve import draw_curve, smoothed
from pipeline.training.origin import parse_label_maps
from pipeline.training.relabel import read_label_map


def test_a_label_map_moves_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    file.write_text('{"bus": "car", "rider": "ignore"}')
    table = read_label_map(file)
    car, bus, rider = (CLASS_NAMES.index(n) for n in ("car", "bus", "rider"))
    assert (table[bus], table[rider]) == (car, IGNORE)
    others = [i for i in range(256) if i not in (bus, rider)]
    assert (table[others] == others).all()


def test_a_root_given_twice_has_its_label_map_both_times(tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    file.write_text('{"bus": "car"}')
    tables = parse_label_maps([f"/a={file}"], ["/a", "/b", "/a"])
    assert [table is not None for table in tables] == [True, False, True]
    with pytest.raises(UsageError, match="ROOT named by --data"):
        parse_label_maps([f"/c={file}"], ["/a"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"lorry": "car"}', "'lorry' is no class"),
        ('{"car": 3}', "'3' is no class"),
        ("[1]", "must be an object"),
        ("{", "is not a label map"),
    ],
)
def test_a_wrong_label_map_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "map.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        read_label_map(file)
    assert str(file) in str(caught.value)
    with pytest.raises(UsageError, match="is not a label map"):
        read_label_map(tmp_path / "none.json")


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.integers(1, 20))
def test_smoothing_is_the_mean_of_the_last_values(values: list[float], window: int) -> None:
    found = smoothed(np.array(values), window)
    for i in range(len(values)):
        assert found[i] == pytest.approx(np.mean(values[max(0, i - window + 1) : i + 1]), abs=1e-9)


def test_a_curve_is_drawn_the_same_twice(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        assert draw_curve([3.0, 2.0, 1.5], [(2, 10.0), (3, 20.0)], "tiny", tmp_path / name)
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert draw_curve([], [], "empty", tmp_path / "c.svg")
