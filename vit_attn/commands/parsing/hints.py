"""Hints for options that do not exist: the option of that last part, or what other programs call so."""

import difflib
import re
from collections.abc import Iterable, Mapping

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "epochs": ("trainer.max_epochs",),
    "epoch": ("trainer.max_epochs",),
    "num_epochs": ("trainer.max_epochs",),
    "num_train_epochs": ("trainer.max_epochs",),
    "steps": ("trainer.max_steps",),
    "iterations": ("trainer.max_steps",),
    "seed": ("seed_everything", "seed"),
    "gpus": ("trainer.devices", "device"),
    "gpu": ("trainer.accelerator=gpu", "device=cuda"),
    "cpu": ("trainer.accelerator=cpu", "device=cpu"),
    "cuda": ("trainer.accelerator=gpu", "device=cuda"),
    "device": ("trainer.accelerator",),
    "nproc": ("trainer.devices",),
    "nodes": ("trainer.num_nodes",),
    "batch": ("data.batch_size", "batch_size"),
    "bs": ("data.batch_size", "batch_size"),
    "workers": ("data.num_workers",),
    "num_worker": ("data.num_workers",),
    "learning_rate": ("model.lr",),
    "wd": ("model.weight_decay",),
    "optim": ("model.optimizer",),
    "opt": ("model.optimizer",),
    "warmup_epochs": ("model.warmup",),
    "warmup_steps": ("model.warmup",),
    "scheduler": ("model.decay",),
    "smoothing": ("model.label_smoothing",),
    "layer_lr_decay": ("model.layer_decay",),
    "freeze": ("model.train=head",),
    "linear_probe": ("model.train=head",),
    "compile_model": ("model.compile",),
    "no_compile": ("model.compile=false",),
    "pretrained": ("model.weights", "weights"),
    "finetune": ("model.weights",),
    "init": ("model.weights",),
    "network": ("model.arch", "model"),
    "architecture": ("model.arch", "model"),
    "backbone": ("model.arch", "model"),
    "depth": ("model.arch_options.depth",),
    "num_heads": ("model.arch_options.num_heads",),
    "heads": ("model.arch_options.num_heads",),
    "embed_dim": ("model.arch_options.embed_dim",),
    "dim": ("model.arch_options.embed_dim",),
    "patch_size": ("model.arch_options.patch_size",),
    "drop_path": ("model.arch_options.drop_path_rate",),
    "drop_path_rate": ("model.arch_options.drop_path_rate",),
    "dropout": ("model.arch_options.drop_path_rate",),
    "data_dir": ("data.root", "root"),
    "data_path": ("data.root", "root"),
    "data_root": ("data.root", "root"),
    "train_dir": ("data.root", "root"),
    "image_size": ("data.img_size", "img_size"),
    "imgsz": ("data.img_size", "img_size"),
    "size": ("data.img_size", "img_size"),
    "resolution": ("data.img_size", "img_size"),
    "aa": ("data.augment.rand_augment",),
    "randaugment": ("data.augment.rand_augment",),
    "color_jitter": ("data.augment.colour_jitter",),
    "hflip": ("data.augment.flip",),
    "reprob": ("data.augment.erase",),
    "random_erasing": ("data.augment.erase",),
    "fp16": ("trainer.precision=16-mixed",),
    "half": ("trainer.precision=16-mixed",),
    "amp": ("trainer.precision=16-mixed",),
    "bf16": ("trainer.precision=bf16-mixed",),
    "clip_grad": ("trainer.gradient_clip_val",),
    "max_grad_norm": ("trainer.gradient_clip_val",),
    "grad_accum": ("trainer.accumulate_grad_batches",),
    "accumulate": ("trainer.accumulate_grad_batches",),
    "gradient_accumulation_steps": ("trainer.accumulate_grad_batches",),
    "log_interval": ("trainer.log_every_n_steps",),
    "val_interval": ("trainer.check_val_every_n_epoch",),
    "patience": (
        "trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/accuracy --trainer.callbacks.mode=max "
        "--trainer.callbacks.patience=5",
    ),
    "early_stopping": (
        "trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/accuracy --trainer.callbacks.mode=max",
    ),
    "wandb": ("trainer.logger=WandbLogger",),
    "logger": ("trainer.logger",),
    "debug": ("trainer.fast_dev_run=true",),
    "dry_run": ("trainer.fast_dev_run=true",),
    "output": ("runs",),
    "output_dir": ("runs", "output"),
    "out": ("runs", "output"),
    "o": ("runs", "output"),
    "to": ("output",),
    "out_dir": ("runs", "output"),
    "save_dir": ("runs", "output"),
    "project": ("runs",),
    "log_dir": ("runs",),
    "run_name": ("name",),
    "experiment": ("name",),
    **dict.fromkeys(("checkpoint", "ckpt", "checkpoint_path", "model_path", "m", "run"), ("model.weights", "model")),
    "ckpt_path": ("model",),
    "resume_from_checkpoint": ("resume",),
    "image": ("images",),
    "pictures": ("images",),
    "photos": ("images",),
    "input": ("data.root", "images"),
    "classes": ("target",),
    "class": ("target",),
    "token": ("query",),
    "patch": ("query",),
    "format": ("output",),
    "topk": ("top_k",),
}
"""Options of this program by the last part of what users type, the first that a command has; without dashes."""
MOST = 3
"""Options that a hint names at most."""


