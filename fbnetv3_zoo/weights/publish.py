"""Publish a network as a repository of the Hugging Face Hub: weights and a model card."""

from __future__ import annotations

from pathlib import Path

from ..models.network import Network
from ..utils.atomic_write import replacing_together, scratch
from . import hub
from .card import model_card
from .serialization import save


def save_pretrained(model: Network, folder: str | Path, *, license: str | None = None) -> None:
    """Write ``model`` to ``folder`` as a repository: ``model.safetensors`` and a model card, ``README.md``.

    Once uploaded, ``load("hf-hub:owner/name")`` reads it. ``license`` is the SPDX identifier for the card. Raises
    :class:`ZooError` if the files cannot be written.
    """
    card = model_card(model, license=license)
    with replacing_together(Path(folder, hub.FILE_NAME), Path(folder, "README.md")) as (weights, readme):
        save(model, weights)
        readme.write_text(card, encoding="utf-8")


def push_to_hub(
    model: Network, repository: str, *, license: str | None = None, private: bool = False, token: str | None = None,
    message: str = "Add the model",
) -> str:  # fmt: skip
    """Upload ``model`` to the repository ``owner/name``, which is created if missing; see :func:`save_pretrained`.

    Returns the commit's address. Raises :class:`ZooError` if the Hub refuses.
    """
    with scratch() as folder:
        save_pretrained(model, folder, license=license)
        return hub.upload(folder, repository, private=private, token=token, message=message)
