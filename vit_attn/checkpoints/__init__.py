"""Files of trained networks: reading, checking and writing them."""
