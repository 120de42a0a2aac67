"""Tables and CSV files of how faithful a network's attention maps are."""

import csv
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from vit_attn.attention_maps.evaluation.baselines import RANDOM_ORDERS
from vit_attn.attention_maps.evaluation.ground_truth import region_title
from vit_attn.attention_maps.evaluation.intervals import CHANGES, HITS, Interval, Relation, mean_interval
from vit_attn.attention_maps.evaluation.knockouts import KnockoutEffect
from vit_attn.attention_maps.evaluation.report import COMPARED, FaithfulnessReport, MetricRow, mean_and_error
from vit_attn.files import whole_file
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
mean over the images ± half of its 95 % interval
deletion, insertion: area under the predicted class's probability as patches go
    (low is good) or come (high is good)
{changes}: change when attention to the 8 top-ranked patches is knocked
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
BEST_LEGEND = """\
Methods are compared with each other image by image. A difference counts if its
interval, of 95 % for all pairs of methods at once, does not hold 0, and if it
exceeds 0.01. pairs.csv has every pair.
"""
HEADS_LEGEND = """\
* the interval of the change, of 95 % for all heads at once, does not hold 0
"""


def write_methods(path: Path, report: FaithfulnessReport) -> None:
    """Write every measure of every method, with its standard error and 95 % interval over the images, as CSV."""
    rows = {label: _known(row.columns(), report) for label, row in report.methods.items()}
    header = ["method", *_column_names(next(iter(rows.values())))]
    _write(path, header, ([label, *_cells(columns)] for label, columns in rows.items()))


def write_comparisons(path: Path, report: FaithfulnessReport) -> None:
    """Write each method's measures next to the baselines' and the best method's, with margins or intervals, as CSV."""
    numbers = ("value", "random", "random_margin", "centre_first", "centre_first_margin")
    header = ["method", "measure", *numbers, "than_random", "than_centre_first"]
    rows = [
        [
            *(method, name),
            *(f"{value:.4f}" for value in comparison),
            *comparison.relations(COMPARED[name]),
            *_beside_best(report, method, name),
        ]
        for method, measures in report.comparisons.items()
        for name, comparison in measures.items()
    ]
    _write(path, [*header, "best", "minus_best", "minus_best_low", "minus_best_high", "than_best"], rows)


def _beside_best(report: FaithfulnessReport, method: str, measure: str) -> list[str]:
    """Cells of the best method, of the difference from it and of the relation to it; the best is as good as itself."""
    between = report.between[measure]
    if method == between.best:
        return [method, "", "", "", "best"]
    difference = _numbers(between.differences[method, between.best])
    return [between.best, *difference, between.relation(method, between.best)]


def write_pairs(path: Path, report: FaithfulnessReport) -> None:
    """Write the differences of every two methods on the same images, with intervals for all pairs at once, as CSV."""
    rows = (
        [method, other, measure, *_numbers(difference), between.relation(method, other)]
        for measure, between in report.between.items()
        for (method, other), difference in between.differences.items()
    )
    _write(path, ["method", "other", "measure", "difference", "low", "high", "than_other"], rows)


def write_knockouts(path: Path, report: FaithfulnessReport) -> None:
    """Write the effects of all knocked-out edges and ablated heads, with errors and 95 % intervals, as CSV."""
    rows = {name: _known(vars(effect), report) for name, effect in knockouts(report).items()}
    header = ["knockout", *_column_names(next(iter(rows.values())))]
    _write(path, header, ([name, *_cells(columns)] for name, columns in rows.items()))


def knockouts(report: FaithfulnessReport) -> dict[str, KnockoutEffect]:
    """Effects of knocked-out edges and ablated heads by name; layers and heads count from 1."""
    heads = {f"layer {layer + 1} head {head + 1}": effect for (layer, head), effect in report.heads.items()}
    return report.edges | heads


def method_table(report: FaithfulnessReport) -> str:
    """Table of methods by measures and regions that are defined, and its legend."""
    first = next(iter(report.methods.values()))
    known = _known(first.columns(), report)
    shown = [name for name in (*HEADINGS, *first.pointing) if name in known and not known[name].isnan().all()]
    rows = [["method", *(HEADINGS.get(name, region_title(name)) for name in shown)]]
    for label, row in report.methods.items():
        columns = row.columns()
        rows.append([label, *(_short(name, columns[name], 3 if name in THREE_DECIMALS else 2) for name in shown)])
    changes = ", ".join(HEADINGS[name] for name in ("logit_8", "accuracy_8") if name in known)
    return f"{format_table(rows)}\n{LEGEND.format(changes=changes)}{_pointing_legend(list(first.pointing))}"


