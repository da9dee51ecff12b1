"""What tells a source from others, and the name of its recording."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path

from ingest.errors import IngestError, NoAnswerError
from ingest.store.protocols import Store
from ingest.store.records import Content, Source
from ingest.video.bucket import readable
from ingest.video.mask_sources import MaskSource
from ingest.video.masks import find_sidecar
from ingest.video.paths import image_files, path_text
from ingest.video.remote import look_at, place_of
from ingest.video.sources import SourceSpec

_MIB = 1 << 20


def fingerprint(spec: SourceSpec) -> Source:
    """A digest that distinguishes a source from others, without reading all of it."""
    if spec.address:
        remote = look_at(readable(spec.address), place=place_of(spec.address))
        return _with_masks(
            Source(
                path=place_of(spec.address),
                part=spec.part,
                size_bytes=remote.size_bytes,
                digest=remote.digest,
            ),
            spec.masks,
        )
    digest = hashlib.sha256()
    if spec.kind == "images" and spec.path.is_dir():
        files = image_files(spec.path)
        for path in files:
            digest.update(os.fsencode(path.name) + f" {path.stat().st_size}\n".encode())
        ends = {files[0], files[-1]} if files else set()
    else:
        files = [spec.file]
        masks = find_sidecar(spec.file) if spec.kind == "video" and not spec.masks else None
        ends = {spec.file} | ({masks} if masks else set())
    for path in sorted(ends):
        _add_ends(digest, path)
    if spec.episode is not None:
        digest.update(f"{spec.episode.begin_ns} {spec.episode.length}\n".encode())
    path, size_bytes = path_text(spec.path.resolve()), sum(path.stat().st_size for path in files)
    source = Source(path=path, part=spec.part, size_bytes=size_bytes, digest=digest.hexdigest())
    return _with_masks(source, spec.masks)


def name_recordings(sources: Sequence[Source], store: Store | None) -> list[str]:
    """A name for each source, from its file name; the one it already has in `store` if it is there.

    Sources that would share a name get six digits of their fingerprint appended; copies of one file
    are one recording.
    """
    plain = [_plain_name(source) for source in sources]
    contents = {(name, source.digest) for name, source in zip(plain, sources, strict=True)}
    counts = Counter(name for name, _ in contents)
    long = [_long_name(name, source) for name, source in zip(plain, sources, strict=True)]
    held = {} if store is None else _stored_sources(store, {*plain, *long})
    batch = {source.content for source in sources}
    return [
        _name(source, name, held, batch, shared=counts[name] > 1)
        for source, name in zip(sources, plain, strict=True)
    ]


def _name(
    source: Source,
    plain: str,
    held: Mapping[str, Source | None],
    batch: Set[Content],
    *,
    shared: bool,
) -> str:
    long = _long_name(plain, source)
    stored = {name: held[name] for name in (plain, long) if name in held}
    for name, known in stored.items():
        if known is not None and known.same_content(source):
            return name
    if stored.get(long, source) is None:
        return long  # damaged, and used by no other source: the writer refuses, and reports it
    if plain not in stored:
        return long if shared else plain
    known = stored[plain]
    if known is None:
        return long if shared else plain  # damaged: the writer refuses, and reports it
    changed = known.path == source.path and known.content not in batch  # else it moved
    return plain if changed else long  # where the file changed, the writer refuses


def _long_name(plain: str, source: Source) -> str:
    return f"{plain}-{source.digest[:6]}"


def _stored_sources(store: Store, wanted: Set[str]) -> dict[str, Source | None]:
    """What recordings were made from, as far as there are any of these names; None where the
    commit record is damaged."""
    names = [name for name in store.recordings() if name in wanted]
    found: dict[str, Source | None] = {}
    for name, asked in store.for_each(store.commit, names):
        try:
            found[name] = asked.result().source
        except NoAnswerError:
            raise
        except IngestError:
            found[name] = None
    return found


def _plain_name(source: Source) -> str:
    path = Path(source.path)
    stem = path.name if path.is_dir() else path.stem
    name = re.sub(r"[^\w.+ ()@=-]", "_", stem).encode()[:150].decode(errors="ignore")
    name = name.lstrip("_.+ ()@=-") or "recording"
    return f"{name}-{source.part}" if source.part else name


def _with_masks(source: Source, masks: MaskSource | None) -> Source:
    """The source as it is with masks that are in files of their own."""
    if masks is None:
        return source
    files = masks.files()
    digest = hashlib.sha256(f"{source.digest} {masks.video}\n".encode())
    for path in files:
        digest.update(os.fsencode(path.name) + f" {path.stat().st_size}\n".encode())
    for path in files[:1] + files[1:][-1:]:
        _add_ends(digest, path)
    return replace(source, digest=digest.hexdigest())


def _add_ends(digest: "hashlib._Hash", path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        digest.update(f"{size}\n".encode())
        digest.update(file.read(_MIB))
        file.seek(max(0, size - _MIB))
        digest.update(file.read(_MIB))
