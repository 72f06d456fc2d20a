"""Classify images with a network, or with a model file on the runtime that its suffix selects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from .description import Description
from .errors import ZooError, check_flag, check_whole
from .images.formats import no_image
from .preprocess import stack
from .utils.paths import to_path

if TYPE_CHECKING:
    from PIL import Image

    from .models.network import Network
    from .runtimes.base import OpenModel

ENDINGS = (".safetensors", ".onnx", ".ort", ".xml", ".pte", ".param", ".tflite", ".mlpackage")
"""Suffixes of the files that :meth:`Classifier.open` opens."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class with its probability in [0, 1]."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model ready for use: ``logits`` maps images (batch, channels, height, width) to (batch, classes), float32."""

    description: Description
    logits: Callable[[Floats], Floats]

    @classmethod
    def open(cls, path: str | Path, *, threads: int | None = None, bfloat16: bool = False) -> Classifier:
        """Open the classifier in ``path``. The suffix selects the runtime.

        ``.safetensors``: PyTorch; ``.onnx`` and ``.ort``: ONNX Runtime; ``.xml``, with its ``.bin`` beside it:
        OpenVINO; ``.pte``: ExecuTorch; ``.param``, with its ``.bin``: ncnn; ``.tflite``: LiteRT; ``.mlpackage``: Core
        ML on macOS, elsewhere torch, operator by operator. ``logits`` accepts any number of images and raises
        :class:`ZooError` for images of the wrong shape.

        Args:
            path: the file.
            threads: number of threads (default: the runtime's choice). PyTorch and ExecuTorch apply it to the whole
                process.
            bfloat16: compute in bfloat16: less exact, and faster on processors that support it. OpenVINO only.

        Raises :class:`ZooError` for a file that is missing, damaged or not of this project.
        """
        if threads is not None:
            check_whole("threads", threads, at_most=1024)
        check_flag("bfloat16", bfloat16)
        opened = _open(to_path("path", path, "the path of a model file, such as 'model.onnx'"), threads, bfloat16)
        return cls(opened.description, opened.logits)

    @classmethod
    def of(cls, model: Network) -> Classifier:
        """A classifier that runs ``model`` in evaluation mode, and leaves it in the mode in which it is."""
        import torch

        from .models.network import evaluating, network_of

        model = network_of(model)

        def logits(images: Floats) -> Floats:
            like = next(model.parameters())  # where it is now, and its type
            with evaluating(model), torch.inference_mode():
                answer: Floats = model(torch.from_numpy(images).to(like)).float().cpu().numpy()
            return answer

        return cls(model.description, logits)

    @overload
    def __call__(self, images: Image.Image, *, top: int = 5) -> list[Prediction]: ...
    @overload
    def __call__(self, images: Sequence[Image.Image], *, top: int = 5) -> list[list[Prediction]]: ...
    def __call__(
        self, images: Image.Image | Sequence[Image.Image], *, top: int = 5
    ) -> list[Prediction] | list[list[Prediction]]:
        """The ``top`` most probable classes of an image, most probable first; of several, one list per image."""
        from PIL import Image

        check_whole("top", top)
        if isinstance(images, Image.Image):
            return self._ranked([images], top)[0]
        if not isinstance(images, Sequence) or isinstance(images, str):
            raise no_image(images, "a Pillow image, or a list of them")
        return self._ranked(images, top)

    def _ranked(self, images: Sequence[Image.Image], top: int) -> list[list[Prediction]]:
        if not images:
            return []
        logits = self.logits(stack(self.description.preprocess, images)).astype(np.float64)
        _refuse_non_finite(logits, self.description)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = exponents / exponents.sum(1, keepdims=True)
        ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        return [
            [Prediction(self.description.name_of(int(c)), float(row[c])) for c in classes]
            for row, classes in zip(probabilities, ranked, strict=True)
        ]


def _refuse_non_finite(logits: npt.NDArray[np.float64], description: Description) -> None:
    wrong = ~np.isfinite(logits).all(1)
    if wrong.any():
        image = f"image {int(wrong.argmax()) + 1} of {len(logits)}"
        fault = f"{description.arch.name} answers NaN or infinity for {image}"
        raise ZooError(f"{fault}; its weights are damaged, or too large for how it computes: take another file")


def _open(path: Path, threads: int | None, bfloat16: bool) -> OpenModel | Classifier:
    suffix = path.suffix
    if suffix not in ENDINGS:
        raise ZooError(f"{path}: is not a model file; give one that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if bfloat16 and suffix != ".xml":
        raise ZooError(f"{path}: only OpenVINO (.xml) computes in bfloat16 here; leave bfloat16 out")
    if suffix == ".xml":
        from .runtimes.openvino_ir import open_openvino

        return open_openvino(path, threads=threads, bfloat16=bfloat16)
    if suffix == ".mlpackage":
        from .runtimes.coreml import open_coreml

        return open_coreml(path, threads=threads)
    if suffix == ".pte":
        from .runtimes.executorch_pte import open_executorch

        return open_executorch(path, threads=threads)
    if suffix == ".param":
        from .runtimes.ncnn_param import open_ncnn

        return open_ncnn(path, threads=threads)
    if suffix == ".tflite":
        from .runtimes.litert_tflite import open_litert

        return open_litert(path, threads=threads)
    if suffix in (".onnx", ".ort"):
        from .runtimes.ort import open_onnx

        return open_onnx(path, threads=threads, inside=True)
    assert suffix == ".safetensors", suffix
    return _open_weights(path, threads)


def _open_weights(path: Path, threads: int | None) -> Classifier:
    import torch

    from .weights.serialization import load

    classifier = Classifier.of(load(path))
    if threads is not None:
        torch.set_num_threads(threads)
    return classifier
