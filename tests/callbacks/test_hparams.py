import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from vit_attn.callbacks.hparams import FIRST, METRICS
from vit_attn.cli import main

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
    """Two runs of other settings, of which the first was tested."""
    runs = tmp_path_factory.mktemp("runs")
    for options in (["--model.lr=0.01"], ["--model.lr=0.02", "--model.arch_options.qk_norm=true"]):
        assert main(["fit", *QUICK, f"--runs={runs}", *options]) == 0
    (first,) = [run for run in runs.glob("*/*") if "lr: 0.01" in (run / "config.yaml").read_text()]
    options = ["--trainer.limit_test_batches=2", "--trainer.enable_progress_bar=false"]
    assert main(["test", f"--ckpt_path={first / 'checkpoints' / 'best.ckpt'}", *options]) == 0
    return runs


def session_groups(runs: Path):
    """What TensorBoard's tab shows, from its own backend."""
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
        col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
    )
    return experiment, list(Handler(ask, context, "", request).run().session_groups)


def test_the_tab_has_a_row_a_run_with_its_settings_and_results(runs: Path):
    experiment, groups = session_groups(runs)
    assert [info.name.tag for info in experiment.metric_infos] == list(METRICS)
    assert len(groups) == 2
    by_rate = {group.hparams["model.lr"].number_value: group for group in groups}
    assert set(by_rate) == {0.01, 0.02}
    assert by_rate[0.01].hparams["data.dataset"].string_value == "coins"
    assert by_rate[0.01].hparams["seed"].number_value == 0
    assert by_rate[0.01].hparams["parameters"].number_value > 100_000
    assert by_rate[0.02].hparams["model.arch_options.qk_norm"].bool_value
    assert {info.name for info in experiment.hparam_infos[:5]} == FIRST  # what the tab shows at first
    columns = {info.name for info in experiment.hparam_infos}
    assert {"model.lr", "model.optimizer", "data.batch_size", "trainer.max_epochs"} <= columns
    assert not {"data.root", "hp_metric"} & columns
    tested, other = ({each.name.tag: each.value for each in by_rate[rate].metric_values} for rate in (0.01, 0.02))
    assert set(tested) == set(METRICS)
    assert set(other) == set(METRICS) - {"test/accuracy"}


def test_the_results_are_those_of_the_run_and_of_its_test(runs: Path):
    for folder in runs.glob("*/*"):
        events = EventAccumulator(str(folder)).Reload()
        scalars = {tag: [each.value for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        assert scalars["final/best_val_accuracy"] == [max(scalars["val/accuracy"])]
        assert scalars["final/val_loss"] == scalars["val/loss"][-1:]
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
    assert events.Images("test/confusion")[0].width > 500
    assert report["checkpoint"].endswith("best.ckpt")
    assert report["dataset"] == "coins"
