"""docs/python.md runs as written, in order, as a user would copy it; its list of public names is the package's."""

import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vit_attn
from tests.runs import FEW
from vit_attn import Classifier, cli
from vit_attn.data.datasets import coins
from vit_attn.tb_plugin.metadata import INDEX_TAG

PAGE = (Path(__file__).parent.parent / "docs/python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXPECTED = (
    "The 'train_dataloader' does not have many workers",
    "The 'val_dataloader' does not have many workers",
    "The number of training batches",
    "Checkpoint directory",
    ".*was resampled from",
    ".*`tensorboardX`",
)
"""Warnings of Lightning and of a change of size, which a user sees as well."""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Names in the script that the blocks are, after it ran in a folder of its own."""
    found: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        for message in EXPECTED:
            warnings.filterwarnings("ignore", message)
        folder = tmp_path_factory.mktemp("python")
        patched.chdir(folder)
        for split, count in FEW.items():
            patched.setitem(coins.SIZES, split, count)
        for block in BLOCKS:
            exec(compile(block, "docs/python.md", "exec"), found)
    return found | {"folder": folder}


def logged(folder: Path) -> list[int]:
    """Steps of the Attention tab in a folder of event files."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return [each.step for each in events.Tensors(INDEX_TAG)]


def test_training_logs_validates_tests_and_predicts(names: dict[str, Any]):
    assert 0 <= names["accuracy"] <= 1
    assert names["measured"].keys() == {"test/loss", "test/accuracy"}
    rows = torch.cat(names["probabilities"])
    assert rows.shape == (FEW["test"], 10)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(len(rows)))
    run = names["folder"] / "runs/python/version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert logged(run) == [0, 32]


def test_the_prediction_of_a_picture_is_that_of_the_network_that_was_trained(names: dict[str, Any]):
    prediction, task, data = names["prediction"], names["task"].eval(), names["data"]
    with torch.no_grad():
        expected = task(data.normalize(data.probe(1).images)).softmax(dim=-1)[0]
    assert prediction.label == data.class_names[int(expected.argmax())]
    assert prediction.probability == pytest.approx(expected.max().item(), abs=1e-4)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert list(prediction.probabilities) == [data.class_names[i] for i in expected.argsort(descending=True).tolist()]


def test_attention_is_that_of_the_recorded_network(names: dict[str, Any]):
    attention, recording = names["attention"], names["recording"]
    assert attention.heads.shape == (2, 2, 8, 8)
    assert set(attention.maps) >= {"relevance", "last_layer", "rollout"}
    prefix = recording.num_prefix_tokens
    rollout = names["rollout"](recording)[0, 0, prefix:].view(8, 8)
    np.testing.assert_allclose(attention.maps["rollout"], rollout.numpy(), atol=1e-5)
    torch.testing.assert_close(names["pictures"][0], names["pictures"][1])
    assert not torch.equal(names["without"], names["network"].net(names["pictures"]))


def test_fine_tuning_takes_the_normalisation_and_the_network_of_the_weights(names: dict[str, Any]):
    assert names["tuned"].net.embed_dim == 64
    assert names["tuned"].hparams["img_size"] == (48, 48)
    assert names["few"].statistics == names["data"].statistics
    assert names["few"].augment.flip == 0.5


def test_data_of_ones_own_are_learnt_logged_and_their_checkpoint_names_a_picture(names: dict[str, Any]):
    assert names["own_trainer"].callback_metrics["val/accuracy"] == 1
    assert names["own_prediction"].label == "rows"
    assert names["own_prediction"].probability > 0.7
    steps = logged(names["folder"] / "runs/stripes/version_0")
    assert (steps[0], steps[-1]) == (0, 24)


def test_a_module_and_a_loop_of_ones_own_write_the_tab(names: dict[str, Any]):
    assert logged(names["folder"] / "runs/mine/version_0") == [0, 8]
    assert logged(names["folder"] / "runs/plain") == [0, 8]


def test_the_command_line_takes_what_python_trained(names: dict[str, Any], monkeypatch, capsys):
    monkeypatch.chdir(names["folder"])
    for split, count in FEW.items():
        monkeypatch.setitem(coins.SIZES, split, count)
    assert cli.main(["predict", "picture.png", "--model", "runs/python"]) == 0
    assert f",{names['prediction'].label}," in Path("predictions.csv").read_text()
    assert cli.main(["attend", "picture.png", "--model", "runs/stripes"]) == 0
    last = "runs/python/version_0/checkpoints/last.ckpt"
    options = ["--data.dataset=coins", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert cli.main(["test", "--ckpt_path", last, *options]) == 0
    assert f"{names['measured']['test/accuracy']:.4f}"[:5] in capsys.readouterr().out
    assert isinstance(Classifier.load_from_checkpoint(last, weights_only=True), L.LightningModule)


def test_the_pages_table_has_exactly_the_public_names():
    table = PAGE[PAGE.index("## Public names") :]
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(listed) == sorted(vit_attn.__all__)
    assert set(listed) <= set(dir(vit_attn))


def test_every_public_name_is_what_type_checkers_see():
    source = inspect.getsource(vit_attn)
    for module, imported in re.findall(r"^    from (vit_attn[\w.]+) import (.+)$", source, re.MULTILINE):
        for name in imported.split(", "):
            assert getattr(vit_attn, name) is getattr(__import__(module, fromlist=[name]), name)
    declared = re.findall(r"^    from vit_attn[\w.]+ import (.+)$", source, re.MULTILINE)
    assert sorted(", ".join(declared).split(", ")) == sorted(set(vit_attn.__all__) - {"__version__"})
    with pytest.raises(AttributeError, match="has no attribute 'Classifer'"):
        getattr(vit_attn, "Classifer")  # noqa: B009  type checkers would refuse it


def test_importing_the_package_imports_no_torch():
    check = "import sys, vit_attn; dir(vit_attn); assert not {'torch', 'lightning', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
