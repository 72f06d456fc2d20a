"""The files that the commands of kills.py begin with, each made when it is first wanted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fbnetv3_zoo.models.fbnet import FBNet
from fbnetv3_zoo.weights.serialization import save
from fbnetv3_zoo.zoo import ARCHS

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "ARCH": "arch.json",
    "MODEL": "m.safetensors",
    "STATE": "state.pth",
    "ONNX": "m.onnx",
    "RUNTIME": "runtime",
    "SEARCH": "search",
    "MIRROR": "mirror",
    "CACHE": "cache",
    "BOXARCH": "boxes.arch.json",
    "BOXES": "boxes",
    "SETTINGS": "settings.json",
    "DETECTOR": "run/model.safetensors",
    "FONTS": "fonts",
    "DRAWN": "drawn",
}


class Files:
    """Files by their names in commands, in ``folder``; ``runtime`` is an unpacked onnxruntime-web."""

    def __init__(self, folder: Path, runtime: Path | None) -> None:
        self._folder, self._runtime = folder, runtime

    def path(self, name: str) -> Path:
        """The path of the file or folder ``name``, which is there afterwards."""
        if name == "RUNTIME" and self._runtime is not None:
            return self._runtime
        path = self._folder / NAMES[name]
        if not path.exists():
            getattr(self, f"_make_{name.lower()}")(path)
        return path

    def _network(self) -> FBNet:
        arch = ARCHS["fbnetv3_a"].for_small_images().scaled(width=0.25, depth=0.25)
        arch = replace(arch, num_classes=10, in_channels=1)
        return FBNet(arch, generator=torch.Generator().manual_seed(0)).eval()

    def _make_arch(self, path: Path) -> None:
        path.write_text(self._network().arch.to_json())

    def _make_model(self, path: Path) -> None:
        save(self._network(), path)

    def _make_state(self, path: Path) -> None:
        torch.save(self._network().state_dict(), path)

    def _make_onnx(self, path: Path) -> None:
        from fbnetv3_zoo.export import export_onnx

        export_onnx(self._network(), path)

    def _make_runtime(self, path: Path) -> None:
        from fbnetv3_zoo.export.web.ort_web import RUNTIME, package_files

        for name, content in package_files(RUNTIME).items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        told = {"name": RUNTIME.name, "version": RUNTIME.version}
        (path / "package.json").write_text(json.dumps(told))

    def _make_search(self, path: Path) -> None:
        from kill_commands import TINY

        _call(*TINY.replace("OUT", str(path)).split())

    def _make_mirror(self, path: Path) -> None:
        from golden import official_checkpoint

        (path / "fbnetv2_f1.fb_in1k").mkdir(parents=True)
        torch.save(official_checkpoint("fbnetv2_f1"), path / "fbnetv2_f1.fb_in1k" / "model.pth")

    def _make_cache(self, path: Path) -> None:
        _call("weights", "fetch", "fbnetv2_f1", "--cache", str(path), "--mirror", str(self.path("MIRROR")))

    def _make_boxarch(self, path: Path) -> None:
        path.write_text(ARCHS["fbnetv3_a"].scaled(width=0.25, depth=0.25).to_json())

    def _make_boxes(self, path: Path) -> None:
        import shapes

        shapes.write(path, 8, seed=0, side=64, objects=2)

    def _make_settings(self, path: Path) -> None:
        from fbnetv3_zoo.detection import RCNNSettings
        from fbnetv3_zoo.utils.serialization import to_json

        settings = RCNNSettings(min_size=64, max_size=64, anchor_sizes=(12, 18), aspect_ratios=(1.0,), proposals=20,
                            proposals_in_training=50, regions_in_training=16, score_threshold=0.0)  # fmt: skip
        path.write_text(to_json(settings))

    def _make_detector(self, path: Path) -> None:
        boxes = str(self.path("BOXES") / "shapes.json")
        _call("detect", "train", "--annotations", boxes, "--validation", boxes, "--model", str(self.path("BOXARCH")),
              "--settings", str(self.path("SETTINGS")), "--epochs", "1", "--batch-size", "4",
              "--output", str(path.parent))  # fmt: skip

    def _make_fonts(self, path: Path) -> None:
        import fonts

        path.mkdir()
        for name in ("cmr10.ttf", "cmss10.ttf", "cmtt10.ttf"):
            shutil.copy(fonts.SHIPPED / name, path / name)

    def _make_drawn(self, path: Path) -> None:
        import drawings

        for name, color in (("a", "#f00"), ("b", "#0a0"), ("c", "#00f")):
            drawings.write_vendor(path / name, color)


def _call(*words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "fbnetv3_zoo", *words], env=environment, check=True, capture_output=True)
