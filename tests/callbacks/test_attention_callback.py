import dataclasses
import gc
import threading
import warnings
import weakref
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.callbacks import AttentionLogger, FinetuneComparison, attention_logger, finetune_comparison
from vit_attn.callbacks.attention_callback import MAX_PENDING, BackgroundWriter
from vit_attn.data import ImageData
from vit_attn.model import VisionTransformer
from vit_attn.task import Classifier

pytestmark = [
    pytest.mark.slow,  # each test takes long for what it computes
    pytest.mark.filterwarnings("ignore:.*does not say how its images were normalised"),
]

SMALL = {"embed_dim": 16, "depth": 1, "num_heads": 1}


def broken(*_args: Any) -> None:
    raise RuntimeError("no ink\nand much more")


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("attention-writer")]


def fit(folder: Path, callbacks: list[L.Callback], epochs: int = 1, **task_options: Any) -> L.Trainer:
    L.seed_everything(3, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=4,
        limit_val_batches=1,
        logger=TensorBoardLogger(folder, "a", "b"),
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(Classifier(arch_options=SMALL, **task_options), datamodule=ImageData("coins", batch_size=4))
    return trainer


def test_training_waits_for_the_oldest_where_too_many_steps_are_pending():
    writer, let_go, drawn = BackgroundWriter("pictures"), threading.Event(), []

    def slow(number: int) -> None:
        let_go.wait(10)
        drawn.append(number)

    for number in range(MAX_PENDING):
        writer.submit(number, slow, number)
    threading.Timer(0.05, let_go.set).start()
    assert drawn == []
    writer.submit(9, slow, 9)
    assert drawn[0] == 0
    assert writer.finish()
    assert drawn == [*range(MAX_PENDING), 9]
    assert not writer.finish()
    assert threads() == []


def test_a_failure_is_reported_when_it_happens_and_the_same_once_more_with_its_count():
    writer, drawn = BackgroundWriter("pictures of attention"), []
    writer.submit(5, broken)
    writer.pending[0][1].exception(10)
    with pytest.warns(
        UserWarning, match=r"pictures of attention could not be drawn: no ink \(step 5; the tr"
    ) as warnings_:
        writer.report_failures()
    assert len(warnings_) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in (6, 7):
            writer.submit(step, broken)
        writer.submit(8, drawn.append, "good")
        writer.pending[-1][1].result(10)
        writer.report_failures()
    with pytest.warns(UserWarning, match=r"could not be drawn: no ink \(2 more times, last in step 7\)"):
        assert writer.finish()
    assert drawn == ["good"]
    writer.submit(9, broken)  # another run with the same callback
    with pytest.warns(UserWarning, match="step 9"):
        writer.finish()


def test_a_failed_drawing_keeps_nothing_in_memory():
    class Held:
        pass

    writer, held = BackgroundWriter("pictures"), Held()
    there = weakref.ref(held)
    writer.submit(0, broken, held)
    with pytest.warns(UserWarning, match="no ink"):
        writer.finish()
    del held
    gc.collect()
    assert there() is None


@pytest.mark.parametrize("kind", ["attention", "comparison"])
def test_training_goes_on_and_reports_a_failed_drawing_before_it_ends(kind: str, tmp_path: Path, monkeypatch):
    steps, finish = [], BackgroundWriter.finish

    class Steps(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            for callback in trainer.callbacks:
                if pending := getattr(getattr(callback, "background", None), "pending", ()):
                    pending[-1][1].exception(10)  # until it is drawn

        def on_train_batch_end(self, trainer, *_):
            steps.append(trainer.global_step)

    if kind == "attention":
        callback, options = AttentionLogger(num_images=1, max_cost=1.0), {}
    else:
        source = VisionTransformer(img_size=32, patch_size=4, num_classes=10, **SMALL)
        torch.save(source.state_dict(), tmp_path / "source.pth")
        options = {"arch": "vit_attn_tiny_patch4_32", "weights": str(tmp_path / "source.pth")}
        callback = FinetuneComparison(num_images=1, max_cost=1.0)
    monkeypatch.setattr(type(callback), "_write", broken)
    monkeypatch.setattr(BackgroundWriter, "finish", lambda writer: steps.append("finish") or finish(writer))
    monkeypatch.setattr("vit_attn.callbacks.attention_callback.rank_zero_warn", lambda line: steps.append(line))
    fit(tmp_path, [Steps(), callback], **options)
    first, *_, last = [each for each in steps if isinstance(each, str) and each != "finish"]
    assert steps.index(first) == 0
    assert first == f"pictures of {kind} could not be drawn: no ink (step 0; the training goes on)"
    assert last == f"pictures of {kind} could not be drawn: no ink (1 more time, last in step 4)"
    assert [each for each in steps if isinstance(each, int)] == [1, 2, 3, 4]
    assert threads() == []


def test_a_full_disk_is_a_failed_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vit_attn.callbacks.attention_logger.callback.add_picture", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        trainer = fit(tmp_path, [AttentionLogger(num_images=1, max_cost=1.0)])
    assert trainer.global_step == 4


def tensors_of(recording: Recording) -> list[Tensor]:
    calls = [call for forward in recording.forwards for _, call in forward.calls]
    values = [getattr(call, each.name) for call in calls for each in dataclasses.fields(call)]
    return [each for each in values if isinstance(each, Tensor)]


def test_what_is_drawn_is_in_the_hosts_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copied, seen = set(), []

    def copy(tensor: Tensor) -> Tensor:
        mine = tensor.detach().clone()
        copied.add(mine.data_ptr())
        seen.append(mine)  # so that no other takes its place
        return mine

    drawn = []
    monkeypatch.setattr(AttentionLogger, "_write", lambda _callback, _writers, snapshot, _names: drawn.append(snapshot))
    monkeypatch.setattr(Tensor, "cpu", copy)
    fit(tmp_path, [AttentionLogger(num_images=2, max_cost=1.0)])
    for snapshot in drawn:
        assert {each.data_ptr() for each in [snapshot.logits, *tensors_of(snapshot.recording)]} <= copied
        assert all(each.grad_fn is None for each in tensors_of(snapshot.recording))
    assert len(drawn) == 2


def test_a_recording_on_the_host_has_the_same_weights_and_no_broadcast_mask_is_copied():
    options = {"img_size": 32, "patch_size": 4, "num_classes": 10, "window": 3, "embed_dim": 32, "num_heads": 2}
    net = VisionTransformer(depth=2, **options).eval()
    with record(net, gradients=True) as recording:
        net(torch.randn(2, 3, 32, 32))
    moved = recording.on_host()
    for ours, theirs in zip(moved, recording, strict=True):
        assert torch.equal(ours.weights(), theirs.weights())
        assert ours.calls[0].output is None
        assert ours.calls[0].mask.stride() == theirs.calls[0].mask.stride()
        assert 0 in ours.calls[0].mask.stride()


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("kind", ["logger", "comparison"])
def test_only_the_rank_that_writes_copies_its_recording_to_the_host(kind: str, zero: bool, tmp_path: Path, monkeypatch):
    recorded, copied = [], []
    modules = {"logger": attention_logger.snapshot, "comparison": finetune_comparison}
    enter, on_host = modules[kind].record, Recording.on_host
    monkeypatch.setattr(modules[kind], "record", lambda *args, **kwargs: recorded.append(1) or enter(*args, **kwargs))
    monkeypatch.setattr(Recording, "on_host", lambda recording: copied.append(1) or on_host(recording))
    data = ImageData("coins")
    data.prepare_data()
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", logger=TensorBoardLogger(tmp_path), **quiet)
    trainer.datamodule = data
    monkeypatch.setattr(L.Trainer, "is_global_zero", zero)
    monkeypatch.setattr(L.Trainer, "world_size", 2)
    task = Classifier(arch_options=SMALL)
    task.start = "a source"
    options = {"num_images": 1, "max_cost": 1.0}
    if kind == "logger":
        callback = AttentionLogger(**options, faithfulness_every=0, tab_megabytes=0)
    else:
        callback = FinetuneComparison(**options)
    monkeypatch.setattr(callback, "_write", lambda *args: None)
    callback.setup(trainer, task, "validate")
    callback.on_train_start(trainer, task)
    callback.finish()
    count = {"logger": 1, "comparison": 2}[kind]  # of the comparison: the source, and the network at step 0
    assert len(recorded) == count
    assert len(copied) == count * zero
