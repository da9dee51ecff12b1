"""What an evaluation found, as numbers; nothing here needs torch."""
