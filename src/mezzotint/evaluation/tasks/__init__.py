"""The built-in suite: questions made by code, with answers that code can check."""

from mezzotint.evaluation.tasks import code, lists, math, retrieval, tools

TASKS = {"math": math, "retrieval": retrieval, "lists": lists, "code": code, "tools": tools}
"""name -> module with `make(rng, hard) -> Example` and `score(example, text) -> bool`."""
