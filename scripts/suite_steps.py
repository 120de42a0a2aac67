"""Parts of the GPU suite that measure single steps: a profile, and comparisons with timm's and with a bare loop."""

import json
import shlex
import statistics
import time
from typing import Any

import yaml
from suite_cases import Case, Suite, command
from training_runs import ROOT

STEPS = ("--trainer.max_epochs=100", "--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=1000")
"""Options of a run that is ended by its profile; nothing is logged in between."""
COMPILED = ("--model.compile=true",)
GRAPHS = (*COMPILED, "--model.compile_mode=reduce-overhead")


def profile_cases(suite: Suite) -> list[Case]:
    """Profiles of the default at batch 1,024, and of the fastest configuration."""
    default = ("--data.batch_size=1024", "--model.lr=1.5e-2", "--attention.num_images=0")
    cases = {
        "cifar10, eager": ("cifar10", default),
        "cifar10, compiled": ("cifar10", (*default, *COMPILED)),
        "cifar10, CUDA graphs": ("cifar10", (*default, *GRAPHS)),
        "cifar10_94": ("cifar10_94", ()),
    }
    return [_profile_case(suite, name, *case) for name, case in cases.items()]


def _profile_case(suite: Suite, name: str, config: str, options: tuple[str, ...]) -> Case:
    return Case(name, 2, lambda: profile(suite, _file_name(name), config, *options), command(config, *options))


def profile(suite: Suite, name: str, config: str, *options: str) -> dict[str, Any]:
    """Profile a step of a configuration in a run of `fit`."""
    path = suite.out / f"profile_{name}.txt"
    arguments = {"path": str(path), "warmup": 1, "steps": 2} if suite.smoke else {"path": str(path)}
    callback = {"class_path": "step_profile.StepProfile", "init_args": arguments}
    suite.fit(f"profile_{name}", config, *options, *STEPS, f"--trainer.callbacks+={json.dumps(callback)}")
    figures = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return figures


def step_cases(suite: Suite) -> list[Case]:
    """Steps over timm's by batch size, and Lightning's loop over a bare one."""
    sizes = (4,) if suite.smoke else (256, 1024, 2048)
    cases = [_timm_case(suite, size) for size in sizes]
    run = command("cifar10", "--model.compile=true")
    return [*cases, Case("Lightning's loop over a bare loop", 3, lambda: loops(suite), run)]


def _timm_case(suite: Suite, size: int) -> Case:
    options = ["--optimizer=muon", f"--batch-size={size}"]
    if suite.smoke:
        options += ["--device=cpu", "--rounds=2", "--steps=1", "--depth=1", "--embed-dim=24", "--num-heads=2"]
    else:
        options += ["--device=cuda", "--dtype=bfloat16", "--compile", "--rounds=20", "--steps=10"]
    told = shlex.join(["scripts/bench_step.py", *options])
    return Case(f"over timm's, batch {size}", 2, lambda: timm_ratio(options), told)


def timm_ratio(options: list[str]) -> dict[str, Any]:
    """Images per second of our step and of timm's, and the quartiles of their ratio."""
    import bench_step

    rates = bench_step.compare(bench_step.parse_args(options))
    low, middle, high = statistics.quantiles(rates["ours / timm", "muon"], n=4)
    medians = {f"{name}_images_per_second": statistics.median(rates[name, "muon"]) for name in ("ours", "timm")}
    return {**medians, "ratio": middle, "ratio_low": low, "ratio_high": high}


def loops(suite: Suite) -> dict[str, Any]:
    """Milliseconds of a step by `fit`, and by a loop of a few lines with the same data, network and optimiser."""
    options = ("--data.batch_size=1024", *COMPILED, "--model.ema=null", "--attention.num_images=0")
    bare = bare_loop(suite, compiled=not suite.smoke)
    fit = profile(suite, "loop", "cifar10", *options)["step_ms"]
    return {"fit_ms": fit, "bare_ms": bare, "ratio": fit / bare}


def bare_loop(suite: Suite, compiled: bool) -> float:
    """Milliseconds of a step of configs/cifar10.yaml, without averaged weights, in a plain loop."""
    import torch
    import torch.nn.functional as F

    from vit_attn.data import ImageData
    from vit_attn.data.transforms.augment import Augment
    from vit_attn.task import Classifier
    from vit_attn.training.optimizers import build_optimizer

    settings = yaml.safe_load((ROOT / "configs/cifar10.yaml").read_text(encoding="utf-8"))
    chosen: dict[str, Any] = (
        {"dataset": "folder", "img_size": 32, "batch_size": 4} if suite.smoke else {"batch_size": 1024}
    )
    augment = Augment(**settings["data"].pop("augment"))
    data = ImageData(**settings["data"] | chosen, root=suite.root, augment=augment)
    data.prepare_data()
    device = "cpu" if suite.smoke else "cuda"
    model = settings["model"] | {"ema": None, "num_classes": len(data.class_names), "img_size": data.img_size}
    net = Classifier(**model).net.to(device).train()
    optimizer = build_optimizer(net, model["optimizer"], model["lr"], model["weight_decay"])
    if compiled:
        net.compile()
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def batches() -> Any:
        while True:
            yield from data.train_dataloader(device)

    loader, windows = batches(), []
    window, count = (1, 2) if suite.smoke else (20, 7)
    for number in range(count):
        wait()
        start = time.perf_counter()
        for _ in range(window):
            images, labels = next(loader)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss = F.cross_entropy(net(images), labels, label_smoothing=model["label_smoothing"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        wait()
        if number:  # the first compiles
            windows.append((time.perf_counter() - start) / window)
    return statistics.median(windows) * 1e3


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
