"""Report of a test as text for the terminal."""

from typing import Any

from rich.cells import cell_len

from vit_attn.errors import printable
from vit_attn.reports.text_table import pad, shorten_name

WORST_CLASSES = 10
"""Classes in the table if there are many."""
MAX_NAME = 26
"""Columns of a class name in the table, which has two of them beside its numbers."""


def report_text(report: dict[str, Any]) -> str:
    """Format a report: its metrics, then a table of the classes, or of the worst of many.

    Args:
        report: Content of ``test.json``.
    """
    top = {name: report[name] for name in ("top1", "top2", "top5") if name in report}
    numbers = {f"top-{name[3:]} accuracy": f"{value:.4f}" for name, value in top.items()} | {
        "mean class accuracy": f"{report['class_accuracy']:.4f}",
        "calibration error": f"{report['calibration_error']:.4f}  (expected, {report['calibration_bins']} bins)",
        "loss": f"{report['loss']:.4f}",
    }
    lines = [f"\ntest: {describe_images(report)}, step {report['step']:,} of the training"]
    lines += [f"  {name:<21}{value}" for name, value in numbers.items()]
    classes = [(number, each) for number, each in enumerate(report["classes"]) if each["images"]]
    shown, title = classes, "class"
    if len(classes) > 2 * WORST_CLASSES:
        shown = sorted(classes, key=lambda pair: pair[1]["accuracy"])[:WORST_CLASSES]
        title = f"the {WORST_CLASSES} worst of {len(classes)} classes"
    width = max(len(title), *(cell_len(_name(each)) for _, each in shown))
    lines.append(f"\n  {title:<{width}}  images  accuracy  commonest mistake")
    for number, each in shown:
        mistake = _mistake(report, number)
        lines.append(f"  {pad(_name(each), width)}  {each['images']:>6}  {each['accuracy']:>8.4f}  {mistake}".rstrip())
    return "\n".join(lines) + "\n"


def describe_images(report: dict[str, Any]) -> str:
    """Describe the images of a test: data set, number, split, and the setting that limits them.

    Args:
        report: Content of ``test.json``.
    """
    split = "validation" if report["split"] == "val" else "test"
    limited = f", limited by {report['limited']}" if report.get("limited") else ""
    return f"{report['dataset']}, {report['images']:,} {split} images{limited}"


def _mistake(report: dict[str, Any], number: int) -> str:
    """Name the wrong class that is predicted most often for a class, with its count."""
    if report["confusion"] is None:
        return ""
    row = list(report["confusion"][number])
    row[number] = 0
    most = max(range(len(row)), key=row.__getitem__)
    return f"{_name(report['classes'][most])} ({row[most]})" if row[most] else ""


def _name(entry: dict[str, Any]) -> str:
    """Shorten the name of a class to fit its column."""
    return shorten_name(printable(entry["name"]), MAX_NAME)
