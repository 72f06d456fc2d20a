"""Published accuracies of other networks: of which weights, at which size, by whom and when.

One row per network, named as in timm. The accuracy is that of weights trained on ImageNet-1k alone, if there are any:
the best that the publisher gives at the row's size, at which these weights were trained or are tested. Rows of weights
that were pretrained on more data or distilled from a larger network say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .results import Subject


@dataclass(frozen=True, slots=True)
class Baseline:
    """A timm network at ``resolution`` pixels.

    ``top1``: percent on ImageNet's validation set (None: not in our table), as stated in ``source``, which has a date.
    ``weights``: timm's tag of these weights ("": none in timm), ``license``: their license as stated by timm.
    ``extra_data``: training data besides ImageNet-1k; ``distilled``: whether they were distilled from a larger network.
    """

    name: str
    resolution: int
    top1: float | None = None
    weights: str = ""
    license: str = ""
    source: str = ""
    distilled: bool = False
    extra_data: str = ""

    @property
    def subject(self) -> Subject:
        """The network as a subject of the benchmark."""
        return Subject(
            self.name, self.resolution, None, self.top1, rival=True,
            source=f"{self.weights}: {self.source}" if self.weights else self.source,
            license=self.license, distilled=self.distilled, extra_data=self.extra_data,
        )  # fmt: skip


RESULTS = "timm, results/results-imagenet.csv, 2024 (commit 7479d45)"
_NOTES = "timm, README, September 2024"
_MOBILENET, _GHOSTNET = "arXiv 1905.02244, table 3, 2019", "arXiv 1911.11907, table 7, 2019"
_APACHE, _BSD, _MIT = "apache-2.0", "bsd-3-clause", "mit"


# fmt: off
_ROWS = (
    #      name in timm           pixels  top-1   weights                license    source
    Baseline("mobilenetv1_100",         224, 75.384, "ra4_e3600_r224_in1k", _APACHE,   RESULTS),
    Baseline("mobilenetv2_100",         224, 72.936, "ra_in1k",             _APACHE,   RESULTS),
    Baseline("semnasnet_100",           224, 75.464, "rmsp_in1k",           _APACHE,   RESULTS),
    Baseline("mobilenetv3_large_075",   224, 73.3,   "",                    "",        _MOBILENET),
    Baseline("mobilenetv3_large_100",   224, 76.31,  "ra4_e3600_r224_in1k", _APACHE,   _NOTES),
    Baseline("mobilenetv4_conv_small",  224, 73.730, "e2400_r224_in1k",     _APACHE,   RESULTS),
    Baseline("mobilenetv4_conv_medium", 224, 79.092, "e500_r224_in1k",      _APACHE,   RESULTS),
    Baseline("mobilenetv4_hybrid_medium", 256, 81.474, "ix_e550_r256_in1k", _APACHE,   RESULTS),
    Baseline("ghostnet_100",            224, 73.960, "in1k",                _APACHE,   RESULTS),
    Baseline("ghostnet_130",            224, 75.7,   "",                    "",        _GHOSTNET),
    Baseline("ghostnetv2_100",          224, 75.176, "in1k",                _APACHE,   RESULTS),
    Baseline("ghostnetv2_130",          224, 76.762, "in1k",                _APACHE,   RESULTS),
    Baseline("ghostnetv2_160",          224, 77.836, "in1k",                _APACHE,   RESULTS),
    Baseline("tf_efficientnet_lite0",   224, 74.846, "in1k",                _APACHE,   RESULTS),
    Baseline("efficientnet_b0",         224, 78.572, "ra4_e3600_r224_in1k", _APACHE,   RESULTS),
    Baseline("efficientnet_b1",         240, 80.404, "ra4_e3600_r240_in1k", _APACHE,   RESULTS),
    Baseline("efficientnet_b2",         288, 80.610, "ra_in1k",             _APACHE,   RESULTS),
    Baseline("efficientnet_b3",         320, 82.298, "ra2_in1k",            _APACHE,   RESULTS),
    Baseline("efficientvit_b1",         224, 79.240, "r224_in1k",           _APACHE,   RESULTS),
    Baseline("fbnetc_100",              224, 75.114, "rmsp_in1k",           _APACHE,   RESULTS),
    Baseline("regnety_004",             224, 75.588, "tv2_in1k",            _BSD,      RESULTS),
    Baseline("regnety_006",             224, 75.262, "pycls_in1k",          _MIT,      RESULTS),
    Baseline("regnety_008",             224, 76.334, "pycls_in1k",          _MIT,      RESULTS),
    Baseline("regnety_016",             224, 80.696, "tv2_in1k",            _BSD,      RESULTS),
    Baseline("resnet50",                224, 80.844, "tv2_in1k",            _BSD,      RESULTS),
    Baseline("repvgg_a2",               224, 76.492, "rvgg_in1k",           _MIT,      RESULTS),
    *(
        Baseline(f"mobileone_s{number}", 224, top1, "apple_in1k", "mobileone-license", RESULTS)
        for number, top1 in ((1, 75.774), (2, 77.504), (3, 78.002), (4, 79.450))
    ),
    *(
        Baseline(f"levit_conv_{width}", 224, top1, "fb_dist_in1k", _APACHE, RESULTS, distilled=True)
        for width, top1 in ((128, 78.488), (192, 79.860), (256, 81.506))
    ),
    *(
        Baseline(f"repvit_m{size}", 224, top1, "dist_450e_in1k", _APACHE, RESULTS, distilled=True)
        for size, top1 in (("0_9", 79.058), ("1_0", 80.446), ("1_1", 81.302), ("1_5", 82.520))
    ),
    *(
        Baseline(f"fastvit_{size}", 256, top1, "apple_dist_in1k", "fastvit-license", RESULTS, distilled=True)
        for size, top1 in (("t8", 77.172), ("t12", 80.364), ("s12", 81.074), ("sa12", 81.842))
    ),
    *(
        Baseline(f"hgnetv2_{size}", 224, top1, "ssld_stage2_ft_in1k", _APACHE, RESULTS, True, "ImageNet-22k")
        for size, top1 in (("b2", 81.566), ("b3", 82.910))
    ),
)
# fmt: on

RIVALS: Mapping[str, Baseline] = MappingProxyType({row.name: row for row in _ROWS})