def option_hint(name: str, known: Iterable[str]) -> str:
    """Suggest the options that a name may mean, as a hint to append to an error about it.

    Options of the same last part come first, then what other programs call so, then names that are spelled alike.

    >>> option_hint("--lr", ["--model.lr", "--runs"])
    ", did you mean '--model.lr'?"
    >>> option_hint("--epochs", ["--trainer.max_epochs"])
    ", did you mean '--trainer.max_epochs'?"

    Args:
        name: Option as it was typed, with its dashes.
        known: Options of the command, with their dashes.
    """
    options = sorted({option.removeprefix("--") for option in known if option.startswith("--")} - {"help"})
    options = [option for option in options if not option.endswith("+")]
    wanted = _spelled(name)
    last = wanted.rpartition(".")[2]
    found = [option for option in options if _spelled(option) == wanted]
    found = found or [option for option in options if _spelled(option).rpartition(".")[2] == last]
    found = found or _synonyms(last, options)
    if not found and len(name.strip("-")) == 1:
        found = [option for option in options if option.startswith(wanted) and "." not in option]
    found = found or _alike(wanted, options)
    if not found and (close := difflib.get_close_matches(last, SYNONYMS, n=1, cutoff=0.85)):
        found = _synonyms(close[0], options)
    return f", did you mean {' or '.join(repr(f'--{each}') for each in found[:MOST])}?" if found else ""


def _spelled(name: str) -> str:
    """Return a name without dashes in front, with underscores for others, in lower case."""
    return re.sub("^-+", "", name).replace("-", "_").lower()


def _synonyms(last: str, options: Iterable[str]) -> list[str]:
    known = set(options)
    for advice in SYNONYMS.get(last, ()):
        option = re.split("[+= ]", advice)[0]
        if option in known or any(option.startswith(f"{each}.") for each in known & {"model.arch_options"}):
            return [advice]
    return []


def _alike(wanted: str, options: Iterable[str]) -> list[str]:
    """List options whose name, or its last part, is spelled alike."""
    names: dict[str, str] = {}
    for option in options:
        for spelled in (option, option.rpartition(".")[2]):
            names.setdefault(spelled, option)
    last = wanted.rpartition(".")[2]
    close = difflib.get_close_matches(wanted, names, n=MOST, cutoff=0.75)
    close += difflib.get_close_matches(last, names, n=MOST, cutoff=0.75)
    return list(dict.fromkeys(names[each] for each in close))