def comparison_table(report: FaithfulnessReport) -> str:
    """Table of each method's relations to the baselines, and its legend."""
    shown = next(iter(report.comparisons.values()))
    rows = [["beside random and centre", *(HEADINGS[name] for name in shown)]]
    for method, measures in report.comparisons.items():
        relations = (measures[name].relations(COMPARED[name]) for name in shown)
        rows.append([method, *(RELATIONS.get(relation, "unknown") for relation in relations)])
    return format_table(rows) + COMPARISON_LEGEND


def best_methods(report: FaithfulnessReport) -> str:
    """Text about the method with the best mean by each measure, and those that are no worse than it."""
    text = ""
    for measure, between in report.between.items():
        ties = ", ".join(between.ties()) or "none"
        line = f"{HEADINGS[measure]}: {between.best} is best; no measurable difference from it: {ties}"
        text += textwrap.fill(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False) + "\n"
    return text + BEST_LEGEND


def knockout_table(report: FaithfulnessReport) -> str:
    """Table of the effects of knocked-out edges, and of the change of accuracy without each head."""
    text = ""
    if report.edges:
        shown = {name: _known(vars(effect), report) for name, effect in report.edges.items()}
        rows = [["knocked-out edges, all layers", *next(iter(shown.values()))]]
        rows += [[name, *(_short(*column) for column in columns.items())] for name, columns in shown.items()]
        text = format_table(rows) + "\n"
    layers, heads = (1 + max(key[axis] for key in report.heads) for axis in (0, 1))
    changed = "logit" if report.accuracy is None else "accuracy"
    rows = [[f"change of {changed} without", *(f"head {head + 1}" for head in range(heads))]]
    for layer in range(layers):
        effects = [
            getattr(report.heads[layer, head], changed) for head in range(heads) if (layer, head) in report.heads
        ]
        rows.append([f"layer {layer + 1}", *(_marked(changed, effect, len(report.heads)) for effect in effects)])
    return text + format_table(rows) + HEADS_LEGEND


def _marked(name: str, effect: Tensor, statements: int) -> str:
    """Mean with a star if its interval, which holds for all statements at once, does not hold 0."""
    mean, low, high = _interval(name, effect, statements)
    return f"{mean:+.3f}" + ("*" if low > 0 or high < 0 else "")


def _pointing_legend(regions: Sequence[str]) -> str:
    if not regions:
        return ""
    names = ", ".join(map(region_title, regions))
    text = f"{names}: fraction of images whose top-ranked patch is in this region (pointing game)"
    return textwrap.fill(text, WIDTH, subsequent_indent="    ") + "\n"


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with whole_file(path, "table") as file:
        file.write(text.getvalue().encode())


def _known(columns: Mapping[str, Tensor], report: FaithfulnessReport) -> dict[str, Tensor]:
    """Leave out measures of accuracy where labels are unknown."""
    known = report.accuracy is not None
    return {name: values for name, values in columns.items() if known or not name.startswith("accuracy")}


def _column_names(names: Iterable[str]) -> list[str]:
    return [f"{name}{suffix}" for name in names for suffix in ("", "_error", "_low", "_high")]


def _cells(columns: Mapping[str, Tensor]) -> list[str]:
    """Mean, standard error and bounds of the 95 % interval of each column."""
    numbers = []
    for name, values in columns.items():
        mean, low, high = _interval(name, values)
        numbers += [mean, mean_and_error(values)[1], low, high]
    return _numbers(numbers)


def _interval(name: str, values: Tensor, statements: int = 1) -> Interval:
    """Interval of a measure; accuracy and the pointing game count outcomes."""
    counted = CHANGES if name.startswith("accuracy") else () if name in (*MetricRow._fields, "logit") else HITS
    return mean_interval(values, statements, counted)


def _numbers(values: Iterable[float]) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.4f}" for value in values]


def _short(name: str, values: Tensor, digits: int = 3) -> str:
    interval = _interval(name, values)
    if math.isnan(interval.margin):  # of a single image
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f}±{interval.margin:.{digits}f}".replace("±0.", "±.")
