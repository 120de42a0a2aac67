"""Search for settings: the space, the study in its journal, and the trials."""
