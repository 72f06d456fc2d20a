"""Networks of others in ``fbnetv3 benchmark``: their published accuracies, their form, and what the picture says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from refusals import refusal

from fbnetv3_zoo.export.bench import Benchmark, ModelOptions, Route
from fbnetv3_zoo.export.bench.artifacts import find_candidate
from fbnetv3_zoo.export.bench.hardware import machine_here
from fbnetv3_zoo.export.bench.plots import caption
from fbnetv3_zoo.export.bench.published_baselines import RIVALS, Baseline
from fbnetv3_zoo.export.bench.results import Row, Subject, figures_of
from fbnetv3_zoo.export.bench.timm_baselines import export_rival, merged


@pytest.mark.parametrize("name", RIVALS)
def test_what_is_said_of_others_agrees_with_timm(name: str) -> None:
    """Each figure has a source and a date; size and license are those of the weights that it is of."""
    rival = RIVALS[name]
    assert rival.name == name
    assert name in timm.list_models()
    assert rival.top1 is not None
    assert 70 < rival.top1 < 85
    assert re.search(r"\b20(19|2\d)\b", rival.source)
    if not rival.weights:
        assert rival.source.startswith("arXiv ")
        return
    given = timm.get_pretrained_cfg(f"{name}.{rival.weights}")
    assert given.tag == rival.weights
    assert rival.resolution in {size[-1] for size in (given.input_size, given.test_input_size) if size}
    assert given.license == rival.license
    assert rival.distilled is any(word in rival.weights for word in ("dist", "ssld"))


def test_others_are_compared_by_what_they_reach_today() -> None:
    """Not by the papers of 2018 to 2020 (77.1, 75.2, 76.1): they have been trained better since."""
    reached = {name: (RIVALS[name].top1, RIVALS[name].resolution) for name in ("efficientnet_b0", "resnet50")}
    assert reached == {"efficientnet_b0": (78.572, 224), "resnet50": (80.844, 224)}
    assert RIVALS["mobilenetv3_large_100"].top1 == 76.31


def _unsettled(name: str) -> Any:
    """Timm's network with norms that do something, so that merging has something to keep."""
    network = timm.create_model(name, exportable=True).eval()
    generator = torch.Generator().manual_seed(0)
    for norm in (part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        torch.nn.init.normal_(norm.bias, std=0.1, generator=generator)
        norm.running_mean.normal_(0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
    return network


def _parameters(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.inference_mode()
@pytest.mark.parametrize("name", ["mobileone_s0", "fastvit_t8", "repvit_m0_9", "repghostnet_050", "levit_conv_128s"])
def test_branches_that_only_training_needs_are_merged(name: str) -> None:
    network = _unsettled(name)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    plain, expected = merged(network), network(images)
    assert (plain(images) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert _parameters(plain) < _parameters(network)
    assert not {"conv_kxk", "large_conv", "fusion_conv"} & {n for key in plain.state_dict() for n in key.split(".")}


def test_a_network_without_branches_stays_as_it_is() -> None:
    network = _unsettled("mobilenetv3_small_050")
    assert list(merged(network).state_dict()) == list(network.state_dict())


def test_branches_that_are_left_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a timm that does not know them: their time would be that of training."""
    monkeypatch.setattr("timm.utils.model.reparameterize_model", lambda network: network)
    assert refusal(lambda: merged(_unsettled("mobileone_s0"))) == (
        "its training branches (conv_kxk) cannot be merged by this timm; pip install --upgrade timm"
    )


def test_what_is_exported_of_another_has_no_branches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = []
    monkeypatch.setattr("torch.onnx.export", lambda network, *rest, **more: given.append(network))
    export_rival(Baseline("mobileone_s0", 64), tmp_path / "rival.onnx")
    (network,) = given
    assert _parameters(network) == 2_078_504  # of 5,293,272 with all branches
    assert not network.training


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        ("fbnetv3_a", 224, "published top-1 79.57 % (ImageNet-1k, distilled; fbnetv3_a.fb_in1k: publisher's record, "
         "2020; license of these weights: CC-BY-NC-4.0)"),
        ("fbnetv3_b.ra2_in1k", 256, "published top-1 79.15 % (ImageNet-1k; fbnetv3_b.ra2_in1k: publisher's record, "
         "2024; license of these weights: Apache-2.0)"),
        ("fbnetv3_a", 192, ""),
    ],
)  # fmt: skip
def test_what_was_published_of_ours(name: str, side: int, said: str, tmp_path: Path) -> None:
    assert find_candidate(name, tmp_path, ModelOptions(resolution=side)).subject.published == said


def test_what_was_published_of_others() -> None:
    assert RIVALS["hgnetv2_b2"].subject.published == (
        "published top-1 81.57 % (ImageNet-1k and ImageNet-22k, distilled; ssld_stage2_ft_in1k: timm, "
        "results/results-imagenet.csv, 2024 (commit 7479d45); license of these weights: apache-2.0)"
    )
    assert Baseline("resnet34", 224).subject.published == ""


def test_the_picture_says_what_it_compares() -> None:
    """Whose accuracies, of which weights, under which license, and which signs stand for what."""
    names = ("efficientnet_b0", "repvit_m1_0", "hgnetv2_b2")
    ours = Subject("fbnetv3_a", 224, 1, 79.57, source="a: publisher's record, 2020", license="none", distilled=True)
    figures = figures_of([2.0, 3.0], batch=1)
    subjects = (ours, *(RIVALS[name].subject for name in names))
    rows = tuple(Row(one.name, Route.ONNXRUNTIME, 1, 1, (2.0, 3.0), figures) for one in subjects)
    assert caption(Benchmark(machine_here(), Route.ONNXRUNTIME, 2, subjects, rows)) == [
        "Time: measured here, each network at the image size of its accuracy, training branches merged.",
        "Top-1, color: publisher's record, 2020.",
        "Top-1, gray: timm, results/results-imagenet.csv, 2024 (commit 7479d45).",
        "† distilled, ‡ trained on more than ImageNet-1k; all others: on ImageNet-1k alone, or not stated.",
        "License of the weights: fbnetv3: none; gray: apache-2.0.",
    ]
