"""Faithfulness of attention maps, measured on the network itself."""
