"""What a differentiable search leaves: whole files or none on a disk that is full, and records that are read again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from disks import file_limit
from refusals import refusal
from runs import checkpoints
from supernet_jobs import PLAN, RESULTS, Halt, Stopped, assert_same, search

from fbnetv3_zoo.search.supernet import SupernetResult
from fbnetv3_zoo.training import Dataset, Execution

EVERY_STEP = Execution(checkpoint_steps=1)


# Full disks, damaged files


def test_results_that_cannot_be_written(straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        search(PLAN, data, tmp_path, callbacks=[Halt(4)])
    sizes = {name: (straight.folder / name).stat().st_size for name in RESULTS}
    sizes["metrics.jsonl"] = (tmp_path / "metrics.jsonl").stat().st_size  # its seconds are its own
    assert sizes["mixed-macs-160k.arch.json"] < sizes["found.json"] < sizes["metrics.jsonl"] < sizes["plan.json"]
    for name in ("mixed-macs-160k.arch.json", "found.json", "metrics.jsonl", "plan.json"):
        with file_limit(sizes[name] - 1):
            said = refusal(lambda: search(PLAN, data, tmp_path, resume=True))
        first = "plan.json" if name == "plan.json" else "metrics.jsonl"
        assert said == f"{tmp_path}/{first}: cannot be written (File too large)"
        assert {path.name for path in tmp_path.iterdir()} == {".fbnetv3-zoo.lock", "checkpoints", "metrics.jsonl"}
    for name in ("plan.json", "mixed-macs-160k.arch.json", "found.json"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).mkdir()
        said = refusal(lambda: search(PLAN, data, tmp_path, resume=True))
        assert said == f"{tmp_path}/{name}: cannot be written (Is a directory)"
        assert not (tmp_path / "found.json").is_file()
        assert list(tmp_path.glob(".*.json*")) == []
        (tmp_path / name).rmdir()
    search(PLAN, data, tmp_path, resume=True)
    assert_same(tmp_path, straight.folder)


def test_a_disk_that_is_full_at_a_checkpoint(straight: SupernetResult, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        search(PLAN, data, tmp_path, execution=EVERY_STEP, callbacks=[Halt(3, 4)])
    before = checkpoints(tmp_path)
    with file_limit(before[0].stat().st_size // 2):
        said = refusal(lambda: search(PLAN, data, tmp_path, resume=True, execution=EVERY_STEP))
    assert said.startswith(f"{tmp_path}/checkpoints/epoch-0002-step-000004-")
    assert said.endswith(".safetensors: cannot be written (File too large)")
    assert checkpoints(tmp_path) == before
    search(PLAN, data, tmp_path, resume=True)
    assert_same(tmp_path, straight.folder)


@pytest.fixture
def copied(straight: SupernetResult, tmp_path: Path) -> Path:
    """The results of a search, to be damaged."""
    for name in RESULTS:
        (tmp_path / name).write_bytes((straight.folder / name).read_bytes())
    return tmp_path


def test_records_survive_files(straight: SupernetResult, copied: Path) -> None:
    assert SupernetResult.read(straight.folder) == straight
    assert SupernetResult.read(str(copied)) == replace(straight, folder=copied)
    for name in RESULTS:
        (copied / name).unlink()
    replace(straight, folder=copied).write()
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == {
        name: (straight.folder / name).read_bytes() for name in RESULTS if name != "metrics.jsonl"
    }


@pytest.mark.parametrize("name", ["plan.json", "metrics.jsonl", "found.json"])
def test_records_of_which_a_file_is_missing_or_damaged(name: str, copied: Path) -> None:
    whole = (copied / name).read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        whole.replace(b"{", b"[", 1),
        b"\xff" + whole,
        b"null",
        b"[]",
        b'{"a":1}',
    ):
        (copied / name).write_bytes(damaged)
        said = refusal(lambda: SupernetResult.read(copied))
        assert said.startswith(f"{copied}: its files are damaged (")
        assert said.endswith("); search again in another folder")
    (copied / name).unlink()
    said = f"{copied}: holds no differentiable search that has ended (there is no {name})"
    assert refusal(lambda: SupernetResult.read(copied)) == said


def test_records_with_a_damaged_entry(copied: Path) -> None:
    told = json.loads((copied / "found.json").read_text())
    for damaged, said in (
        ({"data": told["data"]}, "found lacks 'found'"),
        ({**told, "found": {**told["found"], "worth": 1}}, "found.found has an unknown key 'worth'"),
        ({**told, "found": {**told["found"], "code": [10**6]}}, "(1000000,) is no point of the space"),
        ({**told, "drawn": 3}, "found.drawn is 3; it must be a list"),
    ):
        (copied / "found.json").write_text(json.dumps(damaged))
        assert said in refusal(lambda: SupernetResult.read(copied))


def test_records_of_which_an_epoch_is_missing(copied: Path) -> None:
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copied / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert refusal(lambda: SupernetResult.read(copied)) == (
        f"{copied}: its files are damaged (metrics.jsonl has 3 of 4 epochs); search again in another folder"
    )
