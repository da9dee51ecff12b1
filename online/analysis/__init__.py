"""What is done with a trained run: score it, render it, write its slots."""
