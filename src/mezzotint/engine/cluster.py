"""A Ray cluster: the one that RAY_ADDRESS names, or a small one of this machine that ends with the program."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mezzotint.engine.replicas import Replicas

OBJECTS = 200 * 2**20
"""Bytes of Ray's object store on a cluster started here: only questions and answers pass through it."""


@contextmanager
def cluster(replicas: Replicas, *, loud: bool = False) -> Iterator[bool]:
    """Connect, and let go at the end, unless this process is connected already. Gives whether the cluster was started here. loud: what the replicas log is
    shown on stderr.

    Raises ValueError if Ray is not installed or the cluster cannot be reached. A cluster started here counts as many cores as its replicas reserve, if the
    machine has fewer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # a busy machine needs more than the usual minute
    try:
        import ray
    except ImportError:
        raise ValueError("a Ray cluster needs ray, which is not installed; pip install 'mezzotint[ray]'") from None
    for name in ("ray", "ray.data", "ray.serve"):
        logging.getLogger(name).setLevel(logging.INFO if loud else logging.WARNING)
    if ray.is_initialized():
        yield False
        return
    address = os.environ.get("RAY_ADDRESS")
    shown = {"logging_level": logging.INFO if loud else logging.WARNING, "log_to_driver": loud}
    try:
        if address:
            ray.init(address, **shown)
        else:
            cores = max(os.cpu_count() or 1, math.ceil(replicas.most * replicas.cpus))
            ray.init("local", num_cpus=cores, object_store_memory=OBJECTS, include_dashboard=False, **shown)
    except Exception as error:  # Ray raises many unrelated types, some of them bare
        raise ValueError(f"the Ray cluster {address or 'of this machine'} cannot be used: {str(error).splitlines()[0]}") from None
    try:
        yield not address
    finally:
        ray.shutdown()
