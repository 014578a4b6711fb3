"""An OpenAI-compatible server with a live playground page. Needs the extra `serve`.

mezzotint serve --port 8000 --recipe threshold
"""

import argparse
import contextlib
import logging
import math
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mezzotint.cli import options

if TYPE_CHECKING:
    from mezzotint.engine import EngineSettings
    from mezzotint.engine.replicas import Replicas


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one (default: 8000)")
    parser.add_argument("--name", help="what the model is called in requests (default: the model's folder or hub id, 'mezzotint' for the bundled one)")
    parser.add_argument("--api-key-file", metavar="FILE", help="accepted API keys, one a line (or one in the environment variable MEZZOTINT_API_KEY)")
    parser.add_argument("--log-level", default="warning", choices=("error", "warning", "info", "debug"), help="what is logged on stderr (default: warning)")
    group = parser.add_argument_group("limits")
    group.add_argument("--running", type=int, default=32, metavar="N", help="most requests in progress, of each replica (default: 32)")
    group.add_argument("--waiting", type=int, default=256, metavar="N", help="most requests in the queue; more are answered 429 (default: 256)")
    group.add_argument("--rows", type=int, default=4096, metavar="N", help="most positions computed in one shared forward (default: 4096)")
    group.add_argument("--length", type=int, metavar="N", help="longest canvas in tokens (default: the model's trained length)")
    group.add_argument("--memory", type=float, metavar="GIB", help="memory that requests may take, by estimate (default: half of what there is; 0.9 on a GPU)")
    group.add_argument("--seconds", type=float, default=600.0, metavar="S", help="longest time for an answer (default: 600)")
    group.add_argument("--drain-seconds", type=float, default=30.0, metavar="S", help="longest wait for answers in progress after SIGTERM (default: 30)")
    group = parser.add_argument_group("more than one process")
    group.add_argument("--ray", action="store_true", help="serve with replicas on a Ray cluster (RAY_ADDRESS, or one started here); needs the extra `ray`")
    options.add_replicas(group)
    options.add_tensor_parallel(group)
    options.add_json(parser)
    options.add_model(parser)
    options.add_recipe(parser)


def run(args: argparse.Namespace) -> int:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError(f"serving needs {error.name}, which is not installed; pip install 'mezzotint[serve]'") from None
    if not 0 <= args.port < 65536:
        raise ValueError(f"port={args.port} must lie between 0 and 65535")
    replicas = options.replicas_of(args)
    from mezzotint.engine import made
    from mezzotint.generation import default_recipe
    from mezzotint.server.app import create_app
    from mezzotint.server.listening import Server, listening_config
    from mezzotint.server.settings import ServerSettings

    for name in ("memory", "drain_seconds"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name.replace('_', '-')}={value} must be a finite number above 0")
    memory = None if args.memory is None else int(args.memory * 2**30)
    names = ("running", "waiting", "rows", "length", "seconds")
    replica = options.engine_settings(args, memory=memory, **{name: getattr(args, name) for name in names})
    accepted = keys(args.api_key_file)
    if args.ray:
        return on_ray(args, replica, replicas, accepted)
    listening = listen(args.host, args.port)
    engine = made(replica, replicas.least)
    recipe = options.recipe_of(args, default_recipe(engine.model), engine.model.config)
    settings = ServerSettings(replica, args.name or args.model or "mezzotint", recipe, accepted, drain_seconds=args.drain_seconds)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    app = create_app(settings, engine)
    config = listening_config(app, settings, log_level=args.log_level, access_log=args.log_level in ("info", "debug"))
    log = logging.getLogger("mezzotint")
    log.addHandler(logging.StreamHandler())
    log.setLevel(args.log_level.upper())
    server = Server(config, lambda: announce(args.json, url, settings.name))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    return 0 if server.started else 1


def on_ray(args: argparse.Namespace, replica: "EngineSettings", replicas: "Replicas", accepted: tuple[str, ...]) -> int:
    """The same server as replicas of a Ray Serve application."""
    from mezzotint.server.settings import ServerSettings

    try:
        from mezzotint.server import ray
    except ImportError as error:
        raise ValueError(f"serving with --ray needs {error.name}, which is not installed; pip install 'mezzotint[ray]'") from None
    recipe = options.recipe_unloaded(args)
    settings = ServerSettings(replica, args.name or args.model or "mezzotint", recipe, accepted, drain_seconds=args.drain_seconds)
    with listen(args.host, args.port) as free:
        port = free.getsockname()[1]
    url = f"http://{args.host}:{port}"
    loud = args.log_level in ("info", "debug")
    with contextlib.suppress(KeyboardInterrupt):
        ray.run(settings, replicas, args.host, port, ready=lambda: announce(args.json, url, settings.name), loud=loud)
    return 0


def listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except OSError as error:
        raise ValueError(f"host={host} port={port} cannot be listened on: {error.strerror}") from None


def announce(as_json: bool, url: str, name: str) -> None:
    if as_json:
        options.print_json({"url": url, "model": name, "pid": os.getpid()})
    else:
        print(f"{name} is served at {url} (OpenAI: {url}/v1 · playground: {url}/ · Ctrl-C ends)", flush=True)


def keys(file: str | None) -> tuple[str, ...]:
    """The accepted API keys."""
    found = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()] if file else []
    if file and not found:
        raise ValueError(f"api_key_file={file!r} holds no key")
    return (*found, *filter(None, (os.environ.get("MEZZOTINT_API_KEY"),)))
