"""Where data lies: outputs never in it, runs of ours no classes, and what its folder is called no matter to a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pictures import images, labeled
from refusals import refusal
from runs import PLAIN, Stopped, Stopper, assert_same, train
from shell import run

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.training import find_dataset


def test_outputs_inside_the_data_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    root = images(tmp_path / "photos", "cat", "dog")
    (tmp_path / "link").symlink_to(root / "cat")
    (tmp_path / "other").symlink_to(root)
    before = sorted(tmp_path.rglob("*"))
    data = ("--data", str(root))
    for output in (root, root / "runs" / "1", tmp_path / "link" / "x", tmp_path / "x" / ".." / "photos" / "y"):
        for command in (
            ("train", "--small-images", "--tensorboard"),
            ("distil", "--models", "fbnetv3_a"),
            ("search", "run", "--plan", "tiny"),
            ("search", "dnas"),
        ):
            ended = run(*command, *data, "--output", output)
            assert (ended.code, ended.out) == (2, ""), ended
            assert ended.err == f"error: {output}: is in the data folder, {root}; give one outside of it\n"
    ended = run("subset", tmp_path / "other", "--classes", 2, "--held-out", 2, "--output", root / "subset.json")
    assert ended.err.startswith(f"error: {root}/subset.json: is in the data folder, {tmp_path}/other; ")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_library_refuses_it_too(tiny_arch: Arch, tmp_path: Path) -> None:
    root = labeled(tmp_path / "photos", "train", "val")
    said = refusal(lambda: train(tiny_arch, find_dataset(root), PLAIN, root / "train" / "run"))
    assert said == f"{root}/train/run: is in the data folder, {root}; give one outside of it"
    assert not (root / "train" / "run").exists()


def test_what_runs_of_ours_have_left_is_no_class(
    tiny_arch: Arch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = images(tmp_path / "photos", "cat", "dog", count=8)
    data = find_dataset(root)
    train(tiny_arch, data, replace(PLAIN, epochs=1), tmp_path / "run")
    (root / "runs").mkdir()
    (tmp_path / "run").rename(root / "runs" / "1")
    caplog.clear()
    again = find_dataset(root)
    assert again.class_names == ("cat", "dog")
    assert again.fingerprint == data.fingerprint
    assert caplog.messages == [f"{root}: results of training left out: runs"]


def test_a_renamed_folder_is_the_same_data_and_other_data_is_told_apart(tiny_arch: Arch, tmp_path: Path) -> None:
    root = images(tmp_path / "photos", "cat", "dog", count=15)
    straight, begun = tmp_path / "straight", tmp_path / "begun"
    train(tiny_arch, find_dataset(root), PLAIN, straight)
    with pytest.raises(Stopped):
        train(tiny_arch, find_dataset(root), PLAIN, begun, callbacks=[Stopper(2, 1)])
    (tmp_path / "elsewhere").mkdir()
    moved = root.rename(tmp_path / "elsewhere" / "pictures")
    train(tiny_arch, find_dataset(moved), PLAIN, begun, resume=True)
    assert_same(straight, begun)
    images(moved, "owl", count=10)
    said = refusal(lambda: train(replace(tiny_arch), find_dataset(moved), PLAIN, begun, resume=True))
    told = "classes: 2 then, 3 now, train images: 18 then, 24 now, validation images: 6 then, 8 now, test images: 6"
    assert f"data ({told} then, 8 now)" in said
