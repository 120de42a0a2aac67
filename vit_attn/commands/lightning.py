"""``fit``, ``validate``, ``test`` and ``predict``: Lightning's verbs on our task and data."""

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vit_attn.callbacks import AttentionLogger, FinetuneComparison, HParams, PredictionWriter, TestReport
from vit_attn.callbacks.hparams import chosen_settings
from vit_attn.callbacks.resume_check import ResumeCheck
from vit_attn.callbacks.run_checkpoint import RunCheckpoint
from vit_attn.callbacks.run_control import LeaveBeforeStep, RunControl
from vit_attn.checkpoints.finetune import apply_to_settings, apply_to_task, check_trainable, resolve_start
from vit_attn.commands.parsing.errors import explain
from vit_attn.commands.parsing.yaml_limits import limit_jsonargparse
from vit_attn.commands.run import resume as resuming
from vit_attn.commands.run.checkpoint import read_run, run_folder, take_checkpoint
from vit_attn.commands.run.config import RunConfig, in_plain_values
from vit_attn.commands.run.folders import new_folder
from vit_attn.commands.run.lock import hold_run
from vit_attn.commands.run.name import check_run_name, check_runs_folder
from vit_attn.commands.run.report import report_end, report_stop
from vit_attn.commands.run.slurm import requeue
from vit_attn.commands.run.stored_config import options_of_run
from vit_attn.commands.run.trainer_checks import (
    check_averages,
    check_callbacks,
    check_parts,
    check_settings,
    plain_errors,
)
from vit_attn.data import ImageData
from vit_attn.errors import UserError, printable
from vit_attn.reports.prediction_table import check_output
from vit_attn.task import LOGGED, Classifier
from vit_attn.training import stopping
from vit_attn.training.launching import prepare_trainer

NOISE = (
    ".*does not have many workers",  # the data is in memory already
    "LightningCLI's args parameter",  # it is given the process's own arguments
    ".*isinstance.treespec, LeafSpec.",  # lightning 2.6 against newer torch
    "The dirpath has changed",  # every run has a folder of its own; after_fit says what the best is the best of
    "Be aware that when using `ckpt_path`",  # measuring needs no callback of the training
    "Checkpoint directory .* exists and is not empty",  # that of the run which goes on
    "Precision bf16-mixed is not supported by the model summary",
)
"""Warnings that say nothing to a user of the command line."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


def run(verb: str, options: list[str], predictions: Mapping[str, Any] = NOTHING) -> int:
    """Run one of Lightning's verbs.

    Args:
        verb: ``fit``, ``validate``, ``test`` or ``predict``.
        options: What followed the verb on the command line.
        predictions: For ``predict``, ``path``, ``top_k`` and ``overwrite`` of its table.

    Returns:
        The exit code.

    Raises:
        UserError: For a mistake in the options, the configuration files, the data or the checkpoint.
    """
    own = [option for option in options if option.startswith("--model.")]
    if own and verb != "fit":
        raise UserError(f"{verb} measures the checkpoint's network as it was trained: leave out {own[0]}")
    limit_jsonargparse()
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    warnings.formatwarning = _in_one_line
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    begun_with = list(options)
    options, folder = resuming.take_resume(options) if verb == "fit" else (options, None)
    try:
        with plain_errors():
            cli = VitAttnCLI(
                model_class=Classifier,
                datamodule_class=ImageData,
                parser_class=Parser,
                predictions=predictions,
                folder=folder,
                begun_with=begun_with,
                save_config_callback=RunConfig if verb == "fit" else None,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_kwargs={"allow_abbrev": False},
                trainer_defaults={"max_epochs": 100, "gradient_clip_val": 1.0},
                args=[verb, *_config_of_run(verb, options), *options],
            )
    except resuming.Finished as finished:
        sys.stdout.write(f"{finished}\n")
        return 0
    except stopping.Stopped as stopped:
        return stopped.exit_code
    except SystemExit as ended:  # by which Lightning answers Ctrl+C
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise ended.__context__ from None
        raise
    callbacks = getattr(cli.trainer, "callbacks", [])
    if stop := next((each.stop for each in callbacks if isinstance(each, RunControl)), 0):
        sys.stderr.write(f"vit-attn: {stopping.Stopped(stop)}, when all steps were done\n")
        return 128 + stop
    return int(any(isinstance(each, PredictionWriter) and each.failed for each in callbacks))


class Parser(LightningArgumentParser):
    """Lightning's parser, but a mistake is one line instead of fifty lines of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the mistake for ``main`` to print; parsers that jsonargparse only tries out keep their own way."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise UserError(explain(message, self)) from ex


