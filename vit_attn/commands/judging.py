"""What ``judge`` does: load a network and its images, judge, and tell it as a table, as files and as a figure."""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

from vit_attn.attention_maps.evaluation.baselines import RANDOM_ORDERS, Relation
from vit_attn.attention_maps.evaluation.faithfulness import Change
from vit_attn.attention_maps.evaluation.ground_truth import ground_truth, said_of
from vit_attn.attention_maps.evaluation.report import (
    KNOCK_OUTS,
    VERDICTS,
    EvalBatch,
    FaithfulnessReport,
    GroundTruthPatches,
    MetricRow,
    judge_network,
    mean_and_error,
)
from vit_attn.attention_maps.recording.token_layout import TokenLayout, layout_of
from vit_attn.checkpoints.finetune import resolve_start
from vit_attn.checkpoints.io import find_card, weights_file
from vit_attn.checkpoints.model_card import DATA_ARGS
from vit_attn.checkpoints.weights import load_weights
from vit_attn.commands.parsing.yaml_limits import load_yaml
from vit_attn.commands.run.checkpoint import run_folder
from vit_attn.commands.run.stored_config import read_run_config, settings_to_measure
from vit_attn.data import ImageData
from vit_attn.data.module import Probe
from vit_attn.errors import UserError, one_line
from vit_attn.inference.network import open_checkpoint, pick_device
from vit_attn.plotting.curves import draw_curves
from vit_attn.task import build_net

HEADINGS = {
    "deletion": "deletion",
    "insertion": "insertion",
    "logit_8": "logit -8",
    "accuracy_8": "acc. -8",
    "head_randomised": "new head",
    "all_randomised": "all new",
    "bought": "bought",
    "any_coin": "any coin",
}
COARSE = ("logit_8", "head_randomised", "all_randomised")
"""Measures of which two decimals are shown."""
LEGEND = """\
deletion, insertion   area under the named class's probability while patches go, come: low, high is good
logit -8, acc. -8     change when attention to the map's 8 first patches is cut in all layers
new head, all new     rank correlation with the map of the network whose head, or all weights, are drawn anew
bought, any coin      share of images whose first patch is the bought coin, or any coin
"""
WORDS: dict[tuple[Relation, Relation], str] = {
    ("better", "better"): "better than both",
    ("better", "no measurable difference"): "better than random only",
    ("no measurable difference", "better"): "better than centre only",
    ("better", "worse"): "between the two",
    ("worse", "better"): "between the two",
    ("no measurable difference", "no measurable difference"): "no measurable difference",
    ("worse", "no measurable difference"): "worse than random",
    ("no measurable difference", "worse"): "worse than centre",
    ("worse", "worse"): "worse than both",
}
"""How a method stands to random orders and to centre first; from one that is not named it differs by nothing
measurable."""
VERDICT_LEGEND = f"""\
A difference counts where it is larger than chance makes it, by 95 % over the images and over {RANDOM_ORDERS} random
orders of each. What is not better than both has shown nothing.
"""


def judge(args: argparse.Namespace) -> int:
    """Run the verb with these options; the exit code."""
    if args.images < 2:
        raise UserError(f"images must be at least 2, got {args.images}")
    if args.seed < 0:
        raise UserError(f"seed must be at least 0, got {args.seed}")
    device = str(pick_device(args.device))
    case, name, dataset = load(args, device)
    verdict = judge_network(case, args.seed)
    folder = Path(args.out or Path(_run_of(args) or ".", "judge"))
    folder.mkdir(parents=True, exist_ok=True)
    write(verdict, folder)
    title = f"{name}: {dataset}, {len(case.images)} images"
    Image.fromarray(draw_curves(verdict.curves, title)).save(folder / "curves.png", optimize=True)
    sys.stdout.write(f"{title}, accuracy {verdict.accuracy:.4f}; mean over the images ± standard error\n\n")
    sys.stdout.write(table(verdict) + "\n" + LEGEND + "\n" + verdict_table(verdict) + VERDICT_LEGEND + "\n")
    sys.stdout.write(knockout_table(verdict))
    sys.stdout.write(f"\nwritten: {', '.join(str(folder / each) for each in FILES)}\n")
    return 0


