"""Recording of attention calls, and interventions in them."""