class VitAttnCLI(LightningCLI):
    """Lightning's command line with our task, data, callbacks, and a folder of its own for every run."""

    def __init__(
        self,
        *args: Any,
        predictions: Mapping[str, Any],
        folder: Path | None = None,
        begun_with: list[str] | None = None,
        **options: Any,
    ) -> None:
        self.predictions, self.folder, self.begun_with = predictions, folder, begun_with or []
        self.changes: list[resuming.Change] = []
        super().__init__(*args, **options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name and folder and our callbacks; take what the network must know from the data."""
        parser.add_argument("--name", type=str, default="vit", help="Name of the run.")
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs; a run goes to RUNS/NAME/….")
        parser.add_lightning_class_args(AttentionLogger, "attention")
        parser.add_lightning_class_args(FinetuneComparison, "comparison")
        parser.add_argument(
            "--resume",
            type=str | None,
            default=None,
            metavar="RUN",
            help="Go on with a run, in its folder: that folder, `last` for the newest of --name, or `auto` for that if "
            "there is one. Settings are those of the run, but for what is given beside it.",
        )
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        for name in ("num_classes", "img_size", "in_chans", "class_weights"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give ``fit`` a folder of its own, and the other verbs no logger: they print, or write beside the run."""
        settings = self._setting("trainer")
        extra: list[Callback] = []
        if self.subcommand == "fit":
            if settings.max_epochs == settings.max_steps == -1:
                raise UserError("the run needs an end: set trainer.max_epochs or trainer.max_steps")
            check_settings(settings)
            kwargs |= self._place_of_run(settings.logger)
            extra += self._callbacks_of_run(settings.logger)
        else:
            check_parts(settings, str(self.subcommand))
            kwargs |= {"logger": False, "callbacks": []}
        if self.subcommand == "test":
            extra.append(TestReport(self._beside(), run_folder(self._setting("ckpt_path")) is not None))
        if self.subcommand == "predict":
            path = self.predictions.get("path") or self._beside() / "predictions.csv"
            check_output(path, self.predictions.get("overwrite", False))
            extra.append(PredictionWriter(str(path), self.predictions.get("top_k")))
        self.trainer_defaults["callbacks"] = extra
        try:
            trainer = prepare_trainer(super().instantiate_trainer(**kwargs))
        except (ValueError, ModuleNotFoundError, MisconfigurationException) as error:  # an impossible combination
            raise UserError(" ".join(str(error).split())) from error
        callbacks: Any = getattr(trainer, "callbacks", [])
        for control in [each for each in callbacks if isinstance(each, RunControl)]:
            callbacks.insert(0, LeaveBeforeStep(control))
        return trainer

    def _place_of_run(self, logger: Any) -> dict[str, Any]:
        """Folder and logger: new ones, or those of the run that goes on, whose curves end where its state is."""
        folder = self.folder or new_folder(self._setting("runs"), self._setting("name"))
        checkpoint = self._setting("checkpoint")
        if checkpoint.dirpath is not None:
            raise UserError(
                "checkpoint.dirpath: a run keeps its checkpoints in its folder, which --runs and --name choose"
            )
        checkpoint.dirpath = str(folder / "checkpoints")
        place: dict[str, Any] = {"default_root_dir": str(folder)}
        if logger in (None, True):
            where = str(folder.parent.parent), folder.parent.name, folder.name
            purge: dict[str, Any] = {} if self.folder is None else {"purge_step": self._first_step()}
            place["logger"] = TensorBoardLogger(*where, default_hp_metric=False, **purge)
        return place

    def _first_step(self) -> int:
        """The first step whose curves are drawn anew."""
        return int(self.stored["global_step"]) + (0 if self.stored.get("validation_pending") else 1)

    def _callbacks_of_run(self, logger: Any) -> list[Callback]:
        checkpoint = self._setting("checkpoint")
        checkpoint.settings, checkpoint.options = self._plain_config(), self.begun_with
        callbacks: list[Callback] = [RunControl(checkpoint, on_stop=_queue_again)]
        if self._setting("ckpt_path") is not None:
            callbacks.append(ResumeCheck(self.stored, [str(change) for change in self.changes]))
        if logger is not False:
            settings = chosen_settings(self._config())
            callbacks += [LearningRateMonitor("step"), HParams(settings, begins=self.folder is None)]
        return callbacks

    def _plain_config(self) -> dict[str, Any]:
        """The configuration of the command as a file would have it."""
        parser = self._subcommand_parsers[self.config.subcommand]
        return yaml.safe_load(parser.dump(self.config[self.config.subcommand], skip_none=False, skip_validation=True))

    def _config(self) -> Any:
        config: Any = self.config
        return config[self.subcommand]

    def _beside(self) -> Path:
        """The folder of the checkpoint's run, or where the checkpoint lies."""
        checkpoint = self._setting("ckpt_path")
        return run_folder(checkpoint) or Path(checkpoint).parent

    def _setting(self, name: str) -> Any:
        settings: Any = self.config_init
        return settings[self.subcommand][name]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read options and files, and settle the seed, on which data and training depend."""
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError as error:
            raise UserError(f"a configuration file is not text: {error}") from error
        self.config = in_plain_values(self.config)
        seed = self.config[self.config.subcommand].seed_everything
        if seed is True or not 0 <= seed < 2**32:
            raise UserError(f"seed_everything must be a number from 0 to 2**32 - 1, got {seed}")
        if self.config.subcommand == "fit":
            settings = self.config.fit
            check_runs_folder(settings.runs)
            check_run_name(settings.name)
            if self.folder is None:
                model = settings.model
                start = resolve_start(model.weights, model.arch, model.arch_options)
                apply_to_settings(start, model, settings.data)
                if settings.ckpt_path is None:
                    check_trainable(start, model.train, model.probe)

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor refuses is told in one line."""
        try:
            super().instantiate_classes()
            if self.subcommand == "fit":
                apply_to_task(self.model, self.datamodule.class_names, self._config()["data"]["normalize"])
        except ValueError as error:
            if isinstance(error, UserError) or "Union subtypes" not in str(error):
                raise
            raise UserError(explain(str(error))) from error

    def _parse_ckpt_path(self) -> None:
        """Take a checkpoint's own settings of the network; a run is resumed with its settings or not at all."""
        path = self.config[self.config.subcommand].ckpt_path
        if path is None and self.config.subcommand != "fit":
            raise UserError(f"{self.config.subcommand} needs a checkpoint: --ckpt_path RUN/checkpoints/best.ckpt")
        if path is None:
            return
        settings = self.config[self.config.subcommand]
        asked = self._plain_config()
        stored = take_checkpoint(self.config.subcommand, settings, path)
        if self.config.subcommand == "fit":
            self._compare(asked, Path(path))
            _refuse_other_settings(settings.model.as_dict(), stored, path)
        super()._parse_ckpt_path()

    def _compare(self, asked: dict[str, Any], path: Path) -> None:
        """Find what is set otherwise than in the run that is resumed, and refuse what it cannot go on with."""
        self.stored = read_run(path)
        self.changes = resuming.changes(self.stored.get("settings", {}), asked)
        resuming.refuse_fixed(self.changes, path)
        resuming.refuse_finished(self.stored, self.changes, path, self.stored["global_step"])

    def before_fit(self) -> None:
        """Refuse what cannot be drawn or watched while nothing is written yet, and start the clock."""
        callbacks = getattr(self.trainer, "callbacks", [])
        check_callbacks(callbacks, LOGGED, getattr(self.trainer, "limit_val_batches", 1) != 0)
        check_averages(callbacks, self.model.hparams["ema"])
        for callback in callbacks:
            if isinstance(callback, AttentionLogger):
                callback.check(self.datamodule, self.model)
        self.started = time.monotonic()

    def before_test(self) -> None:
        """Leave the telling to the report."""
        settings: Any = self.config_init
        settings.test.verbose = False

    def before_predict(self) -> None:
        """Keep no predictions in memory: they are in the file."""
        settings: Any = self.config_init
        settings.predict.return_predictions = False

    def fit(self, **arguments: Any) -> None:
        """Train; what a signal stops says how it goes on."""
        alone = self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False)
        try:
            with hold_run(Path(self.trainer.default_root_dir)) if alone else contextlib.nullcontext():
                self.trainer.fit(**arguments)
        except stopping.Stopped as stopped:
            report_stop(self.trainer, stopped)
            raise

    def after_fit(self) -> None:
        """Say how well it went, how long it took, where the result is, and how to look at it."""
        report_end(self.trainer, time.monotonic() - self.started, self.config.fit.runs)


