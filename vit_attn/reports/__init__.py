"""Files and texts that commands and runs write: tables of predictions, reports of a test."""
