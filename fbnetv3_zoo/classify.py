"""Classifying images with a network or a model file, on PyTorch (``.safetensors``) or ONNX Runtime (``.onnx``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fbnetv3_zoo.description import Description
from fbnetv3_zoo.errors import ZooError, check_whole
from fbnetv3_zoo.preprocess import stack

if TYPE_CHECKING:
    from PIL import Image

    from fbnetv3_zoo.model import FBNet

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class with its probability in [0, 1]."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model file opened for use: ``logits`` maps a batch (images, channels, height, width) to (images, classes)."""

    description: Description
    logits: Callable[[Floats], Floats]

    @classmethod
    def open(cls, path: str | Path) -> Classifier:
        """The classifier in ``path``. Raises :class:`ZooError` for a file that is missing, damaged or not ours."""
        suffix = Path(path).suffix
        if suffix == ".safetensors":
            from fbnetv3_zoo.weights.files import load

            return cls.of(load(path))
        if suffix == ".onnx":
            return _open_onnx(Path(path))
        raise ZooError(f"{path}: is no model file; give a .safetensors or .onnx file")

    @classmethod
    def of(cls, model: FBNet) -> Classifier:
        """The classifier that ``model``, in evaluation mode, is."""
        import torch

        def logits(images: Floats) -> Floats:
            with torch.inference_mode():
                answer: Floats = model(torch.from_numpy(images)).float().numpy()
            return answer

        return cls(model.description, logits)

    def __call__(self, images: Sequence[Image.Image], *, top: int = 5) -> list[list[Prediction]]:
        """For each image the ``top`` most probable classes, the most probable first."""
        check_whole("top", top)
        if not images:
            return []
        logits = self.logits(stack(self.description.preprocess, images)).astype(np.float64)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = exponents / exponents.sum(1, keepdims=True)
        ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        return [
            [Prediction(self.description.name_of(int(c)), float(row[c])) for c in classes]
            for row, classes in zip(probabilities, ranked, strict=True)
        ]


def _open_onnx(path: Path) -> Classifier:
    import onnxruntime

    if not path.is_file():
        raise ZooError(f"{path}: {'is a folder, not a model file' if path.is_dir() else 'no such file'}")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise ZooError(f"{path}: cannot be read as ONNX ({str(error).splitlines()[0]})") from None
    try:
        description = Description.from_metadata(session.get_modelmeta().custom_metadata_map)
    except ZooError as error:
        raise ZooError(f"{path}: {error}") from None
    if description is None:
        raise ZooError(f"{path}: does not describe its classes and preprocessing; export it with `fbnetv3 export onnx`")
    (given,) = session.get_inputs()

    def logits(images: Floats) -> Floats:
        answer: Floats = session.run(None, {given.name: images})[0]
        return answer

    return Classifier(description, logits)
