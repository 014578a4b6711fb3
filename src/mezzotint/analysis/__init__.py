"""What attention does over a denoising run."""

from mezzotint.analysis.dynamics import Dynamics, compute_sink_instability, dynamics
from mezzotint.analysis.recording import Recording, record_generation, record_noise
from mezzotint.analysis.sinks import SinkRule

__all__ = ["Dynamics", "Recording", "SinkRule", "compute_sink_instability", "dynamics", "record_generation", "record_noise"]
