#!/usr/bin/env python
"""Benchmark of recording: time and memory of recorded forwards against plain ones, side by side in one run.

Time: a plain forward; a recorded forward with rollout of the CLS row, and the part of it that computes the weights (qkᵀ
and softmax of every layer); and the common alternative: hooks on unfused attention that keep every map, then the full
matrix product. Each round times all in turn; the figures are medians of the ratios over the rounds, with the quarter
and three-quarter points. Memory: peak bytes of tensors above a plain forward, by torch's profiler of allocations.

After a recording, glibc returns its memory to the system and requests it again for the next one. The page faults are
part of the cost in a process that does nothing else; an allocator such as jemalloc avoids them, and so does
``--keep_memory``, for all contenders alike.

    OMP_NUM_THREADS=2 .venv/bin/python scripts/bench_inspect.py
    .venv/bin/python scripts/bench_inspect.py --device cuda
"""

import argparse
import contextlib
import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from vit_attn.attention_maps import record, relevance, rollout
from vit_attn.attention_maps.recording.recording import Recording

CASES = {
    "ViT-S/16 at 224, batch 8": ("vit_small_patch16_224", {}, 8),
    "ViT-Ti/16 at 384, batch 4": ("vit_tiny_patch16_384", {}, 4),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--skip_memory", action="store_true")
    parser.add_argument("--keep_memory", action="store_true", help="let glibc keep freed memory")
    return parser.parse_args()


def keep_memory() -> None:
    """Let glibc keep freed memory: no block is mapped by itself, and the heap is never trimmed."""
    most, (trim_threshold, mmap_threshold) = 2**30, (-1, -3)  # malloc.h
    for option in (trim_threshold, mmap_threshold):
        if not ctypes.CDLL(None).mallopt(option, most):
            raise OSError("mallopt refused its option")


def plain(net: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        net(images)


def ours(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), record(net) as recording:
        net(images)
    return rollout(recording)


def weights_alone(recording: Recording) -> None:
    """Compute all weights, which any method that reads them must do."""
    for layer in recording:
        for call in layer.calls:
            for images, heads in call.parts(by_head=True):
                call.part(images, heads).weights()


@contextlib.contextmanager
def every_map_kept(net: Any) -> Iterator[list[Tensor]]:
    """Unfuse the attention and keep its softmax by hooks: all maps are in memory at once."""
    maps: list[Tensor] = []
    hooks = []
    for block in net.blocks:
        block.attn.fused_attn = False
        hooks.append(block.attn.attn_drop.register_forward_hook(lambda _m, _i, weights: maps.append(weights)))
    try:
        yield maps
    finally:
        for block, hook in zip(net.blocks, hooks, strict=True):
            block.attn.fused_attn = True
            hook.remove()


def hooked(net: Any, images: Tensor) -> Tensor:
    """Compute rollout as a product of full matrices."""
    with torch.no_grad(), every_map_kept(net) as maps:
        net(images)
    product = eye = torch.eye(maps[0].shape[-1], device=images.device)
    for weights in maps:
        mixed = weights.mean(dim=1) + eye
        product = (mixed / mixed.sum(dim=-1, keepdim=True)) @ product
    return product[:, 0]


def with_gradients(net: nn.Module, images: Tensor) -> Tensor:
    with record(net, gradients=True) as recording:
        net(images)
    return relevance(recording)


def hooked_with_gradients(net: Any, images: Tensor) -> Tensor:
    """Compute Chefer's relevance as a product of full matrices, from maps and their gradients."""
    with every_map_kept(net) as maps:
        logits = net(images)
    gradients = torch.autograd.grad(logits.amax(dim=-1).sum(), maps)
    product = eye = torch.eye(maps[0].shape[-1], device=images.device)
    for weights, gradient in zip(maps, gradients, strict=True):
        product = (eye + (weights.detach() * gradient).relu().mean(dim=1)) @ product
    return product[:, 0]


def backward(net: nn.Module, images: Tensor) -> None:
    """Run a forward and the backward pass of a logit, which any method with gradients needs."""
    logits = net(images)
    torch.autograd.grad(logits.amax(dim=-1).sum(), [net.get_parameter("pos_embed")])


def seconds(run: Callable[[nn.Module, Tensor], Any], net: nn.Module, images: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run(net, images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(run: Callable[[nn.Module, Tensor], Any], net: nn.Module, images: Tensor) -> int:
    """Measure the peak memory above that before, in bytes."""
    if images.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(net, images)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(net, images)
    held = most = 0
    profiled: Any = profiler.profiler
    for event in sorted(profiled.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def time_table(device: str, rounds: int) -> None:
    print("time against a plain forward; median (quarter to three-quarter point)")
    runs: dict[str, Callable[..., Any]] = {"rollout of the CLS row": ours, "hooks, full product": hooked}
    for title, (arch, options, batch) in CASES.items():
        net: Any = timm.create_model(arch, **options).eval().to(device)
        images = torch.randn(batch, 3, *net.patch_embed.img_size, device=device)
        with torch.no_grad(), record(net) as recording:
            net(images)
        of_net = runs | {"of it, weights alone": lambda _net, _images, kept=recording: weights_alone(kept)}
        for run in (plain, *of_net.values()):
            run(net, images)
        ratios: dict[str, list[float]] = {name: [] for name in of_net}
        for _ in range(rounds):
            base = seconds(plain, net, images)
            for name, run in of_net.items():
                ratios[name].append(seconds(run, net, images) / base)
        for name, values in ratios.items():
            low, middle, high = statistics.quantiles(values, n=4)
            print(f"{title:<26} {name:<24} {middle:6.3f}   ({low:.3f} to {high:.3f})")


def memory_table(device: str) -> None:
    print("\nViT-S/16 at 512 (1,025 tokens), batch 2: most memory above a plain forward, MB")
    net = timm.create_model("vit_small_patch16_224", img_size=512).eval().to(device)
    images = torch.randn(2, 3, 512, 512, device=device)
    base, base_backward = peak(plain, net, images), peak(backward, net, images)
    for name, mine, theirs, below in (
        ("attention only", ours, hooked, base),
        ("with gradients", with_gradients, hooked_with_gradients, base_backward),
    ):
        own, other = peak(mine, net, images) - below, peak(theirs, net, images) - below
        print(f"{name:<16} ours {own / 1e6:8.1f}   all maps kept {other / 1e6:8.1f}   ratio {other / own:.2f}")


def main() -> None:
    args = parse_args()
    if args.keep_memory:
        keep_memory()
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    freed = "kept" if args.keep_memory else "given back where the allocator does so"
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {args.device} ({where})")
    print(f"{args.rounds} rounds; freed memory is {freed}")
    time_table(args.device, args.rounds)
    if not args.skip_memory:
        memory_table(args.device)


if __name__ == "__main__":
    main()
