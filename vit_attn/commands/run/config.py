"""The configuration that a run keeps in its folder."""

from enum import Enum
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import SaveConfigCallback

from vit_attn.files import whole_file

NAME = "config.yaml"


class RunConfig(SaveConfigCallback):
    """Writes ``config.yaml``, which repeats the run; what a resumed run had before stays beside it."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write it for a new run."""
        if not Path(trainer.default_root_dir, NAME).exists():
            self._save(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write it for a run that goes on, when nothing has refused that, its first batch not either."""
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        """Write it on the first rank, unless it is there as it is."""
        folder = trainer.default_root_dir
        if self.already_saved or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        path, content = Path(folder, NAME), self._content(Path(folder))
        if path.is_file() and (before := path.read_text(encoding="utf-8")) != content:
            _write(_next(Path(folder)), before)
        _write(path, content)
        self.already_saved = True

    def _content(self, folder: Path) -> str:
        """The configuration without what says that the run in this folder is resumed."""
        config: Any = self.config.clone()
        if config.get("ckpt_path") and folder.absolute() in Path(config.ckpt_path).absolute().parents:
            config.ckpt_path = None
        config.resume = None
        return self.parser.dump(config, skip_none=False)


def in_plain_values(config: Any) -> Any:
    """A configuration whose defaults are words and numbers, as a file has them; some callbacks' are objects."""
    if isinstance(config, Namespace):
        return Namespace(**{name: in_plain_values(value) for name, value in vars(config).items()})
    if isinstance(config, dict):
        return {name: in_plain_values(value) for name, value in config.items()}
    if isinstance(config, list):
        return [in_plain_values(value) for value in config]
    if isinstance(config, Enum):
        return config.value
    return str(config) if isinstance(config, torch.device) else config


def _next(folder: Path) -> Path:
    """A name for the configuration of before."""
    count = len(list(folder.glob("config.before-*.yaml")))
    return folder / f"config.before-{count + 1}.yaml"


def _write(path: Path, content: str) -> None:
    with whole_file(path, "configuration") as file:
        file.write(content.encode("utf-8"))
