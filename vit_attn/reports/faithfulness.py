"""Tables and CSV files of how faithful a network's attention maps are."""

import csv
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from vit_attn.attention_maps.evaluation.baselines import RANDOM_ORDERS, Relation
from vit_attn.attention_maps.evaluation.ground_truth import region_title
from vit_attn.attention_maps.evaluation.knockouts import KnockoutEffect
from vit_attn.attention_maps.evaluation.report import COMPARED, FaithfulnessReport, MetricRow, mean_and_error
from vit_attn.reports.text_table import WIDTH, format_table

HEADINGS = {
    "deletion": "deletion",
    "insertion": "insertion",
    "logit_8": "logit -8",
    "accuracy_8": "acc. -8",
    "head_randomised": "new head",
    "all_randomised": "all new",
}
"""Measures that the table shows; the regions of the pointing game follow."""
THREE_DECIMALS = ("deletion", "insertion")
LEGEND = """\
deletion, insertion: area under the predicted class's probability as patches go
    (low is good) or come (high is good)
logit -8, acc. -8: change when attention to the 8 top-ranked patches is knocked
    out in all layers
new head, all new: rank correlation with the map of the network with its head,
    or all weights, re-initialised
"""
RELATIONS: dict[tuple[Relation, Relation], str] = {
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
"""Words for the relations of a method to random orders and to centre first; others are ``unknown``, as those of NaN."""
COMPARISON_LEGEND = f"""\
A difference counts if it exceeds chance: a margin of 95 % over the images and
over {RANDOM_ORDERS} random orders of each. A method that is not better than both has shown
nothing.
"""


def write_methods(path: Path, methods: Mapping[str, MetricRow]) -> None:
    """Write every measure of every method, with its standard error, as CSV."""
    names = list(next(iter(methods.values())).columns())
    header = ["method", *(column for name in names for column in (name, f"{name}_error"))]
    _write(path, header, ([label, *_cells(list(row.columns().values()))] for label, row in methods.items()))


def write_comparisons(path: Path, report: FaithfulnessReport) -> None:
    """Write each method's measures next to the baselines', with the margins of differences, as CSV."""
    numbers = ("value", "random", "random_margin", "centre_first", "centre_first_margin")
    rows = (
        [method, name, *(f"{value:.4f}" for value in comparison), *comparison.relations(COMPARED[name])]
        for method, measures in report.comparisons.items()
        for name, comparison in measures.items()
    )
    _write(path, ["method", "measure", *numbers, "than_random", "than_centre_first"], rows)


def write_knockouts(path: Path, report: FaithfulnessReport) -> None:
    """Write the effects of all knocked-out edges and ablated heads, with their standard errors, as CSV."""
    rows = ([name, *_cells((effect.logit, effect.accuracy))] for name, effect in knockouts(report).items())
    _write(path, ["knockout", "logit", "logit_error", "accuracy", "accuracy_error"], rows)


def knockouts(report: FaithfulnessReport) -> dict[str, KnockoutEffect]:
    """Effects of knocked-out edges and ablated heads by name; layers and heads count from 1."""
    heads = {f"layer {layer + 1} head {head + 1}": effect for (layer, head), effect in report.heads.items()}
    return report.edges | heads


def method_table(report: FaithfulnessReport) -> str:
    """Table of methods by measures and regions that are defined, and its legend."""
    first = next(iter(report.methods.values()))
    shown = [name for name in (*HEADINGS, *first.pointing) if not first.columns()[name].isnan().all()]
    rows = [["method", *(HEADINGS.get(name, region_title(name)) for name in shown)]]
    for label, row in report.methods.items():
        columns = row.columns()
        rows.append([label, *(_short(columns[name], 3 if name in THREE_DECIMALS else 2) for name in shown)])
    return f"{format_table(rows)}\n{LEGEND}{_pointing_legend(list(first.pointing))}"


def comparison_table(report: FaithfulnessReport) -> str:
    """Table of each method's relations to the baselines, and its legend."""
    shown = next(iter(report.comparisons.values()))
    rows = [["beside random and centre", *(HEADINGS[name] for name in shown)]]
    for method, measures in report.comparisons.items():
        relations = (measures[name].relations(COMPARED[name]) for name in shown)
        rows.append([method, *(RELATIONS.get(relation, "unknown") for relation in relations)])
    return format_table(rows) + COMPARISON_LEGEND


def knockout_table(report: FaithfulnessReport) -> str:
    """Table of the effects of knocked-out edges, and of the change of accuracy without each head."""
    text = ""
    if report.edges:
        rows = [["knocked-out edges, all layers", "logit", "accuracy"]]
        rows += [[name, _short(effect.logit), _short(effect.accuracy)] for name, effect in report.edges.items()]
        text = format_table(rows) + "\n"
    layers, heads = (1 + max(key[axis] for key in report.heads) for axis in (0, 1))
    rows = [["change of accuracy without", *(f"head {head + 1}" for head in range(heads))]]
    for layer in range(layers):
        effects = [report.heads[layer, head] for head in range(heads) if (layer, head) in report.heads]
        rows.append([f"layer {layer + 1}", *(f"{effect.accuracy.mean():+.3f}" for effect in effects)])
    return text + format_table(rows)


def _pointing_legend(regions: Sequence[str]) -> str:
    if not regions:
        return ""
    names = ", ".join(map(region_title, regions))
    text = f"{names}: fraction of images whose top-ranked patch is in this region (pointing game)"
    return textwrap.fill(text, WIDTH, subsequent_indent="    ") + "\n"


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _cells(columns: Sequence[Tensor]) -> list[str]:
    cells = [f"{value:.4f}" for column in columns for value in mean_and_error(column)]
    return ["" if cell == "nan" else cell for cell in cells]


def _short(values: Tensor, digits: int = 3) -> str:
    mean, error = mean_and_error(values)
    if math.isnan(error):  # of a single image
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f}±{error:.{digits}f}".replace("±0.", "±.")
