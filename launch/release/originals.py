"""Which samples of an opened release are which of its original, by what the manifest lists."""

from medveil.errors import UserError
from medveil.launch.data.source import Source
from medveil.launch.release.manifest import Manifest
from medveil.launch.release.private import PrivateManifest
from medveil.launch.results import Portion


def original_ids(source: Source, manifest: Manifest) -> list[str]:
    """The id in the original of each sample of the release, in the release's order."""
    if source.kind == "npz":
        return list(source.data.ids)
    # A volume's slices are called NAME/0012; a release in squares knows no files of its own.
    own = {index: file.place(index - file.first) for file in source.files for index in file.indices}
    by_file = {(sample.file, sample.plane): sample.id for sample in manifest.samples}
    places = [own.get(index, ("", None)) for index in range(len(source.data))]
    for place, sample in zip(places, source.data.ids, strict=True):
        if place not in by_file:
            raise UserError(f"{source.spec}: its manifest lists no image {sample}: fetch or make the release again")
    return [by_file[place] for place in places]


def ids_of_part(source: Source, manifest: Manifest, private: PrivateManifest, part: Portion) -> list[str]:
    """The release's own ids of the samples that are protected, or clean, by its private manifest."""
    wanted = {sample.id for sample in private.samples if sample.protected == (part == "protected")}
    names = original_ids(source, manifest)
    return [sample for sample, name in zip(source.data.ids, names, strict=True) if name in wanted]


def classes_of_part(source: Source, manifest: Manifest, private: PrivateManifest) -> list[int]:
    """The classes that have protected samples, as the release at ``source`` numbers them, ascending.

    Empty when these are all of its classes, when a share of the samples was chosen instead, and for data without one
    class for each image.
    """
    share = None if private.part is None else private.part.share
    protected = private.protected
    if source.data.task != "classification" or share is not None:
        return []
    present = {sample.target for sample in manifest.samples if isinstance(sample.target, int)}
    found = {sample.target for sample in manifest.samples if sample.id in protected and isinstance(sample.target, int)}
    if found == present:
        return []
    if source.kind != "class-folder":
        return sorted(found)
    # A folder numbers its classes by name, whatever the data that it was made from called them.
    names, ours = manifest.data.classes or (), source.class_names or []
    if missing := {names[target] for target in found} - set(ours):
        raise UserError(f"{source.spec} has no folder of the class {min(missing)}: fetch or make the release again")
    return sorted(ours.index(names[target]) for target in found)
