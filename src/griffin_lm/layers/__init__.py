"""Building bricks without state: norms, linear maps, rotary angles, the MLP, the embedding."""
