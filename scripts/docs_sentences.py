"""Sentences of README and docs that state what a run shows, made from its numbers: words follow from the numbers.

``scripts/draw_docs.py`` puts them between ``<!-- from FILE: NAME -->`` and ``<!-- end -->``; the tests compare.
"""

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "docs/measured"
WIDTH = 124
RANKS = ("largest", "second largest", "third largest", "fourth largest", "fifth largest")
THE = {"last layer": "the last layer"}
COUNTS = ("none", "one", "two", "three", "four", "five", "six")
MARKED = re.compile(r"(<!-- from ([\w.]+): ([\w ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
Numbers = dict[str, Any]


def read(name: str) -> Numbers:
    """The numbers of a run."""
    return json.loads((MEASURED / name).read_text())


def percent(value: float) -> str:
    """Format a fraction as per cent, with as many digits as matter."""
    return f"{100 * value:.0f} %" if value >= 0.095 else f"{100 * value:.1f} %"


def rank(number: int) -> str:
    """Which of all values it is."""
    return RANKS[number - 1] if number <= len(RANKS) else f"{number}th largest"


def listed(words: Sequence[str]) -> str:
    """As a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def pictured(run: Numbers) -> str:
    """README: the two images, and on how many of them each method points to the bought coin."""
    images = run["images"][: run["pictured"]]
    of = COUNTS[len(images)]
    found = {name: sum(image["methods"][name]["bought"]["rank"] == 1 for image in images) for name in run["methods"]}
    by_count: dict[int, list[str]] = {}
    for name, count in found.items():
        by_count.setdefault(count, []).append(name)
    parts = []
    for count, names in sorted(by_count.items(), reverse=True):
        every = "both" if count == 2 else f"all {of}"
        where = every if count == len(images) else f"{COUNTS[count]} of the {of}"
        parts.append(f"{where} by {listed([THE.get(name, name) for name in names])}")
    said = "; in ".join(parts)
    return (
        f"*{of.capitalize()} generated images after `scripts/quickstart`. The class is the glyph of the coin that "
        "has the colour of the hollow square, the buyer (dotted); the bought coin (solid) can be anywhere. The "
        f"network was never told where it is. The bought coin has the largest value in {said}.*"
    )


def tab(run: Numbers) -> str:
    """README: what the tab shows of the pooled row."""
    shown = run["tab"]
    methods = {
        "raw": "attention of the last layer, heads averaged",
        "rollout": "rollout",
        "relevance": "relevance for the predicted class",
    }
    values = run["images"][shown["image"] - 1]["methods"][run["names"][shown["method"]]]
    bought, buyer = values["bought"], values["buyer"]
    sum_of = "" if shown["method"] == "relevance" else f", {percent(bought['value'])}"
    other = f", {percent(buyer['value'])}" if sum_of else ""
    return (
        f"*The quickstart's network after {run['steps']} steps, image {shown['image']}: {methods[shown['method']]}, "
        f"from the row that it pools. Of the {run['patches']} patches the bought coin has the {rank(bought['rank'])} "
        f"value{sum_of}, and the buyer the {rank(buyer['rank'])}{other}.*"
    )


def patches(run: Numbers) -> str:
    """docs/attention.md: the image of the figure, and where the maps of it are highest."""
    values = run["images"][run["figure"] - 1]["methods"]
    last, rolled = (values[name]["bought"] for name in ("last layer", "rollout"))
    return (
        "*A validation image, the patches that become tokens, and how the CLS of the quickstart's network shares "
        "out its attention: in the last layer, heads averaged, and rolled out through all three. The network was "
        f"given classes, never places. Of the patches, the bought coin has the {rank(last['rank'])} share in the "
        f"last layer, {percent(last['value'])}, and the {rank(rolled['rank'])} in rollout, {percent(rolled['value'])}.*"
    )


def accuracies(values: Sequence[float], digits: int) -> str:
    """Of several seeds."""
    return listed([f"{value:.{digits}f}" for value in values])


def seeds(run: Numbers) -> str:
    """README: what fine-tuning is worth on the example."""
    return (
        "The first `fit` starts from a network that comes along, trained on CIFAR-10, and gives it a new head; it "
        f"takes a minute on two cores and reaches {accuracies(run['tuned'], 2)} on the {run['val_images']} "
        "validation images (seeds 0 to 2), where the same network from random weights reaches "
        f"{accuracies(run['scratch'], 2)} in as many steps. [docs/finetune.md](docs/finetune.md) goes through it, "
        "with what each step shows."
    )


def measured(run: Numbers) -> str:
    """docs/finetune.md: the same, with the options of training from scratch."""
    return (
        f"Measured on two cores: seeds 0, 1 and 2 reach {accuracies(run['tuned'], 3)} on the {run['val_images']} "
        "validation images, in about a minute each. The same network from random weights, with the same rate, "
        f"images and {run['steps']} steps ({run['scratch_options']}), reaches {accuracies(run['scratch'], 3)}."
    )


def report(run: Numbers) -> str:
    """docs/finetune.md: what ``test`` prints."""
    return f"```\n{run['report'].rstrip()}\n```"


def predictions(run: Numbers) -> str:
    """docs/finetune.md: the table that ``predict`` writes, and how many names are right."""
    lines = run["predictions"]
    damaged = next(line for line in lines if "cannot be read" in line)
    told = f"{run['right']} of the {run['new']} new pictures get their right name (seed 0)."
    return "\n".join(["```", *lines[:3], "…", damaged, "```", "", told])


def moved(run: Numbers) -> str:
    """docs/finetune.md: which heads moved how far."""
    heads = run["divergence"]  # by layer
    means = [sum(layer) / len(layer) for layer in heads]
    most = max(range(len(heads)), key=means.__getitem__)
    value, layer, head = min((value, i, j) for i, of in enumerate(heads, 1) for j, value in enumerate(of, 1))
    far = listed([f"{each:.2f}" for each in heads[most]])
    return (
        "*A validation image, looked at by the source and by the fine-tuned network, and how far all heads have "
        f"moved. The heads of layer {most + 1} of {len(heads)} moved most ({far} nats), head {head} of layer {layer} "
        f"least ({value:.2f}).* Tab *HParams* has the settings of all runs beside their final accuracies. Which of "
        "these pictures to trust for what is in [methods.md](methods.md)."
    )


SENTENCES: dict[str, dict[str, Callable[[Numbers], str]]] = {
    "quickstart.json": {"pictured": pictured, "tab": tab, "patches": patches},
    "finetune.json": {
        "seeds": seeds,
        "measured": measured,
        "report": report,
        "predictions": predictions,
        "moved": moved,
    },
}
PAGES = ("README.md", "docs/attention.md", "docs/finetune.md")


def wrapped(text: str) -> str:
    """A paragraph in lines; code stays as it is."""
    if text.startswith("```"):
        return text + "\n"
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def marked(text: str) -> dict[tuple[str, str], str]:
    """What stands between the marks of a page, by the file and the sentence's name."""
    return {(file, name): body for _, file, name, body, _ in MARKED.findall(text)}


def filled(text: str, files: Sequence[str] = tuple(SENTENCES)) -> str:
    """The page with the sentences that follow from the numbers of these files."""

    def sentence(found: re.Match[str]) -> str:
        before, file, name, _, end = found.groups()
        return f"{before}{wrapped(SENTENCES[file][name](read(file)))}{end}" if file in files else found[0]

    return MARKED.sub(sentence, text)
