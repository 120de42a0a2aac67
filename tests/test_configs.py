from pathlib import Path

import pytest
import yaml

from tests.runs import BRIEF
from vit_attn.cli import main

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
TINY = [*BRIEF, "--attention.num_images=1", "--attention.every_n_epochs=1", "--data.num_workers=0"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_trains_as_it_stands(config: Path, cifar10_root: Path, tmp_path: Path):
    assert main(["fit", "-c", str(config), f"--data.root={cifar10_root}", f"--runs={tmp_path / 'runs'}", *TINY]) == 0
    assert list((tmp_path / "runs" / config.stem).glob("*/checkpoints/best.ckpt"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_opens_like_a_lab_notebook(config: Path):
    notebook = [line for line in config.read_text().splitlines() if line.startswith("#")]
    told = "\n".join(notebook)
    assert f"vit-attn fit -c configs/{config.name}" in told
    assert "measured" in told.lower()
    assert yaml.safe_load(config.read_text())["name"] == config.stem
