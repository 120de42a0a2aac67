"""Lightning's command line with this package's task, data and callbacks, and a folder for every run."""

import contextlib
import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vit_attn.checkpoints.finetune import apply_to_settings, check_trainable, resolve_start
from vit_attn.checkpoints.paths import describe_missing, weights_file
from vit_attn.commands.parsing.errors import NOT_TEXT, summarize_error
from vit_attn.commands.parsing.model_option import check_evaluated
from vit_attn.commands.run import callbacks as run_callbacks
from vit_attn.commands.run import resume
from vit_attn.commands.run.checkpoint import apply_checkpoint, read_run, run_folder
from vit_attn.commands.run.config import CONFIG_FILE, as_plain_values
from vit_attn.commands.run.folders import new_run_folder
from vit_attn.commands.run.lock import lock_run
from vit_attn.commands.run.name import check_run_name, check_runs_folder
from vit_attn.commands.run.report import report_end, report_stop, report_validation
from vit_attn.commands.run.trainer_checks import check_evaluates_images, check_trainer_settings
from vit_attn.data import ImageData
from vit_attn.errors import UserError
from vit_attn.parts import imported_parts
from vit_attn.reports.run_log import FILE_NAME as LOG
from vit_attn.reports.run_log import RunLog
from vit_attn.training import stopping
from vit_attn.training.data_members import class_weights_of, img_size_of, in_chans_of, num_classes_of
from vit_attn.training.launching import prepare_trainer

LINKED = {
    "num_classes": num_classes_of,
    "img_size": img_size_of,
    "in_chans": in_chans_of,
    "class_weights": class_weights_of,
}
"""Settings of the network that follow from the data, and how they are found out of a data module of one's own."""


