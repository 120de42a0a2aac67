"""Two processes on the CPU, started by Lightning as it starts one for each GPU, do what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.testing import assert_close

from vit_attn.cli import main
from vit_attn.data.loading.sampler import EvaluationBatches
from vit_attn.data.transforms.rng import lasting_order
from vit_attn.errors import UserError

ROOT = Path(__file__).parent.parent
DRIVER = """
import json, os, sys
from vit_attn.cli import main
from vit_attn.training.stopping import PARENT_VARIABLE

if __name__ == "__main__":
    for command in json.loads(sys.argv[1]):
        if code := main(command):
            sys.exit(code)
        os.environ.pop(PARENT_VARIABLE, None)  # both processes go on to the next command by themselves
"""
SETTINGS = (
    "--data.dataset=folder --data.img_size=16 --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--trainer.enable_model_summary=false --trainer.log_every_n_steps=1"
).split()
TRAINING = (
    "--model.arch=vit_attn_tiny_patch4_32 --model.arch_options.depth=2 --model.arch_options.embed_dim=32 "
    "--model.arch_options.num_heads=2 "
    "--model.optimizer=sgd --model.lr=0.05 --attention.num_images=0 --trainer.max_epochs=10 "
    "--checkpoint.monitor=null --checkpoint.save_top_k=1 --data.balance=loss --data.augment.mixup=0.8 "
    "--data.augment.cutmix=1.0 --data.augment.rand_augment=9 --data.augment.erase=0.3"
).split()


def on_two(folder: Path, *commands: list[str]) -> str:
    """Run commands one after another on two devices; what they wrote to the terminal."""
    (folder / "driver.py").write_text(DRIVER)
    devices = ["--trainer.devices=2"]
    call = [sys.executable, str(folder / "driver.py"), json.dumps([[*each, *devices] for each in commands])]
    done = subprocess.run(
        call, capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-9000:]
    return done.stdout + done.stderr


def run_of(runs: Path, name: str) -> Path:
    (folder,) = (runs / name).iterdir()
    return folder


def scalars(run: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(run)).Reload()
    return [each.value for each in events.Scalars(tag)]


def test_two_devices_train_and_measure_as_one_with_twice_the_batch(picture_folder, tmp_path: Path, capsys):
    root, runs = picture_folder({"bright": 35, "dark": 171}), tmp_path / "runs"
    fit = ["fit", *SETTINGS, *TRAINING, f"--data.root={root}", f"--runs={runs}"]
    assert main([*fit, "--name=one", "--data.batch_size=32"]) == 0
    (one,) = (runs / "one").glob("*/checkpoints/last.ckpt")
    measured = ["test", *SETTINGS, f"--data.root={root}", "-c", str(run_of(runs, "one") / "config.yaml")]
    options = ["--trainer.limit_val_batches=1.0", "--data.batch_size=5"]
    both = tmp_path / "both.ckpt"
    both.write_bytes(one.read_bytes())
    on_two(
        tmp_path,
        [*fit, "--name=two", "--data.batch_size=16", "--trainer.strategy=ddp"],
        [*measured, f"--ckpt_path={both}", *options, "--trainer.strategy=ddp"],
    )
    (two,) = (runs / "two").glob("*/checkpoints/last.ckpt")
    ends = [torch.load(path, weights_only=True) for path in (one, two)]
    assert ends[0]["global_step"] == ends[1]["global_step"] == 50
    weights = zip(*(end["state_dict"].values() for end in ends), strict=True)
    assert max(float((a - b).abs().max()) for a, b in weights) < 2e-6
    for tag in ("val/loss", "val/accuracy"):
        found = [scalars(run_of(runs, name), tag) for name in ("one", "two")]
        assert len(found[0]) == 10
        assert found[1] == pytest.approx(found[0], abs=2e-6)
    assert main([*measured, f"--ckpt_path={one}", *options]) == 0
    alone, together = (
        json.loads(path.read_text()) for path in (run_of(runs, "one") / "test.json", tmp_path / "test.json")
    )
    assert alone["images"] == together["images"] == 21  # which two devices do not share evenly
    for name in alone.keys() - {"checkpoint", "step"}:
        exact = name in ("dataset", "split", "classes", "confusion", "images", "calibration_bins")
        assert together[name] == (alone[name] if exact else pytest.approx(alone[name], abs=1e-6)), name


def test_a_network_that_is_sharded_trains_resumes_and_is_drawn_as_a_whole_one(picture_folder, tmp_path: Path, capsys):
    root, runs = picture_folder({"bright": 35, "dark": 51}), tmp_path / "runs"
    short = ["--trainer.max_epochs=3", "--attention.num_images=1", "--attention.max_cost=1"]
    keep = ["--checkpoint.save_top_k=-1", "--checkpoint.filename={epoch}"]
    fit = ["fit", *SETTINGS, *TRAINING, *short, *keep, f"--data.root={root}", f"--runs={runs}"]

    def kept(name: str, epoch: int) -> Path:
        return run_of(runs, name) / "checkpoints" / f"{epoch}.ckpt"

    assert main([*fit, "--name=one", "--data.batch_size=32"]) == 0
    sharded = [*fit, "--data.batch_size=16", "--trainer.strategy=fsdp2"]
    on_two(tmp_path, [*sharded, "--name=two"], [*sharded, "--name=to two", f"--ckpt_path={kept('one', 0)}"])
    alone = ["--trainer.devices=1", "--trainer.strategy=auto", "--data.batch_size=32"]
    assert main([*fit, "--name=to one", *alone, f"--ckpt_path={kept('two', 0)}"]) == 0
    whole = torch.load(kept("one", 2), weights_only=True)
    for name in ("two", "to two", "to one"):
        assert kept(name, 2).is_file()  # as every command reads it
        found = torch.load(kept(name, 2), weights_only=True)
        for state in ("state_dict", "optimizer_states"):
            assert_close(found[state], whole[state], rtol=0, atol=2e-6)
    tags = [EventAccumulator(str(run_of(runs, name))).Reload().Tags() for name in ("one", "two")]
    drawn = [{tag for tag in each["scalars"] + each["images"] if tag.startswith("vit_attention")} for each in tags]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) > 5


@pytest.mark.parametrize("count", [8, 9, 16, 17, 35, 64])
@pytest.mark.parametrize(("ranks", "size"), [(1, 4), (2, 4), (3, 2), (8, 1), (8, 16)])
def test_ranks_measure_every_image_once_in_as_many_batches(count: int, ranks: int, size: int):
    samplers = [EvaluationBatches(range(count), size, "test", num_replicas=ranks, rank=rank) for rank in range(ranks)]
    batches = [list(sampler) for sampler in samplers]
    assert {len(each) for each in batches} == {len(samplers[0])}
    assert all(1 <= len(batch) <= max(2, size) for each in batches for batch in each)
    together = torch.cat([batch for step in zip(*batches, strict=True) for batch in step])
    assert torch.equal(together, lasting_order(count))
    assert torch.equal(together.sort().values, torch.arange(count))


def test_fewer_images_than_devices_are_refused():
    with pytest.raises(UserError, match="the test split has 3 images to evaluate, fewer than the 4 devices"):
        EvaluationBatches(range(3), 4, "test", num_replicas=4, rank=0)
