"""Settings that belong together, as TOML files."""
