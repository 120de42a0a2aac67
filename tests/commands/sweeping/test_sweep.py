"""Sweeps: each trial is a run, pruned ones end early, and a stopped sweep goes on as if it had not been stopped."""

from pathlib import Path

import pytest
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from tests.runs import TINY, curves, main, read, stop_at

optuna = pytest.importorskip("optuna")

from optuna.trial import TrialState  # noqa: E402

from vit_attn.commands.sweeping import trials as sweep_trials  # noqa: E402
from vit_attn.commands.sweeping.search_space import Parameter  # noqa: E402
from vit_attn.commands.sweeping.study import JOURNAL, Sweep, open_study  # noqa: E402

DEPTHS = ["--param=model.lr=log:1e-3..1e-1", "--param=model.arch_options.depth=1..3"]


class PruneSecond(optuna.pruners.BasePruner):
    """Prunes the second trial at its first validation."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == 1


def sweep(runs: Path, *options: str, trials: int = 2, code: int = 0) -> list[optuna.trial.FrozenTrial]:
    """Run a sweep in this process and return its trials."""
    assert main(["sweep", *TINY, f"--runs={runs}", "--name=s", f"--trials={trials}", *DEPTHS, *options]) == code
    return stored(runs)


def stored(runs: Path) -> list[optuna.trial.FrozenTrial]:
    path = str(runs / "s" / JOURNAL)
    backend = optuna.storages.journal.JournalFileBackend(path, optuna.storages.journal.JournalFileOpenLock(path))
    return optuna.load_study(study_name="sweep", storage=optuna.storages.JournalStorage(backend)).get_trials()


def hparams(run: Path) -> tuple[dict[str, float], bool]:
    """Read the numbers of a run in the table of TensorBoard's HParams, and whether the run has ended."""
    events = EventAccumulator(str(run))
    events.Reload()
    content = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    return {name: value.number_value for name, value in start.hparams.items()}, metadata.SESSION_END_INFO_TAG in content


def newest(runs: Path, number: int) -> Path:
    return max((runs / "s" / f"{number:03}").iterdir())


def test_a_pruned_trial_ends_early_and_stands_in_hparams_with_its_last_accuracy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(optuna.pruners, "MedianPruner", PruneSecond)
    first, second = sweep(tmp_path)
    assert [first.state, second.state] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert (len(first.intermediate_values), len(second.intermediate_values)) == (3, 1)
    for number, trial in enumerate((first, second), start=1):
        run = newest(tmp_path, number)
        columns, ended = hparams(run)
        assert ended
        assert columns["model.arch_options.depth"] == trial.params["model.arch_options.depth"]
        assert columns["model.lr"] == pytest.approx(trial.params["model.lr"], rel=1e-3)
        assert curves(run)["vit_final/best_val_accuracy"][-1][1] == pytest.approx(
            max(trial.intermediate_values.values())
        )
        assert read(run)["global_step"] == 5 * len(trial.intermediate_values)
    assert first.value == max(first.intermediate_values.values())
    output = capsys.readouterr().out
    assert "sweep: trial 2 was pruned at validation 1" in output
    assert "sweep: 2 trials, 1 complete, 1 pruned, 0 failed" in output
    assert f"best run: {newest(tmp_path, 1)}" in output
    (repeat,) = [line for line in output.splitlines() if line.startswith("repeat it: ")]
    rate, depth = first.params.values()
    assert repeat.endswith(f"--model.lr={rate:.4g} --model.arch_options.depth={depth}")


def test_a_stopped_sweep_goes_on_within_its_trial_as_if_it_had_not_been_stopped(tmp_path, monkeypatch, capsys):
    whole = sweep(tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        (stopped,) = sweep(tmp_path / "two", code=143)
    assert stopped.state == TrialState.RUNNING
    assert "sweep: stopped in trial 1; the same command goes on there" in capsys.readouterr().out
    run = newest(tmp_path / "two", 1)
    resumed = sweep(tmp_path / "two")
    assert [each.params for each in resumed] == [each.params for each in whole]
    assert [each.intermediate_values for each in resumed] == [each.intermediate_values for each in whole]
    assert list((tmp_path / "two" / "s" / "001").iterdir()) == [run]


def test_a_killed_trial_starts_again_and_one_of_a_living_process_is_left_alone(tmp_path, capsys):
    options = Sweep((Parameter("model.lr", ("0.01", "0.02")),), tuple(TINY), "s", str(tmp_path), 3, "median")
    study = open_study(options)
    study.ask(), study.ask()
    with (tmp_path / "s" / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":4,"wor')  # the power went
    with FileLock(tmp_path / "s" / "002.lock"):
        command = ["sweep", *TINY, f"--runs={tmp_path}", "--name=s", "--trials=3", "--param=model.lr=0.01,0.02"]
        assert main(command) == 0
    assert [each.state for each in stored(tmp_path)] == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.COMPLETE]
    assert "3 trials, 2 complete, 0 pruned, 0 failed" in capsys.readouterr().out
    assert main([*command, "--trainer.max_epochs=4"]) == 2
    assert "is a sweep with other options: none there, --trainer.max_epochs=4 here" in capsys.readouterr().err


def test_settings_that_do_not_fit_fail_one_trial_but_end_a_sweep_that_has_trained_none(tmp_path, monkeypatch, capsys):
    heads = ["--param=model.arch_options.num_heads=3,5", "--trainer.max_epochs=1"]
    command = ["sweep", *TINY, f"--runs={tmp_path}", "--name=s", *heads]
    assert main(command) == 2
    assert "dim must be a multiple of num_heads" in capsys.readouterr().err
    monkeypatch.setattr(sweep_trials, "_has_trained", lambda study: True)
    assert main([*command, "--trials=3"]) == 0
    assert [each.state for each in stored(tmp_path)] == [TrialState.FAIL] * 3
    assert "sweep: trial 2 failed: dim must be a multiple of num_heads, got dim=16" in capsys.readouterr().out


def test_a_sweep_without_validations_is_refused(tmp_path, capsys):
    sweep(tmp_path, "--trainer.limit_val_batches=0", "--trainer.max_epochs=1", code=2)
    assert "trial 1 validated nothing" in capsys.readouterr().err


def test_pruning_is_by_the_median_unless_it_is_turned_off(tmp_path: Path):
    parameters = (Parameter("model.lr", ("0.01", "0.02")),)
    for name, kind in (("median", optuna.pruners.MedianPruner), ("none", optuna.pruners.NopPruner)):
        assert isinstance(open_study(Sweep(parameters, (), name, str(tmp_path), 1, name)).pruner, kind)


def test_several_devices_are_refused_with_the_way_to_use_them(tmp_path, capsys):
    sweep(tmp_path, "--trainer.devices=2", "--trainer.accelerator=cpu", "--trainer.strategy=ddp", code=2)
    assert "start the same command once per device" in capsys.readouterr().err