FILES = ("methods.csv", "verdicts.csv", "knockouts.csv", "curves.png")


def load(args: argparse.Namespace, device: str) -> tuple[EvalBatch, str, str]:
    """Load the network and its validation images.

    Returns:
        The images with the network, the network's name and the data set's.

    Raises:
        UserError: If no network is named, if its weights are unknown, or if network and data set disagree.
    """
    if args.ckpt_path is None and args.arch is None:
        raise UserError("judge needs a network: --ckpt_path RUN/checkpoints/best.ckpt, or --arch NAME --weights FILE")
    given = _key_values(args.arch_options)
    weights = args.weights or args.ckpt_path
    is_run = args.arch is None and str(args.ckpt_path).endswith(".ckpt")
    if is_run and (given or args.weights):
        raise UserError("a checkpoint brings its own options and weights: leave out --arch_options and --weights")
    if weights is None and not given.get("pretrained"):
        raise UserError("the network would be untrained: add --weights FILE, or --arch_options pretrained=true")
    if is_run:
        network = open_checkpoint(Path(args.ckpt_path))
        net, card = network.net, network.card
        data, arch = _data(args), card.architecture
        for name in DATA_ARGS:
            here, there = (tuple(torch.tensor(each).flatten()) for each in (getattr(data, name), card.model_args[name]))
            if here != there:
                raise UserError(
                    f"the checkpoint's network has {name}={card.model_args[name]}, but the data set has "
                    f"{getattr(data, name)}"
                )
        _check_classes(args.ckpt_path, data)
    else:
        start = resolve_start(weights, args.arch, given)
        data, arch = _data(args), start.arch
        _check_classes(weights, data)
        net = build_net(arch, data.num_classes, data.img_size, data.in_chans, start.arch_options)
        for change in load_weights(net, weights) if weights else ():
            sys.stderr.write(f"vit-attn: {one_line(f'{weights}: {change}')}\n")
    return case_of(net.eval().to(device), data, args.images, device), arch, _dataset(args)


def _check_classes(weights: str | None, data: ImageData) -> None:
    """Take the normalisation and order of classes of a file of weights; refuse those of other classes."""
    card = find_card(weights) if weights and weights_file(weights) else None
    if card is not None and card.label_names and card.mean and len(card.label_names) == data.num_classes:
        data.load_state_dict(card.data_state())


def case_of(net: torch.nn.Module, data: ImageData, count: int, device: str) -> EvalBatch:
    """A network and the first probe images of a data set, normalised."""
    probe = data.probe(count)
    images = data.normalize(probe.images.to(device))
    layout = layout_of(net, images)
    if said := said_of(probe, layout):
        sys.stderr.write(f"vit-attn: {said}\n")
    patches = layout.grid_size[0] * layout.grid_size[1]
    if patches < max(KNOCK_OUTS):
        sys.stderr.write(
            f"vit-attn: the network has {patches} patches: what cutting the {max(KNOCK_OUTS)} first does is left out\n"
        )
    return EvalBatch(net, images, probe.labels.to(device), places_of(probe, layout, device))


def places_of(probe: Probe, layout: TokenLayout, device: str) -> GroundTruthPatches | None:
    """Where the answers stand in the network's patches, as tensors."""
    parts = [ground_truth(probe, layout, name) for name in ("buyer", "bought", "any_coin")]
    return None if None in parts else GroundTruthPatches(*(torch.tensor(each, device=device) for each in parts))