class LightningParser(LightningArgumentParser):
    """Lightning's parser with one-line errors instead of fifty lines of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error for ``main`` to print; parsers that jsonargparse only tries keep their own behaviour.

        Raises:
            UserError: Unless jsonargparse only tries this parser.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        raise UserError(summarize_error(message, self)) from ex


class VitAttnCLI(LightningCLI):
    """Command line of ``fit``, ``validate``, ``test`` and ``predict``.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``; a parser of each would take 0.4 s apiece.
        predictions: Options of the table of ``predict``: ``path``, ``top_k`` and ``overwrite``.
        folder: Folder of the run to resume; None for a new run.
        original_options: Options of the command as the user gave them, which are stored with the run.
        report: For a trial of a sweep, function of each validation's step and accuracy; returns whether it is pruned.
    """

    def __init__(
        self,
        *args: Any,
        command: str,
        predictions: Mapping[str, Any],
        folder: Path | None = None,
        original_options: list[str] | None = None,
        report: Callable[[int, float], bool] | None = None,
        **options: Any,
    ) -> None:
        self.command = command
        self.predictions, self.folder, self.original_options = predictions, folder, original_options or []
        self.report = report
        self.stored: Mapping[str, Any] = {}
        self.changes: list[resume.SettingChange] = []
        super().__init__(*args, **options)

    def subcommands(self) -> dict[str, set[str]]:  # pyrefly: ignore[bad-override]
        """Return the command that has a parser, with the arguments that it does not take from the command line."""
        return {self.command: super().subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the run and its callbacks, and link settings of the network to the data."""
        parser.add_argument("--name", type=str, default="vit", help="Name of the run.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs; a run is in RUNS/NAME/….")
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            metavar="RUN",
            help="Resume a run in its folder: that folder, a folder of runs for the newest, `last` for the newest of "
            "--name, or `auto` for that if there is one. The settings are those of the run, except for other "
            "options given here.",
        )
        run_callbacks.add_callback_options(parser)
        parser.add_argument(
            "--import",
            type=list[str],
            default=[],
            help="Modules of your own parts to import first: networks, data sets, methods. Repeatable.",
        )
        if "seed" in inspect.signature(self._datamodule_class).parameters:
            parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        for name, find in LINKED.items():
            if self._datamodule_class is ImageData:
                parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")
            else:
                parser.link_arguments("data", f"model.{name}", compute_fn=find, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse options and files, and check the seed, on which data and training depend."""
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError as error:
            raise UserError(NOT_TEXT.format(error)) from error
        self.config = as_plain_values(self.config)
        seed = self.config[self.config.subcommand].seed_everything
        if seed is True or not 0 <= seed < 2**32:
            raise UserError(f"seed_everything must be a number from 0 to 2**32 - 1, got {seed}")
        if self.config.subcommand == "fit":
            settings = self.config.fit
            check_runs_folder(settings.runs)
            check_run_name(settings.name)
            if self.folder is None:
                model = settings.model
                if model.weights is not None:  # so that config.yaml names the file, not the newest of some runs
                    model.weights = str(weights_file(model.weights) or model.weights)
                start = resolve_start(model.weights, model.arch, model.arch_options)
                apply_to_settings(start, model, settings.get("data", Namespace()))
                if settings.ckpt_path is None:
                    check_trainable(start, model.train, model.probe)

    def _parse_ckpt_path(self) -> None:
        """Take the network's settings from the checkpoint; a resumed run must have the same settings."""
        command, settings = self.config.subcommand, self.config[self.config.subcommand]
        if settings.ckpt_path is None:
            if command != "fit":
                check_evaluated(command, None)
            return
        path = str(weights_file(settings.ckpt_path) or settings.ckpt_path)
        if not Path(path).is_file():
            raise UserError(describe_missing(path))
        settings.ckpt_path = path
        current = self._plain_config()
        stored_model = apply_checkpoint(command, settings, path)
        if command == "fit":
            self._compare_settings(current, Path(path))
            resume.refuse_model_changes(settings.model.as_dict(), stored_model, path)
        super()._parse_ckpt_path()

    def _compare_settings(self, current: dict[str, Any], path: Path) -> None:
        """Find settings that differ from the checkpoint's, and refuse those that cannot change."""
        self.stored = read_run(path)
        self.changes = resume.find_changes(self.stored.get("settings", {}), current)
        resume.refuse_fixed_changes(self.changes, path)
        resume.refuse_finished(self.stored, self.changes, path)

    def instantiate_classes(self) -> None:
        """Build data, task and trainer; errors of their constructors are one line."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if isinstance(error, UserError) or "Union subtypes" not in str(error):
                raise
            raise UserError(summarize_error(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer: with folder, logger and callbacks for ``fit``, and without a logger for other commands."""
        command, settings = str(self.subcommand), self._setting("trainer")
        if command == "fit":
            check_trainer_settings(settings)
            kwargs |= self._folder_and_logger(settings.logger)
        else:
            check_evaluates_images(settings, command)
            kwargs |= {"logger": False, "callbacks": []}
        kwargs["enable_model_summary"] = False  # RunSummary is in its place
        progress = run_callbacks.progress_callbacks(command, settings)
        self.trainer_defaults["callbacks"] = [*self._callbacks(command), *progress]
        try:
            trainer = prepare_trainer(super().instantiate_trainer(**kwargs))
        except (ValueError, ModuleNotFoundError, MisconfigurationException) as error:  # an impossible combination
            raise UserError(" ".join(str(error).split())) from error
        run_callbacks.order_callbacks(trainer)
        run_callbacks.hide_progress_bar(trainer)
        return trainer

    def _folder_and_logger(self, logger: Any) -> dict[str, Any]:
        """Make the trainer's folder and logger; those of a resumed run drop the curves after its checkpoint."""
        folder = self.folder or new_run_folder(self._setting("runs"), self._setting("name"))
        checkpoint = self._setting("checkpoint")
        if checkpoint.dirpath is not None:
            raise UserError(
                "checkpoint.dirpath: a run keeps its checkpoints in its folder, which --runs and --name choose"
            )
        checkpoint.dirpath = str(folder / "checkpoints")
        options: dict[str, Any] = {"default_root_dir": str(folder)}
        if logger in (None, True):
            options["logger"] = self._run_logger(folder)
        elif others := run_callbacks.loggers_without_events(logger):
            options["logger"] = [self._run_logger(folder), *others]
        return options

    def _run_logger(self, folder: Path) -> Any:
        return run_callbacks.run_logger(folder, None if self.folder is None else self._first_step())

    def _first_step(self) -> int:
        """Return the first step whose curves a resumed run writes again."""
        return int(self.stored["global_step"]) + (0 if self.stored.get("validation_pending") else 1)

    def _callbacks(self, command: str) -> list[Any]:
        path = self._setting("ckpt_path")
        if command == "fit":
            checkpoint = self._setting("checkpoint")
            checkpoint.settings, checkpoint.options = self._plain_config(), self.original_options
            stored = None if path is None else self.stored
            resumed = self.folder is not None
            trial = run_callbacks.trial_callbacks(self.report)
            return run_callbacks.fit_callbacks(checkpoint, self._config(), resumed, stored, self.changes) + trial
        run = run_folder(path)
        folder = run or Path(path).parent
        if command == "test":
            return run_callbacks.report_callbacks(folder, in_run=run is not None)
        return run_callbacks.prediction_callbacks(folder, self.predictions) if command == "predict" else []

    def _plain_config(self) -> dict[str, Any]:
        """Return the configuration of the command as a file would have it."""
        parser = self._subcommand_parsers[self.config.subcommand]
        text = parser.dump(self.config[self.config.subcommand], skip_none=False, skip_validation=True)
        kind = self._datamodule_class
        return yaml.safe_load(text) | {"data_module": f"{kind.__module__}.{kind.__qualname__}"}

    def _config(self) -> Any:
        config: Any = self.config
        return config[self.subcommand]

    def _setting(self, name: str) -> Any:
        settings: Any = self.config_init
        return settings[self.subcommand][name]

    def before_fit(self) -> None:
        """Check the callbacks before anything is written, and start the clock."""
        run_callbacks.check_before_fit(self.trainer, self.model, self.datamodule)
        self.started = time.monotonic()

    def before_validate(self) -> None:
        """Turn off Lightning's table of results."""
        settings: Any = self.config_init
        settings.validate.verbose = False

    def after_validate(self) -> None:
        """Print loss and accuracy."""
        report_validation(self.trainer)

    def before_test(self) -> None:
        """Turn off Lightning's table of results, which the report replaces."""
        settings: Any = self.config_init
        settings.test.verbose = False

    def before_predict(self) -> None:
        """Keep no predictions in memory, since they are in the table."""
        settings: Any = self.config_init
        settings.predict.return_predictions = False

    def fit(self, **arguments: Any) -> None:
        """Train; after a stop by a signal, print how to resume."""
        locks = self._writes()
        with lock_run(Path(self.trainer.default_root_dir)) if locks else contextlib.nullcontext(), self._log() as log:
            if log is not None:
                modules = [f"--import={name}" for name in imported_parts()]
                log.write(f"vit-attn fit {' '.join([*modules, *self.original_options])}")
            try:
                self.trainer.fit(**arguments)
            except stopping.Stopped as stopped:
                report_stop(self.trainer, stopped)
                raise

    def after_fit(self) -> None:
        """Print accuracy, time, checkpoints, and the command that shows the run."""
        with self._log():
            report_end(self.trainer, time.monotonic() - self.started, self.config.fit.runs)

    def _writes(self) -> bool:
        return self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False)

    def _log(self) -> contextlib.AbstractContextManager[RunLog | None]:
        """Open the log of the run, on the rank that writes it."""
        if not self._writes():
            return contextlib.nullcontext()
        folder = Path(self.trainer.default_root_dir)
        return RunLog(folder / LOG, awaited=folder / CONFIG_FILE)
