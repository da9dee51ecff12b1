"""The probes of a run: made inline or by a process of their own, and written down."""