def write(verdict: FaithfulnessReport, folder: Path) -> None:
    """The tables, every measure with its standard error or the margin above which a difference counts."""
    with (folder / "methods.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", *(name for each in MetricRow._fields for name in (each, f"{each}_error"))])
        for method, columns in verdict.methods.items():
            writer.writerow([method, *_cells(columns)])
    with (folder / "verdicts.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ("value", "random", "random_margin", "centre_first", "centre_first_margin")
        writer.writerow(["method", "measure", *columns, "than_random", "than_centre_first"])
        for method, measures in verdict.comparisons.items():
            for name, each in measures.items():
                writer.writerow([method, name, *(f"{value:.4f}" for value in each), *each.relations(VERDICTS[name])])
    with (folder / "knockouts.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["cut", "logit", "logit_error", "accuracy", "accuracy_error"])
        for name, change in knockouts(verdict).items():
            writer.writerow([name, *_cells((change.logit, change.accuracy))])


def knockouts(verdict: FaithfulnessReport) -> dict[str, Change]:
    """Edges that were cut and heads that were ablated, by what they are called; layers and heads count from 1."""
    heads = {f"layer {layer + 1} head {head + 1}": change for (layer, head), change in verdict.heads.items()}
    return verdict.edges | heads


def _cells(columns: Sequence[Tensor]) -> list[str]:
    cells = [f"{value:.4f}" for column in columns for value in mean_and_error(column)]
    return ["" if cell == "nan" else cell for cell in cells]


def table(verdict: FaithfulnessReport) -> str:
    """One row a method; no measure that cannot be had."""
    first: Any = next(iter(verdict.methods.values()))
    shown = [name for name in HEADINGS if not getattr(first, name).isnan().any()]
    rows = [["method", *(HEADINGS[name] for name in shown)]]
    for method, columns in verdict.methods.items():
        rows.append([method, *(_short(getattr(columns, name), 2 if name in COARSE else 3) for name in shown)])
    return _aligned(rows)


def verdict_table(verdict: FaithfulnessReport) -> str:
    """What each method's measures say beside random orders and centre first."""
    shown = next(iter(verdict.comparisons.values()))
    rows = [["beside random and centre first", *(HEADINGS[name] for name in shown)]]
    for method, measures in verdict.comparisons.items():
        relations = (measures[name].relations(VERDICTS[name]) for name in shown)
        rows.append([method, *(WORDS.get(each, "unknown") for each in relations)])
    return _aligned(rows)


def knockout_table(verdict: FaithfulnessReport) -> str:
    """What cut edges did to the logit and the accuracy, and what each head's absence did to the accuracy."""
    text = ""
    if verdict.edges:
        rows = [["edges cut in all layers", "logit", "accuracy"]]
        rows += [[name, _short(each.logit), _short(each.accuracy)] for name, each in verdict.edges.items()]
        text = _aligned(rows) + "\n"
    layers, heads = (1 + max(key[axis] for key in verdict.heads) for axis in (0, 1))
    rows = [["change of accuracy without", *(f"head {head + 1}" for head in range(heads))]]
    for layer in range(layers):
        of_layer = [verdict.heads[layer, head] for head in range(heads) if (layer, head) in verdict.heads]
        rows.append([f"layer {layer + 1}", *(f"{each.accuracy.mean():+.3f}" for each in of_layer)])
    return text + _aligned(rows)


def _short(values: Tensor, digits: int = 3) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f}±{error:.{digits}f}".replace("±0.", "±.")


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]  # noqa: B905  a layer may have fewer heads
        lines.append(" ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _data(args: argparse.Namespace) -> ImageData:
    name, settings = _dataset(args), _settings(args)
    own = settings if settings.get("dataset") == name else {}
    of_pictures = ("img_size", "channels", "normalize", "skip_damaged", "columns", "bits")
    kept = {each: own[each] for each in of_pictures if each in own}
    data = ImageData(name, root=args.root or settings.get("root"), batch_size=1, **kept)
    data.prepare_data()
    return data


def _dataset(args: argparse.Namespace) -> str:
    name = args.dataset or _settings(args).get("dataset")
    if name is None:
        raise UserError(
            "no data set is known: there is no config.yaml of a run beside the weights, so add --dataset NAME"
        )
    return name


def _settings(args: argparse.Namespace) -> Mapping[str, Any]:
    """What the run of the checkpoint says of its data."""
    folder = _run_of(args)
    return settings_to_measure(read_run_config(folder / "config.yaml")).get("data", {}) if folder else {}


def _run_of(args: argparse.Namespace) -> Path | None:
    return run_folder(args.ckpt_path)


def _key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """``depth=3`` as YAML reads it."""
    if wrong := [pair for pair in pairs if not pair.partition("=")[0] or "=" not in pair]:
        raise UserError(f"arch_options must be KEY=VALUE, got {', '.join(wrong)}")
    try:
        return {name: load_yaml(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    except yaml.YAMLError as error:
        raise UserError(f"arch_options must be KEY=VALUE: {' '.join(str(error).split())}") from error
