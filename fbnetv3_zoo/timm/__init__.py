"""This project's networks in timm's registry; nothing is registered before :func:`register` is called."""

from __future__ import annotations

from ..errors import ZooError

__all__ = ["register"]


def register() -> list[str]:
    """Let ``timm.create_model("fbnetv3_c")`` build this project's networks; return the names that were added.

    Added are the networks that timm does not know by these names: its own, FBNetV3 b, d and g, stay as they are. Any
    other network of this project is ``timm.create_model("fbnetv3_zoo", arch=...)``, with what an arch JSON file has, as
    repositories of :func:`fbnetv3_zoo.save_pretrained` ask for it. The models are
    :class:`~fbnetv3_zoo.models.fbnet.FBNet`, or with ``features_only=True``
    :class:`~fbnetv3_zoo.models.features.FBNetFeatures`, and have the ``pretrained_cfg`` from which timm takes their
    preprocessing. With ``pretrained=True``, :func:`fbnetv3_zoo.create` fetches the weights. A second call adds nothing.
    Raises :class:`ZooError` if timm is not installed.
    """
    try:
        from .entrypoints import add
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "timm":
            raise
        raise ZooError('register() needs timm, which is not installed; pip install "fbnetv3-zoo[timm]"') from None
    return add()
