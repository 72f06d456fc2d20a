"""The supernet: all networks of a space as one module, with a logit for every value of every choice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fbnetv3_zoo.arch import PoolingHead
from fbnetv3_zoo.errors import ZooError, check_number
from fbnetv3_zoo.models.blocks import ClassifierHead, laid_out
from fbnetv3_zoo.models.fbnet import FBNet, checkpointed
from fbnetv3_zoo.preprocess import Preprocess

from .mixed_op import MixedLayer
from .space import LayerSpace


class Supernet(nn.Module):
    """All networks of ``space`` with shared weights.

    Every choice is a softmax of its logits: with Gumbel noise and a temperature in training (FBNet, section 3.2),
    without noise in evaluation, or one-hot if :attr:`code` is a point. With several resolutions, every layer is applied
    to the map subsampled to each, and its outputs are scattered back (:func:`interspersed`). Norms are initialized to 1
    whatever the rows say (``zero_init_last_norm`` is for single networks), so that candidates differ from the first
    step on.
    """

    preprocess: Preprocess

    def __init__(
        self, space: LayerSpace, *, drop_rate: float = 0.0, generator: torch.Generator | None = None
    ) -> None:  # fmt: skip
        super().__init__()
        check_number("drop_rate", drop_rate, at_least=0, below=1)
        self.space = space
        with torch.random.fork_rng(devices=[]):
            if generator is not None:
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.layers = nn.ModuleList(MixedLayer(space, number) for number in range(len(space.layers)))
            self.dropout = nn.Dropout(drop_rate)
            self.classifier = ClassifierHead(space.layers[-1].widths[-1], space.num_classes)
        self.logits = nn.ParameterList(torch.zeros(len(d)) for d in space.dimensions)
        self.preprocess = Preprocess(space.resolutions[-1], space.resolutions[-1]).for_channels(space.in_channels)
        self.temperature = 1.0
        self.gradient_checkpointing = False
        self.noise: list[Tensor] | None = None
        self.code: tuple[int, ...] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.space.num_classes

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Keep only the input of each layer in training, which is computed again in the backward pass."""
        self.gradient_checkpointing = enabled

    def draw_noise(self, seed: int) -> None:
        """Draw the Gumbel noise of the choices, used in training until the next draw."""
        generator = torch.Generator().manual_seed(seed)
        uniform = [torch.rand(len(d), generator=generator, dtype=torch.float64) for d in self.space.dimensions]
        self.noise = [-(-u.clamp(1e-12, 1 - 1e-12).log()).log() for u in uniform]

    def weights(self) -> list[Tensor]:
        """The weights of the values of every dimension; each tensor sums to 1."""
        if self.code is not None:
            return [
                nn.functional.one_hot(torch.tensor(n), len(logit)).to(logit)
                for n, logit in zip(self.code, self.logits, strict=True)
            ]
        logits = list(self.logits)
        if self.training and self.noise is not None:
            logits = [logit + noise.to(logit) for logit, noise in zip(logits, self.noise, strict=True)]
        return [torch.softmax(logit / self.temperature, 0) for logit in logits]

    def probabilities(self) -> list[Tensor]:
        """Probabilities of the values of every dimension: softmax of the logits (FBNet, section 3.2), detached."""
        return [torch.softmax(logit.detach().double(), 0) for logit in self.logits]

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, side, side) of the largest resolution."""
        side, weights = self.space.resolutions[-1], self.weights()
        if images.shape[1:] != (self.space.in_channels, side, side):
            shape = tuple(images.shape)
            raise ZooError(
                f"{self.space.name}: images have shape {shape}; its supernet takes (batch, {self.space.in_channels}, "
                f"{side}, {side})"
            )
        x = laid_out(images)
        for layer, before, after in zip(self.layers, self.space.sides, self.space.sides[1:], strict=False):
            x = self._at_all_sides(layer, x, weights, before, after)
        logits: Tensor = self.classifier(self.dropout(self._average(x, weights)))
        return logits

    def _at_all_sides(
        self, layer: nn.Module, x: Tensor, weights: Sequence[Tensor], before: Sequence[int], after: Sequence[int]
    ) -> Tensor:
        if len(before) == 1:
            return self._applied(layer, x, weights)
        parts = [
            interspersed(self._applied(layer, sampled(x, side), weights, share), after[-1])
            for side, share in zip(before, weights[0], strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _applied(self, layer: nn.Module, x: Tensor, *given: object) -> Tensor:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpointed(layer, x, *given)
        y: Tensor = layer(x, *given)
        return y

    def _average(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Features (batch, channels): averages of the last map over the pixels of each resolution."""
        if isinstance(self.space.layers[-1].candidates[0], PoolingHead):
            return x.flatten(1)
        if len(sides := self.space.sides[-1]) == 1:
            return x.mean((2, 3))
        parts = [sampled(x, side).mean((2, 3)) * share for side, share in zip(sides, weights[0], strict=True)]
        return torch.stack(parts).sum(0)

    def network(self, code: Sequence[int], name: str = "chosen") -> FBNet:
        """The network at ``code`` with its share of the supernet's weights, in evaluation mode."""
        arch = self.space.arch(code, name)
        model = FBNet(arch)
        blocks = FBNet._blocks(model.stages)
        for layer, places, block in zip(self.layers, self.space.places, blocks, strict=True):
            assert isinstance(layer, MixedLayer)
            candidate = layer.candidate(0 if places.candidate is None else code[places.candidate])
            block.load_state_dict(_cut(candidate.state_dict(), block.state_dict()))
        model.classifier.load_state_dict(_cut(self.classifier.state_dict(), model.classifier.state_dict()))
        model.preprocess = self.preprocess.at_resolution(arch.resolution)
        return model.eval()


def _cut(source: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """``source`` cut to the shapes of ``targets``: the first entries along every axis."""
    return {name: source[name][tuple(slice(n) for n in value.shape)] for name, value in targets.items()}


def places_of(side: int, of: int, device: torch.device) -> Tensor:
    """The rows (or columns), of ``of``, that a map of ``side`` rows samples: nearest neighbors, the first is row 0."""
    return torch.arange(side, device=device) * of // side


def sampled(x: Tensor, side: int) -> Tensor:
    """``x`` subsampled to ``side`` x ``side`` by nearest neighbors (FBNetV2, section 3.3)."""
    if side == x.shape[-1]:
        return x
    at = places_of(side, x.shape[-1], x.device)
    return laid_out(x[:, :, at[:, None], at])


def interspersed(x: Tensor, side: int) -> Tensor:
    """``x`` scattered into a map of ``side`` x ``side``, at the pixels that :func:`sampled` reads; the rest is zero.

    A convolution at the smaller size between the two is the dilated, strided one at the larger size (FBNetV2, fig. 4).
    """
    if side == x.shape[-1]:
        return x
    at = places_of(x.shape[-1], side, x.device)
    spread = laid_out(x.new_zeros(*x.shape[:2], side, side))
    spread[:, :, at[:, None], at] = x
    return spread
