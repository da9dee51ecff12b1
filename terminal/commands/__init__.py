"""The commands, one module for each kind; what they share is in `terminal`."""
