"""Draw the picture of the networks, ``docs/networks.png``: ``python docs/networks.py``."""

from __future__ import annotations

from pathlib import Path

from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.report import charts
from fbnetv3_zoo.zoo import ARCHS
from fbnetv3_zoo.zoo.published import PUBLISHED

PICTURE = Path(__file__).with_suffix(".png")
FAMILIES = {"FBNet": "fbnet_", "FBNetV2": "fbnetv2_", "FBNetV3": "fbnetv3_"}


def main() -> None:
    """Write the picture: published accuracies of the families against their costs."""
    from matplotlib.figure import Figure

    with charts.style():
        figure = Figure(figsize=(7.2, 3.6))
        axes = figure.subplots()
        for color, (family, prefix) in zip(charts.SERIES, FAMILIES.items(), strict=False):
            points = sorted(
                (arch_cost(arch).macs / 1e6, PUBLISHED[name].top1, name.removeprefix(prefix).upper())
                for name, arch in ARCHS.items()
                if name.startswith(prefix) and name in PUBLISHED and PUBLISHED[name].top1
            )
            macs, accuracies, _ = zip(*points, strict=True)
            axes.plot(macs, accuracies, color=color, marker="o", markersize=4, label=family)
            for x, y, name in points:
                axes.annotate(name, (x, y), (4, -10), textcoords="offset points", fontsize=8, color=color)
        axes.set(
            xscale="log", xlabel="million multiply-accumulates", ylabel="ImageNet top-1, % (published)", ylim=(67, 83.5)
        )
        axes.set_xticks([50, 100, 200, 400, 800, 1600], ["50", "100", "200", "400", "800", "1600"])
        axes.minorticks_off()
        charts.legend_above(axes, columns=3)
        charts.save_picture(figure, PICTURE, dpi=150)


if __name__ == "__main__":
    main()
