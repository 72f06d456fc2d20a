"""The fastest int8 form on this machine: forms with different layers in float, timed in turn with the float file.

int8 does not make every layer faster: a small one costs less than what surrounds it in int8, and on several threads
short operators wait for one another. Which layers gain depends on the network, the processor and the number of threads,
so it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import numpy_helper

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.utils.atomic_write import scratch
from fbnetv3_zoo.utils.onnx_io import entries_of

from ..onnx.passes import attribute
from ..timing.turns import Times, quartiles, ratios, times_in_turn
from ..timing.worker_process import How, OpenRequest, WorkerError
from .candidates import Int8Model, agreement_of
from .qdq import Floats, layers_of

FLOAT, WHOLE = "float", "int8 throughout"
TRIAL_ROUNDS, FINAL_ROUNDS, FINALISTS = 11, 31, 3
SMALL = (0.05, 0.15, 0.3)
"""Layers are left in float that together have at most these fractions of the multiply-accumulates, smallest first."""
ENDS = (0.1, 0.25, 0.5)
"""The first or the last layers are left in float that together have at most these fractions."""

Build = Callable[[frozenset[str]], Int8Model]


@dataclass(frozen=True, slots=True)
class TriedForm:
    """An int8 form that was timed: its time relative to float's, round by round: median and quartiles.

    ``layers`` is the number of layers that it has in float.
    """

    name: str
    layers: int
    ratio: float
    quartiles: tuple[float, float]


@dataclass(frozen=True, slots=True)
class FastestForm:
    """The form that was chosen, with the names of its layers in float, and all that were tried: finalists first."""

    model: Int8Model
    in_float: frozenset[str]
    chosen: TriedForm
    tried: tuple[TriedForm, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """Times int8 models in turn with the float file ``source``, on so many ``threads``.

    ``model`` is its graph for images of one size, as :func:`at_size` gives it. ``output`` is the file that will be
    written; its extension selects the runtime.
    """

    source: Path
    model: onnx.ModelProto
    output: Path
    threads: int

    def times(self, forms: Mapping[str, Int8Model], rounds: int) -> dict[str, Times]:
        """The times of the float file, as :data:`FLOAT`, and of ``forms``. Raises :class:`ZooError`."""
        entries = entries_of(self.model)
        if self.output.suffix != ".onnx" and "preprocess" not in entries:
            raise ZooError(f"{self.source}: does not describe its preprocessing; leave out --fastest and --threads")
        with scratch() as folder:
            requests = {FLOAT: self._request(self.source)}
            for number, (name, form) in enumerate(forms.items()):
                path = folder / f"{number}{self.output.suffix}"
                form.save(path, entries)
                requests[name] = self._request(path)
            try:
                return times_in_turn(requests, rounds)
            except WorkerError as error:
                raise ZooError(f"{self.output}: cannot be timed here ({error})") from None

    def _request(self, path: Path) -> OpenRequest:
        _, channels, side, _ = (axis.dim_value for axis in self.model.graph.input[0].type.tensor_type.shape.dim)
        how: How = "graph" if path.suffix == ".onnx" else "plain"
        return OpenRequest(str(path.resolve()), how, self.threads, channels, side)


def at_size(model: onnx.ModelProto, shape: Sequence[int]) -> onnx.ModelProto:
    """A copy of ``model`` for images of ``shape`` (images, channels, height, width) alone, but for their number."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for axis, size in zip(sized.graph.input[0].type.tensor_type.shape.dim[1:], shape[1:], strict=True):
        axis.dim_value = size
    del sized.graph.value_info[:]
    return sized


