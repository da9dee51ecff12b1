"""Two pages of the site that live elsewhere in the repository, with their links made to fit."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "benchmarks.md": "benchmarks/README.md"}
"""From the address in the site to the file in the repository."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages to those of docs/."""
    for address, path in PAGES.items():
        text = _linked((ROOT / path).read_text())
        files.append(File.generated(config, address, content=text))
    return files


def _linked(text: str) -> str:
    """Links to files of the repository, as links to pages of the site."""
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
    for address, path in PAGES.items():
        text = text.replace(f"]({path}", f"]({address}")
    return text
