"""JSON text from outside is read in one place, and paths are looked at in one."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from fbnetv3_zoo.errors import ZooError, printable
from fbnetv3_zoo.utils.paths import check_file, exists, is_file, is_folder, read_file
from fbnetv3_zoo.utils.serialization import json_text, parse_json


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a": [1, -2.5e3, null, true, "x"]}', {"a": [1, -2500.0, None, True, "x"]}),
        (b'\xef\xbb\xbf"caf\xc3\xa9"', "café"),
        ('"\\ud83d\\ude00"', "\U0001f600"),  # a pair is one sign
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_json_is_read(text: str | bytes, data: object) -> None:
    assert parse_json(text, "it") == data


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "NaN is not a number of JSON"),
        ("[-Infinity]", "-Infinity is not a number of JSON"),
        ("1e999", "the number 1e999 is too large"),
        ("1" * 5000, f"the number {'1' * 20}... is beyond 64 bits"),
        ("18446744073709551616", "the number 18446744073709551616 is beyond 64 bits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"\\ud800": 1}', r"'\\ud800' is not Unicode text"),
        ('["\\udfffx"]', r"'\\udfffx' is not Unicode text"),
        (b"\xff\xfe[\x00]\x00", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)
def test_what_is_no_json_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(ZooError) as caught:
        parse_json(text, "it")
    assert str(caught.value) == f"it cannot be read: {why}"


def test_numbers_that_are_none_are_written_as_null() -> None:
    data = {"a": [1, math.nan, (math.inf, -math.inf)], "b": {"c": np.float64("nan"), "d": 0.5}, "e": Path("x")}
    expected = {"a": [1, None, [None, None]], "b": {"c": None, "d": 0.5}, "e": "x"}
    assert parse_json(json_text(data), "it") == expected
    assert parse_json(json_text(data, indent=1), "it") == expected


def test_names_that_are_no_unicode_are_written_out_in_json() -> None:
    data = {"caf\udce9": Path("\udcff.png"), "fine": ["猫\n"]}
    assert parse_json(json_text(data), "it") == {"caf\\udce9": "\\udcff.png", "fine": ["猫\n"]}


def test_names_are_shown_without_what_a_terminal_obeys() -> None:
    assert printable("a cat, Katze, 猫") == "a cat, Katze, 猫"
    assert printable("a\x1b[31m\n\u202e\udcff\x9b") == "a\\x1b[31m\\n\\u202e\\udcff\\x9b"


def test_paths_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("abc")
    assert is_file(file)
    assert is_folder(tmp_path)
    assert not exists(tmp_path / "none")
    assert not is_file(file / "below")
    assert read_file(file, "a text", at_most=3) == b"abc"


def test_every_kind_of_wrong_path_gives_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()
    (tmp_path / "large").write_bytes(b"12345")
    (tmp_path / "loop").symlink_to("loop")
    long = tmp_path / ("x" * 300)
    told = {
        tmp_path / "none": "no such file",
        tmp_path: "is a folder, not a text",
        tmp_path / "pipe": "is a device or pipe, not a text",
        tmp_path / "socket": "is a device or pipe, not a text",
        Path("/dev/zero"): "is a device or pipe, not a text",
        tmp_path / "large": "is larger than 4 bytes, too large for a text",
        tmp_path / "loop": "cannot be read (Too many levels of symbolic links)",
        long: "cannot be read (File name too long)",
    }
    for path, why in told.items():
        with pytest.raises(ZooError) as caught:
            read_file(path, "a text", at_most=4)
        assert str(caught.value) == f"{path}: {why}"
    with pytest.raises(ZooError, match=r"a\\x00b: cannot be a path \(embedded null byte\)"):
        check_file("a\0b", "a text")
