"""Many requests on one model: step-level continuous batching."""

from mezzotint.engine.admission import Refused
from mezzotint.engine.engine import Busy, Engine, Expired, Failed, Round, Ticket
from mezzotint.engine.run import Chosen, Request, Update
from mezzotint.engine.settings import EngineSettings
from mezzotint.engine.together import made

__all__ = ["Busy", "Chosen", "Engine", "EngineSettings", "Expired", "Failed", "Refused", "Request", "Round", "Ticket", "Update", "made"]
