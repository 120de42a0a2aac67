#!/usr/bin/env python
"""Benchmark of training steps: our ViT against timm's of the same configuration, in turn in one run.

Each round trains both for a few steps, ours first in every other round; the figures are medians over the rounds, with
the quarter and three-quarter points. Both start from the same weights and see the same images, in a plain loop. With
``--optimizer muon``, ours steps by the optimiser of `fit`, and timm's by timm's Muon, each for the blocks' matrices.

    .venv/bin/python scripts/bench_step.py
    .venv/bin/python scripts/bench_step.py --device cuda --dtype bfloat16 --compile --optimizer muon --batch-size 1024
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer as TimmViT
from timm.optim import create_optimizer_v2
from torch import nn

from vit_attn.model import VisionTransformer
from vit_attn.training.optimizers import build_optimizer


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile both networks")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3, help="steps of each network in a round")
    parser.add_argument("--embed-dim", type=int, default=192)
    parser.add_argument("--depth", type=int, default=9)
    parser.add_argument("--num-heads", type=int, default=3)
    parser.add_argument("--mlp-ratio", type=float, default=2.0)
    parser.add_argument("--optimizer", default="adamw", choices=["adamw", "muon"])
    return parser.parse_args(arguments)


def make_optimizer(name: str, net: nn.Module, optimizer: str) -> torch.optim.Optimizer:
    """Make the optimiser of a network.

    Args:
        name: ``ours`` or ``timm``.
        net: The network.
        optimizer: ``adamw``, the same for both, or ``muon``.
    """
    if optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    if name == "ours":
        return build_optimizer(net, "muon", 1e-4, 0.05)
    outside = ["patch_embed.*", "head.*"]  # trained by AdamW, as in ours
    return create_optimizer_v2(net, opt="muon", lr=1e-4, weight_decay=0.05, fallback_list=outside)


def make_step(name: str, net: nn.Module, images: torch.Tensor, args: argparse.Namespace) -> Callable[[], None]:
    """Make a function that trains one step on the same images each time."""
    labels = torch.arange(args.batch_size, device=args.device) % 10
    optimizer = make_optimizer(name, net, args.optimizer)

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
    start = time.perf_counter()
    for _ in range(args.steps):
        step()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return args.batch_size * args.steps / (time.perf_counter() - start)


def compare(args: argparse.Namespace) -> dict[str, list[float]]:
    """Measure both in turn; images per second of each round, and their ratio."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 4,
        "num_classes": 10,
        "embed_dim": args.embed_dim,
        "depth": args.depth,
    }
    sizes |= {"num_heads": args.num_heads, "mlp_ratio": args.mlp_ratio}
    nets = {"ours": VisionTransformer(**sizes), "timm": TimmViT(**sizes)}
    nets["timm"].load_state_dict(nets["ours"].state_dict())
    images = torch.randn(args.batch_size, 3, 32, 32, device=args.device)
    steps = {}
    for name, net in nets.items():
        net.to(args.device)
        if args.compile:
            net.compile()
        steps[name] = make_step(name, net, images, args)
        images_per_second(steps[name], args)  # warm up, and compile

    rates: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(args.rounds):
        for name in sorted(steps, reverse=bool(number % 2)):
            rates[name].append(images_per_second(steps[name], args))
    rates["ours / timm"] = [ours / theirs for ours, theirs in zip(rates["ours"], rates["timm"], strict=True)]
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
    print(f"d{args.embed_dim} L{args.depth} h{args.num_heads} mlp x{args.mlp_ratio:g}, 65 tokens, {args.optimizer}")
    for name, unit in (("ours", ", img/s"), ("timm", ", img/s"), ("ours / timm", "")):
        low, middle, high = statistics.quantiles(rates[name], n=4)
        print(f"{name + unit:<12} {middle:9.3f}   ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
