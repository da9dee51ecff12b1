"""What a person at a terminal types and reads: click's types, lines and tables."""
