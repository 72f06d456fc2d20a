"""Groups of options: a command takes a frozen dataclass whose annotated fields are its options.

In the help of a command with many options, a group is shown under its ``title``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from ..errors import Interrupted, ZooError, nearest, printable, shown
from ..utils.atomic_write import replacing
from ..utils.paths import CONFIG, FOREIGN, exists, is_folder, read_file
from ..utils.serialization import in_file, json_text, parse_json
from ..weights.url import without_signature
from .common import Resolution, any_network_of, leads, network_of

if TYPE_CHECKING:
    from ..arch import Arch
    from ..arch.torchvision_arch import AnyArch


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer reads it: an argument that is a dataclass is replaced by its fields.

    Typer gives a value for each field; ``command`` gets one instance for all of them, made here.
    """
    parameters, groups = _ungrouped(command)

    @wraps(command)
    def with_options(**values: Any) -> None:
        command(**_regrouped(values, groups))

    return _with_signature(with_options, parameters)


def configurable(command: Callable[..., None]) -> Callable[..., None]:
    """:func:`grouped`, with an option ``--config`` for a file of options, which is also left in the output folder."""
    parameters, groups = _ungrouped(command)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters.append(inspect.Parameter("config", keyword, default=None, annotation=_ConfigFile))
    parameters.append(inspect.Parameter("context", keyword, annotation=typer.Context))

    @wraps(command)
    def with_options(*, config: Path | None, context: typer.Context, **values: Any) -> None:
        if values.get("data_argument") is not None and _of_config(context, "data"):
            values["data"] = None
        options = _by_option(context, values)
        output: Path = values["output"]
        _check_kept(output)
        try:
            command(**_regrouped(values, groups))
        except (Interrupted, KeyboardInterrupt):
            _keep(options, output, replaced=False)  # for --config with --resume
            raise
        _keep(options, output)

    return _with_signature(with_options, parameters)


_FORMAT = "fbnetv3_zoo.options"


def _of_config(context: typer.Context, parameter: str) -> bool:
    """Whether a parameter's value is from the file of ``--config``."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "DEFAULT_MAP"


def _check_kept(output: Path) -> None:
    """Raise :class:`ZooError` if the file to write the options to is of something else."""
    path = output / CONFIG
    if not leads() or not exists(path):
        return
    try:
        kept = parse_json(read_file(path, "a JSON file of options"), CONFIG)
    except ZooError:
        kept = None
    if not isinstance(kept, dict) or kept.get("format") != _FORMAT:
        raise ZooError(f"{path}: {FOREIGN}; give another folder, or move that file")


def _keep(options: Mapping[str, Any], output: Path, *, replaced: bool = True) -> None:
    """Write the options of a run into its folder; if not ``replaced``, only where one has begun and there are none."""
    from ..training.run_folder import holds_runs

    if leads() and is_folder(output) and (replaced or (holds_runs(output) and not exists(output / CONFIG))):
        with replacing(output / CONFIG) as temporary:
            temporary.write_text(json_text({"format": _FORMAT, **options}, indent=1) + "\n", encoding="utf-8")


_NOT_KEPT = ("config", "help", "json", "output", "resume")


def _long_names(context: typer.Context) -> dict[str, str]:
    """The long name of each option of a command, without hyphens before it, and the parameter's own name."""
    options = [(name, one.name) for one in context.command.params for name in one.opts if name.startswith("--")]
    return {name.removeprefix("--"): str(parameter) for name, parameter in options}


def _by_option(context: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None, by the first long name of their option, which an argument may be the same as."""
    names: dict[str, str] = {}
    for name, parameter in _long_names(context).items():
        names.setdefault(parameter, name)
    arguments = {name.removesuffix("_argument"): value for name, value in values.items() if name.endswith("_argument")}
    given = {**values, **{name: value for name, value in arguments.items() if value is not None}}
    kept = {
        name: given[parameter]
        for parameter, name in names.items()
        if name not in _NOT_KEPT and given.get(parameter) is not None
    }
    return {name: without_signature(value) if isinstance(value, str) else value for name, value in kept.items()}


def _take_config(context: typer.Context, value: Path | None) -> Path | None:
    """Make the options in the file ``value`` the command's defaults. Raises :class:`ZooError` naming a wrong one."""
    if value is None:
        return None
    data = read_file(value, "a JSON file of options")
    try:
        options = parse_json(data, "JSON of options")
    except ZooError as error:
        raise in_file(value, error) from None
    known = {name: own for name, own in _long_names(context).items() if name not in ("config", "help")}
    if isinstance(options, dict) and options.get("format") == _FORMAT:
        del options["format"]
    _check_options(options, value, known)
    for name in options:
        if name.replace("_", "-") not in known:
            raise ZooError(f"{value}: no option --{printable(name)}{nearest(name, known)}")
    context.default_map = {known[name.replace("_", "-")]: option for name, option in options.items()}
    return value


_KINDS = {
    "fbnetv3_zoo.arch": ("a network", "model"),
    "fbnetv3_zoo.recipe": ("a recipe", "recipe"),
    "fbnetv3_zoo.recipe_preset": ("a recipe", "recipe"),
    "fbnetv3_zoo.subset": ("a subset of data", "subset"),
}
"""What a JSON file of ours is that is no file of options, by its format, and the option that takes it."""


def _check_options(options: Any, file: Path, known: Mapping[str, str]) -> None:
    """Raise :class:`ZooError` if the contents of ``file`` are no options, such as a recipe, or one of them is empty."""
    written = 'give an output folder\'s config.json, or an object such as {"epochs": 10}'
    if not isinstance(options, dict):
        raise ZooError(f"{file}: is not a JSON object of options; {written}")
    if "format" in options and "format" not in known:
        kind, option = _KINDS.get(str(options["format"]), (f"of format {shown(options['format'])}", ""))
        remedy = f"give it as --{option}" if option in known else written
        raise ZooError(f"{file}: is {kind}, not options of a command; {remedy}")
    for name, option in options.items():
        if option == "":
            raise ZooError(f"{file}: --{printable(name)} is empty; give it a value, or leave it out")


_ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", is_eager=True, callback=_take_config,
        help="JSON file of options, such as an output folder's config.json; the command line takes precedence.",
    ),
]  # fmt: skip


