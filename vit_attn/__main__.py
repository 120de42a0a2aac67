"""``python -m vit_attn``, the same program as ``vit-attn``."""

import sys

from vit_attn.cli import main

sys.exit(main())
