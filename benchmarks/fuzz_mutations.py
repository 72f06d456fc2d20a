"""Mutations of files: JSON by its structure, text and bytes by their places. The same seed gives the same mutation."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

RAW = "\N{OBJECT REPLACEMENT CHARACTER}raw:"
"""Begins texts that stand for JSON as it is written after it: what ``json.dumps`` would not write."""

NUMBERS = (0, -1, 1, 2, 7, 255, 1000, 65_537, 1_000_000, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**64 - 1, 0.5, -0.5, 1e-9,
           1e-320, 1e9, 1e18, 1e300, -1e300)  # fmt: skip
WRITTEN = ("NaN", "Infinity", "-Infinity", "1e999", "-0", "9" * 400, "1" + "0" * 5000, "0." + "3" * 999, "-" + "9" * 9,
           "tru", "'x'", "01", "0x10", ",", "\ufeff1", '"\\ud800"', '"\\udfff x"', '"\\u0000"')  # fmt: skip
TEXTS = ("", " ", "x", "../../etc/passwd", "/dev/zero", "\x00", "\x1b]0;harm\x07", "\u202eevil", "e\u0301" * 9, "9" * 9,
         "a" * 5000, "\n", "%s%n", "nan", "inf", "-1", "1e9", "\U0001f600", "macs<=1M", "{}", "[]", "None")  # fmt: skip
ODD: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"op": "x"}, {"": 0}, [0, 1, 2], *NUMBERS, *TEXTS)


def of_json(seed: bytes, draw: random.Random) -> bytes:
    """``seed``, JSON text, with one to three changes of its structure; now and then of its bytes."""
    if draw.random() < 0.08:
        return of_text(seed, draw)
    data = json.loads(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = _changed(data, draw)
    text = json.dumps(data, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
    return _written(text[: 4 * len(seed) + 2_000_000])  # repeated repetitions


def of_lines(seed: bytes, draw: random.Random) -> bytes:
    """``seed``, a line of JSON an item, of which one is mutated, left out or there again."""
    lines = seed.splitlines(keepends=True)
    place, change = draw.randrange(len(lines)), draw.random()
    if change < 0.8:
        lines[place] = of_json(lines[place].strip(), draw) + b"\n"
    elif change < 0.9:
        del lines[place]
    else:
        lines[place:place] = [lines[place]] * draw.choice((1, 2, 1000))
    return b"".join(lines)


def of_text(seed: bytes, draw: random.Random) -> bytes:
    """``seed`` with other bytes, doubled or missing parts, deep nesting, another encoding."""
    place, change = draw.randrange(len(seed) + 1), draw.randrange(8)
    if change == 0:
        return seed[:place] + draw.randbytes(draw.randint(1, 4)) + seed[place + 1 :]
    if change == 1:
        return seed[:place] + seed[place + draw.randint(1, 40) :]
    if change == 2:
        part = seed[place : place + draw.randint(1, 80)]
        return seed[:place] + part * draw.choice((2, 3, 200)) + seed[place:]
    if change == 3:
        depth = draw.choice((100, 1000, 100_000))
        return seed[:place] + draw.choice((b"[", b'{"a":')) * depth + seed[place:]
    if change == 4:
        return seed[:place]
    if change == 5:
        return seed.decode(errors="replace").encode(
            draw.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1")), "replace"
        )
    if change == 6:
        return seed[:place] + draw.choice(WRITTEN).encode(errors="surrogatepass") + seed[place:]
    return draw.choice((b"", b"\0" * 100, b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, seed + seed))


def of_bytes(seed: bytes, draw: random.Random) -> bytes:
    """``seed`` with some bytes flipped, set, cut, moved or repeated, often near its beginning, where headers are."""
    data = bytearray(seed)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        end = len(data) if draw.random() < 0.5 else min(len(data), 512)
        place, change = draw.randrange(max(1, end)), draw.randrange(8)
        if change <= 2 and data:
            data[place] ^= 1 << draw.randrange(8)
        elif change == 3 and data:
            data[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif change == 4:
            width = draw.choice((2, 4, 8))
            value = draw.choice((0, 1, -1, 2**31 - 1, 2**31, 2**40, 2**63 - 1)) & (2 ** (8 * width) - 1)
            data[place : place + width] = value.to_bytes(width, draw.choice(("little", "big")))
        elif change == 5:
            del data[place : place + draw.choice((1, 4, 100))]
        elif change == 6:
            data[place:place] = data[place : place + draw.choice((1, 8, 64))] * draw.choice((1, 2, 50))
        elif draw.random() < 0.3:
            del data[place:]
    return bytes(data)


def _changed(data: Any, draw: random.Random) -> Any:
    """``data`` with one change, at any depth; inside a text that is itself JSON, too."""
    data = copy.deepcopy(data)
    spots = _spots(data)
    if not spots:
        return draw.choice(ODD)
    holder, key = draw.choice(spots)
    inner = holder[key]
    if isinstance(inner, str) and inner[:1] in ("{", "[") and draw.random() < 0.8:
        with suppress(ValueError, RecursionError):
            holder[key] = of_json(inner.encode(), draw).decode(errors="replace")
            return data
    draw.choice(_CHANGES)(holder, key, draw)
    return data


def _spots(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in ``data``."""
    found, waiting = [], [data]
    while waiting:
        item = waiting.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            found.append((item, key))
            waiting.append(item[key])
    return found


