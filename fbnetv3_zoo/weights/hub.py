"""Download from and upload to the Hugging Face Hub, through huggingface_hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from ..errors import ZooError
from ..utils.paths import read_file
from .cache import LARGEST_FILE

FILE_NAME = "model.safetensors"


def contents_of(address: str, *, offline: bool = False) -> bytes:
    """The weight file of the repository at ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision``.

    It is read once from the cache of huggingface_hub, and its bytes are checked against the SHA-256 in the cache, if
    there is one. Raises :class:`ZooError` if the file is unavailable.
    """
    match = re.fullmatch(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", address)
    if not match:
        raise ZooError(f"{address}: is no repository; write hf-hub:owner/name or hf-hub:owner/name@revision")
    repository, revision = match.groups()
    path = Path(_download(repository, revision, address, offline=offline))
    if (data := _whole_contents(path)) is not None:
        return data
    if offline:
        raise ZooError(f"{address}: {path.resolve()} is damaged, and offline; delete it and load again with a network")
    path.resolve().unlink(missing_ok=True)
    path = Path(_download(repository, revision, address, offline=False))
    if (data := _whole_contents(path)) is None:
        raise ZooError(f"{address}: its contents have not the SHA-256 that the hub states; refused")
    return data


def upload(
    folder: str | Path, repository: str, *, private: bool, token: str | None, message: str, replaced: Sequence[str] = ()
) -> str:
    """Upload the files in ``folder`` to ``owner/name``, which is created if missing. Returns the commit's address.

    Older files there stay, but for those of the names ``replaced``.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, delete_patterns=list(replaced)
        )
    except Exception as error:  # the client of the Hub raises those of its HTTP library, too
        raise ZooError(f"hf-hub:{repository}: cannot be written ({_line(error)})") from None
    return str(commit.commit_url)


def _download(repository: str, revision: str | None, address: str, *, offline: bool) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(repository, FILE_NAME, revision=revision, local_files_only=offline)
    except (OSError, ValueError) as error:  # all errors of the hub's client are one of these
        raise ZooError(f"{address}: {FILE_NAME} cannot be had ({_line(error)})") from None


def _whole_contents(path: Path) -> bytes | None:
    """The contents; None if they do not match the SHA-256 in the file's name (small files have another digest)."""
    kept_as = path.resolve().name
    data = read_file(path, "a weight file", at_most=LARGEST_FILE)
    return data if not re.fullmatch(r"[0-9a-f]{64}", kept_as) or sha256(data).hexdigest() == kept_as else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
