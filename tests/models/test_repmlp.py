"""The backbone against independent computations of the paper's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models.errors import InputShapeError, ModelError
from models.repmlp import (
    BackboneConfig,
    RepMLPBlock,
    RepMLPNet,
    check_input_size,
    merge_patches,
    split_patches,
)
from tests.models.helpers import randomise


def published_block(block: RepMLPBlock, x: torch.Tensor) -> torch.Tensor:
    """The published single-patch computation: FC3 as the grouped 1x1 convolution it is stored as.

    ``x`` is one patch per image, so there is no order of patches to get wrong.
    """
    n = x.shape[0]
    sets, h, w = block.sets, block.h, block.w
    rows = x.reshape(n * block.channels // sets, sets * h * w, 1, 1)
    fc = F.conv2d(rows, block.fc3.weight, groups=sets).reshape(-1, sets, h, w)
    out = block.fc3_bn(fc)
    images = x.reshape(-1, sets, h, w)
    for k in block.kernels:
        out = out + block.branch(k)(images)
    result: torch.Tensor = out.reshape(x.shape)
    return result


def make_block(
    channels: int, side: int, sets: int, kernels: tuple[int, ...] = (1, 3)
) -> RepMLPBlock:
    return randomise(RepMLPBlock(channels, side, side, sets=sets, kernels=kernels)).double().eval()


@pytest.mark.parametrize(("channels", "sets"), [(4, 1), (8, 2), (12, 4), (6, 6)])
def test_one_patch_is_the_published_block(channels: int, sets: int) -> None:
    block = make_block(channels, 4, sets)
    x = torch.randn(3, channels, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block.spatial(x), published_block(block, x))


@pytest.mark.parametrize(("channels", "sets"), [(4, 1), (8, 2), (12, 4)])
def test_many_patches_are_each_the_block_alone_with_the_gate_of_the_whole_map(
    channels: int, sets: int
) -> None:
    """The classification code has one patch; an order slip can only show with several."""
    block = make_block(channels, 4, sets)
    x = torch.randn(2, channels, 12, 8, dtype=torch.float64)
    with torch.no_grad():
        out = block(x)
        mean = x.mean(dim=(2, 3), keepdim=True)
        gate = torch.sigmoid(block.gp.fc2(torch.relu(block.gp.fc1(mean))))
        for row in range(3):
            for column in range(2):
                window = (slice(None), slice(None), slice(4 * row, 4 * row + 4))
                part = (*window, slice(4 * column, 4 * column + 4))
                alone = published_block(block, x[part].contiguous()) * gate
                torch.testing.assert_close(out[part], alone)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3),
    st.integers(1, 4), st.integers(1, 4),
)  # fmt: skip
def test_splitting_patches_is_undone_by_merging(
    n: int, groups: int, sets: int, rows: int, cols: int, h: int, w: int
) -> None:
    x = torch.arange(n * groups * sets * rows * h * cols * w).reshape(
        n, groups * sets, rows * h, cols * w
    )
    split = split_patches(x, h, w, sets)
    assert split.shape == (sets, n * groups * rows * cols, h * w)
    assert torch.equal(merge_patches(split, x.shape, h, w), x)
    # Row m of set s is one patch of channel group * S + s.
    expected = x[0, (groups - 1) * sets + sets - 1, :h, :w].reshape(-1)
    assert torch.equal(split[sets - 1, (groups - 1) * rows * cols], expected)


def test_share_sets_serve_every_sth_channel() -> None:
    """Channels c and c + S have one kernel: the same patch in both gives the same output."""
    block = make_block(8, 4, 2)
    patch = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        out = block.spatial(patch.expand(1, 8, 4, 4).contiguous())[0]
    for channel in range(8):
        torch.testing.assert_close(out[channel], out[channel % 2])
    assert not torch.allclose(out[0], out[1])


def test_levels_have_the_strides_of_the_paper() -> None:
    config = BackboneConfig((8, 16, 32, 64), (8, 4, 2, 1), (1, 1, 1, 1), (1, 2, 4, 8))
    net = RepMLPNet(config).eval()
    with torch.no_grad():
        levels = net(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape) for x in levels] == [
        (1, 8, 16, 24), (1, 16, 8, 12), (1, 32, 4, 6), (1, 64, 2, 3),
    ]  # fmt: skip


def test_patches_see_across_their_edges() -> None:
    """Appendix B: the 3x3 downsampling carries information from one patch to its neighbour."""
    config = BackboneConfig((4, 8, 16, 32), (8, 4, 2, 1), (1, 1, 1, 1), (1, 1, 1, 1))
    net = randomise(RepMLPNet(config)).eval()
    image = torch.zeros(1, 3, 32, 64)
    moved = image.clone()
    moved[..., 28:32] = torch.randn(1, 3, 32, 4) * 5  # the last columns of the left patch
    # Leave the gate out, which sees the whole map anyway.
    for _name, block in net.repmlp_blocks():
        torch.nn.init.zeros_(block.gp.fc2.weight)
    with torch.no_grad():
        first, second = net(image), net(moved)
    assert torch.equal(first[0][..., 8:], second[0][..., 8:])  # stage 1 stays inside its patch
    assert not torch.equal(first[1][..., 4:], second[1][..., 4:])  # stage 2 has crossed the edge


@pytest.mark.parametrize(
    ("size", "named"),
    [((500, 1024), ("384x1024", "512x1024")), ((512, 1000), ("512x896", "512x1024")),
     ((1, 1), ("128x128",))],
)  # fmt: skip
def test_a_size_that_does_not_fit_names_the_nearest_that_do(
    size: tuple[int, int], named: tuple[str, ...]
) -> None:
    with pytest.raises(InputShapeError) as error:
        check_input_size(*size, unit=128)
    for text in named:
        assert text in str(error.value)
    assert "\n" not in str(error.value)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([16, 128, 224, 256]))
def test_every_named_size_fits(height: int, width: int, unit: int) -> None:
    try:
        check_input_size(height, width, unit)
    except InputShapeError as error:
        names = str(error).rpartition(": ")[2].split(", ")
        assert names
        for name in names:
            h, w = map(int, name.split("x"))
            check_input_size(h, w, unit)
            assert abs(h - height) < unit
            assert abs(w - width) < unit
    else:
        assert height % unit == 0
        assert width % unit == 0


@pytest.mark.parametrize(
    "numbers",
    [
        {"sharesets": (3, 2, 4, 8)}, {"kernels": (2,)}, {"patches": (8, 4, 2, 2)},
        {"blocks": (1, 1, 1)},
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_a_backbone_are_refused(numbers: dict[str, tuple[int, ...]]) -> None:
    good: dict[str, tuple[int, ...]] = {
        "channels": (8, 16, 32, 64), "patches": (8, 4, 2, 1), "blocks": (1, 1, 1, 1),
        "sharesets": (1, 2, 4, 8),
    }  # fmt: skip
    with pytest.raises(ModelError):
        BackboneConfig(**{**good, **numbers})  # type: ignore[arg-type]  # wrong on purpose


def test_the_gate_reads_the_whole_map() -> None:
    block = make_block(16, 4, 1)
    assert block.gp.fc1.bias is not None
    with torch.no_grad():
        block.gp.fc1.bias.fill_(5.0)  # no ReLU of the gate is asleep
    x = torch.randn(1, 16, 4, 8, dtype=torch.float64)
    y = x.clone()
    y[..., 4:] += 1.0
    with torch.no_grad():
        left_before, left_after = block(x)[..., :4], block(y)[..., :4]
    assert not np.allclose(left_before.numpy(), left_after.numpy())