def _ungrouped(command: Callable[..., None]) -> tuple[list[inspect.Parameter], dict[str, type[Any]]]:
    """The parameters of ``command`` with those in place of groups, and the groups by name."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(command).parameters.values():
        options = _options_of(groups[one.name]) if one.name in groups else [one.replace(annotation=hints[one.name])]
        parameters += (option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options)
    if len(parameters) <= _MANY:
        parameters = [one.replace(annotation=_titled(one.annotation, None)) for one in parameters]
    return parameters, groups


_MANY = 20
"""Options of a command, above which its help shows them in groups."""


def _titled(annotation: Any, title: str | None) -> Any:
    """An option's ``annotation``, under another ``title`` in the help."""
    if not (of := [one for one in get_args(annotation)[1:] if isinstance(one, OptionInfo)]):
        return annotation
    option = copy.copy(of[0])
    option.rich_help_panel = title
    return Annotated[get_args(annotation)[0], option]


def _regrouped(values: Mapping[str, Any], groups: Mapping[str, type[Any]]) -> dict[str, Any]:
    """``values`` with an instance for each group."""
    rest = dict(values)
    instances = {
        name: kind(**{field.name: rest.pop(field.name) for field in fields(kind)}) for name, kind in groups.items()
    }
    return {**instances, **rest}


def _with_signature(function: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    del function.__wrapped__  # type: ignore[attr-defined]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in parameters}
    return function


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    hints, title = get_type_hints(group, include_extras=True), getattr(group, "title", None)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, annotation=_titled(hints[field.name], title),
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(group)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Labeled images, given as an argument or as an option."""

    title: ClassVar[str] = "Images"
    data_argument: Annotated[
        str | None, typer.Argument(metavar="DATA", help="The images; the same as --data.", show_default=False)
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            help="'digits'; a folder with class folders of images, the files of CIFAR, or tar files; a file of `data`.",
            show_default="digits",
        ),
    ] = None
    val_split: Annotated[
        float | None,
        typer.Option(
            help="Share held out for validation, of data without validation images of its own (default: 0.2).",
            show_default=False,
        ),
    ] = None

    @property
    def source(self) -> str:
        """What to find the images by; raises :class:`ZooError` where two are given."""
        if self.data is not None and self.data_argument is not None:
            raise ZooError(f"{self.data_argument} and --data {self.data} both give images; give only one")
        return self.data or self.data_argument or "digits"


Width = Annotated[float, typer.Option(help="Factor for all widths.")]
Depth = Annotated[float, typer.Option(help="Factor for the number of blocks.")]
PrecisionName = Annotated[
    Literal["float32", "bf16", "fp16"], typer.Option("--precision", help="Precision of the computations.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile.")]
Checkpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Save memory by recomputing in the backward pass.")
]


@dataclass(frozen=True, slots=True)
class ArchOptions:
    """How a network is changed before it is used."""

    title: ClassVar[str] = "Network"
    small_images: Annotated[
        bool, typer.Option("--small-images", help="Use the variant for 32 x 32 images (paper: CIFAR).")
    ] = False
    width: Width = 1.0
    depth: Depth = 1.0
    resolution: Resolution = None

    @property
    def reshape(self) -> bool:
        """Whether the network gets other blocks or widths, which weights for the original do not fit."""
        return self.small_images or (self.width, self.depth) != (1, 1)

    def arch_of(self, model: str) -> Arch:
        """The network that ``model`` stands for, changed by these options."""
        return self.applied(network_of(model))

    def any_arch_of(self, model: str) -> AnyArch:
        """As :meth:`arch_of`; also a model of torchvision, of which only the resolution can be changed."""
        return self.applied_to_any(any_network_of(model))

    def applied_to_any(self, arch: AnyArch) -> AnyArch:
        """``arch`` changed by these options. Raises :class:`ZooError` where torchvision's models do not know them."""
        from ..arch import Arch

        if isinstance(arch, Arch):
            return self.applied(arch)
        if self.reshape:
            remedy = f"name {replace(arch, width=1.4, depth=2).name} instead, where its family knows the factors"
            raise ZooError(
                f"{arch.name}: --small-images, --width and --depth are for this project's networks; {remedy}"
            )
        return arch if self.resolution is None else replace(arch, resolution=self.resolution)

    def applied(self, arch: Arch) -> Arch:
        """``arch`` changed by these options."""
        if self.small_images:
            arch = arch.for_small_images()
        if (self.width, self.depth) != (1, 1):
            arch = arch.scaled(width=self.width, depth=self.depth)
        return arch if self.resolution is None else replace(arch, resolution=self.resolution)
