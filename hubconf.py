"""Entry points for ``torch.hub.load(REPOSITORY, "fbnetv3_e", pretrained=True)``; options as of ``create``."""

from functools import partial as _partial

import fbnetv3_zoo as _zoo

# what create() imports; torch.hub says which of these is missing
dependencies = ["torch", "torchvision", "numpy", "PIL", "safetensors", "blake3", "filelock", "huggingface_hub"]
dependencies += ["platformdirs", "requests", "rich"]


def _entry(name: str) -> _partial[_zoo.FBNet]:
    entry = _partial(_zoo.create, name)
    entry.__doc__ = f"{name}: fbnetv3_zoo.create({name!r}, pretrained=, num_classes=, in_chans=, drop_rate= ...)"
    return entry


globals().update({name: _entry(name) for name in _zoo.list_models()})
