"""What every benchmark's JSON says about where it ran."""

from mezzotint.bench.machine import stamp

__all__ = ["stamp"]
