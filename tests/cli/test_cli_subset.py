"""``fbnetv3 subset``: the file it writes, what it says, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from refusals import refusal

from fbnetv3_zoo.cli import main
from fbnetv3_zoo.cli.subset import subset
from fbnetv3_zoo.training.data import choose_subset, digits, find_dataset, load_subset


def test_it_writes_what_choose_subset_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "subset.json"
    subset("digits", file, classes=4, held_out=41, seed=3)
    assert load_subset(file) == choose_subset(digits(seed=3), classes=4, held_out=41, seed=3)
    data = find_dataset("digits", subset=file)
    train, test = len(data["train"]), len(data["test"])
    first, second = capsys.readouterr().out.splitlines()
    told = f"{train} images for train, 41 images for validation, {test} images for test"
    assert first == f"digits, 4 of 10 classes: {told}"
    assert second.startswith(f"{file} (")
    subset("digits", file, classes=4, held_out=41, seed=3, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "file": str(file), "name": "digits, 4 of 10 classes", "classes": 4, "train": train, "validation": 41,
        "test": test,
    }  # fmt: skip


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        subset("digits", tmp_path / name, classes=4, held_out=41)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_it_refuses(tmp_path: Path) -> None:
    file = tmp_path / "subset.json"
    assert refusal(lambda: subset("digits", file)) == ("digits: has 10 classes with 2 or more training images, not 200")
    expected = f"{tmp_path}/absent: no such folder; give 'digits' or a folder of class folders"
    assert refusal(lambda: subset(str(tmp_path / "absent"), file)) == expected
    assert not file.exists()
    assert refusal(lambda: subset("digits", tmp_path, classes=3, held_out=3)).startswith(
        f"{tmp_path}: cannot be written ("
    )


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "subset.json"
    with pytest.raises(SystemExit) as ended:
        main(["subset", "digits", "--classes", "4", "--held-out", "41", "--seed", "3", "--output", str(file)])
    assert ended.value.code == 0
    assert load_subset(file) == choose_subset(digits(seed=3), classes=4, held_out=41, seed=3)
    assert capsys.readouterr().out.startswith("digits, 4 of 10 classes: ")
    with pytest.raises(SystemExit) as ended:
        main(["subset", "digits", "--output", str(file)])
    assert ended.value.code == 2
    told = "error: digits: has 10 classes with 2 or more training images, not 200\n"
    assert capsys.readouterr().err == told
