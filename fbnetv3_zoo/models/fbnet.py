"""A network as a module, built from an :class:`~fbnetv3_zoo.arch.Arch`: logits, features, feature maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of any kind, synchronized ones too
from torch.utils.checkpoint import checkpoint

from ..arch import Arch, InvertedResidual, PoolingHead
from ..errors import ZooError, check_number, check_whole
from .blocks import ClassifierHead, Conv2d, InvertedResidualBlock, build_block, is_graph, laid_out
from .network import FeatureInfo, FeatureMap, Network, check_floating


class FBNet(Network):
    """Any network of the family.

    Args:
        arch: the network to build.
        drop_rate: dropout probability before the classifier, in [0, 1).
        drop_path_rate: stochastic depth: probability of dropping the last residual branch, in [0, 1); rises linearly
            from 0 at the first inverted residual (arXiv 1603.09382).
        generator: source of the initial weights (default: torch's global generator).

    Its attributes are those of :class:`~fbnetv3_zoo.models.network.Network`, and ``classifier``: the last layer, an
    ``nn.Linear``. Raises :class:`ZooError` for a rate out of range.

    Initialization: Kaiming normal with fan out for convolutions and classifier (the latter as for at least 1000
    classes), 0 for biases, weight 1 and bias 0 for norms, weight 0 for the last norm of a residual branch where the row
    says so. On a CPU, feature maps are kept channels-last whatever the layout of the input, because that is measured to
    be faster (docs/networks.md, "Speed").
    """

    __jit_unused_properties__ = ("num_classes", "num_features", "head_hidden_size", "description", "feature_info")

    def __init__(
        self, arch: Arch, *, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__(arch)
        check_number("drop_rate", drop_rate, at_least=0, below=1)
        check_number("drop_path_rate", drop_path_rate, at_least=0, below=1)
        self.arch: Arch = arch
        self.gradient_checkpointing = False
        self._frozen = 0
        with nullcontext() if generator is None else torch.random.fork_rng(devices=[]):
            self.stages = nn.Sequential(*_build_stages(arch, drop_path_rate))
            self.dropout = nn.Dropout(drop_rate)
            self.classifier = ClassifierHead(arch.blocks[-1].out_channels, arch.num_classes)
        self._zero_last_norms()
        if generator is not None:
            self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Reset every parameter and buffer to its initial value."""
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
        """Replace the classifier by a new one for ``num_classes`` classes and forget the class names.

        ``generator`` is the source of its values (default: torch's global one). Raises :class:`ZooError` unless
        ``num_classes`` is a whole number of at least 1.
        """
        self.arch = replace(self.arch, num_classes=num_classes)
        old = self.classifier.weight
        self.classifier = ClassifierHead(self.classifier.in_features, self.arch.num_classes).to(old.device, old.dtype)
        if generator is not None:
            self.classifier.reset_parameters(generator)
        self.class_names = None

    def get_classifier(self) -> nn.Linear:
        """The last layer."""
        return self.classifier

    @property
    def num_features(self) -> int:
        """Number of channels that :meth:`forward_features` returns."""
        trunk = [block for block in self.arch.blocks if block.stage < self.arch.trunk_depth]
        return trunk[-1].out_channels if trunk else self.arch.in_channels

    @property
    def head_hidden_size(self) -> int:
        """Number of inputs of the classifier, as returned by ``forward_head(features, pre_logits=True)``."""
        return self.classifier.in_features

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute each block's activations in the backward pass instead of keeping them: less memory, more time."""
        self.gradient_checkpointing = enabled

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """The name of :meth:`set_gradient_checkpointing` in timm."""
        self.set_gradient_checkpointing(enable)

    def freeze(self, stages: int) -> None:
        """Keep weights and statistics of the first ``stages`` stages (0: of none) in all training that follows.

        Raises :class:`ZooError` unless ``stages`` is a whole number up to the number of stages.
        """
        check_whole("stages to freeze", stages, at_least=0, at_most=len(self.stages))
        self._frozen = stages
        for n, stage in enumerate(self.stages):
            stage.requires_grad_(n >= stages)
        self.train(self.training)

    def train(self, mode: bool = True) -> FBNet:
        """Set training mode, in which frozen stages stay in evaluation mode."""
        super().train(mode)
        for n in range(self._frozen):
            self.stages[n].eval()
        return self

    @property
    def feature_info(self) -> FeatureInfo:
        """The maps that :meth:`feature_maps` returns, in order of stride."""
        trunk = [block for block in self.arch.blocks if block.stage < self.arch.trunk_depth]
        last = {block.reduction: block.out_channels for block in trunk}
        return FeatureInfo(FeatureMap(f"stride{stride}", channels, stride) for stride, channels in last.items())

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width), normalized as by ``preprocess``.

        Raises :class:`ZooError` for another shape and for images smaller than ``arch.min_resolution``.
        """
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            # TorchScript's language has neither an Arch nor slices of stages
            logits: Tensor = self.classifier(self.dropout(self.stages(images).mean((2, 3))))
        else:
            logits = self.forward_head(self.forward_features(images))
        return logits

    def forward_features(self, images: Tensor) -> Tensor:
        """The last map before the head, shape (batch, num_features, height / 32, width / 32)."""
        return self._run(self._blocks(self.stages[: self.arch.trunk_depth]), admit(self.arch, images))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Logits (batch, classes) from the output of :meth:`forward_features`.

        With ``pre_logits``, the classifier's input instead, of shape (batch, head_hidden_size).
        """
        x = self._run(self._blocks(self.stages[self.arch.trunk_depth :]), features)
        x = x.flatten(1) if isinstance(self.arch.blocks[-1].row, PoolingHead) else x.mean((2, 3))
        if pre_logits:
            return x
        logits: Tensor = self.classifier(self.dropout(x))
        return logits

    def feature_maps(self, images: Tensor) -> dict[str, Tensor]:
        """The last map of each stride before the head, by the names of :attr:`feature_info`.

        Shapes are (batch, channels, height / stride, width / stride).
        """
        x, maps = admit(self.arch, images), {}
        trunk = self._blocks(self.stages[: self.arch.trunk_depth])
        for settled, block in zip(self.arch.blocks, trunk, strict=False):
            x = self._run([block], x)
            maps[f"stride{settled.reduction}"] = x
        return maps

    @staticmethod
    def _blocks(stages: nn.Sequential) -> list[nn.Module]:
        return [block for stage in stages.children() for block in stage.children()]

    def _run(self, blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for block in blocks:
            x = checkpointed(block, x) if recompute else block(x)
        return x


def admit(arch: Arch, images: Tensor) -> Tensor:
    """``images``, checked for ``arch`` and brought into the faster layout, unless a graph is being recorded.

    Raises :class:`ZooError` for another shape and for images that are too small.
    """
    if is_graph(images):
        return images
    name, channels, side = arch.name, arch.in_channels, arch.min_resolution
    if images.ndim != 4 or images.shape[1] != channels:
        shape = tuple(images.shape)
        raise ZooError(f"{name}: images have shape {shape}; it takes (batch, {channels}, height, width)")
    check_floating(name, images)
    height, width = images.shape[2:]
    if min(height, width) < side:
        remedy = f"{name}: images of {height} x {width} are too small; give at least {side} x {side}"
        padded = arch.stages != arch.with_symmetric_padding().stages
        raise ZooError(remedy + (" or build arch.with_symmetric_padding()" if padded else ""))
    return laid_out(images)


def _build_stages(arch: Arch, drop_path_rate: float) -> list[nn.Sequential]:
    residuals = [block for block in arch.blocks if isinstance(block.row, InvertedResidual)]
    step = drop_path_rate / max(1, len(residuals) - 1)
    rates = {(block.stage, block.index): n * step for n, block in enumerate(residuals)}
    stages: list[list[nn.Module]] = [[] for _ in arch.stages]
    for block in arch.blocks:
        stages[block.stage].append(build_block(block, drop_path_rate=rates.get((block.stage, block.index), 0.0)))
    return [nn.Sequential(*stage) for stage in stages]


def checkpointed(block: nn.Module, x: Tensor, *given: object) -> Tensor:
    """``block(x, *given)``, recomputed in the backward pass without updating the norms' running statistics again."""
    y: Tensor = checkpoint(
        block, x, *given, use_reentrant=False, context_fn=lambda: (nullcontext(), _still_statistics(block))
    )
    return y


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    norms = [(m, dict(m.named_buffers())) for m in module.modules() if isinstance(m, _BatchNorm)]
    for norm, buffers in norms:  # the copies take the second update (autograd saves them: they cannot be omitted)
        norm._buffers.update({name: buffer.clone() for name, buffer in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in norms:
            norm._buffers.update(buffers)
