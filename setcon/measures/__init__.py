"""How well masks and slots fit what is known of a scene, and what needs no model."""