def _replace(holder: Any, key: Any, draw: random.Random) -> None:
    holder[key] = copy.deepcopy(draw.choice(ODD))


def _number(holder: Any, key: Any, draw: random.Random) -> None:
    value = holder[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and draw.random() < 0.5:
        holder[key] = draw.choice((value + 1, value - 1, -value, value * 1000, value / 3, str(value), [value]))
    else:
        holder[key] = draw.choice(NUMBERS)


def _write(holder: Any, key: Any, draw: random.Random) -> None:
    holder[key] = RAW + draw.choice(WRITTEN)


def _delete(holder: Any, key: Any, draw: random.Random) -> None:
    del holder[key]


def _repeat(holder: Any, key: Any, draw: random.Random) -> None:
    if isinstance(holder, list):
        times = draw.choice((1, 2, 100, 3000))
        if times * len(_spots(holder[key])) > 1_000_000:  # repetitions of repetitions take minutes to write
            times = 1
        holder[key:key] = [copy.deepcopy(holder[key]) for _ in range(times)]
    else:
        holder[draw.choice(TEXTS)] = holder[key]


def _rename(holder: Any, key: Any, draw: random.Random) -> None:
    if isinstance(holder, dict):
        holder[draw.choice((str(key).upper(), f"{key} ", f"{key}\u200b", str(key)[:-1], *TEXTS))] = holder.pop(key)
    else:
        holder.reverse()


def _nest(holder: Any, key: Any, draw: random.Random) -> None:
    depth = draw.choice((1, 2, 50, 900, 5000))
    holder[key] = f"{RAW}{'[' * depth}0{']' * depth}" if draw.random() < 0.5 else [holder[key]]


def _exchange(holder: Any, key: Any, draw: random.Random) -> None:
    other = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


def _text(holder: Any, key: Any, draw: random.Random) -> None:
    value = str(holder[key])
    place = draw.randrange(len(value) + 1)
    holder[key] = draw.choice(
        (value[:place] + draw.choice(TEXTS) + value[place:], value * 20, value[place:], value + "x" * 100_000)
    )


_CHANGES: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    _replace, _replace, _number, _number, _write, _delete, _repeat, _rename, _nest, _exchange, _text,
)  # fmt: skip


def _written(text: bytes) -> bytes:
    """``text`` with what stands behind :data:`RAW` as it is."""
    for mark in (RAW.encode(), json.dumps(RAW)[1:-1].encode()):
        while (start := text.find(b'"' + mark)) >= 0:
            end = start + 1
            while (end := text.find(b'"', end)) > 0 and _escaped(text, end):
                end += 1
            if end < 0:
                return text
            raw = json.loads(text[start : end + 1].decode(errors="surrogatepass"))
            text = text[:start] + raw.removeprefix(RAW).encode(errors="surrogatepass") + text[end + 1 :]
    return text


def _escaped(text: bytes, place: int) -> bool:
    before = text[:place]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
