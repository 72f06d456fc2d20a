"""Entry points for ``torch.hub.load(REPOSITORY, "fbnetv3_e", pretrained=True)``; options as of ``create``."""

from collections.abc import Callable

import fbnetv3_zoo

# what create() imports; torch.hub says which of these is missing
dependencies = ["torch", "torchvision", "numpy", "PIL", "safetensors", "blake3", "filelock", "huggingface_hub"]
dependencies += ["platformdirs", "requests", "rich"]


def _entry(name: str) -> Callable[..., fbnetv3_zoo.FBNet]:
    def entry(**options: object) -> fbnetv3_zoo.FBNet:
        return fbnetv3_zoo.create(name, **options)  # type: ignore[arg-type]

    entry.__name__ = name
    entry.__doc__ = f"{name}, as fbnetv3_zoo.create({name!r}, ...): pretrained=, num_classes=, in_channels= ..."
    return entry


globals().update({name: _entry(name) for name in fbnetv3_zoo.list_models()})
