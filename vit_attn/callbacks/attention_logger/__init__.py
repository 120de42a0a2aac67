"""Logging attention to TensorBoard while a network trains."""

from vit_attn.callbacks.attention_logger.callback import AttentionLogger

__all__ = ["AttentionLogger"]
