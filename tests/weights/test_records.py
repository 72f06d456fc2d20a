"""The published weights: every record against its publisher's facts, and strictly against its network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import timm
import torch
from golden import GOLDEN, facts, official_state_dict
from sweeps import every
from torch import Tensor
from torchvision.models import ResNet50_Weights

from fbnetv3_zoo.arch import Arch, Conv
from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.convert import _names, convert, find_layout, from_official, from_own, from_timm
from fbnetv3_zoo.weights.licenses import License, allows_commercial_use
from fbnetv3_zoo.weights.registry import (
    RECORDS,
    Accuracy,
    Evidence,
    Layout,
    WeightsEntry,
    WeightsSource,
    find_commercial,
    find_record,
    list_models,
    list_weights,
    timm_form,
)
from fbnetv3_zoo.zoo import ARCHS

OFFICIAL = [name for name, record in RECORDS.items() if record.layout is Layout.OFFICIAL]
TIMM = [name for name, record in RECORDS.items() if record.layout is Layout.TIMM]
FETCHED = [*OFFICIAL, *TIMM]
LIST = "`fbnetv3 weights list` shows all"
FROM = {Layout.OFFICIAL: from_official, Layout.TIMM: from_timm, Layout.OWN: from_own}


def _refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ZooError) as caught:
        call()
    return str(caught.value)


def _timm_cfg(record: WeightsEntry) -> Any:
    return timm.models.get_pretrained_cfg(f"{record.arch.name}.{record.tag}")


def test_there_is_one_record_for_every_published_file() -> None:
    published = {name for name, fact in facts().items() if "published" in fact}
    assert {RECORDS[name].arch.name for name in OFFICIAL} == published
    assert TIMM == ["fbnetv3_b.ra2_in1k", "fbnetv3_d.ra2_in1k", "fbnetv3_g.ra2_in1k"]
    assert (len(OFFICIAL), len(TIMM)) == (20, 3)
    assert RECORDS.keys() - set(FETCHED) == {"fbnetv3_nano.zoo_v1"}
    assert all(record.name == name for name, record in RECORDS.items())


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_records_state_the_publishers_facts(name: str) -> None:
    record = RECORDS[name]
    stated = facts()[record.arch.name]["published"]
    assert record.tag == "fb_in1k"
    assert record.arch is ARCHS[record.arch.name]
    assert record.sources == (WeightsSource(stated["weights_url"]),)
    assert record.sources[0].file_name == "model.pth"
    assert record.preprocess.resolution == record.arch.resolution == stated["resolution"]
    assert record.preprocess.resize == stated["resize"] or (stated["resize"] is None and "no resize" in record.note)
    assert [(got.top5, got.resolution) for got in record.accuracy] == [(stated["top5"], stated["resolution"])]
    assert record.accuracy[0].top1 == pytest.approx(stated["top1"], abs=1e-12)
    assert record.license is License.CC_BY_NC


@pytest.mark.parametrize("name", TIMM)
def test_timm_records_state_what_timm_states(name: str) -> None:
    record, stated = RECORDS[name], _timm_cfg(RECORDS[name])
    release, hub = record.sources
    assert release.file_name == stated.url.rpartition("/")[2]
    assert release.address.split("/")[-3:-1] == stated.url.split("/")[-3:-1]  # the project itself has moved
    assert hub.address == f"hf-hub:{stated.hf_hub_id}"
    side = record.preprocess.resolution
    assert (record.arch.in_channels, side, side) == stated.test_input_size
    assert record.arch.resolution == side
    assert record.preprocess.resize == int(side / stated.crop_pct)
    assert (stated.crop_mode, stated.test_crop_pct) == ("center", None)
    assert record.preprocess.interpolation.value == stated.interpolation
    assert (record.preprocess.mean, record.preprocess.std) == (stated.mean, stated.std)
    assert record.arch.num_classes == stated.num_classes
    assert record.license is not None
    assert record.license.value.lower() == stated.license


@pytest.mark.parametrize("name", FETCHED)
def test_digests_are_those_in_the_file_names(name: str) -> None:
    for source in RECORDS[name].sources:
        digits = re.search(r"-([0-9a-f]{8})\.pth$", source.address)
        assert source.sha256 == (digits[1] if digits else "")
    assert [len(source.sha256) for source in RECORDS[name].sources] == ([8, 0] if name in TIMM else [0])


@pytest.mark.parametrize("name", FETCHED)
def test_license_and_evidence_are_stated(name: str) -> None:
    record = RECORDS[name]
    assert record.license is not None
    assert record.license.terms
    assert {accuracy.evidence for accuracy in record.accuracy} == {Evidence.PUBLISHER}
    assert all(accuracy.resolution == record.preprocess.resolution for accuracy in record.accuracy)
    assert all(50 < accuracy.top1 < (accuracy.top5 or 100) < 100.1 for accuracy in record.accuracy)


def test_licenses_are_those_of_the_publishers() -> None:
    held = {license: license.terms for license in License}
    assert held == {
        License.CC_BY_NC: "name the authors, no commercial use",
        License.APACHE: "any use, keep the notices",
    }
    assert [license.value for license in License] == ["CC-BY-NC-4.0", "Apache-2.0"]


@pytest.mark.parametrize(
    ("license", "allowed"),
    [
        (License.APACHE, True), (License.CC_BY_NC, False), ("apache-2.0", True), ("MIT", True), ("CC-BY-4.0", True),
        ("CC-BY-NC-4.0", False), ("cc-by-nc-sa-4.0", False), ("fastvit-license", False), ("other", False), ("", False),
        (None, False),
    ],
)  # fmt: skip
def test_commercial_use_is_allowed_by_known_licenses_alone(license: License | str | None, allowed: bool) -> None:
    assert allows_commercial_use(license) is allowed


def test_networks_with_weights_for_commercial_use() -> None:
    assert list_models(commercial=True) == ["fbnetv3_b", "fbnetv3_d", "fbnetv3_g", "fbnetv3_nano"]
    assert list_models("fbnetv3_[b-f]", commercial=True) == ["fbnetv3_b", "fbnetv3_d"]
    assert list_models() == list(ARCHS)
    for name in list_models(commercial=True):
        found = find_commercial(name)
        assert (found.license, found.arch.name) == (License.APACHE, name)
        assert find_commercial(found.name) is found


def test_the_most_accurate_weights_for_commercial_use(monkeypatch: pytest.MonkeyPatch) -> None:
    record = RECORDS["fbnetv3_b.ra2_in1k"]
    others = {
        name: replace(record, tag=name, license=license, accuracy=(Accuracy(top1, None, 256),))
        for name, license, top1 in (("a", License.APACHE, 80.0), ("b", None, 82.0), ("c", License.CC_BY_NC, 83.0))
    }
    monkeypatch.setattr("fbnetv3_zoo.weights.registry.RECORDS", {**RECORDS, **others})
    assert find_commercial("fbnetv3_b") is others["a"]


@pytest.mark.parametrize("model", ["fbnetv3_a", "fbnetv3_b.fb_in1k", "fbnetv3_a0", "mine"])
def test_no_weights_for_commercial_use(model: str) -> None:
    rest = "no published weights of it may be used commercially; those of fbnetv3_b, fbnetv3_d, fbnetv3_g, fbnetv3_nano"
    assert _refusal(lambda: find_commercial(model)) == f"{model}: {rest} may"


@pytest.mark.parametrize("name", ["fbnetv3_b", "fbnetv3_d", "fbnetv3_g"])
def test_timm_form_changes_padding_and_the_stems_bias_alone(name: str) -> None:
    arch = ARCHS[name]
    form = timm_form(arch)
    stem = form.stages[0][0]
    assert isinstance(stem, Conv)
    assert not stem.bias
    back = replace(form, stages=((replace(stem, bias=True), *form.stages[0][1:]), *form.stages[1:]))
    assert back == replace(arch.with_symmetric_padding(), name=name)
    assert replace(RECORDS[f"{name}.ra2_in1k"].arch, resolution=arch.resolution) == form


@cache
def _shapes(arch: Arch) -> Mapping[str, Tensor]:
    with torch.device("meta"):
        return FBNet(arch).state_dict()


def _theirs(record: WeightsEntry, layout: Layout) -> dict[str, Tensor]:
    """A state dict for ``record`` in ``layout``, each tensor filled with a number of its own."""
    shapes = _shapes(record.arch)
    return {
        theirs: torch.full(shapes[ours].shape, number + 1).to(shapes[ours].dtype)
        for number, (theirs, ours) in enumerate(_names(record.arch, layout))
    }


@pytest.mark.parametrize("name", every(RECORDS, "fbnet_a.fb_in1k", "fbnetv3_a.fb_in1k", "fbnetv3_b.ra2_in1k"))
def test_each_layout_converts_strictly(name: str) -> None:
    record = RECORDS[name]
    assert record.layout is not None
    for layout in (record.layout, Layout.OWN):
        given = _theirs(record, layout)
        assert find_layout(given) is layout
        arch, converted = convert(record.arch, given)
        assert (arch, converted.keys()) == (record.arch, _shapes(arch).keys())
        pairs = dict(_names(record.arch, layout))
        assert all(
            converted[ours] is given[theirs] or torch.equal(converted[ours], given[theirs])
            for theirs, ours in pairs.items()
        )
        assert len(set(pairs.values())) == len(pairs) == len(given)


@pytest.mark.parametrize("name", every(RECORDS, "fbnet_a.fb_in1k", "fbnetv3_a.fb_in1k", "fbnetv3_b.ra2_in1k"))
def test_one_key_removed_added_or_reshaped_is_refused(name: str) -> None:
    record = RECORDS[name]
    assert record.layout is not None
    read, given = FROM[record.layout], _theirs(record, record.layout)
    key = list(given)[list(RECORDS).index(name) * 17 % len(given)]
    start = f"state dict does not fit {record.arch.name} in {record.layout.value} layout: "
    without = {name: tensor for name, tensor in given.items() if name != key}
    assert _refusal(lambda: read(record.arch, without)) == f"{start}1 missing ({key})"
    more = {**given, f"{key}x": given[key]}
    assert _refusal(lambda: read(record.arch, more)) == f"{start}1 left over ({key}x)"
    other = {**given, key: given[key].reshape(-1).repeat(2)}
    kind = f"{key} has shape {tuple(other[key].shape)}, not {tuple(given[key].shape)}"
    assert _refusal(lambda: read(record.arch, other)) == f"{start}1 of the wrong kind ({kind})"


@pytest.mark.parametrize("name", GOLDEN)
def test_the_rule_gives_the_official_names(name: str) -> None:
    official, record = official_state_dict(name), find_record(name, "fb_in1k")
    ruled = _theirs(record, Layout.OFFICIAL)
    assert ruled.keys() == official.keys()
    assert {key: tensor.numel() for key, tensor in ruled.items()} == {key: t.numel() for key, t in official.items()}
    assert convert(record.arch, official)[0] == record.arch


@pytest.mark.parametrize("name", TIMM)
def test_the_rule_gives_timms_names(name: str) -> None:
    record = RECORDS[name]
    with torch.device("meta"):
        theirs = timm.create_model(record.arch.name).state_dict()
    ruled = _theirs(record, Layout.TIMM)
    assert {key: tensor.shape for key, tensor in theirs.items()} == {key: t.shape for key, t in ruled.items()}


def test_timm_has_no_name_for_the_older_networks() -> None:
    given = {"blocks.0.0.conv_dw.weight": torch.zeros(1)}
    text = "timm has no name for a Skip in stage 1; it has FBNetV3's rows only"
    assert _refusal(lambda: from_timm(ARCHS["fbnet_a"], given)) == text


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_found(name: str) -> None:
    record = RECORDS[name]
    assert find_record(name) is record
    assert find_record(record.arch.name, record.tag) is record
    assert find_record(name, record.tag) is record
    assert name in list_weights() == list(RECORDS)
    assert list_weights(name) == [name]


def test_the_officials_come_first() -> None:
    assert find_record("fbnetv3_b").name == "fbnetv3_b.fb_in1k"
    assert list_weights("fbnetv3_b") == ["fbnetv3_b.fb_in1k", "fbnetv3_b.ra2_in1k"]
    assert list_weights("*ra2*") == TIMM
    assert list_weights("FBNET*") == list_weights("fbnetv3") == []


@pytest.mark.parametrize(
    ("model", "tag", "text"),
    [
        ("fbnetv3_h", None, f"unknown weights 'fbnetv3_h' (did you mean 'fbnetv3_g.fb_in1k'?); {LIST}"),
        ("xyz", None, f"unknown weights 'xyz'; {LIST}"),
        ("xyz", "fb_in1k", f"unknown weights 'xyz'; {LIST}"),
        ("fbnetv3_a0", None, f"fbnetv3_a0: no weights are published for this network; {LIST}"),
        ("fbnetv3_b", "in1k", "fbnetv3_b: no weights are tagged 'in1k'; there are fb_in1k, ra2_in1k"),
        ("fbnetv3_b.in1k", None, "fbnetv3_b: no weights are tagged 'in1k'; there are fb_in1k, ra2_in1k"),
        ("fbnetv3_a", "ra2_in1k", "fbnetv3_a: no weights are tagged 'ra2_in1k'; there are fb_in1k"),
    ],
)  # fmt: skip
def test_unknown_weights_name_what_there_is(model: str, tag: str | None, text: str) -> None:
    assert _refusal(lambda: find_record(model, tag)) == text


def test_two_tags_that_disagree_are_refused() -> None:
    text = "fbnetv3_b.fb_in1k: is tagged 'fb_in1k', not 'ra2_in1k'; name one tag"
    assert _refusal(lambda: find_record("fbnetv3_b.fb_in1k", "ra2_in1k")) == text


def test_class_names_are_imagenets() -> None:
    expected = tuple(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
    for name in FETCHED:
        assert RECORDS[name].class_names == expected
    assert (len(expected), expected[0], expected[-1]) == (1000, "tench", "toilet tissue")
    assert replace(RECORDS["fbnet_a.fb_in1k"], imagenet_classes=False).class_names is None


def test_class_names_are_a_thousand_different_ones() -> None:
    names = RECORDS["fbnet_a.fb_in1k"].class_names or ()
    assert len(set(names)) == 1000
    assert all(name == name.strip() != "" for name in names)


def test_files_are_named_by_their_address() -> None:
    assert WeightsSource("hf-hub:timm/fbnetv3_b.ra2_in1k").file_name == "model.safetensors"
    assert WeightsSource("https://host/a/b.pth?download=1").file_name == "b.pth"
    record = RECORDS["fbnetv3_b.ra2_in1k"]
    keys = ["fbnetv3_b.ra2_in1k/fbnetv3_b_224-ead5d2a1.pth", "fbnetv3_b.ra2_in1k/model.safetensors"]
    assert [record.key(source) for source in record.sources] == keys


def test_records_and_the_store_need_no_torch() -> None:
    script = (
        "import sys; import fbnetv3_zoo.weights.cache; from fbnetv3_zoo.weights.registry import RECORDS, list_weights;"
        "assert list_weights() == list(RECORDS); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "fbnetv3_zoo.weights.cache" in loaded
    assert not loaded & {"torch", "torchvision", "timm", "safetensors", "requests"}
