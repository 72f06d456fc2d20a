"""``fbnetv3 info``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Json, print_json
from .option_groups import ArchOptions, grouped
from .output import say, say_text

if TYPE_CHECKING:
    from ..arch import Arch
    from ..arch.torchvision_arch import TorchvisionArch


@grouped
def info(
    model: Annotated[
        str, typer.Argument(help="A published name, an arch JSON file, a .safetensors file, or torchvision:NAME.")
    ],
    shape: ArchOptions,
    as_json: Json = False,
) -> None:
    """Show a network block by block, with cost, published figures and weights, or the size of a model of torchvision.

    Example: fbnetv3 info fbnetv3_a
    """
    from ..arch import Arch
    from ..arch.cost import arch_cost
    from ..utils.serialization import to_plain
    from ..weights.registry import RECORDS
    from ..zoo import PUBLISHED

    arch = shape.any_arch_of(model)
    if not isinstance(arch, Arch):
        _tell_size(arch, as_json=as_json)
        return
    cost = arch_cost(arch)
    published = PUBLISHED.get(arch.name)
    data: dict[str, Any] = {
        "name": arch.name,
        "resolution": cost.resolution,
        "macs": cost.macs,
        "conv_weights": cost.conv_weights,
        "parameters": cost.parameters,
        "peak_activation": cost.peak_activation,
        "published": to_plain(published) if published else None,
        "weights": [
            {
                "name": record.name,
                "licence": record.license.value if record.license else None,
                "note": record.note,
                "accuracy": [str(accuracy) for accuracy in record.accuracy],
            }
            for record in RECORDS.values()
            if record.arch.name == arch.name
        ],
        "blocks": [_row(line) for line in cost.blocks],
    }
    if as_json:
        print_json(data)
    else:
        _print_table(arch, data)


def _tell_size(arch: TorchvisionArch, *, as_json: bool) -> None:
    """Print the size of a model of torchvision, whose blocks are not known here."""
    from ..models.size import size_of

    size = size_of(arch)
    if as_json:
        print_json({"name": arch.name, "resolution": arch.resolution, "macs": size.macs, "parameters": size.parameters})
        return
    say(str(arch), f"{size.parameters:,} parameters, {size.macs:,} MACs of convolutions and products of matrices")


def _row(line: Any) -> dict[str, Any]:
    block = line.block
    return {
        "stage": block.stage,
        "block": block.index,
        "kind": type(block.row).__name__,
        "in_channels": block.in_channels,
        "expanded_channels": block.expanded_channels if block.expands else None,
        "out_channels": block.out_channels,
        "kernel_size": block.kernel_size,
        "stride": block.stride,
        "squeeze_excite_channels": block.se_channels or None,
        "size": line.size,
        "macs": line.macs,
        "parameters": line.parameters,
    }


def _print_table(arch: Arch, data: dict[str, Any]) -> None:
    say_text(arch.summary())
    if published := data["published"]:
        macs, weights = published["macs"], published["conv_weights"]
        say(f"{'published':16}{macs:,} MACs, {weights:,} conv weights")
    for weights in data["weights"]:
        say("", f"weights {weights['name']} (license {weights['licence']})")
        for line in (*weights["accuracy"], *filter(None, [weights["note"]])):
            say(f"    {line}")
    if not data["weights"]:
        say("weights         none are published for this network")
