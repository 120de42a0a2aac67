"""Wrong inputs, as newcomers type them, and the right next step that the one line names."""

import shlex
import sys
from pathlib import Path

import pytest

from vit_attn import parts
from vit_attn.cli import main

MONITOR = "--trainer.callbacks.monitor=…"
WRONG = {
    "train -c configs/quickstart.yaml": "unknown command 'train', did you mean 'fit'?",
    "evaluate --model x.ckpt": "unknown command 'evaluate', did you mean 'test'?",
    "finetune --data.root x": "unknown command 'finetune', did you mean 'fit'?",
    "fitt": "unknown command 'fitt', did you mean 'fit'?",
    "explain x.jpg": "did you mean 'attend'?",
    "fit --lr 1e-3": "did you mean '--model.lr'?",
    "fit --learning-rate 1e-3": "did you mean '--model.lr'?",
    "fit --epochs 3": "did you mean '--trainer.max_epochs'?",
    "fit --max_epochs 3": "did you mean '--trainer.max_epochs'?",
    "fit --seed 1": "did you mean '--seed_everything'?",
    "fit --gpus 2": "did you mean '--trainer.devices'?",
    "fit --device cuda": "did you mean '--trainer.accelerator'?",
    "fit --cpu": "did you mean '--trainer.accelerator=cpu'?",
    "fit --batch-size 32": "did you mean '--data.batch_size'?",
    "fit --batch_size 32": "did you mean '--data.batch_size'?",
    "fit --workers 4": "did you mean '--data.num_workers'?",
    "fit --num_workers 4": "did you mean '--data.num_workers'?",
    "fit --resume": "--resume needs a value: the folder of a run, last for the newest, or auto",
    "fit --resume runs/none/none": "no such run: runs/none/none; --resume takes the folder of a run",
    "fit --fp16": "did you mean '--trainer.precision=16-mixed'?",
    "fit --trainer.precision fp16": "got 'fp16', did you mean '16-mixed'?",
    "fit --trainer.precision bfloat16": "got 'bfloat16', did you mean 'bf16-mixed'?",
    "fit --trainer.limit_val_batches=many": "expected a whole number or a number, got 'many'",
    "fit --model.train=some": "expected a whole number or one of 'all', 'head', got 'some'",
    "fit --model google/vit-base-patch16-224": "the network is --model.arch=google/vit-base-patch16-224",
    "fit --model.arch google/vit-base-patch16-224": "did you mean 'vit_base_patch16_224'?",
    "fit --model.arch timm/vit_base_patch16_224.orig_in21k": "did you mean 'vit_base_patch16_224.orig_in21k'?",
    "fit --arch vit_small_patch16_224": "did you mean '--model.arch'?",
    "fit --pretrained": "did you mean '--model.weights'?",
    "fit --weights x.pt": "did you mean '--model.weights'?",
    "fit --checkpoint x.ckpt": "a checkpoint to start from is --model.weights=x.ckpt",
    "fit --dataset cifar10": "did you mean '--data.dataset'?",
    "fit --data ./photos": "a folder of images --data.dataset=folder --data.root=./photos",
    "fit --data.dataset ./photos": "for your own images --data.dataset=folder --data.root=./photos",
    "fit --data.dataset imagefolder": "unknown data set 'imagefolder', did you mean 'folder'?",
    "fit --data_dir ./photos": "did you mean '--data.root'?",
    "fit --img_size 64": "did you mean '--data.img_size'?",
    "fit --mixup 0.8": "did you mean '--data.augment.mixup'?",
    "fit --data.augment.mixu=0.8": "did you mean '--data.augment.mixup'",
    "fit --dropout 0.1": "did you mean '--model.arch_options.drop_path_rate'?",
    "fit --weight-decay 0.1": "did you mean '--model.weight_decay'?",
    "fit --model.optimizer=Adam": "unknown optimizer 'Adam', did you mean 'adam'",
    "fit --model.lr=fast": "model.lr: expected a number, got 'fast'",
    "fit --output out": "did you mean '--runs'?",
    "fit --patience 5": "did you mean '--trainer.callbacks+=EarlyStopping",
    "fit --trainer.callbacks+=EarlyStopping": f"trainer.callbacks: EarlyStopping needs monitor: add {MONITOR}",
    "fit --trainer.callbacks+=EarlyStoping": "Lightning has no EarlyStoping, did you mean 'EarlyStopping'?",
    "fit --trainer.callbacks=EarlyStopping --trainer.callbacks.patience=x": "trainer.callbacks.patience: expected a",
    "fit configs/quickstart.yaml": "name configuration files with -c",
    "fit --trainer.max_epochs=0": "trainer.max_epochs=0 trains nothing: set at least 1",
    "fit --help.trainr": "no group of options 'trainr', did you mean 'trainer'?",
    "test": "test needs a trained network: --model runs/NAME/RUN, or a checkpoint",
    "test --ckpt best.ckpt": "did you mean '--model'?",
    "test -m runs/vit": "unknown option -m, did you mean '--model'?",
    "test --model": "--model needs a value: the folder of a run, as in --model runs/NAME/RUN",
    "test --model=": "--model needs a value",
    "test runs/vit/best.ckpt": "unexpected argument 'runs/vit/best.ckpt'; name the network with --model",
    "test --models x": "did you mean '--model'",
    "test --ckpt-path x": "did you mean '--model'?",
    "test --checkpoint x": "unknown option --checkpoint, did you mean '--model'?",
    "test --model x.ckpt --model.lr=1": "as it was trained: leave out --model.lr=1",
    "test --model vit_tiny_patch16_224": "vit-attn predict FOLDER --model vit_tiny_patch16_224",
    "test --model configs": "configs is a folder without a checkpoint; name the folder of a run",
    "test --model config": "checkpoint not found: config, did you mean 'configs'?",
    "test --model 'configs '": "did you mean 'configs'?",
    "test --model configs\\\\quickstart.yaml": "did you mean 'configs/quickstart.yaml'?",
    "test --model configs/quickstart.yaml": "it is a file of settings, which -c takes",
    "test --model docs/images/explore.png": "it is a picture, which --images takes",
    "predict --model runs/none": "checkpoint not found: runs/none",
    "predict --model vit_tiny_patch16_224": "predict needs pictures: files or folders",
    "predict doc/images --model x.ckpt": "no such image or folder: doc/images, did you mean 'docs/images'?",
    "attend best.ckpt": "best.ckpt is no picture but a file of weights: name it with --model",
    "attend": "attend needs pictures: files or folders",
    "attend --image x.jpg": "did you mean '--images'?",
    "attend x.jpg --checkpoint y": "did you mean '--model'?",
    "attend x.jpg --ckpt_path y": "did you mean '--model'?",
    "export --model x.ckpt": "export needs --output: FOLDER/, or a file that ends in",
    "export --model x.ckpt -o y.onnx": "unknown option -o, did you mean '--output'?",
    "export --model x.ckpt --output y.onx": "did you mean '.onnx'?",
    "export-html run": "no such folder: run",
    "judge runs/x": "unexpected argument 'runs/x'; name the network with --model runs/x",
    "fit --model": "--model.arch=NAME chooses it, --model.weights=FILE|RUN|NAME what it starts from",
    "fit --model runs/none": "--model.weights=runs/none; checkpoint not found: runs/none",
    "fit -m vit_tiny_patch16_224": "did you mean '--model.weights'?",
    "fit --model.weights=configs": "configs is a folder without a checkpoint",
    "fit --resume configs": "configs is not the folder of a run: it has no config.yaml",
    "fit --resume confgs": "no such run: confgs, did you mean 'configs'?",
    "completion fish": "invalid choice: 'fish'",
    "attend x.jpg --classes 3": "did you mean '--target'?",
    "attend x.jpg --token 3": "did you mean '--query'?",
    "export --model x.ckpt --format onnx": "did you mean '--output'?",
}
"""Part of the one line by the command line."""


