"""Releases of one npz by several contributors as one, image by image."""

import hashlib
import math
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from medveil.errors import UserError
from medveil.launch.data.npz_arrays import DAMAGED, read_header
from medveil.launch.errors import VerificationFailed
from medveil.launch.release.manifest import Sample
from medveil.launch.release.npz import member_info, unequal_members
from medveil.launch.running.files import sha256_of


def merge_npz(paths: Sequence[Path], chosen: Sequence[Sample], owner: Sequence[int], target: Path) -> str:
    """Write ``target`` from the npz files at ``paths``; returns its sha256.

    ``owner``: of each of the samples ``chosen`` the number of the file that it is taken from. All else must be equal.
    Raises UserError where it is not, or a file is not what its manifest says.
    """
    splits: dict[str, list[tuple[Sample, int]]] = defaultdict(list)
    for sample, number in zip(chosen, owner, strict=True):
        splits[sample.id.partition("/")[0]].append((sample, number))
    members = {f"{split}_images.npy" for split in splits}
    with ExitStack() as stack:
        archives = [stack.enter_context(_archive(path)) for path in paths]
        for path, archive in zip(paths, archives, strict=True):
            if lacking := members - set(archive.namelist()):
                raise UserError(f"{path} has no {min(lacking)}, of which its manifest lists samples: make it again")
        for path, archive in zip(paths[1:], archives[1:], strict=True):
            if differing := unequal_members(archives[0], archive, members):
                raise UserError(f"{paths[0]} and {path} do not fit together: {', '.join(differing)} must be equal")
        merged = stack.enter_context(zipfile.ZipFile(target, "w", allowZip64=True))
        for member in archives[0].infolist():
            with merged.open(member_info(member), "w", force_zip64=True) as out:
                files = [archive.open(member.filename) for archive in archives]
                if member.filename not in members:
                    shutil.copyfileobj(files[0], out, 1 << 20)
                else:
                    split = member.filename.removesuffix("_images.npy")
                    _merge_images(files, paths, split, splits[split], out)
    with zipfile.ZipFile(target) as merged:
        if (damaged := merged.testzip()) is not None:
            raise VerificationFailed(f"{damaged} does not read back")
    return sha256_of(target)


def _merge_images(
    files: Sequence[IO[bytes]],
    paths: Sequence[Path],
    split: str,
    samples: Sequence[tuple[Sample, int]],
    out: IO[bytes],
) -> None:
    """The images (of volumes: slices) of one split, each from the file of its owner, whose number is with it."""
    try:
        headers = [read_header(file) for file in files]
    except ValueError as error:
        raise UserError(f"{split}_images cannot be read ({error}): make these releases again") from None
    header, whole = headers[0], math.prod(headers[0].shape)
    if any(one != header for one in headers):
        raise UserError(f"{split}_images has not the same shape in all releases")
    if header.fortran or header.dtype != np.uint8 or whole % len(samples):
        said = f"{header.dtype} {header.shape}, not {len(samples)} images as a release has them"
        raise UserError(f"{paths[0]}: {split}_images is {said}: make this release again")
    npy.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": header.shape})
    for sample, number in samples:
        images = [file.read(whole // len(samples)) for file in files]
        if hashlib.sha256(images[number]).hexdigest() != sample.sha256:
            raise UserError(f"{paths[number]}: {sample.id} is not as the manifest says: make this release again")
        out.write(images[number])


def _archive(path: Path) -> zipfile.ZipFile:
    """Open for reading, and read once to its end. Raises UserError where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (*DAMAGED, RuntimeError) as error:  # encrypted, too
        damaged = str(error)
    if damaged is not None:
        raise UserError(f"{path} cannot be read ({damaged}): make this release again")
    return zipfile.ZipFile(path)
