"""The model card of a network, for the Hugging Face Hub."""

from __future__ import annotations

import re

from ..description import Description
from ..errors import printable
from ..models.network import Network
from ..models.size import size_of
from .registry import WeightsEntry

_PAPERS = {
    "fbnet": "FBNet (arXiv 1812.03443)",
    "fbnetv2": "FBNetV2 (arXiv 2004.05565)",
    "dmasking": "FBNetV2 (arXiv 2004.05565)",
    "fbnetv3": "FBNetV3 (arXiv 2006.02049)",
    "torchvision": "torchvision",
    "fbnetv3_nano": "this project, in the style of FBNetV3 (arXiv 2006.02049)",
}


def model_card(model: Network, *, license: str | None = None, library: str = "fbnetv3_zoo") -> str:
    """The card of a user's network.

    ``license`` is an SPDX identifier (default: that of the weights, if known), ``library`` the Hub's name of what loads
    it.
    """
    head = _front_matter(license or model.description.license, datasets=[], library=library)
    return "\n".join([head, *_body(model.description, model.arch.name), "", "## Use", "", *_use_of_file()])


def neighbors_section(*, own: bool) -> str:
    """How other libraries load a repository; ``own``: timm has no such network, and needs ours."""
    register = ["import fbnetv3_zoo.timm", "", "fbnetv3_zoo.timm.register()"] if own else []
    python = [
        "import timm", "from transformers import pipeline", *register,
        'model = timm.create_model("hf-hub:owner/name", pretrained=True).eval()',
        'classify = pipeline("image-classification", "owner/name")',
    ]  # fmt: skip
    script = [
        "import { AutoConfig, pipeline } from '@huggingface/transformers';", "",
        "const config = await AutoConfig.from_pretrained('owner/name');",
        "config.model_type = 'resnet';  // transformers.js has no type for networks of timm; this one adds nothing",
        "const classify = await pipeline('image-classification', 'owner/name', { config });",
    ]  # fmt: skip
    lines = ["", "With timm and transformers:", "", "```python", *python, "```", "", "With transformers.js:", ""]
    return "\n".join([*lines, "```js", *script, "```", ""])


def record_card(record: WeightsEntry) -> str:
    """The card of published weights. Imports torchvision for the class names."""
    head = _front_matter(
        record.license.value if record.license else None, datasets=["imagenet-1k"] if record.imagenet_classes else []
    )
    description = Description(record.arch, record.preprocess, record.class_names)
    lines = [head, *_body(description, record.name), "", "## Weights", ""]
    lines += [f"- Accuracy on ImageNet's validation set: {a}." for a in record.accuracy]
    if record.license is not None:
        lines.append(f"- License: {record.license.value} ({record.license.terms}).")
    if record.packaged is None:
        lines += [f"- Published at {source.address}{_digest(source.sha256)}." for source in record.sources]
    lines += [f"- {record.note[0].upper()}{record.note[1:]}."] if record.note else []
    code = [f'model = fbnetv3_zoo.create("{record.name}", pretrained=True).eval()']
    return "\n".join([*lines, "", "## Use", "", "```python", "import fbnetv3_zoo", "", *code, *_CLASSIFY, "```", ""])


_CLASSIFY = (
    'image = fbnetv3_zoo.read_image("cat.jpg")',
    "logits = model(model.preprocess([image]))",
    "print(model.class_names[logits.argmax()] if model.class_names else logits.argmax().item())",
)


def _use_of_file() -> list[str]:
    code = ("import fbnetv3_zoo", "", 'model = fbnetv3_zoo.load("model.safetensors")  # or "hf-hub:owner/name"')
    return ["```python", *code, *_CLASSIFY, "```", ""]


def _front_matter(license: str | None, datasets: list[str], library: str = "fbnetv3_zoo") -> str:
    lines = ["---", *([f"license: {license.lower()}"] if license else [])]
    lines += [f"library_name: {library}", "pipeline_tag: image-classification", "tags:", "- fbnet", "- vision"]
    if datasets:
        lines += ["datasets:", *(f"- {name}" for name in datasets)]
    return "\n".join([*lines, "---", ""])


def _body(description: Description, title: str) -> list[str]:
    arch, preprocess = description.arch, description.preprocess
    size = size_of(arch)
    family = _PAPERS.get(arch.name) or _PAPERS.get(re.split("[_:]", arch.name)[0], "the FBNet family")
    classes = f"{arch.num_classes}"
    if description.class_names is not None:
        more = f" and {arch.num_classes - 5} more" if arch.num_classes > 5 else ""
        classes += f": {', '.join(map(printable, description.class_names[:5]))}{more}"
    numbers = ", ".join(f"{value:g}" for value in preprocess.mean), ", ".join(f"{value:g}" for value in preprocess.std)
    return [
        f"# {title}",
        "",
        f"An image classifier of {family}, for fbnetv3-zoo.",
        "",
        f"- Network: {arch.name}, {size.parameters / 1e6:.2f} M parameters, {size.macs / 1e6:.1f} M "
        f"multiply-accumulates at {arch.resolution} px.",
        f"- Classes: {classes}.",
        f"- Preprocessing: shorter side to {preprocess.resize} px ({preprocess.interpolation.value}), center crop of "
        f"{preprocess.resolution} px, scaled to [0, 1], mean ({numbers[0]}), standard deviation ({numbers[1]}).",
    ]


def _digest(sha256: str) -> str:
    return f" (SHA-256 {sha256}{'...' if len(sha256) < 64 else ''})" if sha256 else ""
