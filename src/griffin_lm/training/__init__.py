"""Training: recipes, data, curriculum, the loop."""
