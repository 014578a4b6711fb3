"""The server on a Ray cluster (Ray Serve): replicas behind one address, each a process with an engine of its own and the same HTTP surface.

serve run mezzotint.server.ray:app recipe=threshold replicas=1:4
"""

import os
import signal
import time
import typing
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from fastapi import FastAPI
from ray import serve

from mezzotint.engine import EngineSettings, made
from mezzotint.engine.cluster import cluster
from mezzotint.engine.replicas import Replicas
from mezzotint.generation import fitted
from mezzotint.models.loading import config_of_checkpoint
from mezzotint.recipes import named
from mezzotint.server.app import create_app
from mezzotint.server.settings import ServerSettings
from mezzotint.strategies import convert

NAME = "mezzotint"


def application(settings: ServerSettings, replicas: Replicas) -> serve.Application:
    """What Ray Serve runs. Everything a replica is made from is in the settings."""
    engine = settings.engine

    @typing.no_type_check  # it travels to the replicas, which a wrapper made by a type checker does not
    def build() -> FastAPI:
        return create_app(settings, made(engine))

    @serve.ingress(build)
    class Replica:
        """A replica whose engine has stopped says so, and is replaced."""

        app: FastAPI

        async def check_health(self) -> None:
            if not self.app.state.service.alive:
                raise RuntimeError("the engine has stopped")

    scale: dict[str, Any] = {"num_replicas": replicas.least}
    if not replicas.fixed:
        bounds = {"min_replicas": replicas.least, "max_replicas": replicas.most, "initial_replicas": replicas.least}
        scale = {"autoscaling_config": bounds | {"target_ongoing_requests": engine.running}}
    deployment = serve.deployment(
        Replica,  # type: ignore[arg-type]
        name=NAME,
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        max_ongoing_requests=engine.running + engine.waiting,
        max_queued_requests=max(1, engine.waiting),
        health_check_period_s=2,
        graceful_shutdown_timeout_s=settings.drain_seconds + 5,
        logging_config={"enable_access_log": False},
        **scale,
    )
    return deployment.bind()


def app(arguments: dict[str, Any]) -> serve.Application:
    """For `serve run` and Serve's config files: fields of EngineSettings, and name, recipe (a name), replicas ("2", "1:4"), cpus and gpus per replica.

    An API key is taken from MEZZOTINT_API_KEY. Raises ValueError naming an argument that is unknown.
    """
    hints = typing.get_type_hints(EngineSettings)
    own = {field.name for field in fields(EngineSettings)}
    unknown = next((name for name in arguments if name not in own | {"name", "recipe", "replicas", "cpus", "gpus"}), None)
    if unknown is not None:
        raise ValueError(f"{unknown} is unknown; accepted: {', '.join(sorted(own))}, name, recipe, replicas, cpus, gpus")
    given = {n: convert("engine", n, hints[n], v) if isinstance(v, str) else v for n, v in arguments.items() if n in own}
    engine = EngineSettings(**given)
    recipe = None
    if "recipe" in arguments:
        recipe = fitted(named(arguments["recipe"]), config_of_checkpoint(engine.model, mask_id=engine.mask_id, block_causal=engine.block_causal))
    keys = tuple(filter(None, (os.environ.get("MEZZOTINT_API_KEY"),)))
    settings = ServerSettings(engine, arguments.get("name") or engine.model or NAME, recipe, keys)
    gpus = int(arguments.get("gpus", engine.tensor_parallel if engine.device.startswith("cuda") else 0))
    return application(settings, Replicas.parse(str(arguments.get("replicas", "1")), float(arguments.get("cpus", 1.0)), gpus))


@contextmanager
def serving(settings: ServerSettings, replicas: Replicas, host: str, port: int) -> Iterator[None]:
    """The application on the cluster this process is connected to, from when requests are taken to the end of the context."""
    serve.start(http_options={"host": host, "port": port})
    try:
        try:
            serve.run(application(settings, replicas), name=NAME, route_prefix="/")
        except RuntimeError as error:
            raise ValueError(f"the replicas could not be started: {str(error).splitlines()[0]}; --log-level info shows what they say") from None
        check_address(host, port)
        yield
    finally:
        serve.delete(NAME)


def check_address(host: str, port: int) -> None:
    """Raises ValueError if the proxy listens elsewhere, which it does on a cluster where Serve was running already."""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/-/healthz"
    try:
        urllib.request.urlopen(url, timeout=60).close()
    except OSError as error:
        raise ValueError(f"host={host} port={port} does not answer ({error}): Serve runs on this cluster with other HTTP options; give its port") from None


def run(settings: ServerSettings, replicas: Replicas, host: str, port: int, *, ready: Callable[[], None], loud: bool = False) -> None:
    """Serve until interrupted. ready: called once requests are taken."""
    with cluster(replicas, loud=loud):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has put its own there
        with serving(settings, replicas, host, port):
            ready()
            while True:
                time.sleep(3600)
