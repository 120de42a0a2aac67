"""Check of recording on the vision transformers of timm, torchvision and transformers, a table of all families.

    python scripts/check_families.py [--only REGEX] [--write docs/methods.md]

Each network has random weights, scaled until its attention is far from uniform. Recorded weights are compared with the
softmax of the same network without fused attention; the default query with the gradient of a random projection of the
output by the tokens; the order of the patches with the tokens that change when one patch of the image does; and
relevance with its formula. Of a network that attends within windows, the weights and the places of its patches are
compared. Prints a table, and exits with 1 if a recording is wrong. Takes a quarter of an hour on two
busy cores.
"""

import argparse
import contextlib
import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from family_checks import (  # pyrefly: ignore[missing-import]
    Wrong,
    check_order,
    check_row,
    compare_relevance,
    compare_weights,
    compare_windows,
    default_row,
    pool_name,
    run,
    sharpen_attention,
    softmaxes,
)
from family_networks import Candidate, candidates, images_of  # pyrefly: ignore[missing-import]
from torch import Tensor, nn

from vit_attn.attention_maps import record
from vit_attn.attention_maps.recording.attention_modules import attention_modules
from vit_attn.attention_maps.recording.network_checks import attends_in_windows
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.attention_maps.recording.token_order import order_of
from vit_attn.errors import UserError

BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"


@dataclass(frozen=True)
class Finding:
    """Result of one network."""

    candidate: Candidate
    result: str
    pool: str = ""
    says: str = ""
    weights: float = 0.0
    relevance: float = 0.0


def main() -> int:
    """Check every network, print the table, and report errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose library, family and name match")
    parser.add_argument("--write", type=Path, help="document whose table between the markers is replaced")
    args = parser.parse_args()
    findings = [
        check(each) for each in candidates() if re.search(args.only, f"{each.package} {each.family} {each.name}")
    ]
    print(table(findings))
    wrong = [each for each in findings if each.result == "wrong"]
    for each in findings:
        if each.result in ("wrong", "not built"):
            print(f"{each.result}: {each.candidate.package} {each.candidate.name}: {each.says}", file=sys.stderr)
    if args.write and not args.only and not wrong:
        text = args.write.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        args.write.write_text(f"{before}{BEGIN}\n{table(findings)}\n{END}{after}", encoding="utf-8")
    return 1 if wrong else 0


def check(candidate: Candidate) -> Finding:
    """Build a network, record it, and compare."""
    torch.manual_seed(0)
    start = time.perf_counter()
    try:
        with quiet(), torch.device("meta") if candidate.meta else contextlib.nullcontext():
            net = candidate.build().eval()
    except Exception as error:
        finding = Finding(candidate, "not built", says=first_line(error))
    else:
        with quiet():
            finding = recorded(candidate, net)
    says = "" if finding.result == "recorded" else finding.says
    seconds = time.perf_counter() - start
    print(
        f"{seconds:5.1f} s  {finding.result:9} {candidate.family} {candidate.name}  {finding.pool} {says}",
        file=sys.stderr,
    )
    return finding


def first_line(error: Exception) -> str:
    """Format a library's error in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason'])[0][:150]}"


def recorded(candidate: Candidate, net: nn.Module) -> Finding:
    """Record a network and compare with its references."""
    try:
        if candidate.meta:
            attention_modules(net)
            net = candidate.build().eval()
        images = images_of(candidate, net)
        if hasattr(net, "text_model"):
            with record(net):
                net(input_ids=torch.tensor([[1, 2, 2]] * len(images)), pixel_values=images)
        sharpen_attention(net.double(), images)
        if attends_in_windows(net) and isinstance(images, Tensor):
            return in_windows(candidate, net, images)
        with record(net, gradients=True) as recording:
            run(net, images)
        with torch.no_grad(), record(net) as plain:
            run(net, images)
        order = order_of(token_layout(net, images))
    except UserError as error:
        return Finding(candidate, "refused", says=str(error))
    except Exception as error:  # of the network's own, without us
        return Finding(candidate, "not run", says=first_line(error))
    try:
        maps, unfused_output = softmaxes(unfused(candidate, net), images)
        error = compare_weights(recording, maps, order)
        row = default_row(recording, plain)
        check_order(net, images, recording)
        if row is None:
            return Finding(candidate, "recorded", "no default query", weights=error)
        check_row(net, images, row, recording.pool)
        related = compare_relevance(recording, maps, unfused_output, row, order)
        return Finding(candidate, "recorded", pool_name(recording), weights=error, relevance=related)
    except Wrong as error:
        return Finding(candidate, "wrong", says=str(error))


def in_windows(candidate: Candidate, net: nn.Module, images: Tensor) -> Finding:
    """Record a network that attends within windows and compare its raw maps."""
    with torch.no_grad(), record(net) as recording:
        net(images)
    try:
        with torch.no_grad():
            maps, _ = softmaxes(unfused(candidate, net), images, heads_are_apart=False)
        error = compare_windows(recording, maps, net, images)
        return Finding(candidate, "recorded", "raw maps only", weights=error)
    except Wrong as error:
        return Finding(candidate, "wrong", says=str(error))


def unfused(candidate: Candidate, net: nn.Module) -> nn.Module:
    """Build the same network without fused attention."""
    twin = candidate.build(unfused=True).eval().double()
    twin.load_state_dict(net.state_dict())
    attentions: Any = twin.modules()
    for module in attentions:
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return twin


def table(findings: list[Finding]) -> str:
    """Format the table, with one row per family and result; a library's networks without attention share one row."""
    rows: dict[tuple[str, ...], list[Finding]] = {}
    for each in findings:
        kind = shape_of(each)
        family = "" if "no attention modules" in kind else each.candidate.family
        rows.setdefault((each.candidate.package, family, each.result, each.pool, kind), []).append(each)
    lines = [
        "| library | family | networks | result | default query | largest error | of relevance |",
        "|---|---|---|---|---|---|---|",
    ]
    for (library, family, result, pool, kind), found in sorted(rows.items()):
        names = ", ".join(sorted({each.candidate.name if family else each.candidate.family for each in found}))
        if library == "timm" and family and len(found) > 4:
            names = f"{len(found)}: {found[0].candidate.name} … {found[-1].candidate.name}"
        right = result == "recorded"
        errors = [f"{max(getattr(each, of) for each in found):.0e}" if right else "" for of in ("weights", "relevance")]
        errors[1] = "" if pool in ("no default query", "raw maps only") else errors[1]
        text = result if right else f"{result}: {kind}"
        lines.append(f"| {library} | {family} | {names} | {text} | {pool} | {' | '.join(errors)} |")
    return "\n".join(lines)


def shape_of(finding: Finding) -> str:
    """Shorten a message to fit the table, without the network's name and numbers."""
    kind = "has no attention modules to record" if "no attention modules" in finding.says else finding.says
    kind = kind.partition(": register_layout")[0]
    kind = re.sub(
        r"(scaled_dot_product_attention|queries and keys|more than once a forward)(:| in| are).*", r"\1", kind
    )
    return "" if finding.result == "recorded" else re.sub(r"\s*\|\s*", " ", kind)[:160]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


if __name__ == "__main__":
    sys.exit(main())
