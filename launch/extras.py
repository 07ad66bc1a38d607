"""The packages that come with medveil's extras, and the line that names the extra to whom one is missing."""

import importlib.util

from medveil.errors import UserError

EXTRAS = {
    "PIL": "audit",
    "skimage": "audit",
    "imagehash": "audit",
    "torchvision": "audit",
    "segmentation_models_pytorch": "audit",
    "timm": "audit",
    "medmnist": "audit",
    "sklearn": "audit",
    "medpy": "audit",
    "yaml": "audit",
    "rich": "audit",
    "cryptography": "key",
    "pydicom": "medical",
    "highdicom": "medical",
    "nibabel": "medical",
    "monai": "volumes",
    "submitit": "cluster",
    "matplotlib": "report",
    "jinja2": "report",
}
"""The extra of each package, by the name that it is imported under."""


def missing_extra(error: BaseException) -> str | None:
    """The line for a package of :data:`EXTRAS` that ``error`` could not import; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    package = error.name.partition(".")[0]
    return _line(package) if package in EXTRAS else None


def require(extra: str) -> None:
    """Raises UserError when a package of ``extra`` is missing: before hours of work whose end would need it."""
    for package, of in EXTRAS.items():
        if of == extra and importlib.util.find_spec(package) is None:
            raise UserError(_line(package))


def _line(package: str) -> str:
    return f"{package} is not installed, which this needs: pip install 'medveil[{EXTRAS[package]}]'"
