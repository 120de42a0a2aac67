"""Steps of ``judge``: load a network and its images, evaluate its attention maps, write tables, files and a figure."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import nn

from vit_attn.attention_maps.evaluation.batch import EvalBatch
from vit_attn.attention_maps.evaluation.ground_truth import ground_truth_patches, why_ground_truth_is_unused
from vit_attn.attention_maps.evaluation.report import KNOCKED_OUT, judge_network
from vit_attn.attention_maps.recording.token_layout import token_layout
from vit_attn.checkpoints.finetune import resolve_start
from vit_attn.checkpoints.io import find_card, weights_file
from vit_attn.checkpoints.model_card import DATA_ARGS
from vit_attn.checkpoints.weights import load_weights
from vit_attn.commands.parsing.yaml_limits import load_yaml
from vit_attn.commands.run.checkpoint import run_folder
from vit_attn.commands.run.messages import route_messages
from vit_attn.commands.run.stored_config import evaluation_settings, read_run_config
from vit_attn.console import CONSOLE
from vit_attn.data import ImageData
from vit_attn.data_protocol import ProbeData
from vit_attn.errors import UserError, one_line
from vit_attn.inference.network import open_checkpoint, pick_device
from vit_attn.model.build import build_net
from vit_attn.plotting.curves import draw_curves
from vit_attn.reports import faithfulness
from vit_attn.reports.progress_report import ProgressReport

FILES = ("methods.csv", "comparisons.csv", "knockouts.csv", "curves.png")


def judge(args: argparse.Namespace) -> int:
    """Run the command with these options.

    Returns:
        The exit code.
    """
    if args.images < 2:
        raise UserError(f"images must be at least 2, got {args.images}")
    if args.seed < 0:
        raise UserError(f"seed must be at least 0, got {args.seed}")
    route_messages()
    batch, name, dataset = load(args, str(pick_device(args.device)))
    progress = ProgressReport("judge: part", float("inf"))
    report = judge_network(batch, args.seed, on_progress=progress.advance_to)
    folder = Path(args.out or Path(_run_of(args) or ".", "judge"))
    folder.mkdir(parents=True, exist_ok=True)
    methods, comparisons, knockouts, curves = written = [folder / file for file in FILES]
    faithfulness.write_methods(methods, report.methods)
    faithfulness.write_comparisons(comparisons, report)
    faithfulness.write_knockouts(knockouts, report)
    title = f"{name}: {dataset}, {len(batch.images)} images"
    Image.fromarray(draw_curves(report.curves, title, errors=report.curve_errors)).save(curves, optimize=True)
    CONSOLE.say(f"{title}, accuracy {report.accuracy:.4f}\nmean over the images ± standard error\n\n")
    tables = (faithfulness.method_table, faithfulness.comparison_table, faithfulness.knockout_table)
    CONSOLE.say("\n".join(table(report) for table in tables))
    CONSOLE.say(f"\nwritten: {', '.join(map(str, written))}")
    return 0


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
            CONSOLE.say(f"vit-attn: {one_line(f'{weights}: {change}')}", sys.stderr)
    return eval_batch_of(net.eval().to(device), data, args.images, device), arch, _dataset(args)


def _check_classes(weights: str | None, data: ImageData) -> None:
    """Apply the normalisation and class order of a file of weights; refuse one of other classes."""
    card = find_card(weights) if weights and weights_file(weights) else None
    if card is not None and card.label_names and card.mean and len(card.label_names) == data.num_classes:
        data.load_state_dict(card.data_state())


def eval_batch_of(net: nn.Module, data: ProbeData, count: int, device: str) -> EvalBatch:
    """Combine a network and the first probe images of a data module, normalised, with their ground truth."""
    probe = data.probe(count)
    images = data.normalize(probe.images.to(device))
    layout = token_layout(net, images)
    if reason := why_ground_truth_is_unused(probe, layout):
        CONSOLE.say(f"vit-attn: {reason}", sys.stderr)
    patches = layout.grid_size[0] * layout.grid_size[1]
    if patches < max(KNOCKED_OUT):
        CONSOLE.say(
            f"vit-attn: the network has {patches} patches: the knock-out of the {max(KNOCKED_OUT)} top-ranked ones is "
            "left out",
            sys.stderr,
        )
    return EvalBatch(net, images, probe.labels.to(device), ground_truth_patches(probe, layout, device))


def _data(args: argparse.Namespace) -> ImageData:
    name, settings = _dataset(args), _settings(args)
    own = settings if settings.get("dataset") == name else {}
    of_images = ("img_size", "channels", "normalize", "skip_corrupt", "columns", "bits", "held_out")
    kept = {setting: own[setting] for setting in of_images if setting in own}
    data = ImageData(name, root=args.root or settings.get("root"), batch_size=1, **kept)
    data.prepare_data()
    return data


def _dataset(args: argparse.Namespace) -> str:
    name = args.dataset or _settings(args).get("dataset")
    if name is None:
        raise UserError(
            "no data set is known: the weights are not in the folder of a run with a config.yaml, so add --dataset NAME"
        )
    return name


def _settings(args: argparse.Namespace) -> Mapping[str, Any]:
    """Read the data settings of the checkpoint's run; empty without a run."""
    folder = _run_of(args)
    return evaluation_settings(read_run_config(folder / "config.yaml")).get("data", {}) if folder else {}


def _run_of(args: argparse.Namespace) -> Path | None:
    return run_folder(args.ckpt_path)


def _key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse options such as ``depth=3``, values as YAML reads them."""
    if wrong := [pair for pair in pairs if not pair.partition("=")[0] or "=" not in pair]:
        raise UserError(f"arch_options must be KEY=VALUE, got {', '.join(wrong)}")
    try:
        return {name: load_yaml(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    except yaml.YAMLError as error:
        raise UserError(f"arch_options must be KEY=VALUE: {' '.join(str(error).split())}") from error
