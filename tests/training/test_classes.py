"""Whose class is whose: names in any order and spelling, ImageNet's by number; refusals name the first difference."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refusal
from torchvision.models import MobileNet_V2_Weights

from fbnetv3_zoo.training.class_matching import in_imagenet_order, match_classes

NAMES = tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])
IDS = tuple(f"n{n:08}" for n in range(1000))


def _matched(own: tuple[str, ...] | None, names: tuple[str, ...]) -> list[int]:
    count = len(names if own is None else own)
    return match_classes(own, count, names, network="net", data="photos").tolist()


def test_imagenet_by_wordnet_ids_names_and_numbers() -> None:
    numbers = tuple(map(str, range(1000)))
    synonyms = tuple(f"{name.upper()}, something else" for name in NAMES)
    some_others = ("another name", *NAMES[1:90], *NAMES[90:])
    for one in (NAMES, IDS, numbers, synonyms, some_others):
        for other in (IDS, numbers, NAMES):
            assert _matched(one, other) == list(range(1000))
    assert _matched(IDS[::-1], IDS) == list(range(999, -1, -1))


def test_what_only_looks_like_imagenet() -> None:
    for names in (IDS[::-1], IDS[:999], (*IDS[:999], IDS[0]), NAMES[::-1], tuple(f"m{n:08}" for n in range(1000))):
        assert not in_imagenet_order(names)
    assert refusal(lambda: _matched(NAMES, IDS[::-1])) == (
        "net: its classes differ from those of photos; class 0 is 'tench', but 'n00000999' in photos"
    )


@pytest.mark.parametrize(
    ("own", "names", "order"),
    [
        (("b", "a", "c"), ("a", "b", "c"), [1, 0, 2]),
        (None, ("a", "b"), [0, 1]),
        (("Great White", "goldfish"), ("goldfish", "great_white"), [1, 0]),
        (("tench, Tinca tinca", "goldfish, Carassius auratus"), ("Carassius auratus", "tench"), [1, 0]),
        (("tench", "goldfish"), ("goldfish, Carassius auratus", "tench, Tinca tinca"), [1, 0]),
        (("cafe\u0301", "tea"), ("tea", "caf\u00e9"), [1, 0]),
        (("A", "a"), ("a", "A"), [1, 0]),
    ],
)
def test_names_in_another_order_or_spelling(
    own: tuple[str, ...] | None, names: tuple[str, ...], order: list[int]
) -> None:
    assert _matched(own, names) == order
    assert match_classes(own, len(names), names, network="net", data="photos").dtype == np.int64


def test_a_misspelled_class_is_named() -> None:
    hint = "; 'dgo' of photos is not among them (did you mean 'dog'?)"
    told = "net: its classes differ from those of photos; class 1 is 'dog', but 'dgo' in photos"
    assert refusal(lambda: _matched(("cat", "dog"), ("cat", "dgo"))) == told + hint
    assert refusal(lambda: _matched(("cat", "dog"), ("cat",))) == "net: has 2 classes, but photos has 1"
    told = "net: has 2 classes, but photos has 3"
    assert refusal(lambda: _matched(("cat", "dog"), ("cat", "dgo", "owl"))) == told + hint


def test_nothing_is_guessed() -> None:
    told = "net: its classes differ from those of photos; class 1 is 'B', but 'c' in photos"
    assert refusal(lambda: _matched(("a", "B"), ("a", "c"))) == told
    assert "class 0 is 'A B', but 'a_b' in photos" in refusal(lambda: _matched(("A B", "a-b"), ("a_b", "a b x")))
    assert "class 0 is 'crane, bird'" in refusal(lambda: _matched(("crane, bird", "crane, machine"), ("crane", "bird")))
    assert "class 0 is 'a', but '0'" in refusal(lambda: _matched(("a", "b"), ("0", "1")))
    assert refusal(lambda: _matched(("a", "b\x1b"), ("a", "b"))).startswith(
        "net: its classes differ from those of photos; class 1 is 'b\\\\x1b', but 'b' in photos"
    )
    assert refusal(lambda: _matched(("a", "b"), ("a", "b", "c"))) == "net: has 2 classes, but photos has 3"
