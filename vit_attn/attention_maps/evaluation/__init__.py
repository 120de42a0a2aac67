"""Evaluation of attention maps: faithfulness, randomisation, knock-outs and the pointing game."""
