"""Cuts in words, and as lines of Python that repeat them."""

from collections.abc import Sequence

from vit_attn.attention_maps.recording.layout import HasPooling, is_attention_pool
from vit_attn.attention_maps.recording.tokens import token_name
from vit_attn.explore.cuts import (
    Cut,
    EdgeGroup,
    HeadCut,
    PatchCut,
    ablated_heads,
    edge_groups,
    first_pooled,
    pooled_tokens,
)
from vit_attn.explore.subject import Subject


def describe_cut(cut: Cut, layout: HasPooling, prefix: Sequence[str]) -> str:
    """Say in a sentence what a cut removes; layers and heads count from 1.

    Args:
        cut: The cut.
        layout: Recording or token layout of the network.
        prefix: Names of its prefix tokens.
    """

    def name(token: int) -> str:
        return token_name(token, layout, list(prefix))

    if isinstance(cut, HeadCut):
        return f"layer {cut.layer + 1}, head {cut.head + 1} gives zeros"
    if isinstance(cut, PatchCut):
        pool = " nor the attention pool" if is_attention_pool(layout.global_pool) else ""
        return f"no other token{pool} attends to {name(cut.token)}, in all layers and heads"
    if cut.query is None and is_attention_pool(layout.global_pool):
        return f"the attention pool does not attend to {name(cut.key)}"
    layers = "all layers" if cut.layer is None else f"layer {cut.layer + 1}"
    heads = "all heads" if cut.head is None else f"head {cut.head + 1}"
    if cut.query is not None:
        return f"{name(cut.query)} does not attend to {name(cut.key)}, in {layers}, {heads}"
    tokens = pooled_tokens(layout)
    pooled = " and ".join(map(name, tokens)) if len(tokens) <= 2 else f"all {len(tokens)} tokens that are averaged"
    return f"{pooled} {'do' if len(tokens) > 1 else 'does'} not attend to {name(cut.key)}, in {layers}, {heads}"


def code_of(cuts: Sequence[Cut], subject: Subject) -> str:
    """Write lines of Python that make the cuts in the same network and picture, with public names only.

    Args:
        cuts: The cuts.
        subject: Network and picture.
    """
    layout, width = subject.recording, subject.recording.num_tokens
    lines, contexts, used = [], ["torch.no_grad()"], []
    for number, group in enumerate(edge_groups(cuts, layout), start=1):
        name, arguments = f"cut_{number}", []
        if parts := _edges_code(group, width):
            lines.append(f"{name} = {' | '.join(parts)}")
            arguments.append(name)
        arguments += [
            f"{of}={list(chosen)}" for of in ("layers", "heads") if (chosen := getattr(group, of)) is not None
        ]
        if group.pooled:
            lines.append(f"pool = torch.zeros(1, {width - first_pooled(layout)}, dtype=torch.bool)")
            lines.append(f"pool[:, {list(group.pooled)}] = True")
            arguments.append("pool=pool")
        used += ["edges"] * bool(parts) + ["knockout"]
        contexts.append(f"knockout(net, {', '.join(arguments)})")
    if heads := ablated_heads(cuts):
        used.append("ablate")
        contexts.append(f"ablate(net, {heads})")
    imports = [f"from vit_attn.attention_maps import {', '.join(sorted(set(used)))}"] if used else []
    said = [f"# {describe_cut(cut, layout, subject.prefix)}" for cut in cuts]
    return "\n".join([*_opening(subject, imports), "", *said, *lines, *_run_code(contexts)]) + "\n"


def _opening(subject: Subject, imports: Sequence[str]) -> list[str]:
    """Lines that import, open the network and read the picture."""
    given = {"weights": subject.weights, "img_size": subject.img_size}
    options = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
    whole, fit = subject.fit == "whole", "" if subject.fit == "auto" else f", {subject.fit!r}"
    return [
        "import torch",
        "",
        *imports,
        "from vit_attn.data.images.image_file import read_picture",
        "from vit_attn.inference.images import seen_picture, to_batch",
        f"from vit_attn.inference.network import {'network_for_fit, ' if whole else ''}open_network",
        "",
        f"network = open_network({subject.model!r}{options})",
        *(['network = network_for_fit(network, "whole")'] if whole else []),
        "net = network.net",
        *(["# the picture was sent to the page: put the path of its file here"] if subject.is_sent else []),
        f"picture = read_picture({subject.picture!r}, network.card.in_chans, network.card.bits)",
        f'images = to_batch([seen_picture(picture, network{fit})], network, torch.device("cpu"))',
    ]


def _run_code(contexts: Sequence[str]) -> list[str]:
    """Lines that run the network without and within the contexts."""
    if len(contexts) == 1:
        return [f"with {contexts[0]}:", "    logits = net(images)"]
    return [
        "with torch.no_grad():",
        "    before = net(images)",
        "with (",
        *(f"    {each}," for each in contexts),
        "):",
        "    logits = net(images)",
        "print((logits - before)[0, before.argmax()].item())  # change of the predicted class's logit",
    ]


def _edges_code(group: EdgeGroup, tokens: int) -> list[str]:
    """Expressions whose union is the group's mask."""
    parts = [f"edges({tokens}, {_indices(queries)}, {_indices(keys)})" for queries, keys in group.edges]
    if group.patches:  # a patch still attends to itself
        parts.insert(0, f"edges({tokens}, range({tokens}), {_indices(group.patches)}).fill_diagonal_(False)")
    return parts


def _indices(chosen: Sequence[int]) -> str:
    """Write indices as a list, or a longer row of them as a range.

    >>> _indices([3, 5]), _indices(range(1, 65))
    ('[3, 5]', 'range(1, 65)')
    """
    first, last = chosen[0], chosen[-1] + 1
    return f"range({first}, {last})" if len(chosen) > 3 and len(chosen) == last - first else str(list(chosen))
