"""Lightning callbacks: logging of attention, and all that a run does beside training."""

from vit_attn.callbacks.attention_logger.by_hand import log_attention
from vit_attn.callbacks.attention_logger.callback import AttentionLogger
from vit_attn.callbacks.chart_layout import ChartLayout
from vit_attn.callbacks.finetune_comparison import FinetuneComparison
from vit_attn.callbacks.hparams import HParams, select_hparams
from vit_attn.callbacks.learning_rates import LearningRates
from vit_attn.callbacks.logging_interval import LoggingInterval
from vit_attn.callbacks.prediction_writer import PredictionWriter
from vit_attn.callbacks.progress import EpochProgressBar, ProgressLines
from vit_attn.callbacks.resume_check import ResumeCheck
from vit_attn.callbacks.run_checkpoint import RunCheckpoint
from vit_attn.callbacks.run_control import RunControl, StopBeforeStep
from vit_attn.callbacks.run_curves import RunCurves
from vit_attn.callbacks.run_logger import RunLogger
from vit_attn.callbacks.run_summary import RunSummary
from vit_attn.callbacks.test_report import TestReport
from vit_attn.callbacks.throughput import Throughput
from vit_attn.callbacks.training_batch import TrainingBatch
from vit_attn.callbacks.trial_report import TrialReport

__all__ = [
    "AttentionLogger",
    "ChartLayout",
    "EpochProgressBar",
    "FinetuneComparison",
    "HParams",
    "LearningRates",
    "LoggingInterval",
    "PredictionWriter",
    "ProgressLines",
    "ResumeCheck",
    "RunCheckpoint",
    "RunControl",
    "RunCurves",
    "RunLogger",
    "RunSummary",
    "StopBeforeStep",
    "TestReport",
    "Throughput",
    "TrainingBatch",
    "TrialReport",
    "log_attention",
    "select_hparams",
]
