"""Files and tables that commands and runs leave: predictions, reports of a test."""
