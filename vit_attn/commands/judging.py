"""Steps of ``judge``: estimate time and memory, measure the images part by part, write tables and a figure."""

import argparse
import textwrap
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from vit_attn.attention_maps.evaluation.batch import EvalBatch, logits_by_batch
from vit_attn.attention_maps.evaluation.cost import RecordingSize, forwards_per_image, recording_size
from vit_attn.attention_maps.evaluation.measures import STEPS, JudgeSettings, PartMeasures, measure_part, merge_parts
from vit_attn.attention_maps.evaluation.report import FaithfulnessReport, check_regions, report_of
from vit_attn.attention_maps.evaluation.stored_parts import PartStore, Settings, fingerprint, stored_settings
from vit_attn.attention_maps.methods.registry import attribution_methods
from vit_attn.commands.judge_images import ImageSource
from vit_attn.commands.judge_input import JudgeInput, open_input
from vit_attn.commands.run.messages import route_messages
from vit_attn.console import CONSOLE
from vit_attn.errors import UserError
from vit_attn.inference.network import pick_device
from vit_attn.plotting.curves import draw_curves
from vit_attn.reports import faithfulness
from vit_attn.reports.epoch_log import format_left
from vit_attn.reports.progress_report import ProgressReport
from vit_attn.reports.text_table import WIDTH

NUM_IMAGES = 256
"""Images that are judged by default."""
COUNT = "number of images"
TABLES = {
    "methods.csv": faithfulness.write_methods,
    "comparisons.csv": faithfulness.write_comparisons,
    "pairs.csv": faithfulness.write_pairs,
    "knockouts.csv": faithfulness.write_knockouts,
}
UNLABELLED = (
    "the pictures have no labels: accuracy and its changes are left out, and every measure is of the predicted class"
)


class Plan(NamedTuple):
    """Work of an evaluation, as estimated before it starts.

    Args:
        size: Memory of the recording of one image.
        forwards: Forward passes per image.
        seconds: Seconds of one forward pass of one image, as measured in a batch.
        parameters: Bytes of the network's parameters.
    """

    size: RecordingSize
    forwards: int
    seconds: float
    parameters: int

    def minutes(self, images: int) -> float:
        """Minutes that these images take."""
        return images * self.forwards * self.seconds / 60

    def images_in(self, minutes: float) -> int:
        """Number of images that fit the minutes.

        Raises:
            UserError: If these are fewer than two.
        """
        count = int(minutes / self.minutes(1))
        if count < 2:
            raise UserError(
                f"two images take about {self.minutes(2):.1f} minutes here, so --minutes {minutes:g} is too few: ask "
                "for more, or take a smaller network or a GPU"
            )
        return count

    def memory(self, images: int) -> int:
        """Bytes beyond those of the loaded network: its copy with new weights, recordings of a part, and a forward."""
        forward = self.size.graph * self.size.forward_batch // self.size.layers
        return self.parameters + 2 * self.size.graph * min(images, self.size.images_at_once) + forward


def judge(args: argparse.Namespace) -> int:
    """Run the command with these options.

    Returns:
        The exit code.
    """
    _check(args)
    route_messages()
    judged = open_input(args, pick_device(args.device))
    first = _first_batch(judged.images)
    check_regions(first)
    plan = make_plan(first)
    folder = Path(args.output or Path(judged.run or ".", "judge"))
    settings = _settings(args, judged, plan)
    count = int(settings[COUNT] or 0)
    images = judged.images.select(count)
    store = PartStore(folder / "parts", settings)
    CONSOLE.say(_describe(plan, count))
    measures = measure_all(images, plan, JudgeSettings(args.seed, STEPS, plan.size.forward_batch), store)
    report = report_of(measures)
    written = write_results(report, folder, f"{judged.name}: {images.title}, {report.images} images")
    store.remove()
    CONSOLE.say(f"\nwritten: {', '.join(map(str, written))}")
    return 0


def make_plan(batch: EvalBatch) -> Plan:
    """Measure memory and time of one forward pass, and count the passes.

    Args:
        batch: Network and at least one image.
    """
    net, images = batch.net, batch.images[:1]
    size = recording_size(net, images)
    several = images.expand(min(size.forward_batch, 16), -1, -1, -1).contiguous()
    times = []
    for _ in range(2):  # the first also warms up
        start = time.perf_counter()
        logits_by_batch(net, several).cpu()  # waits for a GPU
        times.append(time.perf_counter() - start)
    parameters = sum(each.numel() * each.element_size() for each in net.parameters())
    return Plan(size, forwards_per_image(batch.part(slice(1)), STEPS), min(times) / len(several), parameters)


