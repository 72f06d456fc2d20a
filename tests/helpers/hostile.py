"""Checkpoints that mean harm, and a process that has many of them read, each by a fork of its own.

``python hostile.py FOLDER`` reads every ``FOLDER/*.pth`` as the program :mod:`fbnetv3_zoo.weights.unpickle` does, and
gives every ``FOLDER/*.pkl`` to Python's own ``pickle``, which shows what a payload would do. It prints how each ended.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CPU_SECONDS = 2  # the bombs of memory need one or two
MODULE = "harmful_module"
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
STORAGE = bytes(16)
_STORED = b"<end of a storage>"  # which has a sixth entry in the legacy format


class Ops(bytes):
    """Opcodes that push one value."""


def push(value: Any) -> Ops:
    """Opcodes for ``value``, in which opcodes stand for what they push."""
    if isinstance(value, Ops):
        return value
    if isinstance(value, tuple):
        return Ops(b"(" + b"".join(map(push, value)) + b"t")
    return Ops(pickle.dumps(value, 2)[2:-1])


def named(path: str) -> Ops:
    """What ``module:name`` is, by the opcode GLOBAL."""
    return Ops("c{}\n{}\n".format(*path.split(":")).encode())


def call(function: str | Ops, *arguments: Any) -> Ops:
    """The answer of a function, by the opcode REDUCE."""
    return Ops((function if isinstance(function, Ops) else named(function)) + push(arguments) + b"R")


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def stack_global(module: str, name: str) -> Ops:
    return Ops(short(module) + short(name) + b"\x93")


def stop(value: Any, protocol: int = 2) -> bytes:
    """A whole pickle."""
    return b"\x80" + bytes([protocol]) + push(value) + b"."


def live(marks: str) -> dict[str, bytes]:
    """Pickles by name; each makes ``marks/NAME`` when it is unpickled without care."""

    def at(name: str) -> str:
        return f"{marks}/{name}"

    def touch(name: str) -> str:
        return f"touch {at(name)}"

    def write(name: str) -> str:
        return f"open({at(name)!r}, 'w').close()"

    system, module = named("os:system"), call("importlib:import_module", "os")
    made = {
        "system": call("os:system", touch("system")),
        "posix": call("posix:system", touch("posix")),
        "popen": call("os:popen", touch("popen")),
        "spawn": call("os:spawnlp", 0, "touch", "touch", at("spawn")),
        "subprocess": call("subprocess:Popen", ["touch", at("subprocess")]),
        "check_output": call("subprocess:check_output", ["touch", at("check_output")]),
        "eval": call("builtins:eval", write("eval")),
        "exec": call("builtins:exec", write("exec")),
        "python2_eval": call("__builtin__:eval", write("python2_eval")),
        "getattr": call(call("builtins:getattr", module, "system"), touch("getattr")),
        "attrgetter": call(call(call("operator:attrgetter", "system"), module), touch("attrgetter")),
        "methodcaller": call(call("operator:methodcaller", "system", touch("methodcaller")), module),
        "import": call("builtins:__import__", f"{MODULE}_import"),
        "importlib": call("importlib:import_module", f"{MODULE}_importlib"),
        "runpy": call("runpy:run_path", f"{MODULE}_runpy.py"),
        "torch_hub": call("torch.hub:_import_module", "harmful", f"{MODULE}_torch_hub.py"),
        "open": call("builtins:open", at("open"), "w"),
        "io": call("_io:FileIO", at("io"), "w"),
        "codecs": call("codecs:open", at("codecs"), "w"),
        "makedirs": call("os:makedirs", at("makedirs")),
        "copyfile": call("shutil:copyfile", "/dev/null", at("copyfile")),
        "symlink": call("os:symlink", "/", at("symlink")),
        "zipfile": call("zipfile:ZipFile", at("zipfile"), "w"),
        "tarfile": call("tarfile:open", at("tarfile"), "w"),
        "logging": call("logging:FileHandler", at("logging")),
        "profile": call("cProfile:run", write("profile")),
        "map": call("builtins:list", call("builtins:map", system, [touch("map")])),
        "partial": call(call("functools:partial", system, touch("partial"))),
        "reduce": call("functools:reduce", named("builtins:exec"), [write("reduce"), {}]),
        "webbrowser": call(
            call("operator:methodcaller", "open", at("webbrowser")), call("webbrowser:GenericBrowser", "touch")
        ),
        "loads": call("pickle:loads", stop(call(system, touch("loads")))),
        "torch_in_torch": call("torch.storage:_load_from_bytes", legacy(stop(call(system, touch("torch_in_torch"))))),
        "torch_save": call("torch.serialization:save", [], at("torch_save")),
        "numpy_memmap": call("numpy:memmap", at("numpy_memmap"), "float32", "w+", 0, 4),
        "numpy_savetxt": call("numpy:savetxt", at("numpy_savetxt"), [1.0]),
        "ordered_dict": Ops(
            call("collections:OrderedDict") + push("weight") + call(system, touch("ordered_dict")) + b"s"
        ),
        "inst": Ops(b"(" + push(touch("inst")) + b"ios\nsystem\n"),
        "obj": Ops(b"(" + system + push(touch("obj")) + b"o"),
        "build": call(
            Ops(call("functools:partial", named("builtins:print")) + push((system, (touch("build"),), {}, None)) + b"b")
        ),
    }
    pickles = {name: stop(ops) for name, ops in made.items()}
    pickles["stack_global"] = stop(call(stack_global("os", "system"), touch("stack_global")), 4)
    pickles["dotted_global"] = stop(call(stack_global("shutil", "os.system"), touch("dotted_global")), 4)
    return pickles


def storage(held: int = 4, kind: str = "FloatStorage", key: str = "0") -> Ops:
    """A storage that the checkpoint is said to keep, of ``held`` elements."""
    return Ops(push(("storage", named(f"torch:{kind}"), key, "cpu", held))[:-1] + _STORED)


def tensor(size: Iterable[int], stride: Iterable[int], offset: int = 0, held: Ops | None = None) -> Ops:
    """A tensor, as torch.save describes it."""
    held = storage() if held is None else held
    hooks = call("collections:OrderedDict")
    return call("torch._utils:_rebuild_tensor_v2", held, offset, tuple(size), tuple(stride), False, hooks)


def in_dict(value: Any) -> Ops:
    return Ops(b"}" + push("weight") + push(value) + b"s")


def doubled(times: int, ops: bytes, begin: bytes) -> Ops:
    """A value made of two of itself, again and again: small to write, huge to walk."""
    return Ops(begin + b"".join(b"q\x00" + ops for _ in range(times)))


def bombs() -> dict[str, bytes]:
    """Pickles by name that are to cost memory or time, or to trip the reader."""
    hexed = call("_codecs:encode", "a" * 1000, "latin1")
    for _ in range(24):  # each doubles the bytes
        hexed = call("_codecs:encode", hexed, "hex")
    longs = storage(2, "LongStorage")
    shadow = Ops(b"}" + push("numel") + named("torch:Size") + b"s" + push("clone") + named("torch:Size") + b"s")
    colliding = Ops(b"}(" + b"".join(push(n * ((1 << 61) - 1)) + b"N" for n in range(60_000)) + b"u")
    values = {
        "laughs_list": doubled(60, b"h\x00\x86", b")"),
        "laughs_key": Ops(b"}" + doubled(60, b"h\x00\x86", b")") + b"Ns"),
        "colliding_keys": colliding,
        "codec": hexed,
        "bytearray": call("builtins:bytearray", 1 << 40),
        "bytearrays": Ops(b"](" + call("builtins:bytearray", 100_000_000) * 50 + b"e"),
        "counter": call("collections:Counter", call("builtins:bytearray", 1 << 33)),
        "size_of_storage": tensor((1,), (1,), held=storage(1 << 50)),
        "negative_storage": tensor((1,), (1,), held=storage(-4)),
        "storage_not_there": tensor((1,), (1,), held=storage(key="7")),
        "storage_path": tensor((1,), (1,), held=storage(key="../../data.pkl")),
        "storage_class": call("torch:FloatStorage", 1 << 40),
        "storage_object": Ops(named("torch:FloatStorage") + push((1 << 40,)) + b"\x81"),
        "tensor_class": call("torch:FloatTensor", 1 << 40),
        "more_than_held": tensor((1 << 30,), (1,)),
        "beyond_the_end": tensor((4,), (1,), offset=1),
        "negative_offset": tensor((4,), (1,), offset=-4),
        "offset_overflow": tensor((4,), (1,), offset=(1 << 63) - 2),
        "offset_too_long": tensor((4,), (1,), offset=1 << 80),
        "negative_stride": tensor((4,), (-1,), offset=3),
        "negative_size": tensor((-4,), (1,)),
        "stride_overflow": tensor((4,), (1 << 62,)),
        "expanded": tensor((1 << 40,), (0,)),
        "expanded_overflow": tensor((1 << 62, 1 << 62), (0, 0)),
        "expanded_wraps": tensor((1 << 32, 1 << 32), (0, 0)),
        "expanded_twice": tensor((1 << 61,), (0,)),
        "meta": call("torch._utils:_rebuild_meta_tensor_no_storage", named("torch:float32"), (1 << 40,), (1,), False),
        "sparse": call(
            "torch._utils:_rebuild_sparse_tensor", call("torch.serialization:_get_layout", "torch.sparse_coo"),
            (tensor((1, 2), (2, 1), held=longs), tensor((2,), (1,), held=longs), (1 << 40,)),
        ),
        "quantized": call(
            "torch._utils:_rebuild_qtensor", storage(16, "QInt8Storage"), 0, (16,), (1,),
            (named("torch:per_tensor_affine"), 1.0, 0), False, call("collections:OrderedDict"),
        ),
        "wrapper": call(
            "torch._utils:_rebuild_wrapper_subclass", named("torch:Tensor"), named("torch:float32"), (1 << 40,), (1,),
            0, call("torch.serialization:_get_layout", "torch.strided"), call("torch:device", "cpu"), False,
        ),
        "complex": tensor((2,), (1,), held=storage(2, "ComplexFloatStorage")),
        "integers": tensor((4,), (1,), held=storage(4, "IntStorage")),
        "bytes": tensor((16,), (1,), held=storage(16, "ByteStorage")),
        "from_type": call(
            "torch._tensor:_rebuild_from_type_v2", named("torch._utils:_rebuild_tensor"), named("torch:Tensor"),
            (storage(), 0, (4,), (1,)), shadow,
        ),
        "shadowed_items": Ops(
            call("collections:OrderedDict") + b"}" + push("items") + named("collections:Counter") + b"sb"
        ),
        "set_state": Ops(tensor((4,), (1,)) + push((storage(), 0, (1 << 40,), (0,))) + b"b"),
        "long_name": Ops(b"}" + push("n" * 1_000_000) + tensor((4,), (1,)) + b"s"),
        "escape_in_name": Ops(b"}" + push("\x1b]0;harm\x07\n\n") + tensor((4,), (1,)) + b"s"),
        "number_as_name": Ops(b"}" + push(7) + tensor((4,), (1,)) + b"s"),
        "text_as_tensor": in_dict("text"),
    }  # fmt: skip
    pickles = {name: stop(in_dict(ops) if name not in _WHOLE else ops) for name, ops in values.items()}
    return pickles | {
        name: b"\x80\x02" + code
        for name, code in {
            "escape_in_global": b"c\x1b]0;harm\x07\nsystem\n.",
            "extension_1": b"\x82\x01.",
            "extension_2": b"\x83\x01\x01.",
            "extension_4": b"\x84\x01\x01\x01\x01.",
            "persistent_text": b"Pos.system\n.",
            "persistent_call": push(("call", named("torch:Size"))) + b"Q.",
            "persistent_list": push(["storage"]) + b"Q.",
            "persistent_empty": b")Q.",
            "long_4": b"\x8b\xff\xff\xff\x7f1.",
            "binbytes_8": b"\x8e" + struct.pack("<Q", 1 << 60) + b".",
            "bytearray_8": b"\x96" + struct.pack("<Q", 1 << 60) + b".",
            "frame": b"\x95" + struct.pack("<Q", 1 << 62) + b".",
            "string_4_gib": b"X\xff\xff\xff\xff.",
            "memo_4_gib": b"]r\xff\xff\xff\xff.",
            "marks": b"(" * 200_000 + b".",
            "deep_lists": b"]" * 50_000 + b"a" * 49_999 + b".",
            "deep_tuples": b")" + b"\x85" * 200_000 + b".",
            "deep_dict": b"}" + push("weight") + b"]" * 50_000 + b"a" * 49_999 + b"s.",
            "underflow": b"a.",
            "unknown_memo": b"h\x07.",
            "nothing": b"",
            "several": b"N.N.N.",
        }.items()
    }


_WHOLE = (
    "laughs_list", "laughs_key", "colliding_keys", "codec", "bytearrays", "shadowed_items", "long_name",
    "escape_in_name", "number_as_name", "text_as_tensor",
)  # fmt: skip


def archive(entries: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file; two entries may bear one name."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as opened:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in entries:
            opened.writestr(name, data.replace(_STORED, b"tQ"))
    return file.getvalue()


def entries_of(data: bytes) -> list[tuple[str, bytes]]:
    """What torch.save puts into an archive around the pickle ``data``."""
    return [
        ("archive/data.pkl", data),
        ("archive/byteorder", b"little"),
        ("archive/data/0", STORAGE),
        ("archive/version", b"3\n"),
        ("archive/.data/serialization_id", b"0" * 40),
    ]


def zipped(data: bytes) -> bytes:
    """A checkpoint whose pickle is ``data``."""
    return archive(entries_of(data))


def legacy(data: bytes) -> bytes:
    """The same in the format of before PyTorch 1.6."""
    start = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, SYSTEM))
    return start + data.replace(_STORED, b"NtQ") + pickle.dumps(["0"], 2) + struct.pack("<Q", 4) + STORAGE


def of_one_storage(data: bytes, count: int) -> bytes:
    """An archive whose entries data/0, data/1 ... are all one: many storages in the room of one."""
    content = archive([("archive/data.pkl", data), ("archive/version", b"3\n"), ("archive/data/0", bytes(1 << 20))])
    end = content.rindex(b"PK\x05\x06")
    start = struct.unpack("<L", content[end + 16 : end + 20])[0]
    last = content.rindex(b"PK\x01\x02", start, end)
    head = content[last : last + 46]
    for number in range(1, count):
        name = f"archive/data/{number}".encode()
        content = content[:end] + head[:28] + struct.pack("<H", len(name)) + head[30:] + name + content[end:]
        end += 46 + len(name)
    sizes = struct.pack("<HHLL", count + 2, count + 2, end - start, start)
    return content[:end] + b"PK\x05\x06" + bytes(4) + sizes + b"\x00\x00"


def _attempt(path: Path) -> None:
    """What the fork does; never returns."""
    code = 99
    try:
        error = os.open(path.with_suffix(".err"), os.O_WRONLY | os.O_CREAT)
        os.dup2(error, 2)
        os.dup2(error, 1)
        if path.suffix == ".pkl":
            sys.path.insert(0, ".")
            pickle.loads(path.read_bytes())
            code = 0
        else:
            from fbnetv3_zoo.weights import unpickle

            unpickle._SECONDS = CPU_SECONDS
            target = path.with_suffix(".safetensors")
            with path.open("rb") as source, target.open("wb") as written:
                code = unpickle.main(source, written, os.getppid())
    finally:
        os._exit(code)


def main(folder: Path) -> None:
    import torch  # noqa: F401
    from safetensors.torch import save_file  # noqa: F401

    from fbnetv3_zoo.weights import convert, unpickle  # noqa: F401

    report: dict[str, dict[str, Any]] = {}
    for path in sorted([*folder.glob("*.pth"), *folder.glob("*.pkl")]):
        target, child = path.with_suffix(".safetensors"), os.fork()
        if not child:
            _attempt(path)
        _, status, used = os.wait4(child, 0)
        said = path.with_suffix(".err").read_text(errors="replace") if path.with_suffix(".err").exists() else ""
        report[path.name] = {
            "code": os.waitstatus_to_exitcode(status),
            "said": said,
            "kilobytes": used.ru_maxrss,
            "seconds": used.ru_utime + used.ru_stime,
            "wrote": bool(target.exists() and target.stat().st_size),
        }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
