"""Groups of options: dataclasses whose fields typer reads as a command's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from fbnetv3_zoo import cli
from fbnetv3_zoo.cli.option_groups import ArchOptions, grouped
from fbnetv3_zoo.cli.training_options import ClassifierRecipeOptions, RecipeOptions, RunOptions, TrainingOptions
from fbnetv3_zoo.recipes import RECIPES
from fbnetv3_zoo.training import Execution, OnBadImage, Precision


@dataclass(frozen=True)
class Size:
    side: Annotated[int, typer.Option(help="Side in pixels.")]
    scale: Annotated[float, typer.Option("--scale-by", help="Factor.")] = 1.0


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()

    @app.command()
    @grouped
    def command(name: str, *, size: Size, loud: bool = False) -> None:
        """Say what was given."""
        typer.echo(f"{name} {size} {loud}")

    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_the_fields_of_a_group_are_options_of_the_command() -> None:
    assert run("a", "--side", "3", "--loud") == (0, f"a {Size(3)} True\n")
    assert run("a", "--side", "3", "--scale-by", "0.5") == (0, f"a {Size(3, 0.5)} False\n")


def test_a_field_without_a_default_must_be_given() -> None:
    status, output = run("a")
    assert status == 2
    assert "--side" in output


def test_the_help_shows_the_fields_and_not_the_group() -> None:
    _, output = run("--help")
    assert "Side in pixels." in output
    assert "--scale-by" in output
    assert "--size" not in output


@pytest.mark.parametrize("command", ["train", "distil", "detect train", "search run", "search dnas"])
def test_many_options_are_shown_in_groups(command: str) -> None:
    listed = CliRunner().invoke(cli.app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output
    sections = {part.partition(" ")[0]: part.count(" --") for part in listed.split("╭─ ")[1:]}
    assert max(sections.values()) <= 18
    first = listed.split("╭─ Options")[1].split("╭─ ")[0]
    assert "--output" in first
    assert "--json" in first
    if command == "train":
        assert list(sections) == ["Arguments", "Options", "Network", "Images", "Recipe", "Execution"]
        assert "--subset" in listed.split("╭─ Images")[1].split("╭─ ")[0]


def test_few_options_are_one_list() -> None:
    listed = CliRunner().invoke(cli.app, ["data", "pack", "--help"], env={"COLUMNS": "200"}).output
    assert [part.partition(" ")[0] for part in listed.split("╭─ ")[1:]] == ["Arguments", "Options"]


def test_no_options_leave_everything_as_it_is() -> None:
    assert TrainingOptions().execution() == RunOptions().execution() == Execution()
    assert RecipeOptions().applied(RECIPES["digits"]) == RECIPES["digits"]
    assert RecipeOptions().applied(RECIPES["digits"], images=1000) == RECIPES["digits"]
    assert ArchOptions().arch_of("fbnetv3_a").name == "fbnetv3_a"
    assert not ArchOptions().reshape


def test_options_reach_the_execution() -> None:
    chosen = TrainingOptions(device="cuda:1", precision="bf16", on_bad_image="skip", skip_image_check=True, workers=3)
    expected = Execution(
        device="cuda:1", precision=Precision.BFLOAT16, on_bad_image=OnBadImage.SKIP, check_images=False, workers=3
    )
    assert chosen.execution() == expected


def test_an_average_counts_as_it_is_given() -> None:
    """Also where fewer images than a batch are trained on, to which the run fits the recipe."""
    changes = ClassifierRecipeOptions(batch_size=64, ema_decay=0.5)
    changed = changes.applied(RECIPES["digits"], images=20)
    assert (changed.batch_size, changed.ema_decay) == (20, 0.5)
    assert changed.for_images(20) == changed


@pytest.mark.parametrize("images", [None, 1000])
def test_a_learning_rate_counts_as_it_is_given(images: int | None) -> None:
    changed = RecipeOptions(batch_size=32, learning_rate=0.25, seed=7).applied(RECIPES["digits"], images=images)
    assert (changed.batch_size, changed.learning_rate, changed.seed) == (32, 0.25, 7)
