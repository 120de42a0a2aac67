"""Files of trained networks: reading and writing them, and what is refused in them."""
