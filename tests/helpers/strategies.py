"""Random networks for property tests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from fbnetv3_zoo.arch import (
    Activation,
    Arch,
    Conv,
    InvertedResidual,
    PoolingHead,
    Row,
    Skip,
    SqueezeExcite,
    round_width,
)

KERNEL_SIZES = (1, 3, 5, 7)
EXPANSIONS = (0.5, 1, 1, 1.5, 2, 3, 4.5566)
ROOMY = 4096  # pixels: no network drawn here needs more, whatever its padding

activations = st.sampled_from(Activation)
widths = st.integers(1, 6).map(lambda n: 8 * n) | st.integers(1, 40)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
squeeze_excites = st.builds(
    SqueezeExcite, reduces=st.sampled_from(("input", "expanded")), ratio=st.sampled_from((0.0625, 0.25, 0.5))
)


@st.composite
def archs(draw: st.DrawFn, *, max_stages: int = 4, extra_pixels: int = 40) -> Arch:
    """A valid network of up to ``max_stages`` stages at up to ``extra_pixels`` over its smallest resolution.

    Widths stay small and at most five rows have stride 2, so that one forward pass takes milliseconds.
    """
    divisor = draw(st.sampled_from((1, 4, 8)))
    in_channels = channels = draw(st.integers(1, 4))
    strides, stages = 5, []
    for _ in range(draw(st.integers(1, max_stages))):
        stage: list[Row] = []
        for _ in range(draw(st.integers(1, 3))):
            row = draw(rows(channels, divisor, may_stride=strides > 0))
            channels, strides = row.out_channels, strides - (row.stride == 2)
            stage.append(row)
        stages.append(tuple(stage))
    stages += draw(heads())
    arch = Arch(draw(names), ROOMY, tuple(stages), divisor, in_channels, draw(st.integers(1, 20)))
    return replace(arch, resolution=arch.min_resolution + draw(st.integers(0, extra_pixels)))


@st.composite
def rows(draw: st.DrawFn, in_channels: int, divisor: int, *, may_stride: bool) -> Conv | InvertedResidual | Skip:
    """A row of any kind but a pooling head that can follow ``in_channels`` channels."""
    stride = draw(st.sampled_from((1, 2))) if may_stride else 1
    kind = draw(st.sampled_from((Conv, InvertedResidual, InvertedResidual, InvertedResidual, Skip)))
    repeats, kernel_size = draw(st.integers(1, 3)), draw(st.sampled_from(KERNEL_SIZES))
    width = draw(st.just(in_channels) | widths)
    if kind is Skip:
        return Skip(width, stride, repeats)
    if kind is Conv:
        return Conv(kernel_size, width, stride, draw(activations), draw(st.booleans()), repeats)
    expansion = draw(st.sampled_from(EXPANSIONS))
    expanded = [round_width(channels * expansion, divisor) for channels in ({in_channels, width})]
    grouped = draw(
        st.sampled_from([n for n in (1, 1, 2, 3) if not any(c % n for c in (in_channels, width, *expanded))])
    )
    per_group = draw(st.sampled_from([n for n in (1, 1, 2, 4) if not any(c % max(1, c // n) for c in expanded)]))
    return InvertedResidual(
        kernel_size,
        width,
        stride,
        repeats,
        expansion,
        draw(activations),
        draw(st.none() | squeeze_excites),
        depthwise_padding=draw(st.none() | st.none() | st.integers(0, kernel_size // 2)),
        conv_bias=draw(st.booleans()),
        groups_1x1=grouped,
        channels_per_group=per_group,
        zero_init_last_norm=draw(st.booleans()),
    )


@st.composite
def heads(draw: st.DrawFn) -> list[tuple[Row, ...]]:
    """The last stage of FBNetV2 and V3, or that of FBNet, or none."""
    width, activation = draw(widths), draw(activations)
    pooling = PoolingHead(width, draw(st.sampled_from(EXPANSIONS)), activation)
    return draw(st.sampled_from([[], [(pooling,)], [(Conv(1, width, 1, activation),)]]))