def fastest(
    build: Build, whole: Int8Model, in_float: Collection[str], bench: Bench, *,
    images: Floats, expected: Floats, agreement: float,
) -> FastestForm:  # fmt: skip
    """The fastest of several int8 forms, if it is faster beyond noise than float and than ``whole``; else ``whole``.

    Where nothing is faster than float, int8 only makes the file smaller, and ``whole`` is the smallest.

    Args:
        build: makes an int8 model in which the named layers stay in float.
        whole: the int8 model with as few layers in float as its accuracy allows.
        in_float: the names of these layers, which all forms have in float.
        bench: times the forms.
        images: calibration images.
        expected: the float graph's logits for them.
        agreement: required fraction of images with the same top class, if ``whole`` reaches it.
    """
    kept = {WHOLE: frozenset(in_float)}
    for name, layers in layer_choices(bench.model):
        if (both := kept[WHOLE] | layers) not in kept.values() and len(both) < len(layers_of(bench.model)):
            kept[name] = both
    models = {name: whole if name == WHOLE else build(layers) for name, layers in kept.items()}
    trial = _tried(bench.times(models, TRIAL_ROUNDS), kept)
    finalists = [form.name for form in trial if form.name != WHOLE][:FINALISTS]
    if len(finalists) > 1:
        first, second, *_ = finalists
        both, name = kept[first] | kept[second], f"{first}; {second}"
        if both not in kept.values() and len(both) < len(layers_of(bench.model)):
            kept[name], models[name] = both, build(both)
            finalists.append(name)
    least = min(agreement, agreement_of(whole.logits()(images), expected))
    finalists = [name for name in finalists if agreement_of(models[name].logits()(images), expected) >= least]
    times = bench.times({name: models[name] for name in (WHOLE, *finalists)}, FINAL_ROUNDS)
    final = _tried(times, kept)
    best = final[0]
    if best.quartiles[1] >= 1 or quartiles(ratios(times[best.name], times[WHOLE]))[2] >= 1:
        best = next(form for form in final if form.name == WHOLE)
    others = [form for form in trial if form.name not in {one.name for one in final}]
    return FastestForm(models[best.name], kept[best.name], best, (*final, *others))


def _tried(times: Mapping[str, Times], kept: Mapping[str, Collection[str]]) -> list[TriedForm]:
    """The forms, the fastest first."""
    forms = []
    for name in times.keys() - {FLOAT}:
        low, middle, high = quartiles(ratios(times[name], times[FLOAT]))
        forms.append(TriedForm(name, len(kept[name]), middle, (low, high)))
    return sorted(forms, key=lambda form: (form.ratio, form.name))


def layer_choices(model: onnx.ModelProto) -> Iterator[tuple[str, frozenset[str]]]:
    """Names of choices of layers to leave in float, and the layers."""
    layers = layers_of(model)
    macs = macs_of(model)
    gates = _squeeze_excite(model, layers)
    depthwise = frozenset(layer.name for layer in layers if attribute(layer, "group", 1) > 1)
    if gates:
        yield "squeeze-excite in float", gates
    if depthwise:
        yield "depthwise in float", depthwise
    if gates and depthwise:
        yield "depthwise and squeeze-excite in float", depthwise | gates
    in_order = [layer.name for layer in layers]
    for share in SMALL:
        yield f"smallest layers in float, {share:.0%} of all MACs", _up_to(sorted(in_order, key=macs.get), macs, share)  # type: ignore[arg-type]
    for share in ENDS:
        yield f"first layers in float, {share:.0%} of all MACs", _up_to(in_order, macs, share)
        yield f"last layers in float, {share:.0%} of all MACs", _up_to(in_order[::-1], macs, share)


def _up_to(names: Sequence[str], macs: Mapping[str, int], share: float) -> frozenset[str]:
    """The first of ``names`` that together have at most a ``share`` of all multiply-accumulates."""
    left = share * sum(macs.values())
    chosen = []
    for name in names:
        left -= macs[name]
        if left < 0:
            break
        chosen.append(name)
    return frozenset(chosen)


def macs_of(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of one image by layer name."""
    sizes = _map_sizes(model)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    return {layer.name: sizes[layer.output[0]] * weights[layer.input[1]].size for layer in layers_of(model)}


def _map_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """The number of places (height times width) of each tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    sizes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        high_wide = [axis.dim_value for axis in value.type.tensor_type.shape.dim][2:]
        sizes[value.name] = high_wide[0] * high_wide[1] if len(high_wide) == 2 else 1
    return sizes


def _squeeze_excite(model: onnx.ModelProto, layers: Sequence[onnx.NodeProto]) -> frozenset[str]:
    """The layers on pooled maps, except those after the last pool."""
    sizes = _map_sizes(model)
    kinds = [node.op_type for node in model.graph.node]
    last = max((n for n, kind in enumerate(kinds) if kind in ("GlobalAveragePool", "ReduceMean")), default=0)
    before = {node.name for node in model.graph.node[:last]}
    return frozenset(layer.name for layer in layers if layer.name in before and sizes[layer.output[0]] == 1)
