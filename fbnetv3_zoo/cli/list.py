"""``fbnetv3 list``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import ZooError
from .common import Json, print_json
from .output import say


def list_(
    pattern: Annotated[str, typer.Argument(help="A quoted pattern with shell wildcards.")] = "*",
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Only those with weights that may be used commercially.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the published networks with cost, accuracy, and the licenses of their weights.

    Example: fbnetv3 list "fbnetv3_*"
    """
    from ..arch.cost import pool_cost, tabulate
    from ..weights.registry import RECORDS, list_models
    from ..zoo import ARCHS, PUBLISHED

    names = list_models(pattern, commercial=commercial)
    if not names:
        kind = "model with weights for commercial use" if commercial else "model"
        raise ZooError(f"no {kind} matches {pattern!r}; `fbnetv3 list` shows all")
    cost = pool_cost(tabulate([ARCHS[name] for name in names]))
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "resolution": ARCHS[name].resolution,
            "macs": int(macs),
            "parameters": int(parameters),
            "published_top1": PUBLISHED[name].top1 if name in PUBLISHED else None,
            "weights": [
                {"name": r.name, "licence": r.license.value if r.license else None, "commercial": r.commercial}
                for r in RECORDS.values()
                if r.arch.name == name
            ],
        }
        for name, macs, parameters in zip(names, cost.macs, cost.parameters, strict=True)
    ]
    if as_json:
        print_json(rows)
        return
    say(f"{'name':16}{'pixels':>8}{'MMACs':>9}{'Mparams':>9}{'top-1 % (published)':>21}  license of the weights")
    for row in rows:
        top1 = f"{row['published_top1']:.2f}" if row["published_top1"] is not None else "-"
        macs, parameters = row["macs"] / 1e6, row["parameters"] / 1e6
        licenses = ", ".join(weights["licence"] or "unknown" for weights in row["weights"]) or "-"
        say(f"{row['name']:16}{row['resolution']:>8}{macs:>9.1f}{parameters:>9.2f}{top1:>21}  {licenses}")