def _in_one_line(message: Warning | str, *_place: Any, **_line: Any) -> str:
    """A warning without the place in the code that gave it."""
    return printable(f"warning: {message}\n", keep="\n")


def _queue_again(signum: int) -> None:
    """Have SLURM start the job again, if that is what the signal asks for."""
    if signum == stopping.REQUEUE:
        sys.stderr.write(f"vit-attn: {requeue()}\n")


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()


def _config_of_run(verb: str, options: list[str]) -> list[str]:
    """The configuration with which a checkpoint was trained, unless the user names one."""
    names = [option.partition("=")[0] for option in options]
    if "--ckpt_path" not in names or {"-c", "--config", "-h", "--help"} & set(names):
        return []
    position = names.index("--ckpt_path")
    _, given, value = options[position].partition("=")
    folder = run_folder(value if given else (options[position + 1 : position + 2] or [None])[0])
    if folder is None:
        return []
    return ["--config", str(folder / "config.yaml")] if verb == "fit" else options_of_run(folder)


def _refuse_other_settings(asked: dict[str, Any], stored: dict[str, Any], path: str) -> None:
    other = [
        f"model.{name} is {value} here and {stored[name]} there"
        for name, value in asked.items()
        if name in stored and stored[name] != value and f"model.{name}" not in resuming.FREE
    ]
    if other:
        raise UserError(f"{path} can only be resumed with its own settings: {'; '.join(other)}")
