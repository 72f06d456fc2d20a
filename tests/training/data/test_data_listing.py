"""What is taken from folders, what is left out and told of, and faults told all at once."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import pytest
from pictures import images
from PIL import Image
from refusals import refusal

from fbnetv3_zoo.training.data import SPLITS, Dataset, find_dataset


def _keys(data: Dataset) -> set[str]:
    return {example.key for split in SPLITS for example in data[split]}


def test_other_files_are_counted_by_ending_and_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = images(tmp_path, "cat", "dog/deep")
    for n, name in enumerate(("a.HEIC", "b.heic", "notes.txt", "c.svg", "d.raw", "e.mp4", "README")):
        (root / ("cat" if n % 2 else "dog/deep") / name).write_bytes(b"x")
    Image.new("RGB", (4, 4)).save(root / "loose.png")
    (root / "README.md").write_text("about the data")
    assert len(_keys(find_dataset(root))) == 10
    assert caplog.messages == [
        f"{root}: images outside class folders left out: 1",
        f"{root}: files left out, of kinds that are not read: 2 .heic, 1 .mp4, 1 .raw, 1 .svg, 1 .txt and 1 more",
    ]


def test_what_systems_leave_is_neither_taken_nor_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = images(tmp_path, "cat", "dog")
    before = _keys(find_dataset(root))
    for place in ("@eaDir", "#recycle", "__MACOSX", "lost+found", ".thumbnails", "$RECYCLE.BIN", "@Recycle"):
        images(root, place, f"{place}/cat", f"cat/{place}", f"cat/{place}/9.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", "Icon\r"):
        (root / "dog" / name).write_bytes(b"x")
    (root / "cat" / "loop").symlink_to(root / "cat")
    (root / "again").symlink_to(root)
    assert _keys(find_dataset(root)) == before
    assert caplog.messages == []


def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    """A class may lie on a disk that is not there."""
    root = images(tmp_path, "cat", "dog")
    (root / "fox").symlink_to(tmp_path / "gone" / "fox")
    (root / "round").symlink_to("round")
    said = refusal(lambda: find_dataset(root))
    assert said == f"{root}: has broken links: fox, round; repair or remove them"
    (root / "fox").unlink()
    (root / "round").unlink()
    assert find_dataset(root).class_names == ("cat", "dog")


def test_names_that_store_accents_otherwise_are_one(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    images(tmp_path / "a", f"train/{composed}", f"val/{apart}", "train/tea", "val/tea")
    images(tmp_path / "b", f"train/{apart}", f"val/{composed}", "train/tea", "val/tea")
    one, other = find_dataset(tmp_path / "a"), find_dataset(tmp_path / "b")
    assert one.class_names == other.class_names == (composed, "tea")
    assert one.fingerprint == other.fingerprint
    assert all(example.read().size for example in one["validation"])
    images(tmp_path / "c", composed, apart, "tea")
    assert refusal(lambda: find_dataset(tmp_path / "c")) == (
        f"{tmp_path}/c: has two folders each named {composed}, encoded differently; merge them"
    )


@pytest.mark.parametrize(("count", "more"), [(2, ""), (7, " and 2 more")])
def test_equal_images_in_two_classes_are_told_at_once(count: int, more: str, tmp_path: Path) -> None:
    for name, red in (("cat", 0), ("dog", 100)):
        (tmp_path / name).mkdir()
        for n in range(9):
            Image.new("RGB", (20, 20), (n, red, 0)).save(tmp_path / name / f"{n}.png")
    for n in range(count):
        shutil.copy(tmp_path / "cat" / f"{n}.png", tmp_path / "dog" / f"copy{n}.png")
    pairs = [f"{tmp_path}/cat/{n}.png and {tmp_path}/dog/copy{n}.png" for n in range(min(count, 5))]
    assert refusal(lambda: find_dataset(tmp_path)) == (
        f"{pairs[0]}: the same image in two classes, and so are {count - 1} other pairs "
        f"({'; '.join(pairs[1:])}{more}); remove one of the two"
    )


def test_lonely_and_empty_classes_are_told_at_once(tmp_path: Path) -> None:
    images(tmp_path, "many", "more")
    images(tmp_path, *"abcdefg", count=2)
    names = ", ".join(f"{tmp_path}/{name} (2)" for name in "abcde")
    assert refusal(lambda: find_dataset(tmp_path)) == (
        "7 classes have fewer than 3 different images; at least 3 are needed, one per split (add some): "
        f"{names} and 2 more"
    )
    for name in "uvwxyz":
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.heic").write_bytes(b"x")
    assert refusal(lambda: find_dataset(tmp_path)) == (
        f"{tmp_path}: 6 class folders have no image files, such as .jpg, .png or .webp: u, v, w, x, y and 1 more; "
        "there are other files: 6 .heic"
    )


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    from pictures import picture, tar

    for split in ("train", "val"):
        labels = {f"{n}.cls": b"\xef\xbb\xbf%d\n" % (n % 2) for n in range(4)}
        files = {
            name: data for n in range(4) for name, data in ((f"{n}.png", picture(n)), (f"{n}.cls", labels[f"{n}.cls"]))
        }
        tar(tmp_path / f"x-{split}-0.tar", files)
    (tmp_path / "classes.txt").write_bytes("cat\r\ncafe\u0301\u2028bar\r\n".encode("utf-8-sig"))
    data = find_dataset(tmp_path)
    assert data.class_names == ("cat", "caf\u00e9\u2028bar")
    assert [example.label for example in data["train"]] == [0, 1, 0, 1]
