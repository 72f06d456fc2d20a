"""Groups of options: a command takes a frozen dataclass whose annotated fields are its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ..errors import ZooError
from .common import Resolution, network_of

if TYPE_CHECKING:
    from ..arch import Arch


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer reads it: an argument that is a dataclass is replaced by its fields.

    Typer gives a value for each field; ``command`` gets one instance for all of them, made here.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(command).parameters.values():
        options = _options_of(groups[one.name]) if one.name in groups else [one.replace(annotation=hints[one.name])]
        parameters += (option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options)

    @wraps(command)
    def with_options(**values: Any) -> None:
        instances = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**instances, **values)

    del with_options.__wrapped__
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[field.name],
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(group)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Labelled images, given as an argument or as an option."""

    data_argument: Annotated[
        str | None, typer.Argument(metavar="DATA", help="The images; the same as --data.", show_default=False)
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            help="'digits', or a folder with class folders of images, the files of CIFAR, or tar files.",
            show_default="digits",
        ),
    ] = None

    @property
    def source(self) -> str:
        """What to find the images by; raises :class:`ZooError` where two are given."""
        if self.data is not None and self.data_argument is not None:
            raise ZooError(f"{self.data_argument} and --data {self.data} both give images; give only one")
        return self.data or self.data_argument or "digits"


@dataclass(frozen=True, slots=True)
class ArchOptions:
    """How a network is changed before it is used."""

    small_images: Annotated[
        bool, typer.Option("--small-images", help="Use the variant for 32 x 32 images (paper: CIFAR).")
    ] = False
    width: Annotated[float, typer.Option(help="Factor for all widths.")] = 1.0
    depth: Annotated[float, typer.Option(help="Factor for the number of blocks.")] = 1.0
    resolution: Resolution = None

    @property
    def reshape(self) -> bool:
        """Whether the network gets other blocks or widths, which weights for the original do not fit."""
        return self.small_images or (self.width, self.depth) != (1, 1)

    def arch_of(self, model: str) -> Arch:
        """The network that ``model`` stands for, changed by these options."""
        return self.applied(network_of(model))

    def applied(self, arch: Arch) -> Arch:
        """``arch`` changed by these options."""
        if self.small_images:
            arch = arch.for_small_images()
        if (self.width, self.depth) != (1, 1):
            arch = arch.scaled(width=self.width, depth=self.depth)
        return arch if self.resolution is None else replace(arch, resolution=self.resolution)
