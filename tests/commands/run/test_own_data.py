"""Data modules of one's own in options and files, and one line for each that is none."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.own_parts import forget, module_text
from vit_attn.cli import main
from vit_attn.commands.run.own_data import choose_data, with_class_path
from vit_attn.data import ImageData
from vit_attn.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("my_parts.py").write_text(module_text(), encoding="utf-8")
    forget()
    yield tmp_path
    forget()


def test_options_without_a_class_are_left_as_they_are():
    options = ["-c", "x.yaml", "--data.root=a", "--data", "settings.yaml", "--model.lr", "1"]
    chosen = choose_data(options)
    assert (chosen.kind, chosen.options, chosen.class_path) == (ImageData, options, None)


@pytest.mark.parametrize(
    "options",
    [
        ["--data=my_parts.StripesData", "--data.count=8"],
        ["--data", "my_parts.StripesData", "--data.count=8"],
        ["--data.class_path=my_parts.StripesData", "--data.init_args.count=8"],
        ["--data.init_args.count=8", "--data.class_path", "my_parts.StripesData"],
    ],
    ids=["short", "two words", "long", "other order"],
)
def test_every_spelling_names_the_class_and_its_arguments(options: list[str]):
    chosen = choose_data([*options, "--model.lr=1"])
    assert chosen.class_path == "my_parts.StripesData"
    assert sorted(chosen.options) == sorted(["--data.count=8", "--model.lr=1", "--import=['my_parts']"])


def test_a_file_names_modules_class_and_arguments(folder: Path):
    data = {"class_path": "my_parts.StripesData", "init_args": {"count": 8}}
    Path("run.yaml").write_text(yaml.safe_dump({"import": ["my_parts"], "data": data, "model": {"lr": 0.1}}))
    option, text, modules = choose_data(["-c", "run.yaml"]).options
    assert (option, modules) == ("--config", "--import=['my_parts']")
    assert yaml.safe_load(text) == {"import": ["my_parts"], "data": {"count": 8}, "model": {"lr": 0.1}}
    assert with_class_path(yaml.safe_load(text), "my_parts.StripesData")["data"] == data


def test_settings_of_another_class_are_left_out_in_a_line(folder: Path, capsys):
    Path("run.yaml").write_text(yaml.safe_dump({"data": {"dataset": "coins", "batch_size": 4}}))
    chosen = choose_data(["-c", "run.yaml", "--data=my_parts.StripesData"])
    assert yaml.safe_load(chosen.options[1])["data"] == {"batch_size": 4}
    assert "run.yaml: left out, as StripesData does not take them: data.dataset\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_parts.StripeData", r"my_parts has no 'StripeData', did you mean 'StripesData'\?"),
        ("my_parts.HalfDotProduct", "must be a subclass of LightningDataModule, and it is the class HalfDotProduct"),
        ("my_parts.stripes", "must be a subclass of LightningDataModule, and it is a function"),
        ("my_part.StripesData", "there is no module 'my_part'"),
        ("other.NoLoaders", "other.NoLoaders has no train_dataloader and no val_dataloader"),
        ("broken.Data", r"broken.py:1: ZeroDivisionError"),
    ],
)
def test_a_class_that_is_no_data_module_is_one_line(path: str, message: str):
    Path("other.py").write_text("import lightning as L\nclass NoLoaders(L.LightningDataModule): pass\n")
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=f"^--data: .*{message}"):
        choose_data([f"--data={path}"])


def test_an_unknown_argument_of_the_class_is_one_line(capsys):
    assert main(["fit", "--data=my_parts.StripesData", "--data.counts=8"]) == 2
    assert "unknown option --data.counts, did you mean '--data.count'?" in capsys.readouterr().err


def test_a_class_without_arguments_trains_and_is_found_again(folder: Path):
    Path("my_noise.py").write_text(
        "import lightning as L\nimport torch\nfrom torch.utils.data import DataLoader\n"
        "class NoiseData(L.LightningDataModule):\n"
        "    num_classes, img_size, in_chans = 2, (8, 8), 3\n"
        "    def train_dataloader(self): return DataLoader([(torch.randn(3, 8, 8), i % 2) for i in range(8)], 4)\n"
        "    def val_dataloader(self): return self.train_dataloader()\n"
    )
    tiny = "--model.arch_options={depth: 1, embed_dim: 16, num_heads: 2}"
    quick = ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--attention.num_images=0", tiny]
    assert main(["fit", "--data=my_noise.NoiseData", *quick]) == 0
    (run,) = Path("runs").glob("*/*")
    assert main(["validate", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--trainer.accelerator=cpu"]) == 0
    assert main(["fit", "--resume", str(run), "--trainer.max_epochs=2"]) == 0
    assert main(["fit", "--resume", str(run), "--trainer.max_epochs=3", "--data=my_parts.StripesData"]) == 2


def test_spawned_workers_import_the_parts(folder: Path):
    Path("my_files.py").write_text(
        "import numpy as np\nfrom PIL import Image\nfrom vit_attn.data import register_dataset\n"
        "@register_dataset('mine', ('a', 'b'), img_size=(8, 8))\n"
        "def read(root):\n"
        "    for i in range(20): Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(root / f'{i}.png')\n"
        "    return {'train': (sorted(root.glob('*.png')), [i % 2 for i in range(20)])}\n"
    )
    Path("images").mkdir()
    tiny = "--model.arch_options={depth: 1, embed_dim: 16, num_heads: 2}"
    quick = ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--attention.num_images=0", tiny]
    options = [
        *("fit", "--import=my_files", "--data.dataset=mine", "--data.root=images", "--data.loader=workers"),
        *("--data.num_workers=2", "--data.batch_size=4", "--trainer.limit_val_batches=0", *quick),
    ]
    code = (
        "import sys, multiprocessing\n"
        "from vit_attn.cli import main\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        f"    sys.exit(main({options!r}))\n"
    )
    Path("go.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "go.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert "16 training" in done.stdout
