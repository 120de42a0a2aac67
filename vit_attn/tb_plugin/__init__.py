"""Attention tab of TensorBoard: writing, server and page. Without torch."""
