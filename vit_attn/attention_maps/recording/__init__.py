"""Recording what a network's attention was computed from, and intervening in it."""
