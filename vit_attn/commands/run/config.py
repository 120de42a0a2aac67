"""``config.yaml`` in the folder of a run, which repeats the run."""

from enum import Enum
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import SaveConfigCallback

from vit_attn.commands.run.own_data import with_class_path
from vit_attn.files import whole_file

CONFIG_FILE = "config.yaml"


class SaveRunConfig(SaveConfigCallback):
    """Writes ``config.yaml``; a resumed run keeps its earlier one as ``config.before-1.yaml`` and so on.

    Args:
        parser: Parser of the configuration.
        config: The configuration.
        data_class: Path of the class of a data module of one's own.
        options: Options of Lightning's callback.
    """

    def __init__(self, parser: Any, config: Any, data_class: str | None = None, **options: Any) -> None:
        super().__init__(parser, config, **options)
        self.data_class = data_class

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write it for a new run."""
        if not Path(trainer.default_root_dir, CONFIG_FILE).exists():
            self._save(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Write it for a resumed run, once all checks have passed, including those at its first batch."""
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        """Write it on the first rank, unless the file has the same content already."""
        folder = trainer.default_root_dir
        if self.already_saved or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        path, content = Path(folder, CONFIG_FILE), self._content(Path(folder))
        if path.is_file() and (before := path.read_text(encoding="utf-8")) != content:
            _write(_backup_path(Path(folder)), before)
        _write(path, content)
        self.already_saved = True

    def _content(self, folder: Path) -> str:
        """Dump the configuration without the options that resume the run in this folder."""
        config: Any = self.config.clone()
        if config.get("ckpt_path") and folder.absolute() in Path(config.ckpt_path).absolute().parents:
            config.ckpt_path = None
        config.resume = None
        text = self.parser.dump(config, skip_none=False)
        if self.data_class is None:
            return text
        comment = text.partition("\n")[0]
        settings = with_class_path(yaml.safe_load(text), self.data_class)
        return f"{comment}\n{yaml.safe_dump(settings, sort_keys=False)}"


def as_plain_values(config: Any) -> Any:
    """Convert enums and devices, which some callbacks have as defaults, to the texts that a file would have.

    Args:
        config: A configuration, or a value in it.
    """
    if isinstance(config, Namespace):
        return Namespace(**{name: as_plain_values(value) for name, value in vars(config).items()})
    if isinstance(config, dict):
        return {name: as_plain_values(value) for name, value in config.items()}
    if isinstance(config, list):
        return [as_plain_values(value) for value in config]
    if isinstance(config, Enum):
        return config.value
    return str(config) if isinstance(config, torch.device) else config


def _backup_path(folder: Path) -> Path:
    count = len(list(folder.glob("config.before-*.yaml")))
    return folder / f"config.before-{count + 1}.yaml"


def _write(path: Path, content: str) -> None:
    with whole_file(path, "configuration") as file:
        file.write(content.encode("utf-8"))
