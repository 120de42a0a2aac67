"""A trained network by name, with what its file says of it; predictions and exports."""
