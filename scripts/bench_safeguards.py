"""Measure the cost of the safeguards of a step: the same run with and without them in turn, a few steps each.

    python scripts/bench_safeguards.py --rounds 60

The safeguards are the gate that undoes updates that are not finite, the seed of each step, and the control between
steps. Both variants train the same network with the same optimiser and clipping. Printed are the ratio of the times of
a step with and without them, as median and quartiles over the rounds, and their own time in milliseconds.
"""

import argparse
import statistics
import time
import warnings
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from vit_attn.callbacks.run_checkpoint import RunCheckpoint
from vit_attn.callbacks.run_control import RunControl
from vit_attn.task import Classifier

SMALL: dict[str, Any] = {"embed_dim": 64, "depth": 4, "num_heads": 2, "mlp_ratio": 2, "class_token": False}
SMALL |= {"global_pool": "avg"}
WARM_UP = 10


class SafeguardSwitch(L.Callback):
    """Switches safeguards on and off every few steps, and records the time of a step either way."""

    def __init__(self, control: RunControl, steps: int) -> None:
        self.control, self.steps, self.times = control, steps, {True: [], False: []}
        self.block_start, self.gate = 0.0, None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Switch at the start of a block of steps."""
        if batch_idx < WARM_UP or (batch_idx - WARM_UP) % self.steps:
            return
        now, block = time.perf_counter(), (batch_idx - WARM_UP) // self.steps
        if block:
            self.times[block % 2 == 1].append((now - self.block_start) / self.steps)
        guarded = block % 2 == 0
        self.gate = self.gate or pl_module.gate
        pl_module.gate = self.gate if guarded else None
        for owner, hook in (
            (pl_module, "on_train_batch_start"),
            (self.control, "on_train_batch_start"),
            (self.control, "on_train_batch_end"),
        ):
            owner.__dict__.pop(hook, None)
            if not guarded:
                owner.__dict__[hook] = _do_nothing
        self.block_start = time.perf_counter()


def _do_nothing(*_: Any) -> None:
    """Replace a safeguard."""


def main() -> None:
    """Train and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="pairs of blocks (default: 60)")
    parser.add_argument("--steps", type=int, default=4, help="steps of a block (default: 4)")
    parser.add_argument("--batch-size", type=int, default=250, help="images of a step (default: 250)")
    parser.add_argument("--optimizer", default="muon", help="a name of timm's (default: muon)")
    parser.add_argument("--accelerator", default="cpu", help="cpu or gpu (default: cpu)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    images = torch.randn(args.batch_size, 3, 32, 32)
    total = WARM_UP + 2 * args.rounds * args.steps + 1
    batch = images, torch.arange(args.batch_size) % 10
    batches: Any = [batch] * total
    repeated = DataLoader(batches, batch_size=None)
    checkpoint = RunCheckpoint(save_last=False, save_top_k=0, monitor=None)
    control = RunControl(checkpoint)
    switch = SafeguardSwitch(control, args.steps)
    trainer = L.Trainer(
        accelerator=args.accelerator,
        devices=1,
        max_steps=total,
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[switch, checkpoint, control],
    )
    trainer.fit(Classifier(arch_options=SMALL, optimizer=args.optimizer, lr=1e-3), repeated)
    pairs = list(zip(switch.times[True], switch.times[False], strict=False))
    ratios = sorted(guarded / plain for guarded, plain in pairs)
    low, middle, high = statistics.quantiles(ratios, n=4)
    plain = statistics.median(plain for _, plain in pairs)
    difference = statistics.median(guarded - plain for guarded, plain in pairs)
    print(f"{len(pairs)} rounds of {args.steps} steps, batch {args.batch_size}, {args.optimizer}, {args.accelerator}")
    print(f"step with safeguards over one without: {middle:.4f} ({low:.4f}, {high:.4f})")
    print(f"a step without them takes {plain * 1e3:.1f} ms; they add {difference * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
