"""The network as a module, built from an :class:`~fbnetv3_zoo.arch.Arch`: logits, features, feature maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..arch import Arch, InvertedResidual, PoolingHead
from ..description import Description
from ..errors import ZooError, check_number
from ..preprocess import Preprocess
from .blocks import ClassifierHead, Conv2d, InvertedResidualBlock, build_block, is_graph, laid_out


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """A map that :meth:`FBNet.feature_maps` returns: its name, channels, and stride relative to the image."""

    name: str
    channels: int
    stride: int


class FBNet(nn.Module):
    """Any network of the family.

    Args:
        arch: what to build.
        dropout: probability before the classifier, in [0, 1).
        stochastic_depth: probability of leaving out the last residual branch, in [0, 1); rises linearly from 0 at the
            first inverted residual (arXiv 1603.09382).
        generator: source of the initial weights (default: torch's global one).

    Initialisation: convolutions and classifier Kaiming normal, fan out (the classifier's as for at least 1000 classes);
    biases 0; norms 1 and 0, but 0 and 0 for the last norm of a residual branch where the row says so. ``preprocess``
    and ``class_names`` say what the network expects and answers, ``weights`` and ``licence`` which published weights it
    has or was trained from; :func:`fbnetv3_zoo.save` stores them all.

    On a CPU, maps are kept in the channels-last layout whatever the layout of the input: measured, that is the faster
    one (README, "Speed").
    """

    __jit_unused_properties__ = ("num_classes", "description", "feature_info")

    def __init__(
        self, arch: Arch, *, dropout: float = 0.0, stochastic_depth: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_number("dropout", dropout, at_least=0, below=1)
        check_number("stochastic_depth", stochastic_depth, at_least=0, below=1)
        self.arch = arch
        self.preprocess = Preprocess.for_arch(arch)
        self.class_names: tuple[str, ...] | None = None
        self.weights: str | None = None
        self.licence: str | None = None
        self.gradient_checkpointing = False
        with nullcontext() if generator is None else torch.random.fork_rng(devices=[]):
            self.stages = nn.Sequential(*_build_stages(arch, stochastic_depth))
            self.dropout = nn.Dropout(dropout)
            self.classifier = ClassifierHead(arch.blocks[-1].out_channels, arch.num_classes)
        self._zero_last_norms()
        if generator is not None:
            self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Give every parameter and buffer its initial value."""
        for module in self.modules():
            if isinstance(module, (Conv2d, ClassifierHead)):
                module.reset_parameters(generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        self._zero_last_norms()

    def _zero_last_norms(self) -> None:
        for settled, block in zip(self.arch.blocks, self._blocks(self.stages), strict=True):
            zeroed = isinstance(settled.row, InvertedResidual) and settled.row.zero_init_last_norm
            if zeroed and isinstance(block, InvertedResidualBlock) and block.has_residual:
                nn.init.zeros_(block.project.norm.weight)

    def reset_classifier(self, num_classes: int, *, generator: torch.Generator | None = None) -> None:
        """Replace the classifier by a new one; class names are forgotten."""
        self.arch = replace(self.arch, num_classes=num_classes)
        old = self.classifier.weight
        self.classifier = ClassifierHead(self.classifier.in_features, num_classes).to(old.device, old.dtype)
        if generator is not None:
            self.classifier.reset_parameters(generator)
        self.class_names = None

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.arch.num_classes

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them: less memory, more time."""
        self.gradient_checkpointing = enabled

    @property
    def description(self) -> Description:
        """What a file of this network says of it."""
        return Description(self.arch, self.preprocess, self.class_names, self.weights, self.licence)

    @property
    def feature_info(self) -> tuple[FeatureMap, ...]:
        """What :meth:`feature_maps` returns, in order of stride."""
        trunk = [block for block in self.arch.blocks if block.stage < self.arch.trunk_depth]
        last = {block.reduction: block.out_channels for block in trunk}
        return tuple(FeatureMap(f"stride{stride}", channels, stride) for stride, channels in last.items())

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width), normalised as ``preprocess`` does."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            # TorchScript's language has neither an Arch nor slices of stages
            logits: Tensor = self.classifier(self.dropout(self.stages(images).mean((2, 3))))
        else:
            logits = self.forward_head(self.forward_features(images))
        return logits

    def forward_features(self, images: Tensor) -> Tensor:
        """The last map before the head, shape (batch, channels, height / 32, width / 32)."""
        return self._run(self._blocks(self.stages[: self.arch.trunk_depth]), self._admit(images))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Logits (batch, classes), or with ``pre_logits`` the classifier's input, from :meth:`forward_features`."""
        x = self._run(self._blocks(self.stages[self.arch.trunk_depth :]), features)
        x = x.flatten(1) if isinstance(self.arch.blocks[-1].row, PoolingHead) else x.mean((2, 3))
        if pre_logits:
            return x
        logits: Tensor = self.classifier(self.dropout(x))
        return logits

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """The last map of each stride before the head, by the names of :attr:`feature_info`."""
        x, maps = self._admit(images), {}
        trunk = self._blocks(self.stages[: self.arch.trunk_depth])
        for settled, block in zip(self.arch.blocks, trunk, strict=False):
            x = self._run([block], x)
            maps[f"stride{settled.reduction}"] = x
        return maps

    def _admit(self, images: Tensor) -> Tensor:
        if is_graph(images):
            return images
        self._check(images)
        return laid_out(images)

    def _check(self, images: Tensor) -> None:
        name, channels, side = self.arch.name, self.arch.in_channels, self.arch.min_resolution
        if images.ndim != 4 or images.shape[1] != channels:
            shape = tuple(images.shape)
            raise ZooError(f"{name}: images have shape {shape}; it takes (batch, {channels}, height, width)")
        height, width = images.shape[2:]
        if min(height, width) < side:
            remedy = f"{name}: images of {height} x {width} are too small; give at least {side} x {side}"
            padded = self.arch.stages != self.arch.with_symmetric_padding().stages
            raise ZooError(remedy + (" or build arch.with_symmetric_padding()" if padded else ""))

    @staticmethod
    def _blocks(stages: nn.Sequential) -> list[nn.Module]:
        return [block for stage in stages.children() for block in stage.children()]

    def _run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for block in blocks:
            x = _checkpointed(block, x) if recompute else block(x)
        return x


def _build_stages(arch: Arch, stochastic_depth: float) -> list[nn.Sequential]:
    residuals = [block for block in arch.blocks if isinstance(block.row, InvertedResidual)]
    step = stochastic_depth / max(1, len(residuals) - 1)
    rates = {(block.stage, block.index): n * step for n, block in enumerate(residuals)}
    stages: list[list[nn.Module]] = [[] for _ in arch.stages]
    for block in arch.blocks:
        stages[block.stage].append(build_block(block, drop_rate=rates.get((block.stage, block.index), 0.0)))
    return [nn.Sequential(*stage) for stage in stages]


def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)``, recomputed in the backward pass without counting into the norms' running statistics again."""
    y: Tensor = checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _still_statistics(block)))
    return y


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    norms = [(m, dict(m.named_buffers())) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm, buffers in norms:  # the copies take the second count (autograd saves them: they cannot be left out)
        norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in norms:
            norm._buffers.update(buffers)
