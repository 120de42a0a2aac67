import signal
from pathlib import Path

import pytest
import torch
import yaml

from tests.runs import TINY, curves, differences, fit, main, read, resume, stop_at

EMA = ["--model.ema=0.5"]
DROP_PATH = ["--model.arch_options.drop_path_rate=0.5", "--model.arch_options.depth=2"]
VARIANTS = {
    "plain": [],
    "validated within epochs": ["--trainer.val_check_interval=2"],
    "validated every other epoch": ["--trainer.check_val_every_n_epoch=2"],
    "not validated": ["--trainer.limit_val_batches=0"],
    "accumulated": ["--trainer.accumulate_grad_batches=2"],
    "averaged": EMA,
    "by steps": ["--trainer.max_epochs=-1", "--trainer.max_steps=13"],
    "coarse patches": ["--model.coarse_patch_size=8", "--model.coarse_until=0.67", *EMA],
}
PLACES = {
    "within an epoch": ("on_train_batch_end", 7, 1),
    "at a validation's beginning": ("on_validation_start", 10, 1),
    "within a validation": ("on_validation_batch_end", 10, 2),
    "at an epoch's end": ("on_train_epoch_end", 10, 1),
    "within the last validation": ("on_validation_batch_end", 15, 3),
}
MEETS = {
    "plain": PLACES,
    "validated within epochs": {
        "before a validation": ("on_train_batch_end", 7, 1),
        "within one": ("on_validation_batch_end", 9, 2),
        "between": ("on_train_batch_end", 8, 1),
        "at an epoch's end": ("on_train_epoch_end", 10, 1),
    },
    "validated every other epoch": {
        "at an epoch's end without one": ("on_train_epoch_end", 5, 1),
        "after one": ("on_train_batch_end", 11, 1),
    },
    "not validated": {"at an epoch's end": ("on_train_epoch_end", 5, 1)},
    "accumulated": {"within an epoch": ("on_train_batch_end", 4, 1)},
    "averaged": PLACES,
    "by steps": {
        "within an epoch": ("on_train_batch_end", 12, 1),
        "in validation": ("on_validation_batch_end", 5, 1),
        "at an epoch's end": ("on_train_epoch_end", 10, 1),
    },
    "coarse patches": PLACES | {"after the change": ("on_train_batch_end", 12, 1)},
}


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Uninterrupted runs by variant, trained when first used."""
    folder = tmp_path_factory.mktemp("wholes")

    class Runs(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = fit(folder / name, *VARIANTS[name])
            return self[name]

    return Runs()


@pytest.mark.parametrize(("variant", "place"), [(variant, place) for variant in MEETS for place in MEETS[variant]])
def test_a_run_that_was_stopped_resumes_as_if_it_had_not_been(
    variant: str, place: str, wholes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hook, step, time = MEETS[variant][place]
    with monkeypatch.context() as patched:
        stop_at(patched, hook, step, time)
        run = fit(tmp_path / "runs", *VARIANTS[variant], code=143)
    assert read(run)["global_step"] == step
    resume(run)
    assert differences(read(run), read(wholes[variant])) == []
    assert curves(run) == curves(wholes[variant])
    assert not list(run.glob("**/*.unfinished"))


def test_a_run_limited_by_steps_without_validation_resumes_after_an_epoch_and_trains_longer(tmp_path: Path, capsys):
    options = ["--trainer.max_epochs=-1", "--trainer.limit_val_batches=0"]
    whole = fit(tmp_path / "whole", *options, "--trainer.max_steps=13")
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, "on_train_epoch_end", 5)
        run = fit(tmp_path / "runs", *options, "--trainer.max_steps=13", code=143)
    assert read(run)["global_step"] == 6
    resume(run)
    assert differences(read(run), read(whole)) == []
    ended = fit(tmp_path / "ended", *options, "--trainer.max_steps=10")
    assert read(ended)["vit_attn"]["finished"]
    assert main(["fit", f"--resume={ended}", "--trainer.max_epochs=40"]) == 2
    assert "to train longer by epochs, add --trainer.max_steps=-1" in capsys.readouterr().err
    settings = ended / "config.yaml"  # a file in the folder of the run stands for it
    assert main(["fit", f"--resume={settings}", "--trainer.max_steps=13"]) == 0
    assert (read(ended)["global_step"], read(ended)["epoch"]) == (13, read(whole)["epoch"])


@pytest.mark.parametrize(
    "options",
    [
        ["--model.optimizer=adamw", "--model.lr=1e-3"],
        DROP_PATH,
        ["--data.augment.mixup=0.8", "--data.augment.cutmix=1.0", "--data.augment.mix_until=0.5"],
        ["--data.augment.rand_augment=9", "--data.augment.flip=0.5", "--data.augment.erase=0.25"],
        ["--data.balance=sampling"],
        [
            *(*DROP_PATH, "--data.augment.mixup=0.8", "--data.augment.rand_augment=9"),
            *("--data.balance=sampling", "--trainer.accumulate_grad_batches=2", *EMA),
        ],
    ],
    ids=["adamw", "drop path", "mixup and cutmix", "randaugment", "balanced", "all together"],
)
@pytest.mark.parametrize("loading", ["memory", "no worker", "two workers"])
def test_random_numbers_are_the_same_in_a_resumed_run(
    options: list[str], loading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if loading != "memory":
        workers = 0 if loading == "no worker" else 2
        options = [*options, "--data.loader=workers", f"--data.num_workers={workers}"]
    options = [*options, "--trainer.max_epochs=2"]
    whole = fit(tmp_path / "whole", *options)
    with monkeypatch.context() as patched:  # within an epoch
        stop_at(patched, "on_train_batch_end", 2)
        run = fit(tmp_path / "runs", *options, code=143)
    with monkeypatch.context() as patched:  # at its end
        stop_at(patched, "on_train_epoch_end", 3 if "--trainer.accumulate_grad_batches=2" in options else 5)
        resume(run, code=143)
    resume(run)
    assert differences(read(run), read(whole)) == []


def test_linear_probing_resumes_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = fit(tmp_path / "source") / "checkpoints" / "best.ckpt"
    options = ["--trainer.max_epochs=2", "--model.probe=0.5", f"--model.weights={weights}"]
    whole = fit(tmp_path / "whole", *options)
    for step in (3, 7):
        with monkeypatch.context() as patched:
            stop_at(patched, "on_train_batch_end", step)
            run = fit(tmp_path / f"runs{step}", *options, code=143)
        resume(run)
        assert differences(read(run), read(whole)) == []


def test_a_checkpoint_of_an_earlier_step_can_be_resumed(tmp_path: Path, wholes):
    run = fit(
        tmp_path / "runs", "--checkpoint.filename={step}", "--checkpoint.save_top_k=-1", "--checkpoint.monitor=null"
    )
    for name, step in (("5", 5), ("10", 10)):
        assert read(run, name)["global_step"] == step
        path = run / "checkpoints" / f"{name}.ckpt"
        known = set(run.parent.iterdir())
        assert main(["fit", f"--ckpt_path={path}", f"--runs={tmp_path / 'runs'}"]) == 0
        (other,) = set(run.parent.iterdir()) - known
        assert differences(read(other), read(wholes["plain"])) == []


def test_resuming_a_finished_run_prints_that_and_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = fit(tmp_path / "runs")
    before = (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    capsys.readouterr()
    resume(run)
    assert f"{run} is finished, after 15 steps; to train longer, set --trainer.max_epochs" in capsys.readouterr().out
    assert main(["fit", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    assert len(list(run.parent.iterdir())) == 1


def test_a_finished_run_trains_longer_and_logs_its_learning_rate(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = fit(tmp_path / "runs")
    resume(run, "--trainer.max_epochs=5")
    output = caplog.text
    assert "changed: trainer.max_epochs 3 -> 5" in output
    assert "as in a run of 25 steps, and to 0 at the last; it was 0, as in one of 15" in output
    assert read(run)["global_step"] == 25
    rates = dict(curves(run)["train/learning_rate"])
    assert f"learning rate: {rates[15]:.3g} from here" in output
    longer = dict(curves(fit(tmp_path / "longer", "--trainer.max_epochs=5"))["train/learning_rate"])
    assert [rates[step] for step in range(15, 25)] == [longer[step] for step in range(15, 25)]
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert (settings["trainer"]["max_epochs"], settings["ckpt_path"], settings["resume"]) == (5, None, None)
    assert yaml.safe_load((run / "config.before-1.yaml").read_text())["trainer"]["max_epochs"] == 3


def _stopped_at_4(runs: Path) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 4)
        return fit(runs, "--name=a", code=143)


def test_the_newest_run_of_a_name_is_found(tmp_path: Path):
    runs = tmp_path / "runs"
    first, newest = (_stopped_at_4(runs) for _ in range(2))
    assert main(["fit", "--resume=last", "--name=a", f"--runs={runs}"]) == 0
    assert read(newest)["global_step"] == 15
    assert read(first)["global_step"] == 4
    assert main(["fit", *TINY, "--resume=auto", "--name=b", f"--runs={runs}"]) == 0
    assert len(list((runs / "b").iterdir())) == 1


REFUSED = {
    "batch": (["--data.batch_size=32"], "a step of the run has 16 images"),
    "seed": (["--seed_everything=3"], "seed_everything is 3 here and 0 there"),
    "other pictures": (["--data.img_size=16"], "data.img_size=16 asks for others"),
    "normalisation": (["--data.normalize=imagenet"], "data.normalize is imagenet here and None there"),
    "accumulation": (["--trainer.accumulate_grad_batches=2"], "accumulate_grad_batches is 2 here and 1 there"),
    "fewer batches": (["--trainer.limit_train_batches=3"], "trainer.limit_train_batches is 3 here and 5 there"),
    "rate": (["--model.lr=0.5"], "model.lr is 0.5 here and 0.02 there"),
    "network": (["--model.arch_options.depth=2"], "model.arch_options.depth is 2 here and 1 there"),
    "balance": (["--data.balance=sampling"], "data.balance is sampling here and none there"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        return fit(tmp_path_factory.mktemp("stopped"), code=143)


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_a_resumed_run_cannot_change_are_refused_by_name(
    name: str, stopped: Path, capsys: pytest.CaptureFixture
):
    options, message = REFUSED[name]
    before = (stopped / "checkpoints" / "last.ckpt").read_bytes()
    resume(stopped, *options, code=2)
    output = capsys.readouterr().err
    assert message in output
    assert "Traceback" not in output
    assert (stopped / "checkpoints" / "last.ckpt").read_bytes() == before


def test_settings_that_a_resumed_run_can_change_are_logged_and_take_effect(
    tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
):
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        run = fit(tmp_path / "runs", code=143)
    resume(run, "--data.augment.flip=0.5", "--trainer.gradient_clip_val=0.1", "--trainer.precision=bf16-mixed")
    output = caplog.text
    for change in ("data.augment.flip None -> 0.5", "gradient_clip_val 1.0 -> 0.1", "precision None -> bf16-mixed"):
        assert change in output
    assert "resumed at step 7 of 15, epoch 2" in output


MISTAKES = {
    "no folder": ("nowhere", "no such run: nowhere"),
    "no run": ("empty", "is not the folder of a run"),
    "none of that name": ("last", "has written its state"),
    "nothing": ("", "--resume needs a value"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_run_that_cannot_be_found_is_a_one_line_error(name: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    which, message = MISTAKES[name]
    assert main(["fit", f"--resume={which}"]) == 2
    output = capsys.readouterr().err
    assert message in output
    assert output.count("\n") == 1


def test_a_run_without_a_state_and_a_second_checkpoint_are_refused(stopped: Path, tmp_path: Path, capsys):
    empty = tmp_path / "runs" / "a" / "b"
    empty.mkdir(parents=True)
    (empty / "config.yaml").write_text("name: a\n")
    assert main(["fit", "--resume", str(empty)]) == 2
    assert "ended before its state was written" in capsys.readouterr().err
    assert main(["fit", "--resume", str(stopped), "--ckpt_path=x.ckpt"]) == 2
    assert "leave out --ckpt_path" in capsys.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_last_line_has_step_checkpoint_and_resume_command(signum: int, tmp_path: Path, monkeypatch, capsys):
    stop_at(monkeypatch, "on_train_batch_end", 3, signum=signum)
    run = fit(tmp_path / "runs", code=128 + signum)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    path, name = run / "checkpoints" / "last.ckpt", signal.Signals(signum).name
    expected = f"vit-attn: stopped by {name} at step 3: its state is in {path}; to resume: vit-attn fit --resume {run}"
    assert last == expected


def test_other_images_are_refused(tmp_path: Path, monkeypatch, picture_folder, capsys):
    pictures = picture_folder({"bright": 30, "dark": 30})
    options = [
        "--data.dataset=folder",
        f"--data.root={pictures}",
        "--data.img_size=32",
        "--trainer.limit_val_batches=1",
    ]
    options += ["--trainer.limit_train_batches=2", "--data.augment.random_resized_crop=0"]
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 3)
        run = fit(tmp_path / "runs", *options, code=143)
    more = picture_folder({"bright": 30, "dark": 31}, where="more")
    resume(run, f"--data.root={more}", code=2)
    assert "these are not the images of the run to resume" in capsys.readouterr().err
    moved = pictures.rename(tmp_path / "moved")
    resume(run, f"--data.root={moved}")
    assert torch.isfinite(read(run)["state_dict"]["net.head.weight"]).all()


def test_a_resumed_run_validates_on_the_same_images(tmp_path: Path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        stop_at(patched, "on_train_batch_end", 7)
        run = fit(tmp_path / "runs", code=143)
    resume(run, "--trainer.limit_val_batches=2", code=2)
    expected = "trainer.limit_val_batches is 2 here and 3 there (best would be chosen by other images than before)"
    assert expected in capsys.readouterr().err
    path = run / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    del state["vit_attn"]["validated_in"]  # as versions before wrote it
    torch.save(state, path)
    with pytest.warns(UserWarning, match="validated the first 48 of 128 images in the order of their files"):
        resume(run)
