"""Detects another product with the same import name that is installed into the same folder.

``continual`` and ``continual-inference`` on the package index have the import name ``continual``, too. Where one of them and this library
are installed beside each other, files of one replace files of the other. It shows by the metadata that pip leaves in the folder.
"""

from __future__ import annotations

import warnings
from pathlib import Path

OTHERS = ("continual", "continual_inference")  # as pip writes their names in folders


def others_beside(package: str) -> list[str]:
    """The distributions that claim the folder of a package as well, with their versions.

    Args:
        package: the folder of the package, beside which pip leaves its metadata.

    Example:
        >>> others_beside(co.__path__[0])
        []
    """
    found = [
        tuple(path.name.removesuffix(".dist-info").split("-", 1)) for path in Path(package).parent.glob("continual*.dist-info")
    ]
    return sorted(" ".join(name) for name in found if name[0].lower() in OTHERS)


def warn_of_others(package: str) -> None:
    """Warn if another product has written into the folder of this package."""
    if found := others_beside(package):
        names = [name.partition(" ")[0].replace("_", "-") for name in found]
        warnings.warn(
            f"another product with the same import name, 'continual', is installed in {str(Path(package).parent)!r}: {', '.join(found)}. "
            f"Files of one have replaced files of the other. Write: pip uninstall {' '.join(names)} continual-streams, and install "
            "continual-streams again",
            stacklevel=3,
        )
