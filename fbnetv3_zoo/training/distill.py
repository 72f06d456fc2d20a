"""A family trained as the paper does it: the largest network on labels, then all of them, itself included, from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..arch import Arch
from ..arch.cost import cost_of
from ..errors import ZooError
from ..recipes import Recipe
from .callbacks import Callback, Run
from .data import Dataset
from .execution import Execution
from .teacher import TeacherSource
from .trainer import train


@dataclass(frozen=True, slots=True)
class Member:
    """A network of a family with the recipe for it."""

    arch: Arch
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Family:
    """What :func:`distil` made: the teacher's run (None where a teacher was given) and the students' by their names."""

    teacher: Run | None
    students: dict[str, Run] = field(default_factory=dict)


def distil(
    members: Sequence[Member], data: Dataset, folder: str | Path, *, teacher: TeacherSource | None = None,
    resume: bool = False, execution: Execution = Execution(), observers: Sequence[Callback] = (),
    begins: Callable[[str], object] = lambda name: None,
) -> Family:  # fmt: skip
    """Train ``members`` with a teacher: ``teacher``, or the largest of them, which is then trained on labels first.

    Source: FBNetV3 paper, final training. Every run has a folder of its own below ``folder``: ``teacher`` and the
    networks' names. With ``resume`` finished runs are only measured again, and the interrupted one goes on. ``begins``
    is told the name of every run's folder before the run. The other arguments are those of
    :func:`fbnetv3_zoo.training.train`; raises :class:`ZooError` as it does.
    """
    folder, names = Path(folder), [member.arch.name for member in members]
    if not members:
        raise ZooError("there are no networks to distil; name at least one")
    if repeated := sorted({name for name in names if names.count(name) > 1} | ({"teacher"} & set(names))):
        raise ZooError(f"two runs would share the folder {folder / repeated[0]}; give the networks names of their own")

    def run(member: Member, name: str, teacher: TeacherSource | None) -> Run:
        begins(name)
        return train(
            member.arch, data, member.recipe, folder / name, teacher=teacher, resume=resume, execution=execution,
            observers=observers,
        )  # fmt: skip

    first: Run | None = None
    if teacher is None:
        first = run(max(members, key=lambda member: cost_of(member.arch).macs), "teacher", None)
        teacher = first.model
    return Family(first, {member.arch.name: run(member, member.arch.name, teacher) for member in members})
