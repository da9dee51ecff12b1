"""How well masks and slots fit what is known of a scene, and baselines without a model."""
