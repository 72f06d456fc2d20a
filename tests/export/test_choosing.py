"""``benchmarks/choosing.py``: the page says what was measured, fronts are fronts, and a measurement is continued."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT

from fbnetv3_zoo.errors import ZooError
from fbnetv3_zoo.export.bench.results import Subject
from fbnetv3_zoo.utils.serialization import read_json, to_json


@pytest.fixture
def choosing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import choosing

    return choosing


def test_the_page_says_what_was_measured(choosing: Any) -> None:
    page, found = choosing.PAGE.read_text(), read_json(choosing.Choosing, choosing.RECORD)
    assert choosing.with_tables(page, found) == page
    assert {timing.subject.name for timing in found.timings} == set(choosing.known([]))
    slower = replace(found, reference_ms=tuple(2 * one for one in found.reference_ms))
    assert choosing.with_tables(page, slower) != page


def _point(choosing: Any, milliseconds: float, top1: float, license: str = "mit", extra_data: str = "") -> Any:
    subject = Subject(f"{milliseconds} {top1}", 224, top1=top1, license=license, extra_data=extra_data)
    return choosing.Point(subject, milliseconds, (1.0, 1.0, 1.0), None)


def test_fronts(choosing: Any) -> None:
    """None of a front is as slow as, and no more accurate than, another; licenses and data count."""
    a, b = _point(choosing, 1, 70), _point(choosing, 2, 75, license="CC-BY-NC-4.0")
    c, d = _point(choosing, 2, 74), _point(choosing, 3, 75)
    e, f = _point(choosing, 4, 80, extra_data="ImageNet-22k"), _point(choosing, 5, 79)
    found = choosing.fronts([f, e, d, c, b, a])
    assert found == {"all": [a, b, e], "1k": [a, b, f], "commercial": [a, c, d, e]}


def test_a_measurement_is_continued_on_the_same_machine_only(choosing: Any, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    fresh = choosing._kept(record, 5)
    assert fresh.timings == ()
    timing = choosing.Timing(Subject("a", 224, top1=70.0), "float32", (1.0, 2.0, 3.0), (0.5, 1.0, 1.5))
    record.write_text(to_json(replace(fresh, timings=(timing,), reference_ms=(2.0,))))
    assert choosing._kept(record, 5).of("a", "float32") == timing
    with pytest.raises(ZooError, match="was measured with --rounds 5; give the same, or another --record"):
        choosing._kept(record, 7)
    record.write_text(to_json(replace(fresh, machine=replace(fresh.machine, processor="Another"))))
    with pytest.raises(ZooError, match="was measured with another processor; move it, or give another --record"):
        choosing._kept(record, 5)
