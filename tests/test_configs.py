import re
from pathlib import Path

import pytest
import yaml

from tests.runs import BRIEF
from vit_attn.cli import main

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
ARMS = sorted((ROOT / "configs/ablations").glob("*.yaml"))
TINY = [*BRIEF, "--attention.num_images=1", "--attention.every_n_epochs=1", "--data.num_workers=0"]


def uncompiled(config: Path) -> list[str]:
    """Options that turn off compilation, which takes a minute on a CPU."""
    settings = yaml.safe_load(config.read_text())
    return [
        f"--{section}.{name}=false"
        for section in ("model", "data")
        for name, value in settings[section].items()
        if name.startswith("compile") and value is True
    ]


@pytest.mark.filterwarnings("ignore:trainer.log_every_n_steps")  # TINY has fewer steps
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_trains_as_it_stands(config: Path, cifar10_root: Path, tmp_path: Path):
    options = [*TINY, *uncompiled(config)]
    assert main(["fit", "-c", str(config), f"--data.root={cifar10_root}", f"--runs={tmp_path / 'runs'}", *options]) == 0
    assert list((tmp_path / "runs" / config.stem).glob("*/checkpoints/best.ckpt"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_opens_like_a_lab_notebook(config: Path):
    notebook = [line for line in config.read_text().splitlines() if line.startswith("#")]
    told = "\n".join(notebook)
    assert f"vit-attn fit -c configs/{config.name}" in told
    assert "measured" in told.lower()
    assert yaml.safe_load(config.read_text())["name"] == config.stem


@pytest.mark.parametrize("arms", ARMS, ids=lambda path: path.stem)
def test_every_arm_of_an_ablation_changes_the_configuration_that_it_names(arms: Path):
    named = re.search(r"ablate\.py (configs/\w+\.yaml) --arms (\S+)", arms.read_text())
    base = yaml.safe_load((ROOT / named[1]).read_text())
    assert ROOT / named[2] == arms
    for name, options in yaml.safe_load(arms.read_text()).items():
        for key, value in options.items():
            assert lookup(base, key) != value, f"{name}: {key}={value}"


def lookup(settings: dict, key: str) -> object:
    for part in key.split("."):
        settings = settings.get(part, {})
    return settings