def measure_all(images: ImageSource, plan: Plan, settings: JudgeSettings, store: PartStore) -> PartMeasures:
    """Measure all images part by part, without the parts that are in the store; the others are added to it.

    Args:
        images: The images.
        plan: The work.
        settings: Settings of the evaluation.
        store: Finished parts.

    Raises:
        UserError: If none of the images can be read.
    """
    at_once = plan.size.images_at_once
    firsts = range(0, images.count, at_once)
    parts: dict[int, PartMeasures] = {}
    remaining = []
    for first in firsts:
        batch = images.part(slice(first, first + at_once)) if first in store else None
        found = None if batch is None else store.load(first, batch)
        if found is None:
            remaining.append(first)
        else:
            parts[first] = found
    if parts:
        done = sum(len(part["correct",]) for part in parts.values())
        CONSOLE.say(f"judge: goes on after {done:,} images, whose measures are in {store.folder}")
    progress = ProgressReport("judge: forward pass", plan.forwards * (images.count - at_once * len(parts)))
    passed = 0

    def advance(forwards: int) -> None:
        nonlocal passed
        passed += forwards
        progress.advance_to(passed)

    for first in remaining:
        if (batch := images.part(slice(first, first + at_once))) is not None:
            parts[first] = measure_part(batch, settings, first, advance)
            store.save(first, batch, parts[first])
    if not parts:
        raise UserError("none of the images could be read")
    return merge_parts([parts[first] for first in firsts if first in parts])


def write_results(report: FaithfulnessReport, folder: Path, title: str) -> list[Path]:
    """Write tables and figure to a folder, and the tables to the terminal; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in TABLES.items():
        write(folder / name, report)
    curves = folder / "curves.png"
    Image.fromarray(draw_curves(report.curves, title, margins=report.curve_margins)).save(curves, optimize=True)
    accuracy = "" if report.accuracy is None else f", accuracy {report.accuracy:.4f}"
    note = f"\n{textwrap.fill(UNLABELLED, WIDTH)}" if report.accuracy is None else ""
    CONSOLE.say(f"{title}{accuracy}{note}\n\n")
    tables = (
        faithfulness.method_table,
        faithfulness.comparison_table,
        faithfulness.best_methods,
        faithfulness.knockout_table,
    )
    CONSOLE.say("\n".join(table(report) for table in tables))
    return [*(folder / name for name in TABLES), curves]


def _check(args: argparse.Namespace) -> None:
    """Check numbers, and take a single number of ``--images`` as the number of images, as it was once called."""
    if args.images and len(args.images) == 1 and args.images[0].lstrip("+-").isdigit():
        if args.num_images is not None:
            raise UserError(f"--images {args.images[0]} is the number of images, which --num_images gives already")
        args.num_images, args.images = int(args.images[0]), None
    args.num_images = NUM_IMAGES if args.num_images is None else args.num_images
    if args.num_images < 2:
        raise UserError(f"the number of images must be at least 2, got {args.num_images}")
    if args.minutes is not None and not 0 < args.minutes < float("inf"):
        raise UserError(f"minutes must be above 0, got {args.minutes}")
    if args.seed < 0:
        raise UserError(f"seed must be at least 0, got {args.seed}")


def _first_batch(images: ImageSource) -> EvalBatch:
    """Read the first image that can be read.

    Raises:
        UserError: If there is none.
    """
    for first in range(images.count):
        if (batch := images.part(slice(first, first + 1))) is not None:
            return batch
    raise UserError("none of the images could be read")


def _settings(args: argparse.Namespace, judged: JudgeInput, plan: Plan) -> Settings:
    """Collect what determines the measures; the number of images is that of an unfinished evaluation, if one fits."""
    settings = {
        "network": judged.name,
        "weights": fingerprint(judged.net),
        "images": judged.images.title,
        "minutes": args.minutes,
        "seed": args.seed,
        "methods": ", ".join(method.name for method in attribution_methods().values() if method.supports(judged.net)),
        "device": next(judged.net.parameters()).device.type,
        "images at once": plan.size.images_at_once,
        "images in a forward": plan.size.forward_batch,
        "versions": f"vit-attn {version('vit-attn')}, torch {torch.__version__}",
    }
    stored = stored_settings(Path(args.output or Path(judged.run or ".", "judge")) / "parts")
    count = min(args.num_images, judged.images.count)
    if args.minutes is not None:
        if stored and all(stored.get(name) == value for name, value in settings.items()):
            count = min(count, int(stored[COUNT]))
        else:
            count = min(count, plan.images_in(args.minutes))
    return settings | {COUNT: count}


def _describe(plan: Plan, count: int) -> str:
    """Estimate of time and memory, in lines for the terminal."""
    duration = format_left(60 * plan.minutes(count)).removesuffix(" left")
    text = (
        f"judge: {count:,} images, {min(count, plan.size.images_at_once)} at once, {plan.forwards:,} forward passes "
        f"each: about {duration}, and {plan.memory(count) / 1e6:,.0f} MB of memory beside the network"
    )
    return textwrap.fill(text, WIDTH)
