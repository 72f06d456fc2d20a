"""Trains a family as in the paper: the largest network on labels, then all of them with it as their teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..arch import Arch
from ..arch.torchvision_arch import AnyArch, TorchvisionArch
from ..errors import ZooError, check_type
from ..models.size import size_of
from ..recipes import Recipe
from .callbacks import Callback, Run
from .data import TrainingData, as_dataset
from .execution import Execution
from .run_folder import check_run
from .teacher import TeacherSource
from .trainer import train


@dataclass(frozen=True, slots=True)
class Member:
    """A network of a family and its recipe."""

    arch: AnyArch
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Family:
    """Result of :func:`distil`: the teacher's run (None if a teacher was given) and the students' runs by name."""

    teacher: Run | None
    students: dict[str, Run] = field(default_factory=dict)


def distil(
    members: Sequence[Member], data: TrainingData, folder: str | Path, *, teacher: TeacherSource | None = None,
    resume: bool = False, execution: Execution = Execution(), callbacks: Sequence[Callback] = (),
    begins: Callable[[str], object] = lambda name: None,
) -> Family:  # fmt: skip
    """Train ``members`` with a teacher: ``teacher``, or the largest of them, which is then first trained on labels.

    Source: FBNetV3 paper, final training. Every run has its own folder in ``folder``: ``teacher`` and the networks'
    names. With ``resume``, finished runs are only evaluated again, and an interrupted one continues. ``begins`` is
    called with the name of each run's folder before the run. Other arguments and errors are those of
    :func:`fbnetv3_zoo.training.train`.
    """
    check_run(folder, execution, callbacks)
    check_type("members", members, Sequence, "a list of Member(ARCH, RECIPE)")
    for n, member in enumerate(members):
        check_type(f"members[{n}]", member, Member, "a Member(ARCH, RECIPE)")
        check_type(f"members[{n}].arch", member.arch, Arch | TorchvisionArch, "an Arch, such as ARCHS['fbnetv3_nano']")
    data, folder, names = as_dataset(data), Path(folder), [member.arch.name for member in members]
    if not members:
        raise ZooError("there are no networks to distil; give at least one")
    if repeated := sorted({name for name in names if names.count(name) > 1} | ({"teacher"} & set(names))):
        raise ZooError(f"two runs would share the folder {folder / repeated[0]}; give the networks different names")

    def run(member: Member, name: str, teacher: TeacherSource | None) -> Run:
        begins(name)
        return train(
            member.arch, data, member.recipe, folder / name, teacher=teacher, resume=resume, execution=execution,
            callbacks=callbacks,
        )  # fmt: skip

    first: Run | None = None
    if teacher is None:
        first = run(max(members, key=lambda member: size_of(member.arch).macs), "teacher", None)
        teacher = first.model
    return Family(first, {member.arch.name: run(member, member.arch.name, teacher) for member in members})
