"""Groups of TensorBoard tags.

TensorBoard sorts tags by name, and groups by what is before the first slash. So that ``train`` and ``val`` come first,
the names of all other groups of a training run come later in the alphabet.
"""

ATTENTION = "vit_attention"
EPOCH = "vit_epoch"
FINAL = "vit_final"
LEARNING_RATE = "vit_learning_rate"
THROUGHPUT = "vit_throughput"
