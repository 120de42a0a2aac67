#!/usr/bin/env python
"""Benchmark of training steps: our ViT against timm's of the same configuration, in turn in one run.

Each round trains both for a few steps, ours first in every other round; the figures are medians over the rounds, with
the quarter and three-quarter points. Both start from the same weights and see the same images. With Muon, ours is
stacked and timm's goes matrix by matrix. On the CPU the time of all threads counts, so that other processes disturb
less.

    .venv/bin/python scripts/bench_step.py
    .venv/bin/python scripts/bench_step.py --optimizer adamw muon
    .venv/bin/python scripts/bench_step.py --device cuda --dtype bfloat16 --compile --batch-size 1024
"""

import argparse
import platform
import statistics
import time
from typing import Any

import timm.optim
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn

from vit_attn.model import VisionTransformer
from vit_attn.training.optimizers import build_optimizer


def parse_args(options: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile both networks")
    parser.add_argument("--optimizer", nargs="+", default=["adamw"], choices=["adamw", "muon"], help="of both")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3, help="steps of each network in a round")
    parser.add_argument("--embed-dim", type=int, default=192)
    parser.add_argument("--depth", type=int, default=9)
    parser.add_argument("--num-heads", type=int, default=3)
    parser.add_argument("--mlp-ratio", type=float, default=2.0)
    return parser.parse_args(options)


def make_optimizer(net: nn.Module, name: str, ours: bool) -> torch.optim.Optimizer:
    """Make an optimiser: AdamW is PyTorch's fused one in both, Muon is ours or timm's."""
    if name == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    optimizer = build_optimizer(net, name, lr=1e-3, weight_decay=0.05)
    return optimizer if ours else timm.optim.Muon(optimizer.param_groups, **optimizer.defaults)


def make_step(net: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, args: argparse.Namespace):
    """Make a function that trains one step on the same images each time."""
    labels = torch.arange(args.batch_size, device=args.device) % 10

    def step() -> None:
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"):
            loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def images_per_second(step, args: argparse.Namespace) -> float:
    """Measure images per second over one round."""
    if args.device == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if args.device == "cuda" else time.process_time
    start = clock()
    for _ in range(args.steps):
        step()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return args.batch_size * args.steps / (clock() - start)


def compare(args: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    """Measure images per second of each round, by network and optimiser; ``ours / timm`` is their ratio."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 4,
        "num_classes": 10,
        "embed_dim": args.embed_dim,
        "depth": args.depth,
    }
    sizes |= {"num_heads": args.num_heads, "mlp_ratio": args.mlp_ratio}
    images = torch.randn(args.batch_size, 3, 32, 32, device=args.device)
    steps = {}
    for optimizer in args.optimizer:
        nets = {"ours": VisionTransformer(**sizes), "timm": TimmViT(**sizes)}
        nets["timm"].load_state_dict(nets["ours"].state_dict())
        for name, net in nets.items():
            net.to(args.device)
            if args.compile:
                net.compile()
            step = make_step(net, make_optimizer(net, optimizer, name == "ours"), images, args)
            steps[name, optimizer] = step
            images_per_second(step, args)  # warm up, and compile

    rates: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for number in range(args.rounds):
        for key in sorted(steps, reverse=bool(number % 2)):
            rates[key].append(images_per_second(steps[key], args))
    for optimizer in args.optimizer:
        pairs = zip(rates["ours", optimizer], rates["timm", optimizer], strict=True)
        rates["ours / timm", optimizer] = [ours / theirs for ours, theirs in pairs]
    return rates


def main() -> None:
    args = parse_args()
    rates = compare(args)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    mode = "compiled" if args.compile else "eager"
    print(
        f"torch {torch.__version__}, Python {platform.python_version()}, {args.device} ({device}), {args.dtype}, {mode}"
    )
    print(
        f"batch {args.batch_size}, {args.rounds} rounds of {args.steps} steps; median (quarter to three-quarter point)"
    )
    print(f"d{args.embed_dim} L{args.depth} h{args.num_heads} mlp x{args.mlp_ratio:g}, 65 tokens")
    for optimizer in args.optimizer:
        for name, unit in (("ours", ", img/s"), ("timm", ", img/s"), ("ours / timm", "")):
            low, middle, high = statistics.quantiles(rates[name, optimizer], n=4)
            print(f"{optimizer:<6} {name + unit:<12} {middle:9.3f}   ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
