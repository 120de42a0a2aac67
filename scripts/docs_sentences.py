"""Make the sentences of README and docs that state a run's results, from its numbers.

``scripts/draw_docs.py`` writes them between ``<!-- from FILE: NAME -->`` and ``<!-- end -->``; the tests compare.
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
    """Read the numbers of a run."""
    return json.loads((MEASURED / name).read_text())


def percent(value: float) -> str:
    """Format a fraction in per cent, with two significant digits."""
    return f"{100 * value:.0f} %" if value >= 0.095 else f"{100 * value:.1f} %"


def rank(number: int) -> str:
    """Name the rank of a value, from 1."""
    return RANKS[number - 1] if number <= len(RANKS) else f"{number}th largest"


def listed(words: Sequence[str]) -> str:
    """Join words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def relevance(run: Numbers) -> str:
    """README: the CIFAR-10 figure."""
    images = run["images"]
    right = sum(image["class"] == image["predicted"] for image in images)
    return (
        f"*The first CIFAR-10 test image of each of {COUNTS[len(images)]} classes. Above: the predicted class and its "
        "probability. Below: the relevance of each patch for that class, yellow where it is highest; each "
        f"map has its own scale. The network "
        f"(`{run['network']}`) ships with the package; {COUNTS[right]} of its {COUNTS[len(images)]} predictions here "
        "are right.*"
    )


def pictured(run: Numbers) -> str:
    """docs/attention.md: two images, and on how many of them each method points to the bought coin."""
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
    return (
        f"*{of.capitalize()} validation images and the maps of the quickstart's network by three methods. Dotted: the "
        "buyer; solid: the bought coin, whose position the network was never given. The bought coin has the largest "
        f"value in {'; in '.join(parts)}.*"
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
        f"for the row that the network pools. Of the {run['patches']} patches, the bought coin has the "
        f"{rank(bought['rank'])} value{sum_of}, and the buyer the {rank(buyer['rank'])}{other}.*"
    )


def patches(run: Numbers) -> str:
    """docs/attention.md: the image of the figure, and the rank of the bought coin in its maps."""
    values = run["images"][run["figure"] - 1]["methods"]
    last, rolled = (values[name]["bought"] for name in ("last layer", "rollout"))
    return (
        "*A validation image, the patches that become tokens, and the attention of CLS in the quickstart's network: "
        "in the last layer, heads averaged, and by rollout through all three layers. Training used the class of the "
        f"image, never the position of the coin. Of the patches, the bought coin has the {rank(last['rank'])} weight "
        f"in the last layer, {percent(last['value'])}, and the {rank(rolled['rank'])} in rollout, "
        f"{percent(rolled['value'])}.*"
    )


def accuracies(values: Sequence[float], digits: int) -> str:
    """List the accuracies of several seeds."""
    return listed([f"{value:.{digits}f}" for value in values])


def seeds(run: Numbers) -> str:
    """README: accuracy of the fine-tuning example."""
    return (
        "`fit` starts from the shipped CIFAR-10 network, with a new head. After a minute on two cores, validation "
        f"accuracy is {accuracies(run['tuned'], 2)} (seeds 0 to 2, {run['val_images']} images). The same network "
        f"trained from random weights for as many steps reaches {accuracies(run['scratch'], 2)}. "
        "[docs/finetune.md](docs/finetune.md) explains each step and its output."
    )


def measured(run: Numbers) -> str:
    """docs/finetune.md: the same, with the options of training from scratch."""
    return (
        f"Measured on two cores: validation accuracy {accuracies(run['tuned'], 3)} for seeds 0, 1 and 2 "
        f"({run['val_images']} images), about a minute each. The same network trained from random weights, with the "
        f"same learning rate, images and {run['steps']} steps ({run['scratch_options']}), reaches "
        f"{accuracies(run['scratch'], 3)}."
    )


def report(run: Numbers) -> str:
    """docs/finetune.md: output of ``test``."""
    return f"```\n{run['report'].rstrip()}\n```"


def predictions(run: Numbers) -> str:
    """docs/finetune.md: the table that ``predict`` writes, and the number of right predictions."""
    lines = run["predictions"]
    corrupt = next(line for line in lines if "cannot be read" in line)
    right = f"{run['right']} of the {run['new']} new images are classified correctly (seed 0)."
    return "\n".join(["```", *lines[:3], "…", corrupt, "```", "", right])


def moved(run: Numbers) -> str:
    """docs/finetune.md: the heads that moved most and least."""
    heads = run["divergence"]  # by layer
    means = [sum(layer) / len(layer) for layer in heads]
    most = max(range(len(heads)), key=means.__getitem__)
    value, layer, head = min((value, i, j) for i, of in enumerate(heads, 1) for j, value in enumerate(of, 1))
    far = listed([f"{each:.2f}" for each in heads[most]])
    return (
        "*A validation image: maps of the source network and of the fine-tuned network, and the divergence of each "
        f"head. The heads of layer {most + 1} of {len(heads)} moved most ({far} nats), head {head} of layer {layer} "
        f"least ({value:.2f}).* The tab *HParams* lists the settings of all runs with their final accuracies. "
        "[methods.md](methods.md) says which of these maps to trust."
    )


SENTENCES: dict[str, dict[str, Callable[[Numbers], str]]] = {
    "cifar10.json": {"relevance": relevance},
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
    """Wrap a paragraph; keep code as it is."""
    if text.startswith("```"):
        return text + "\n"
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def marked(text: str) -> dict[tuple[str, str], str]:
    """Text between the marks of a page, by file and name of the sentence."""
    return {(file, name): body for _, file, name, body, _ in MARKED.findall(text)}


def filled(text: str, files: Sequence[str] = tuple(SENTENCES)) -> str:
    """Replace the sentences of a page that come from the numbers of these files."""

    def sentence(found: re.Match[str]) -> str:
        before, file, name, _, end = found.groups()
        return f"{before}{wrapped(SENTENCES[file][name](read(file)))}{end}" if file in files else found[0]

    return MARKED.sub(sentence, text)
