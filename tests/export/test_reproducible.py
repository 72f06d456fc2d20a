"""The same model gives the same file, byte for byte, in another process, another folder, at another time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SHORT
from safetensors.torch import load, save

from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.utils.checksummed import ChecksummedFormat
from fbnetv3_zoo.utils.safetensors_order import in_order
from fbnetv3_zoo.weights import serialization as files

MADE = """
import sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from fbnetv3_zoo.arch import Arch
from fbnetv3_zoo.export.quantization.config import QuantizationConfig, Target
from fbnetv3_zoo.export.quantization.quantize import quantize
from fbnetv3_zoo.export.backends.litert_tflite import export_litert
from fbnetv3_zoo.export.backends.ncnn_param import export_ncnn
from fbnetv3_zoo.export.backends.openvino_ir import export_openvino
from fbnetv3_zoo.export.onnx.export import export_onnx
from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.serialization import save

torch.set_num_threads(1)
arch, folder = Arch.from_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
model = FBNet(arch, generator=torch.Generator().manual_seed(0)).eval()
save(model, folder / "net.safetensors")
export_onnx(model, folder / "net.onnx")
export_openvino(model, folder / "net.xml")
export_ncnn(model, folder / "net.ncnn.param")
export_litert(model, folder / "net.tflite")
pixels = np.random.default_rng(0).integers(0, 255, (8, 40, 40, 3), np.uint8)
images = [Image.fromarray(one) for one in pixels]
config = QuantizationConfig(target=Target.VNNI, agreement=0.0)
quantize(folder / "net.onnx", folder / "int8.onnx", images, config=config)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders of the same files, written by two processes that hash differently."""
    arch = tmp_path_factory.mktemp("arch") / "arch.json"
    arch.write_text(SHORT.to_json())
    folders, running = [tmp_path_factory.mktemp(name) for name in ("one", "another-place")], []
    for number, folder in enumerate(folders):
        paths = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", MADE, str(arch), str(folder)]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        told = process.communicate(timeout=300)[1]
        assert process.returncode == 0, told
    return folders


@pytest.mark.parametrize(
    "name",
    ["net.safetensors", "net.onnx", "net.xml", "net.bin", "net.ncnn.param", "net.ncnn.bin", "net.tflite", "int8.onnx"],
)
def test_two_processes_write_the_same(name: str, made: list[Path]) -> None:
    one, two = (folder / name for folder in made)
    assert one.read_bytes() == two.read_bytes()


def test_one_model_saved_eight_times_is_one_file(tiny_arch: Arch, tmp_path: Path) -> None:
    model = FBNet(tiny_arch)
    for number in range(8):
        files.save(model, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert files.load(tmp_path / "0.safetensors").arch == tiny_arch


def test_sealed_files_are_the_same_every_time(tmp_path: Path) -> None:
    kind = ChecksummedFormat("a table", "fbnetv3_zoo.test", "nobody", "write it again", {}, (), others="if")
    for number in range(8):
        told = {f"entry {n}": str(n) for n in range(9)}
        kind.write(tmp_path / f"{number}.safetensors", {"a": np.arange(3), "b": np.ones(2)}, told)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert set(kind.read(tmp_path / "0.safetensors")[0]) == {"a", "b"}


@pytest.mark.parametrize("text", ["", "ü", "€uro", "\U0001d518", 'quote " and \\ and \n', "x" * 1000])
def test_any_entry_stays_as_it_was(text: str) -> None:
    tensors = {"ünnamed": torch.arange(5, dtype=torch.float64), "b": torch.ones(3, dtype=torch.uint8)}
    entries = {"z": text, text or "a": "1", "m": "2"}
    data = in_order(save(tensors, entries))
    assert {name: tensor.tolist() for name, tensor in load(data).items()} == {
        name: tensor.tolist() for name, tensor in tensors.items()
    }
    assert files.parse(data, "it").metadata == entries
    assert list(files.parse(data, "it").metadata) == sorted(entries)
    assert int.from_bytes(data[:8], "little") % 8 == 0
    assert in_order(save(tensors)) == in_order(save(tensors))
