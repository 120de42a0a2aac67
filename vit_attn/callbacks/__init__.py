"""Callbacks of a run."""

from vit_attn.callbacks.attention_logger.callback import AttentionLogger
from vit_attn.callbacks.finetune_comparison import FinetuneComparison
from vit_attn.callbacks.hparams import HParams
from vit_attn.callbacks.prediction_writer import PredictionWriter
from vit_attn.callbacks.test_report import TestReport

__all__ = ["AttentionLogger", "FinetuneComparison", "HParams", "PredictionWriter", "TestReport"]
