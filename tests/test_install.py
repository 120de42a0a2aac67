"""The wheel, built from the sdist as a user's pip does, installed where the source tree is not on the path."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vit_attn import __version__

ROOT = Path(__file__).parent.parent
CONFIGS = {path.name for path in (ROOT / "configs").glob("*.yaml")}
USE = """
import json, sys, urllib.error, urllib.request
from pathlib import Path
import vit_attn
from vit_attn.cli import main

found = {"package": vit_attn.__file__, "source_on_path": sys.argv[1] in sys.path}
found["attend"] = main(["attend", "photo.png", "--out", "cifar10"])
found["attend coins"] = main(["attend", "photo.png", "--out", "coins", "--model", "vit_attn_coins_patch4_32"])
TINY = [f"--model.arch_options.{each}" for each in ("depth=1", "embed_dim=16", "num_heads=2")]
BRIEF = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1"]
QUIET = ["--trainer.enable_progress_bar=false", "--data.batch_size=8", "--attention.num_images=1"]
for config in ("quickstart", "configs/quickstart.yaml"):
    found[f"fit {config}"] = main(["fit", "-c", config, *TINY, *BRIEF, *QUIET])

from tensorboard import default, program

server = program.TensorBoard(plugins=default.get_plugins())
server.configure(argv=["", "--logdir=runs", "--load_fast=false", "--port=0", "--reload_interval=1"])
tab = server.launch() + "data/plugin/vit_attn/"


def size(route):
    with urllib.request.urlopen(tab + route, timeout=30) as reply:
        return len(reply.read())


from vit_attn.tb_plugin.page_files import EXPLORE_STATIC, STATIC, read_static

found["runs"] = json.loads(urllib.request.urlopen(tab + "runs", timeout=30).read())
found["tab"] = {name: size(f"static/{name}") for name in STATIC}
found["explore"] = {name: len(read_static(name)) for name in EXPLORE_STATIC}
Path("found.json").write_text(json.dumps(found))
"""
"""What a user does with a package, in one process, since importing torch takes seconds."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist."""
    build = pytest.importorskip("hatchling.build", reason="hatchling is not installed: scripts/setup dev")
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        with tarfile.open(folder / build.build_sdist(str(folder))) as sdist:
            sdist.extractall(folder, filter="data")
        (source,) = (path for path in folder.iterdir() if path.is_dir())
        patch.chdir(source)
        return folder / build.build_wheel(str(folder))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An environment with the wheel, whose dependencies are those of this one, and an empty folder to work in."""
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("work")
    venv.create(environment, symlinks=True)
    python = environment / "bin/python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    # A folder that a .pth file names is on the path after the environment's own, and .pth files in it are not read:
    # nothing leads from it to the source tree of an editable installation.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    return SimpleNamespace(python=python, script=environment / "bin/vit-attn", packages=packages, folder=folder)


@pytest.fixture(scope="module")
def used(installed: Any) -> dict[str, Any]:
    """What the commands and the tab of the installed package answered."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(installed.folder / "photo.png")
    command = [str(installed.python), "-I", "-c", USE, str(ROOT)]
    done = subprocess.run(command, cwd=installed.folder, env=environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((installed.folder / "found.json").read_text())


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIT_ATTN_DATA")}


def tracked(folder: str) -> set[str]:
    """Files of a folder of the source tree that are part of the package."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_with_its_data_files_and_nothing_else(wheel: Path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == tracked("vit_attn") | {f"vit_attn/configs/{name}" for name in CONFIGS}


def test_the_package_says_its_version_and_licence_and_brings_its_command_and_plugin(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        points = archive.read(texts["entry_points.txt"]).decode()
        metadata = archive.read(texts["METADATA"]).decode()
    assert "vit-attn = vit_attn.cli:main" in points
    assert "vit_attn = vit_attn.tb_plugin.plugin:AttentionLoader" in points
    assert f"\nVersion: {__version__}\n" in metadata
    assert "licenses/LICENSE" in texts


def test_the_command_of_the_installed_package_says_its_version(installed: Any):
    done = subprocess.run([installed.script, "--version"], cwd=installed.folder, env=environ(), capture_output=True)
    assert (done.returncode, done.stdout.decode()) == (0, f"vit-attn {__version__}\n")


def test_the_package_in_use_is_that_of_the_wheel(installed: Any, used: dict[str, Any]):
    assert Path(used["package"]) == installed.packages / "vit_attn/__init__.py"
    assert not used["source_on_path"]


@pytest.mark.parametrize("network", ["cifar10", "coins"])
def test_the_installed_package_draws_a_picture_by_a_shipped_network(network: str, installed: Any, used: dict[str, Any]):
    assert used["attend" if network == "cifar10" else "attend coins"] == 0
    with Image.open(installed.folder / network / "photo.attention.png") as drawn:
        assert drawn.width > 600
    assert (installed.folder / network / "photo.attention.npz").is_file()


def test_the_installed_package_trains_from_a_shipped_configuration(installed: Any, used: dict[str, Any]):
    assert used["fit quickstart"] == used["fit configs/quickstart.yaml"] == 0
    assert len(list(installed.folder.glob("runs/quickstart/*/checkpoints/best.ckpt"))) == 2


def test_tensorboard_finds_the_plugin_and_serves_its_page_and_the_runs(used: dict[str, Any]):
    assert len(used["runs"]["runs"]) == 2
    pages = ROOT / "vit_attn/tb_plugin/static"
    assert used["tab"].items() <= {name: (pages / name).stat().st_size for name in used["explore"]}.items()
    assert used["explore"] == {
        str(path.relative_to(pages)): path.stat().st_size for path in pages.rglob("*") if path.is_file()
    }


def test_every_extra_of_the_guide_is_one_of_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    guide = (ROOT / "docs/install.md").read_text()
    assert {line.split("`")[1] for line in guide.splitlines() if line.startswith("| `")} == set(extras)
