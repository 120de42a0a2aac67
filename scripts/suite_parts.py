"""The parts of the GPU suite, in their order."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import training_runs
from suite_cases import TOY_TRAINER, Case, Part, Suite, command
from suite_steps import profile_cases, step_cases
from training_runs import ROOT, FinishedRun

RATES = (5e-3, 1e-2, 1.5e-2, 2e-2, 3e-2, 4e-2)
LENGTHS = {"cifar10_94": (10, 20, 40, 60, 100), "cifar10_96": (30, 60, 120)}
"""Epochs of the runs of the ladder, by configuration, the shortest first."""
SEEDS = {"cifar10_94": (5, 1.6), "cifar10_96": (5, 7.0), "cifar10_best": (3, 9.0)}
"""Number of seeds of the final runs and minutes of each, by configuration."""
BEST_SECONDS = 480.0
"""Seconds of the whole run of the part ``best``."""
DONE = "finished"
GOOD = "cifar10_94"
"""Configuration of the network for fine-tuning and maps."""


def sweep_cases(suite: Suite) -> list[Case]:
    """Short runs by learning rate."""
    rates = RATES[:1] if suite.smoke else RATES
    epochs = suite.epochs(15)
    return [_run_case(suite, f"lr {rate:g}", 1, GOOD, f"--model.lr={rate}", _epochs(epochs)) for rate in rates]


def ladder_cases(config: str, suite: Suite) -> list[Case]:
    """Runs of growing length, each with its own schedule; accuracy after the last epoch, on the validation images."""
    per_epoch = {"cifar10_94": 0.02, "cifar10_96": 0.025}[config]
    lengths = (1,) if suite.smoke else LENGTHS[config]
    return [
        _run_case(suite, f"{config}, {epochs} epochs", 0.8 + epochs * per_epoch, config, _epochs(epochs))
        for epochs in lengths
    ]


def _run_case(suite: Suite, name: str, minutes: float, config: str, *options: str) -> Case:
    def measure() -> dict[str, Any]:
        run = suite.fit(_file_name(name), config, *options)
        validations = [[each.epoch, each.accuracy, each.seconds, each.training] for each in run.epochs]
        return {**run.row(), "validations": validations}

    return Case(name, minutes, measure, command(config, *options))


def best_cases(suite: Suite) -> list[Case]:
    """The best network within 8 minutes: as many epochs as fit."""
    told = command("cifar10_best", "--trainer.max_epochs=EPOCHS")
    return [Case("within 8 min", 9.8, lambda: best(suite), told)]


def best(suite: Suite) -> dict[str, Any]:
    """Train for two epochs to learn their time, then for as many as end within the time, start-up included."""
    probe = suite.fit("best_probe", "cifar10_best", _epochs(suite.epochs(2)), "--data.augment.mix_until=1")
    epochs = 1 if suite.smoke else epochs_within(BEST_SECONDS, probe)
    run = suite.fit("best", "cifar10_best", _epochs(epochs))
    return {**run.row(), "epochs_that_fit": epochs}


def epochs_within(seconds: float, probe: FinishedRun) -> int:
    """Number of epochs of a process that ends within some seconds.

    Args:
        seconds: Time of the process.
        probe: A run of two epochs, the second of which compiled nothing.
    """
    first, second = probe.epochs[-2:]
    each = second.seconds - first.seconds
    return max(1, int((seconds - (probe.wall - 2 * each)) / each * 0.97))


def seed_cases(config: str, suite: Suite) -> list[Case]:
    """Final runs: all training images, the test images once, after the last epoch."""
    count, minutes = (1, 1.0) if suite.smoke else SEEDS[config]
    return [
        Case(
            f"{config}, seed {seed}",
            minutes,
            partial(final, suite, config, seed),
            command(config, f"--seed_everything={seed}", *training_runs.FINAL),
        )
        for seed in range(count)
    ]


def final(suite: Suite, config: str, seed: int) -> dict[str, Any]:
    """Train on all training images, and test once."""
    options = [f"--seed_everything={seed}", *([_epochs(1)] if suite.smoke else [])]
    run = suite.fit(f"final_{config}_{seed}", config, *options, *suite.final)
    return {**run.row(), "test_accuracy": training_runs.tested_accuracy(run)}


def good_network(suite: Suite) -> FinishedRun:
    """A good network: that of an earlier call if its run is kept, else a new run."""
    folder = next(iter(sorted((suite.out / "runs" / "good").glob(f"*/{DONE}"))), None)
    if folder is not None:
        return FinishedRun(folder.parent, training_runs.read_epochs(folder.parent), 0.0)
    run = suite.fit("good", GOOD, *([_epochs(1)] if suite.smoke else []))
    (run.folder / DONE).touch()
    return run


def finetune_cases(suite: Suite) -> list[Case]:
    """Fine-tuning of a good network on other classes: as a whole, its head alone, and from scratch."""
    ways = {"full": (), "head": ("--model.train=head", "--model.probe=0"), "scratch": ()}
    told = "vit-attn fit -c configs/finetune.yaml --model.weights=last.ckpt"
    return [Case(way, 4, partial(finetune, suite, way, options), told) for way, options in ways.items()]


def finetune(suite: Suite, way: str, options: tuple[str, ...]) -> dict[str, Any]:
    """Fine-tune in one way."""
    good = good_network(suite)
    if way == "scratch":
        plain = ("--model.weights=null", "--model.probe=0", "--model.layer_decay=1", "--model.optimizer=muon")
        start = [*plain, "--model.lr=1e-2", *training_runs.network_options(good.folder)]
    else:
        start = [f"--model.weights={good.checkpoint}", "--model.lr=5e-3", *options]
    folder = Path(suite.root if suite.smoke else suite.target)
    own = folder.is_dir()
    data = [f"--data.dataset={'folder' if own else suite.target}", f"--data.root={folder if own else suite.root}"]
    size = ["--data.batch_size=4", _epochs(1), *TOY_TRAINER] if suite.smoke else ["--data.batch_size=256", _epochs(10)]
    shared = ["-c", str(ROOT / "configs/finetune.yaml"), "--data.img_size=32", "--attention.num_images=0"]
    run = training_runs.fit([*shared, *data, *size, *start], suite.out / "runs", f"finetune_{way}")
    return {**run.row(), "target": folder.name if own else suite.target}


def logging_cases(suite: Suite) -> list[Case]:
    """Runs of the same epochs with and without checkpoints and logging of attention."""
    none = ("--checkpoint.save_top_k=0", "--checkpoint.save_last=false")
    ways = {
        "neither": (*none, "--attention.num_images=0"),
        "checkpoints": ("--attention.num_images=0",),
        "attention of 16 images": (*none, "--attention.num_images=16"),
    }
    epochs = _epochs(suite.epochs(15))
    return [_run_case(suite, way, 2, GOOD, *options, epochs) for way, options in ways.items()]


def map_cases(suite: Suite) -> list[Case]:
    """Judgement of the maps of a good network."""
    return [Case("judge", 5, lambda: judge(suite), "vit-attn judge --model RUN/checkpoints/last.ckpt")]


def judge(suite: Suite) -> dict[str, Any]:
    """Judge the maps of a good network; the mean of each figure by method."""
    good, out = good_network(suite), suite.out / "runs" / "judge"
    images = "8" if suite.smoke else "512"
    device = "cpu" if suite.smoke else "cuda"
    training_runs.program(
        ["judge", f"--model={good.checkpoint}", f"--images={images}", f"--device={device}", f"--output={out}"]
    )
    with (out / "methods.csv").open(newline="", encoding="utf-8") as file:
        return {"accuracy": good.accuracy, "methods": list(csv.DictReader(file))}


def test_cases(suite: Suite) -> list[Case]:
    """Tests that need a GPU."""
    return [Case("tests/test_gpu.py", 5, lambda: run_tests(suite), "scripts/test tests/test_gpu.py")]


def run_tests(suite: Suite) -> dict[str, Any]:
    """Run the tests; their summary."""
    return {"summary": training_runs.run_tests("tests/test_gpu.py")}


def _epochs(number: int) -> str:
    return f"--trainer.max_epochs={number}"


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


PARTS = {
    "profile": Part(8, "where a step goes: host and device, kernels, waits", profile_cases),
    "step": Part(9, "a step over timm's, Muon against Muon, and Lightning's loop over a bare loop", step_cases),
    "sweep": Part(6, "learning rates in short runs", sweep_cases),
    "ladder": Part(9, "seconds to 90, 92, 94 %, by runs of growing length", partial(ladder_cases, "cifar10_94")),
    "ladder96": Part(9.5, "seconds to 95 and 96 %, likewise", partial(ladder_cases, "cifar10_96")),
    "best": Part(9.8, "the best within 8 minutes", best_cases),
    "seeds": Part(8, "final runs of cifar10_94, seeds 0 to 4, each tested once", partial(seed_cases, "cifar10_94")),
    "seeds96": Part(35, "the same of cifar10_96; a seed takes 7 min: --minutes", partial(seed_cases, "cifar10_96")),
    "seedsbest": Part(27, "the same of cifar10_best, seeds 0 to 2, 9 min each", partial(seed_cases, "cifar10_best")),
    "finetune": Part(9, "CIFAR-10 to other classes: full, head, scratch", finetune_cases),
    "logging": Part(6, "cost of checkpoints and of logged attention", logging_cases),
    "maps": Part(5, "judgement of the maps of a good network", map_cases),
    "tests": Part(5, "tests that need a GPU", test_cases),
}
