"""What README and docs print is what the commands print, and the names they use exist."""

import re
import runpy

import pytest
from folders import ROOT

import fbnetv3_zoo
from fbnetv3_zoo.cli import main

README = (ROOT / "README.md").read_text()
NETWORKS = (ROOT / "docs" / "networks.md").read_text()
WEIGHTS = (ROOT / "docs" / "weights.md").read_text()
PAGES = README + "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))


def test_table_of_networks_is_the_output_of_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list"])
    table = re.search(r"<!-- fbnetv3 list -->\n```output\n(.*?)```", NETWORKS, re.DOTALL)
    assert table is not None
    assert table[1] == capsys.readouterr().out


def test_table_of_weights_is_made_from_the_records() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "tables.py"))["with_tables"]
    assert made(WEIGHTS) == WEIGHTS
    assert made(WEIGHTS.replace("82.03", "85.00")) == WEIGHTS


def test_names_in_the_example_exist() -> None:
    names = set(re.findall(r"zoo\.(\w+)\(", PAGES))
    assert names >= {"create", "load", "save", "export_onnx", "list_models", "cost_of", "WeightsCache", "push_to_hub"}
    assert names <= set(fbnetv3_zoo.__all__)


def test_every_command_shown_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for command in sorted(set(re.findall(r"fbnetv3 ([a-z]+) ", PAGES))):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0, command
        assert "Example" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "distil", "subset"])
def test_options_shown_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    calls = re.findall(rf"(?:fbnetv3|_zoo) {command} (.*?)(?:  +fbnetv3 .*)?\n", PAGES)  # two commands may share a line
    shown = {option for rest in calls for option in rest.split()}
    options = {option for option in shown if option.startswith("--")}
    assert "--output" in options or command == "subset"
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert [option for option in sorted(options) if option not in printed] == []
