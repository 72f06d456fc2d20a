"""State dicts of other implementations, renamed to this project's parameter names. Always strict.

The names are derived from an :class:`~fbnetv3_zoo.arch.Arch` block by block, so that any network can be converted, not
only those with published weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..arch import Arch, Block, Conv, InvertedResidual, PoolingHead, Skip
from ..errors import ZooError, assert_never
from ..models.fbnet import FBNet
from ..zoo import ARCHS
from .registry import TIMM_NAMES, Layout, timm_form

Names = Iterator[tuple[str, str]]

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_state", "params_ema")
_PLAIN = ("state_dict", "model", "model_state_dict", "model_state", "module", "network", "net", "params", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_LONGEST_NAME = 200
_UNUSED = frozenset({"n_averaged"})  # torch.optim.swa_utils stores its counter with the weights


def from_official(arch: Arch, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict in the official FBNet layout (project mobile-vision), with this project's names.

    ``state_dict`` maps names such as ``backbone.stages.xif1_0.dw.conv.weight`` to tensors, with or without the prefix
    ``module.``; or it is a whole checkpoint, see :func:`find_state_dict`. Raises :class:`ZooError` naming missing and
    left-over keys, and tensors of the wrong shape or type.
    """
    return _renamed(arch, find_state_dict(state_dict), Layout.OFFICIAL)


