"""What watches a run."""

from vit_attn.callbacks.attention_logger import AttentionLogger
from vit_attn.callbacks.hparams import HParams
from vit_attn.callbacks.prediction_writer import PredictionWriter
from vit_attn.callbacks.test_report import TestReport
from vit_attn.callbacks.tuning_comparison import TuningComparison

__all__ = ["AttentionLogger", "HParams", "PredictionWriter", "TestReport", "TuningComparison"]
