"""The decoder probe: footage, slots of its frames, and how well they can be read."""
