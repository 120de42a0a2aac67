import json
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from jsonargparse import Namespace
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from vit_attn.callbacks.hparams import EXCLUDED_DATA_SETTINGS, METRICS, NUMERIC, SHOWN_FIRST, select_hparams
from vit_attn.cli import main
from vit_attn.data import Augment, ImageData
from vit_attn.task import Classifier

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
QUICK = [
    "-c",
    str(CONFIG),
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.max_epochs=1",
    "--attention.num_images=0",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two runs with different settings, and test the first."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["fit", *QUICK, f"--runs={runs}", "--model.lr=0.01"]) == 0
    (first,) = runs.glob("*/*")
    tuned = [f"--model.weights={first}/checkpoints/best.ckpt", "--model.train=1", "--trainer.gradient_clip_val=null"]
    assert main(["fit", *QUICK, f"--runs={runs}", "--model.lr=0.02", *tuned]) == 0
    quiet = "--trainer.enable_progress_bar=false"
    assert main(["test", f"--model={first / 'checkpoints' / 'best.ckpt'}", quiet]) == 0
    return runs


def session_groups(runs: Path, sort_by: str | None = None):
    """Query the backend of TensorBoard's tab, optionally sorted by a setting."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(runs))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(runs))
    context, ask = Context(TBContext(data_provider=provider)), RequestContext()
    experiment = context.experiment_from_metadata(ask, "", True, context.hparams_metadata(ask, ""), [])
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[
            *(api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos),
            *([api_pb2.ColParams(hparam=sort_by, order=api_pb2.ORDER_ASC)] if sort_by else []),
        ],
    )
    return experiment, list(Handler(ask, context, "", request).run().session_groups)


def test_the_tab_has_a_row_per_run_with_its_settings_and_results(runs: Path):
    experiment, groups = session_groups(runs)
    assert [info.name.tag for info in experiment.metric_infos] == list(METRICS)
    assert len(groups) == 2
    by_rate = {group.hparams["model.lr"].number_value: group for group in groups}
    assert set(by_rate) == {0.01, 0.02}
    assert by_rate[0.01].hparams["data.dataset"].string_value == "coins"
    assert by_rate[0.01].hparams["seed"].number_value == 0
    assert by_rate[0.01].hparams["parameters"].number_value > 100_000
    options = {name: by_rate[0.01].hparams[f"model.arch_options.{name}"] for name in ("depth", "mlp_ratio", "stem")}
    assert [options[name].number_value for name in ("depth", "mlp_ratio")] == [3, 2]
    assert options["stem"].string_value == "none"
    assert [by_rate[rate].hparams["model.train"].string_value for rate in (0.01, 0.02)] == ["all", "1"]
    assert {info.name for info in experiment.hparam_infos[:5]} == SHOWN_FIRST  # what the tab shows at first
    columns = {info.name for info in experiment.hparam_infos}
    assert {"model.lr", "model.optimizer", "data.batch_size", "trainer.max_epochs"} <= columns
    assert not {"data.root", "hp_metric"} & columns
    tested, other = ({each.name.tag: each.value for each in by_rate[rate].metric_values} for rate in (0.01, 0.02))
    assert set(tested) == set(METRICS)
    assert set(other) == set(METRICS) - {"test/accuracy"}


@pytest.mark.parametrize("name", ["model.train", "trainer.gradient_clip_val", "model.arch_options.depth"])
def test_the_tab_can_sort_by_a_setting_of_words_and_numbers_or_of_some_runs(runs: Path, name: str):
    experiment, groups = session_groups(runs, sort_by=name)
    assert name in {info.name for info in experiment.hparam_infos}
    assert len(groups) == 2


def test_numeric_settings_are_listed_by_name():
    hints = {f"model.{name}": hint for name, hint in get_type_hints(Classifier.__init__).items()}
    hints |= {f"data.{name}": hint for name, hint in get_type_hints(ImageData.__init__).items()}
    hints |= {f"data.augment.{name}": hint for name, hint in get_type_hints(Augment).items()}
    numbers = {name for name, hint in hints.items() if (set(get_args(hint)) or {hint}) <= {int, float, type(None)}}
    linked = {f"model.{name}" for name in ("num_classes", "in_chans", "img_size", "return")} | {"data.return"}
    assert numbers - linked - {f"data.{name}" for name in EXCLUDED_DATA_SETTINGS} <= NUMERIC
    sizes = {"data.channels", "data.img_size", "data.img_width"}
    of_settings = {name for name in NUMERIC if name.startswith(("model.", "data.")) and "arch_options" not in name}
    assert of_settings - sizes <= numbers


def test_the_size_of_images_is_a_height_and_a_width_and_options_of_other_networks_are_a_text():
    groups = {
        "model": {"arch_options": {"depth": 3, "rope_type": "mixed"}},
        "data": {"img_size": [160, 224]},
        "trainer": {},
    }
    config = {name: Namespace(**settings) for name, settings in groups.items()} | {"seed_everything": 0}
    chosen = select_hparams(config)
    assert (chosen["data.img_size"], chosen["data.img_width"]) == (160, 224)
    assert chosen["model.arch_options.depth"] == 3
    assert chosen["model.arch_options"] == "rope_type=mixed"


def test_the_results_are_those_of_the_run_and_of_its_test(runs: Path):
    for folder in runs.glob("*/*"):
        events = EventAccumulator(str(folder)).Reload()
        scalars = {tag: [each.value for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        assert scalars["vit_final/best_val_accuracy"] == [max(scalars["val/accuracy"])]
        assert scalars["vit_final/val_loss"] == scalars["val/loss"][-1:]
        assert "hp_metric" not in scalars


def test_a_test_is_shown_beside_the_training_of_its_run(runs: Path):
    assert len(list(runs.glob("*/*"))) == 2
    (file,) = runs.glob("*/*/test.json")
    report, events = json.loads(file.read_text()), EventAccumulator(str(file.parent)).Reload()
    assert report["step"] == 2
    (accuracy,) = events.Scalars("test/accuracy")
    assert (accuracy.step, accuracy.value) == (2, pytest.approx(report["top1"]))
    (loss,) = events.Scalars("test/loss")
    assert loss.value == pytest.approx(report["loss"])
    assert [events.Images(f"test/{name}")[0].width for name in ("confusion", "errors")] == [700, 700]
    assert report["checkpoint"].endswith("best.ckpt")
    assert report["dataset"] == "coins"
