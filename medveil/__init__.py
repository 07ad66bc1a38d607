"""Medveil: medical image data sets that are useless for training without permission, and the measure of how useless.

What all parts share lies here; the parts themselves are sub-packages: ``medveil.kernels``, ``medveil.umed``,
``medveil.salm``, ``medveil.veil``, ``medveil.baselines`` and ``medveil.launch``.
"""

__version__ = "0.2.0.dev0"