def test_there_are_eighty_of_them():
    assert len(WRONG) >= 80


@pytest.mark.parametrize(("line", "expected"), WRONG.items())
def test_a_wrong_input_is_one_line_with_the_right_next_step(line, expected, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert main(shlex.split(line)) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


IN_A_FOLDER = {
    "fit -c crooked.yaml": "crooked.yaml, line 3 is not YAML: mapping values are not allowed",
    "fit -c configs/quickstart.yaml --trainer.callbacks+=mine.Hello": "is in the current folder: add --import mine",
    "fit -c configs/quickstart.yaml --trainer.callbacks+=minee.Hello": "No module named 'minee', did you mean 'mine'?",
    "fit --data=Mine --import mine": "data: Mine is of the module mine: --data=mine.Mine",
    "fit --data.dataset=folder --data.root=photo/labelled": "did you mean 'photos/labelled'?",
}


@pytest.mark.parametrize(("line", "expected"), IN_A_FOLDER.items())
def test_files_of_the_current_folder_are_named(line, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "_IMPORTED", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "photos/labelled").mkdir(parents=True)
    (tmp_path / "crooked.yaml").write_text("model:\n  lr: 1e-3\n   depth: 3\n")
    (tmp_path / "mine.py").write_text("class Mine: ...\n")
    assert main(shlex.split(line)) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
