"""TensorBoard logger of a run, which also writes its scalars to ``metrics.csv``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch.utils.tensorboard import SummaryWriter

from vit_attn.reports.metrics_table import FILE_NAME, MetricsTable


class RunWriter(SummaryWriter):
    """Writer of event files that adds each scalar to a table, too, whoever writes it.

    Args:
        log_dir: Folder of the event files.
        table: The table.
        options: Other arguments of ``SummaryWriter``.
    """

    def __init__(self, log_dir: str, table: MetricsTable, **options: Any) -> None:
        super().__init__(log_dir=log_dir, **options)
        self.table = table

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: int | None = None, *args: Any, **options: Any
    ) -> None:
        """Write a scalar."""
        super().add_scalar(tag, scalar_value, global_step, *args, **options)
        if not isinstance(scalar_value, str):
            self.table.add(int(global_step or 0), {tag: float(scalar_value)})


class RunLogger(TensorBoardLogger):
    """TensorBoard logger of a run in its folder, with the table of its scalars.

    Lightning logs the number of the epoch with everything, as a scalar; here it is a column of the table, counted from
    1, and no chart.

    Args:
        folder: Folder of the run, RUNS/NAME/UNIQUE.
        first_step: First step that a resumed run writes again; later rows and events are dropped. None for a new run.
    """

    def __init__(self, folder: Path, first_step: int | None = None) -> None:
        purge: dict[str, Any] = {} if first_step is None else {"purge_step": first_step}
        location = str(folder.parent.parent), folder.parent.name, folder.name
        super().__init__(*location, default_hp_metric=False, **purge)
        self.folder, self.first_step = folder, first_step or 0
        self.table: MetricsTable | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """Writer of the run, made when it is needed first."""
        if self._experiment is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.table = MetricsTable(self.folder / FILE_NAME, self.first_step)
            self._experiment = RunWriter(str(self.folder), self.table, **self._kwargs)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars."""
        values = dict(metrics)
        epoch = values.pop("epoch", None)
        super().log_metrics(values, step)
        if self.table is not None and values:
            if epoch is not None:
                self.table.add(step or 0, {"epoch": int(epoch) + 1})
            self._write_table()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left, and close the event file."""
        self._write_table()
        super().finalize(status)

    def _write_table(self) -> None:
        if self.table is None:
            return
        try:
            self.table.flush()
        except OSError as error:
            rank_zero_warn(f"{self.table.path} could not be written: {error.strerror or error}; the training goes on")
