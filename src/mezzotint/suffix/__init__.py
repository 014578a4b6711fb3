"""Which masks beyond the active block may be seen."""

from mezzotint.suffix.dpad import DPad, UniformDropout
from mezzotint.suffix.full import Full
from mezzotint.suffix.none import NoSuffix

SUFFIXES: dict[str, type] = {"full": Full, "none": NoSuffix, "dpad": DPad, "uniform": UniformDropout}

__all__ = ["SUFFIXES", "DPad", "Full", "NoSuffix", "UniformDropout"]
