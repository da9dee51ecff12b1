"""Pages, tables, charts and pictures of what runs have learned."""
