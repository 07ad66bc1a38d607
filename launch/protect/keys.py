"""The keys that one protect job writes: which file, for which part of the release, opened by what."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medveil.errors import UserError
from medveil.launch.data.groups import groups_of
from medveil.launch.extras import require
from medveil.launch.protect.config import KeyOptions
from medveil.launch.ranks import rank
from medveil.launch.release.key import samples_of, write_key
from medveil.launch.release.manifest import Manifest
from medveil.launch.release.private import PrivateManifest
from medveil.launch.release.secret import Secret, passphrase, secret_from_file
from medveil.launch.running.places import check_place


@dataclass(frozen=True)
class Key:
    """A key to write: ``path``, for ``part`` of the release (None: all of it)."""

    path: Path
    part: str | None
    secret: Secret


def keys_of(options: KeyOptions, out: Path) -> list[Key]:
    """The keys asked for, with what opens them; passphrases are asked for on the terminal.

    Raises :class:`UserError` for what is wrong with them, so that it is said before a fit of hours.
    """
    asked: list[tuple[Path, str | None]] = [] if options.key is None else [(options.key, None)]
    for text in options.key_for:
        part, equals, name = text.partition("=")
        if not (part and equals and name):
            raise UserError(f"--key-for {text}: give PART=PATH, such as melanoma=melanoma.key")
        asked.append((Path(name), part))
    if options.key_from and (not asked or len(options.key_from) not in (1, len(asked))):
        raise UserError(f"--key-from is given {len(options.key_from)} times for {len(asked)} keys: once, or once a key")
    if asked or options.key_from:
        require("key")
    paths = [path for path, _ in asked]
    for path in paths:
        if [other.resolve() for other in paths].count(path.resolve()) > 1:
            raise UserError(f"two keys would be written as {path}: give each its own name")
        if out.resolve() in (path.resolve(), *path.resolve().parents):
            raise UserError(f"--key {path} lies in the release, which is to be published: choose a place beside it")
        if os.path.lexists(path) and not os.path.lexists(out):
            raise UserError(f"--key {path} exists: choose another or remove it")
        check_place(path, "--key")
    # The first process writes them.
    if rank() > 0:
        return []
    secrets = [secret_from_file(Path(path)) for path in options.key_from]
    return [
        Key(path, part, secrets[i % len(secrets)] if secrets else passphrase(path, twice=True))
        for i, (path, part) in enumerate(asked)
    ]


def write_keys(keys: Sequence[Key], release: Path, run: Path, quiet: bool, groups: str | None = None) -> Iterator[str]:
    """Write each that is not there; yields a line about each. ``groups``: as of :func:`groups_of`, whose groups may be
    parts too. Raises :class:`UserError`.
    """
    if not keys:
        return
    manifest, private = Manifest.read(release), PrivateManifest.needed(release, run, "what was done to its images")
    ids = [sample.id for sample in manifest.samples]
    grouping = None if groups is None else groups_of(ids, groups)
    for key in keys:
        if os.path.lexists(key.path):
            yield f"{key.path} is there already, and left as it is"
            continue
        opened = None if key.part is None else samples_of(key.part, manifest, grouping)
        yield write_key(release, private, key.path, key.secret, opened, quiet).line(key.path)
