"""The live page: reads a run's files, never the trainer."""
