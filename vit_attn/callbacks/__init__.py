"""What watches a run."""

from vit_attn.callbacks.attention_logger import AttentionLogger
from vit_attn.callbacks.prediction_writer import PredictionWriter

__all__ = ["AttentionLogger", "PredictionWriter"]
