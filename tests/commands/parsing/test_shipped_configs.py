from pathlib import Path

import pytest

from vit_attn.cli import main
from vit_attn.commands.parsing.shipped_configs import FOLDERS, find_shipped, resolve_shipped
from vit_attn.errors import UserError

CONFIGS = Path(__file__).parents[3] / "configs"
QUICKSTART = str(CONFIGS / "quickstart.yaml")


def test_the_shipped_configurations_are_those_of_the_repository_or_of_the_installed_package(tmp_path: Path):
    assert find_shipped() == {path.stem: path for path in CONFIGS.glob("*.yaml")}
    (tmp_path / "mine.yaml").write_text("name: mine")
    assert find_shipped((tmp_path, *FOLDERS)) == {"mine": tmp_path / "mine.yaml"}
    assert find_shipped((tmp_path / "absent",)) == {}


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "configs/quickstart.yaml"])
@pytest.mark.parametrize("option", ["-c", "--config"])
def test_a_shipped_configuration_is_found_from_any_folder(option, name, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_shipped([option, name, "--name=a"]) == [option, QUICKSTART, "--name=a"]
    assert resolve_shipped([f"{option}={name}"]) == [f"{option}={QUICKSTART}"]


def test_a_file_of_the_user_wins_over_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("quickstart", "configs/quickstart.yaml"):
        (tmp_path / name).write_text("name: mine")
        assert resolve_shipped(["-c", name]) == ["-c", name]


@pytest.mark.parametrize(
    "options",
    [["-c"], ["-c", "other/quickstart.yaml"], ["-c", "name: a"], ["--name", "quickstart"], ["-c", "configs/none.yaml"]],
)
def test_other_values_and_options_stay(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_shipped(options) == options


def test_an_unknown_name_is_answered_with_the_shipped_ones():
    with pytest.raises(UserError, match="no configuration 'quikstart', did you mean 'quickstart'") as caught:
        resolve_shipped(["-c", "quikstart"])
    assert "finetune" in str(caught.value)


def test_the_settings_of_a_shipped_configuration_can_be_printed_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", "-c", "quickstart", "--print_config"])
    assert "\n  dataset: coins\n" in capsys.readouterr().out