def from_timm(arch: Arch, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict in timm's layout (``conv_stem.weight``, ``blocks.0.0.conv_dw.weight`` ...), with our names.

    timm's networks have symmetric padding and no bias in the stem: pass that form as ``arch``, such as
    ``find_record("fbnetv3_b", "ra2_in1k").arch`` or ``timm_form(ARCHS["fbnetv3_b"])``. Raises :class:`ZooError` as
    :func:`from_official` does.
    """
    return _renamed(arch, find_state_dict(state_dict), Layout.TIMM)


def to_timm(arch: Arch, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inverse of :func:`from_timm`: a state dict of ``FBNet(arch)`` for ``timm.create_model(timm_name(arch))``.

    timm's model gives the same logits in evaluation mode. Its stem has no bias: ours, if there is one, is subtracted
    from the mean of the norm that follows. The other tensors are shared, not copied; the number of classes and channels
    are those of ``arch``. Raises :class:`ZooError` for networks that timm lacks (:func:`timm_name`), and as
    :func:`from_own` does.
    """
    timm_name(arch)
    given = from_own(arch, state_dict)
    converted = {theirs: given[ours] for theirs, ours in _names(timm_form(arch), Layout.TIMM)}
    if (bias := given.get("stages.0.0.conv.bias")) is not None:
        converted["bn1.running_mean"] = given["stages.0.0.norm.running_mean"] - bias
    return converted


def timm_name(arch: Arch) -> str:
    """The name in timm of a network that computes what ``arch`` does, with as many classes and channels.

    Raises :class:`ZooError` where timm has none: it has FBNetV3 b, whose rows are those of a, d and g, and pads all
    convolutions symmetrically.
    """
    rows = timm_form(arch).stages
    name = next((name for name in TIMM_NAMES if timm_form(ARCHS[name]).stages == rows), None)
    if name is None or arch.width_divisor != ARCHS[name].width_divisor:
        raise ZooError(f"{arch.name}: timm has no such network; it has {', '.join(TIMM_NAMES)}")
    if arch.stages != arch.with_symmetric_padding().stages:
        raise ZooError(
            f"{arch.name}: timm's {name} pads symmetrically, this network does not; "
            "give arch.with_symmetric_padding(), whose logits differ from this network's"
        )
    return name


def from_own(arch: Arch, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state dict in this project's layout, unwrapped and checked like the others."""
    return _renamed(arch, find_state_dict(state_dict), Layout.OWN)


def convert(arch: Arch, state_dict: Mapping[str, Any]) -> tuple[Arch, dict[str, Tensor]]:
    """A state dict in any layout, which is recognized by its keys, with our names, and the network that it fits.

    The network is ``arch``, in timm's form for timm's layout, with the classes and input channels of the tensors.
    """
    given = find_state_dict(state_dict)
    layout = find_layout(given)
    arch = timm_form(arch) if layout is Layout.TIMM else arch
    theirs = {ours: name for name, ours in _names(arch, layout)}
    stem, classifier = given.get(theirs.get("stages.0.0.conv.weight", "")), given.get(theirs["classifier.weight"])
    if stem is not None and stem.ndim == 4 and stem.shape[1]:
        arch = replace(arch, in_channels=stem.shape[1])
    if classifier is not None and classifier.ndim >= 2 and classifier.shape[0]:
        arch = replace(arch, num_classes=classifier.shape[0])
    return arch, _renamed(arch, given, layout)


def find_layout(state_dict: Mapping[str, Any]) -> Layout:
    """The layout of an unwrapped state dict. Raises :class:`ZooError` if it is unknown."""
    if any(key.startswith("backbone.stages.") for key in state_dict):
        return Layout.OFFICIAL
    if any(key.startswith("blocks.") for key in state_dict):
        return Layout.TIMM
    if any(key.startswith("stages.") for key in state_dict):
        return Layout.OWN
    shown = ", ".join(repr(key) for key in sorted(state_dict)[:3])
    raise ZooError(f"no known layout: keys such as {shown} are neither of FBNet's releases, nor timm's, nor ours")


def find_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in ``checkpoint``, without the prefixes of wrapped modules.

    A checkpoint is a state dict, or a dict that contains one under a usual key: ``model_ema``, ``state_dict_ema`` ...
    (averaged weights, which are preferred), ``state_dict``, ``model``, ``model_state_dict`` ... Raises
    :class:`ZooError` if there is none.
    """
    inner: Any = checkpoint
    for key in (*_AVERAGED, *_PLAIN):
        if isinstance(nested := checkpoint.get(key), Mapping) and nested:
            inner = nested
            break
    tensors = {key: value for key, value in inner.items() if key not in _UNUSED}
    for key, value in tensors.items():
        if not isinstance(key, str) or not key.isprintable() or len(key) > _LONGEST_NAME:
            raise ZooError(f"holds no state dict: {str(key)[:80]!r} is no tensor's name; save model.state_dict()")
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ZooError(f"holds no state dict: {key[:80]!r} is a {kind}, not a tensor; save model.state_dict()")
    if not tensors:
        raise ZooError("holds no state dict: it is empty; save model.state_dict()")
    while (prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in tensors)), None)) is not None:
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _renamed(arch: Arch, given: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    return rename(given, dict(_names(arch, layout)), _wanted(arch), f"{arch.name} in {layout.value} layout")


def rename(
    given: Mapping[str, Tensor], names: Mapping[str, str], expected: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """``given`` with our names: ``names`` maps theirs to ours, ``expected`` has a tensor of the right shape for each.

    Raises :class:`ZooError` naming missing and left-over keys, and tensors of the wrong shape or type.
    """
    wrong = [
        f"{theirs} {fault}" for theirs, ours in names.items() if (fault := _fault(given.get(theirs), expected[ours]))
    ]
    missing, left_over = sorted(names.keys() - given.keys()), sorted(given.keys() - names.keys())
    if missing or left_over or wrong:
        faults = (_some("missing", missing), _some("left over", left_over), _some("of the wrong kind", wrong))
        raise ZooError(f"state dict does not fit {what}: {'; '.join(filter(None, faults))}")
    found = {ours: given[theirs].reshape(expected[ours].shape) for theirs, ours in names.items()}
    return {ours: tensor if expected[ours].is_floating_point() else _counted(tensor) for ours, tensor in found.items()}


def _wanted(arch: Arch) -> dict[str, Tensor]:
    """The network's state dict on the meta device."""
    with torch.device("meta"):
        return FBNet(arch).state_dict()


def _fault(given: Tensor | None, expected: Tensor) -> str:
    """Why ``given`` does not fit ``expected``, "" if it does; a linear layer may be stored as a 1 x 1 convolution."""
    if given is None:
        return ""
    if given.layout is not torch.strided or given.is_quantized or given.is_meta or given.is_nested:
        return "is not a dense tensor"
    shape = given.shape[: expected.ndim] if given.shape[expected.ndim :] == (1, 1) else given.shape
    if shape != expected.shape:
        return f"has shape {str(tuple(given.shape))[:80]}, not {tuple(expected.shape)}"
    counts = not expected.is_floating_point()  # a checkpoint cast as a whole has them as halves
    if given.is_complex() or (given.is_floating_point() == counts and not (counts and _are_counts(given))):
        return f"is {given.dtype}, not {expected.dtype}"
    return ""


def _are_counts(given: Tensor) -> bool:
    """Whether floating-point values are whole numbers from 0; more than a half can hold has become infinite."""
    return bool(((given >= 0) & (given == given.round())).all())


def _counted(given: Tensor) -> Tensor:
    """``given`` as whole numbers; the largest of its type for infinity."""
    return given.nan_to_num().double().clamp(max=2.0**62).long() if given.is_floating_point() else given.long()


def _some(what: str, entries: list[str], limit: int = 3) -> str:
    if not entries:
        return ""
    more = f" and {len(entries) - limit} more" if len(entries) > limit else ""
    return f"{len(entries)} {what} ({', '.join(entries[:limit])}{more})"


def _names(arch: Arch, layout: Layout) -> Names:
    """Pairs (their name, our name) of all parameters and buffers."""
    if layout is Layout.OWN:
        yield from ((name, name) for name in _wanted(arch))
        return
    places = _timm_places(arch)
    for block in arch.blocks:
        if layout is Layout.OFFICIAL:
            names = official_block(block, f"backbone.stages.xif{block.stage}_{block.index}")
        elif layout is Layout.TIMM:
            names = _timm_block(block, places[block])
        else:
            assert_never(layout)
        for theirs, ours in names:
            yield theirs, f"stages.{block.stage}.{block.index}.{ours}"
    classifier = "head.conv" if layout is Layout.OFFICIAL else "classifier"
    yield from ((f"{classifier}.{tensor}", f"classifier.{tensor}") for tensor in ("weight", "bias"))


def official_block(block: Block, before: str) -> Names:
    """Pairs (official name, our name within the block) of a block whose official names begin with ``before``."""
    row = block.row
    if isinstance(row, Conv):
        yield from _conv_norm(f"{before}.conv", f"{before}.bn", "", row.bias)
    elif isinstance(row, InvertedResidual):
        parts = (("pw", "expand."), ("dw", "depthwise."), ("pwl", "project."))
        for theirs, ours in parts[not block.expands :]:
            pairs = [*_conv_norm(f"{before}.{theirs}.conv", f"{before}.{theirs}.bn", ours, row.conv_bias)]
            bare = theirs == "dw" and not row.depthwise_norm
            yield from (pair for pair in pairs if not (bare and ".bn." in pair[0]))
        if row.squeeze_excite is not None:
            yield from _squeeze_excite(f"{before}.se.se.0.conv", f"{before}.se.se.1")
    elif isinstance(row, PoolingHead):
        yield from _conv_norm(f"{before}.pw.conv", f"{before}.pw.bn", "expand.", False)
        yield f"{before}.pwl.conv.weight", "project.weight"
    elif isinstance(row, Skip):
        if not block.keeps_shape:
            yield from _conv_norm(f"{before}.conv.conv", f"{before}.conv.bn", "", False)
    else:
        assert_never(row)


def _timm_places(arch: Arch) -> dict[Block, str]:
    """The name of each block in timm, whose stages are ours without the stem; a change of width splits stage 4."""
    places, counts = {}, Counter[int]()
    width = next((block.out_channels for block in arch.blocks if block.stage == 4), 0)
    for block in arch.blocks:
        stage = block.stage - (block.stage < 4 or (block.stage == 4 and block.out_channels == width))
        places[block] = f"blocks.{stage}.{counts[stage]}"
        counts[stage] += 1
    return places


def _timm_block(block: Block, before: str) -> Names:
    row = block.row
    if isinstance(row, Conv) and block.stage == 0:
        yield from _conv_norm("conv_stem", "bn1", "", row.bias)
    elif isinstance(row, InvertedResidual):
        convs = ("conv_pw", "conv_dw", "conv_pwl") if block.expands else ("conv_dw", "conv_pw")
        ours = ("expand.", "depthwise.", "project.")[not block.expands :]
        for number, (theirs, own) in enumerate(zip(convs, ours, strict=True), start=1):
            yield from _conv_norm(f"{before}.{theirs}", f"{before}.bn{number}", own, row.conv_bias)
        if row.squeeze_excite is not None:
            yield from _squeeze_excite(f"{before}.se.conv_reduce", f"{before}.se.conv_expand")
    elif isinstance(row, PoolingHead):
        yield from _conv_norm(f"{before}.conv", f"{before}.bn1", "expand.", False)
        yield "conv_head.weight", "project.weight"
    else:
        raise ZooError(
            f"timm has no name for a {type(row).__name__} in stage {block.stage}; it has FBNetV3's rows only"
        )


def _squeeze_excite(reduce: str, expand: str) -> Names:
    for tensor in ("weight", "bias"):
        yield f"{reduce}.{tensor}", f"squeeze_excite.reduce.{tensor}"
        yield f"{expand}.{tensor}", f"squeeze_excite.expand.{tensor}"


def _conv_norm(conv: str, norm: str, ours: str, bias: bool) -> Names:
    for tensor in ("weight", "bias")[: 1 + bias]:
        yield f"{conv}.{tensor}", f"{ours}conv.{tensor}"
    for tensor in _NORM:
        yield f"{norm}.{tensor}", f"{ours}norm.{tensor}"
