"""docs/finetune.md and the README's example run as written, on fewer images and steps."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from tests.data.datasets.test_torchvision import make_gtsrb, make_imagenette, picture
from vit_attn.cli import main

ROOT = Path(__file__).parent.parent
DOC, README = (ROOT / "docs/finetune.md").read_text(), (ROOT / "README.md").read_text()
FEWER = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=8",
    "--attention.num_images=1",
    "--comparison.num_images=1",
]


def commands(text: str) -> list[list[str]]:
    """Commands in the order of the text: all shell lines that start with one of our programs."""
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in shell.splitlines()]
    return [line for line in lines if line and line[0] in ("python", "vit-attn")]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def example(text: str) -> list[list[str]]:
    """Commands from the folder of images on."""
    every = commands(text)
    first = next(number for number, line in enumerate(every) if "scripts/example_images.py" in line)
    return [line for line in every[first:] if "shapes" in " ".join(line) or "RUN" in " ".join(line)]


@pytest.mark.filterwarnings("ignore:.*the head of 10 classes was left out")
@pytest.mark.parametrize("text", [DOC, README], ids=["docs", "readme"])
def test_the_example_runs_from_a_folder_of_pictures_to_predictions(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "scripts"):
        Path(name).symlink_to(ROOT / name)
    run_commands = []
    for line in example(text):
        if line[0] == "python":
            script(Path(line[1]).stem).main([*line[2:], "--images=12", "--new=2"])
            continue
        run = next((str(path) for path in Path("runs").glob("finetune/*")), "")
        command, *options = [re.sub(r"^(.*=)?(runs/finetune/)?RUN", rf"\1{run}", word) for word in line[1:]]
        code = main([command, *options, *(FEWER if command == "fit" else ())])
        assert code == (command in ("predict", "attend") and "shapes/new" in options), (
            line
        )  # one of the files is corrupt
        run_commands.append(command)
    assert run_commands[:4] == ["fit", "test", "predict", "attend"]
    table = Path("predictions.csv").read_text().splitlines()
    assert len(table) == 1 + 5 * 2 + 1
    assert sum("cannot be read" in line or line.endswith("unknown") for line in table) == 1
    assert "corrupt.jpg" in capsys.readouterr().err


def test_the_pictures_and_pages_of_the_text_exist():
    for path in re.findall(r"\]\((images/[^)]+|[\w.]+\.md)\)", DOC):
        assert (ROOT / "docs" / path).is_file(), path


def test_the_table_of_ways_is_what_was_measured():
    table = script("finetune_table")
    results = table.runs_of(table.RESULTS)
    assert table.finetune_table(results) in DOC
    assert all(
        f"--dataset {stored['dataset']}" in DOC or f"--name {stored['dataset']}" in DOC for stored in results.values()
    )
    assert table.readme_cell(results) in README


@pytest.mark.filterwarnings("ignore:.*are training images too")  # a few plain pictures repeat
@pytest.mark.parametrize("name", ["imagenette", "gtsrb", "Sign-Language-Digits-Dataset"])
def test_the_commands_of_the_measured_data_sets_train_on_files_in_their_formats(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIT_ATTN_DATA", raising=False)  # where other tests find CIFAR-10
    Path("configs").symlink_to(ROOT / "configs")
    make_signs(tmp_path) if "Sign" in name else {"imagenette": make_imagenette, "gtsrb": make_gtsrb}[name](Path("data"))
    ((_, *words),) = [
        line for line in commands(DOC) if line[0] == "vit-attn" and line[1] == "fit" and name in " ".join(line)
    ]
    assert main([*words, *FEWER]) == 0
    assert f"{43 if name == 'gtsrb' else 10} classes" in capsys.readouterr().out


def make_signs(root: Path) -> None:
    for label in range(10):
        for number in range(4):
            file = root / "Sign-Language-Digits-Dataset" / "Dataset" / str(label) / f"IMG_{number}.JPG"
            picture(file, 20 * label + number, (100, 100))
