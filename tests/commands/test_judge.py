import csv
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from PIL import Image

from vit_attn.attention_maps.evaluation import cost
from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.checkpoints.weights import save_weights
from vit_attn.cli import main
from vit_attn.commands import judging
from vit_attn.data.datasets import coins
from vit_attn.model.build import build_net
from vit_attn.reports.faithfulness import RELATIONS
from vit_attn.reports.text_table import CELL

CONFIGS = Path(__file__).parent.parent.parent / "configs"
OPTIONS = ["embed_dim=32", "depth=2", "num_heads=2", "mlp_ratio=2"]
NETWORK = ["--arch", "vit_attn_tiny_patch4_32", "--arch_options", *OPTIONS]


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch):
    for split in coins.SIZES:
        monkeypatch.setitem(coins.SIZES, split, 256)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    net = build_net("vit_attn_tiny_patch4_32", 10, (32, 32), 3, dict(embed_dim=32, depth=2, num_heads=2, mlp_ratio=2))
    torch.nn.init.normal_(net.head.weight)
    save_weights(net, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


def test_a_report_is_a_table_three_files_and_a_figure(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "out"
    known = ["--dataset", "coins", "--images", "12", "--output", str(out)]
    assert main(["judge", *NETWORK, "--weights", str(weights), *known]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines()[:-1])) <= 80
    methods, knockouts = rows(out / "methods.csv"), rows(out / "knockouts.csv")
    assert list(methods) == [
        "last layer",
        "rollout, mean",
        "rollout, max",
        "rollout, min",
        "rollout, discard 0.5",
        "value-weighted",
        "gradient rollout",
        "relevance",
        "LeGrad",
        "random",
        "centre first",
    ]
    for method, row in methods.items():
        shown, *_ = re.findall(rf"^{re.escape(method)} +([\d.]+)±", told, re.MULTILINE)
        assert float(shown) == pytest.approx(float(row["deletion"]), abs=6e-4)
        assert all(row[name] for name in ("insertion", "logit_8", "accuracy_1", "bought", "bought_error"))
        looks = method not in ("random", "centre first")
        assert (float(row["all_randomised"]) < 0.9) == looks
        assert (float(row["head_randomised"]) < 0.999) == (method in ("gradient rollout", "relevance", "LeGrad"))
    assert "bought, any coin, buyer: fraction of images" in told
    assert {f"layer {layer} head {head}" for layer in (1, 2) for head in (1, 2)} < set(knockouts)
    assert [name for name in knockouts if "→" in name] == [
        "pooled row → bought",
        "pooled row → any coin",
        "pooled row → buyer",
        "pooled row → as many others",
        "buyer → any coin",
        "any coin → buyer",
        "buyer → as many others",
        "any coin → as many others",
    ]
    with (out / "comparisons.csv").open(newline="") as file:
        comparisons = list(csv.DictReader(file))
    assert {(row["method"], row["measure"]) for row in comparisons} == {
        (method, measure) for method in list(methods)[:-2] for measure in ("deletion", "insertion", "logit_8")
    }
    for row in comparisons:
        assert float(row["value"]) == pytest.approx(float(methods[row["method"]][row["measure"]]), abs=1e-4)
        assert float(row["random"]) == pytest.approx(float(methods["random"][row["measure"]]), abs=1e-4)
        gain = float(row["value"]) - float(row["random"])
        assert (row["than_random"] == "no measurable difference") == (abs(gain) <= float(row["random_margin"]))
        words, *_ = textwrap.wrap(RELATIONS[row["than_random"], row["than_centre_first"]], CELL)  # its first line
        assert re.search(rf"^{re.escape(row['method'])} .*{words}", told, re.MULTILINE)
    assert "over 8 random" in told
    with Image.open(out / "curves.png") as figure:
        assert figure.size[0] > 1000


def test_the_intervals_and_the_comparison_of_methods_are_in_the_files(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    known = ["--weights", str(weights), "--dataset", "coins", "--num_images", "12", "--output", str(tmp_path)]
    assert main(["judge", *NETWORK, *known]) == 0
    told = capsys.readouterr().out
    methods = rows(tmp_path / "methods.csv")
    for label, row in methods.items():
        mean, error, low, high = (float(row[f"deletion{part}"]) for part in ("", "_error", "_low", "_high"))
        assert (mean - low) == pytest.approx(2.201 * error, abs=2e-4)  # Student's t of 12 images
        assert (high - mean) == pytest.approx(2.201 * error, abs=2e-4)
        assert float(row["bought_low"]) < float(row["bought_high"])  # although all images may have the same
        assert re.search(rf"^{re.escape(label)} +{mean:.3f}±{(high - low) / 2:.3f}"[:-1].replace("±0", "±"), told, re.M)
    with (tmp_path / "pairs.csv").open(newline="") as file:
        pairs = {(row["method"], row["other"], row["measure"]): row for row in csv.DictReader(file)}
    assert len(pairs) == 9 * 8 * 3
    with (tmp_path / "comparisons.csv").open(newline="") as file:
        comparisons = list(csv.DictReader(file))
    for row in comparisons:
        if row["method"] == row["best"]:
            assert row["than_best"] == "best"
            continue
        pair = pairs[row["method"], row["best"], row["measure"]]
        assert row["than_best"] == pair["than_other"] != "better"
        assert row["minus_best"] == pair["difference"]
        difference = float(methods[row["method"]][row["measure"]]) - float(methods[row["best"]][row["measure"]])
        assert float(pair["difference"]) == pytest.approx(difference, abs=2e-4)
        holds_zero = float(pair["low"]) <= 0 <= float(pair["high"])
        assert (row["than_best"] == "worse") == (not holds_zero and abs(float(pair["difference"])) > 0.01)
    assert len(re.findall(r"is best; no measurable difference", " ".join(told.split()))) == 3


def test_the_same_seed_gives_the_same_report(weights: Path, tmp_path: Path):
    known = ["--weights", str(weights), "--dataset", "coins", "--images", "4"]
    for number, seed in enumerate("001"):
        assert main(["judge", *NETWORK, *known, "--seed", seed, "--output", str(tmp_path / str(number))]) == 0
    first, second, other = ((tmp_path / name / "methods.csv").read_text() for name in "012")
    assert first == second != other


def test_data_without_ground_truth_has_no_pointing_and_no_edges(
    weights: Path, cifar10_root: Path, tmp_path: Path, capsys
):
    known = ["--dataset", "cifar10", "--root", str(cifar10_root), "--images", "6", "--output", str(tmp_path / "out")]
    assert main(["judge", *NETWORK, "--weights", str(weights), *known]) == 0
    told = capsys.readouterr().out
    assert "centre first" in told
    assert not re.search("^method.*bought", told, re.MULTILINE)
    assert "pooled row" not in told
    assert not {"bought", "bought_error"} & set(rows(tmp_path / "out" / "methods.csv")["relevance"])


def test_a_checkpoint_knows_its_network_and_its_data(tmp_path: Path, capsys: pytest.CaptureFixture):
    tiny = ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false"]
    config = ["-c", str(CONFIGS / "quickstart.yaml"), "--trainer.max_epochs=1", "--attention.num_images=1"]
    small = [f"--model.arch_options.{option}" for option in OPTIONS]
    assert main(["fit", *config, *tiny, *small, f"--runs={tmp_path}"]) == 0
    (run,) = tmp_path.glob("*/*")
    capsys.readouterr()
    assert main(["judge", "--model", str(run / "checkpoints" / "best.ckpt"), "--images", "4"]) == 0
    assert "vit_attn_tiny_patch4_32: coins, 4 images" in capsys.readouterr().out
    assert {path.name for path in (run / "judge").iterdir()} == {
        "methods.csv",
        "comparisons.csv",
        "pairs.csv",
        "knockouts.csv",
        "curves.png",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "judge needs a network"),
        (["--model", "no.ckpt"], "checkpoint not found: no.ckpt"),
        (["--model", "x.safetensors", "--dataset", "coins"], "checkpoint not found: x.safetensors"),
        (["--model", "a.ckpt", "--weights", "b"], "checkpoint not found: a.ckpt"),
        ([*NETWORK, "--dataset", "coins"], "the network would be untrained"),
        ([*NETWORK, "--weights", "no.safetensors", "--dataset", "coins"], "weights not found: no.safetensors"),
        ([*NETWORK, "--weights", "x"], "add --dataset NAME"),
        ([*NETWORK, "--weights", "x", "--dataset", "coin"], "did you mean 'coins'"),
        (["--arch", "vit_attn_tini", "--weights", "x", "--dataset", "coins"], "unknown network 'vit_attn_tini'"),
        (["--arch", "x", "--arch_options", "depth", "--weights", "x"], "must be KEY=VALUE, got depth"),
        ([*NETWORK, "--images", "1"], "the number of images must be at least 2, got 1"),
        ([*NETWORK, "--images", "2", "--num_images", "3"], "--images 2 is the number of images"),
        ([*NETWORK, "--num_images", "many"], "invalid int value: 'many'"),
        ([*NETWORK, "--images", "many"], "pictures are judged by --model NAME|RUN|FILE"),
        (["--model", "vit_attn_coins_patch4_32", "--images", "many"], "no such image or folder: many"),
        (["--model", "vit_attn_coins_patch4_32"], "add --images FOLDER, or --dataset NAME"),
        (["--model", "x", "--arch", "y"], "leave out --arch and --arch_options"),
        (["--model", "x", "--images", "a", "--root", "b"], "leave out --dataset and --root"),
        (["--model", "no.ckpt", "--dataset", "coins"], "checkpoint not found: no.ckpt"),
        (["--model", "vit_tiny_patch16_224", "--dataset", "coins"], "has a head of 1000 classes, and coins has 10"),
        ([*NETWORK, "--minutes", "0"], "minutes must be above 0, got 0"),
        ([*NETWORK, "--img_size", "64", "--weights", "x"], "--img_size is for --model by name with --images"),
        ([*NETWORK, "--device", "gpu0"], "device 'gpu0' cannot be used"),
        ([*NETWORK, "--seed", "-1"], "seed must be at least 0, got -1"),
        (["--image", "4"], "unknown option --image, did you mean '--images'"),
    ],
)
def test_a_mistake_costs_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture):
    assert main(["judge", *options]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.startswith("vit-attn: ")
    assert told.err.count("\n") == 1
    assert not told.out


PICTURES = ["judge", "--model", "vit_attn_coins_patch4_32", "--device", "cpu"]
KILLED = """
import os, signal, sys
from vit_attn.attention_maps.evaluation import cost, stored_parts
from vit_attn.cli import main

save = stored_parts.PartStore.save

def save_and_die(*args):
    save(*args)
    os.kill(os.getpid(), signal.SIGKILL)

cost.MOST_RECORDED = 2
stored_parts.PartStore.save = save_and_die
main(sys.argv[1:])
"""


@pytest.fixture
def pictures(picture_folder) -> str:
    return str(picture_folder({"some": 5}))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """First images of the parts that are measured, two images each."""
    measured, measure_part = [], judging.measure_part

    def noted(batch, settings, first, on_forwards):
        measured.append(first)
        return measure_part(batch, settings, first, on_forwards)

    monkeypatch.setattr(cost, "MOST_RECORDED", 2)
    monkeypatch.setattr(judging, "measure_part", noted)
    return measured


def test_pictures_without_labels_are_judged_by_the_predicted_class(
    pictures: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    Path(pictures, "broken.png").write_bytes(b"nothing")
    assert main([*PICTURES, "--images", pictures, "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert told.err.count("broken.png") == 1
    assert f"{pictures}, 5 images\n" in told.out
    assert "the pictures have no labels: accuracy and its changes are left out" in " ".join(told.out.split())
    assert re.search(r"judge: 6 images, 6 at once, [\d,]+ forward passes each: about .* MB of", told.out)
    for name in ("methods.csv", "knockouts.csv"):
        assert "accuracy" not in (tmp_path / "out" / name).read_text()
    assert 0 < float(rows(tmp_path / "out" / "methods.csv")["relevance"]["deletion"]) < 1
    assert not (tmp_path / "out" / "parts").exists()


def test_a_killed_evaluation_goes_on_and_its_tables_are_those_of_an_uninterrupted_one(
    pictures: str, parts: list[int], tmp_path: Path, capsys: pytest.CaptureFixture
):
    known, whole, killed = [*PICTURES, "--images", pictures, "--output"], tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", KILLED, *known, str(killed)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in killed.iterdir()] == ["parts"]
    assert main([*known, str(killed), "--seed", "1"]) == 2
    assert f"{killed / 'parts'} holds an unfinished evaluation with other seed: finish it" in capsys.readouterr().err
    assert main([*known, str(killed)]) == 0
    assert parts == [2, 4]
    assert "goes on after 2 images" in capsys.readouterr().out
    assert main([*known, str(whole)]) == 0
    assert parts == [2, 4, 0, 2, 4]
    files = sorted(path.name for path in whole.iterdir())
    assert files == sorted(path.name for path in killed.iterdir())
    for name in files:
        assert (whole / name).read_bytes() == (killed / name).read_bytes()


def test_minutes_bound_the_images_and_the_number_is_kept_when_the_command_goes_on(
    pictures: str, parts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    known = [*PICTURES, "--images", pictures, "--output", str(tmp_path)]
    make_plan, minutes_per_image = judging.make_plan, [1.0]

    def planned(batch):
        plan = make_plan(batch)
        return plan._replace(seconds=60 * minutes_per_image[0] / plan.forwards)

    monkeypatch.setattr(judging, "make_plan", planned)
    monkeypatch.setattr(judging, "write_results", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([*known, "--minutes", "3.5"])
    assert parts == [0, 2]
    assert "judge: 3 images" in capsys.readouterr().out
    minutes_per_image[0] = 0.1  # the machine is less busy now
    with pytest.raises(ZeroDivisionError):
        main([*known, "--minutes", "3.5"])
    assert parts == [0, 2]
    assert "goes on after 3 images" in capsys.readouterr().out
    minutes_per_image[0] = 2.0
    assert main([*known[:-1], str(tmp_path / "other"), "--minutes", "3.5"]) == 2
    assert "two images take about 4.0 minutes here, so --minutes 3.5 is too few" in capsys.readouterr().err


def test_random_weights_are_judged_with_a_warning_and_are_the_same_again(
    pictures: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    network = [
        "judge",
        "--model",
        "vit_attn_tiny_patch4_32",
        "--weights",
        "none",
        "--img_size",
        "16",
        "--images",
        pictures,
    ]
    for name in "ab":
        assert main([*network, "--num_images", "2", "--output", str(tmp_path / name)]) == 0
        assert "the network's weights are random" in capsys.readouterr().err
    assert (tmp_path / "a" / "methods.csv").read_text() == (tmp_path / "b" / "methods.csv").read_text()


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from vit_attn.cli import main\ntry: main(['judge', '--help'])\nfinally: print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--model" in done.stdout
    assert "'torch'" not in done.stdout


@pytest.mark.parametrize("names", [coins.GLYPH_NAMES[::-1], (*coins.GLYPH_NAMES[:-1], "other")])
def test_weights_of_other_classes_or_in_another_order_are_refused(names, weights: Path, tmp_path: Path, capsys):
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    card = ModelCard("vit_attn_tiny_patch4_32", options, names, (3, 32, 32), (0.5,) * 3, (0.5,) * 3)
    net = build_net("vit_attn_tiny_patch4_32", 10, (32, 32), 3, options)
    save_weights(net, weights, card.metadata())
    known = ["--dataset", "coins", "--images", "4", "--output", str(tmp_path / "out")]
    assert main(["judge", *NETWORK, "--weights", str(weights), *known]) == 2
    assert "the checkpoint is of other classes than coins: class " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("patch_size", [2, 8, 16])
def test_coins_are_judged_whatever_patches_the_network_has(
    patch_size: int, tmp_path: Path, capsys: pytest.CaptureFixture
):
    options = dict(embed_dim=32, depth=1, num_heads=1, mlp_ratio=2, patch_size=patch_size)
    net = build_net("vit_attn_tiny_patch4_32", 10, (32, 32), 3, options)
    torch.nn.init.normal_(net.head.weight)
    save_weights(net, tmp_path / "net.safetensors")
    given = ["--arch_options", *(f"{name}={value}" for name, value in options.items())]
    known = ["--weights", str(tmp_path / "net.safetensors"), "--dataset", "coins", "--images", "4"]
    assert main(["judge", "--arch", "vit_attn_tiny_patch4_32", *given, *known, "--output", str(tmp_path)]) == 0
    told, said = capsys.readouterr()
    row = rows(tmp_path / "methods.csv")["relevance"]
    assert bool(row.get("bought")) == bool(re.search("^method.*bought", told, re.MULTILINE)) == (patch_size == 2)
    assert ("buyer → any coin" in rows(tmp_path / "knockouts.csv")) == (patch_size == 2)
    assert bool(row["logit_8"]) == (patch_size != 16)
    assert ("it is neither marked nor judged" in said) == (patch_size != 2)
    assert ("the network has 4 patches: the knock-out of the 8 top-ranked ones is left out" in said) == (
        patch_size == 16
    )
