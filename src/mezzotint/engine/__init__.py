"""Many requests on one model: step-level continuous batching."""

from mezzotint.engine.admission import Refused
from mezzotint.engine.desk import Busy, Desk, Expired, Failed, Round, Ticket
from mezzotint.engine.engine import Engine
from mezzotint.engine.fleet import Fleet
from mezzotint.engine.run import Chosen, Request, Update
from mezzotint.engine.settings import EngineSettings
from mezzotint.engine.together import Leader


def made(settings: EngineSettings, replicas: int = 1) -> Desk:
    """The engine that the settings describe, with as many processes as they ask for; or several of them behind one desk."""
    if replicas > 1:
        return Fleet(settings, replicas)
    return Engine(settings) if settings.tensor_parallel == 1 else Leader(settings)


__all__ = ["Busy", "Chosen", "Desk", "Engine", "EngineSettings", "Expired", "Failed", "Fleet", "Refused", "Request", "Round", "Ticket", "Update", "made"]
