"""``fbnetv3 list``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import ZooError
from .common import Json, print_json
from .output import say


def list_(
    pattern: Annotated[str, typer.Argument(help="A quoted pattern with shell wildcards.")] = "*",
    as_json: Json = False,
) -> None:
    """List the published networks with cost and accuracy.

    Example: fbnetv3 list "fbnetv3_*"
    """
    from ..arch.cost import pool_cost, tabulate
    from ..zoo import ARCHS, PUBLISHED, list_models

    names = list_models(pattern)
    if not names:
        raise ZooError(f"no model matches {pattern!r}; `fbnetv3 list` shows all")
    cost = pool_cost(tabulate([ARCHS[name] for name in names]))
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "resolution": ARCHS[name].resolution,
            "macs": int(macs),
            "parameters": int(parameters),
            "published_top1": PUBLISHED[name].top1 if name in PUBLISHED else None,
        }
        for name, macs, parameters in zip(names, cost.macs, cost.parameters, strict=True)
    ]
    if as_json:
        print_json(rows)
        return
    say(f"{'name':16}{'pixels':>8}{'MMACs':>9}{'Mparams':>9}{'top-1 % (published)':>21}")
    for row in rows:
        top1 = f"{row['published_top1']:.2f}" if row["published_top1"] is not None else "-"
        macs, parameters = row["macs"] / 1e6, row["parameters"] / 1e6
        say(f"{row['name']:16}{row['resolution']:>8}{macs:>9.1f}{parameters:>9.2f}{top1:>21}")
