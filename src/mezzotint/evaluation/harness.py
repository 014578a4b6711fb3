"""Mezzotint as a model of lm-evaluation-harness (extra: eval), so that its hundreds of tasks run under any recipe."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

try:
    import lm_eval
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager
except ImportError:
    raise ValueError("lm-evaluation-harness is not installed; it comes with the extra: pip install 'mezzotint[eval]'") from None

from mezzotint.evaluation.answering import Speaker, check_fits, collect
from mezzotint.evaluation.evaluating import Watch, unwatched
from mezzotint.evaluation.item import Choice, Item, Passage, Question, Settings
from mezzotint.evaluation.likelihood import windows
from mezzotint.evaluation.predictions import Prediction, Store, conditions
from mezzotint.evaluation.scoring import HARNESS
from mezzotint.generation import Written, opening
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe

SYNTHETIC = ("ruler", "niah_")
"""What the names of the harness's RULER tasks begin with."""

LIKELIHOODS = ("loglikelihood", "loglikelihood_rolling", "multiple_choice")
"""The harness's output types to which a recipe means nothing but its guidance."""


class Mezzotint(LM):
    """The three requests of the harness, answered under one recipe.

    The recipe decides how long an answer may be and how it is sampled, as LLaDA's and Dream's own adapters have it; the task decides where it ends
    (`until`). Likelihoods are Monte-Carlo bounds of `settings.samples` draws over the whole text; of the recipe they take `settings.cfg_scale` alone.
    Answers go through a `Store`, so a killed run resumes. ungreedy: tasks that need not know whether greedy decoding gives a continuation; it costs as
    many forwards as there are tokens.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Any,
        recipe: Recipe,
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        name: str = "bundled",
        batch: int = 16,
        watch: Watch = unwatched,
        ungreedy: Collection[str] = (),
    ):
        super().__init__()
        self.speaker = Speaker(model, tokenizer, recipe, settings or Settings(), batch)
        self.store, self.name, self.watch = store or Store(None), name, watch
        self._device = model.device
        self.ungreedy = ungreedy
        self.written: set[str] = set()

    @property
    def tokenizer_name(self) -> str:
        return self.name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.speaker.tokenizer.chat_template or ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        more = {} if add_generation_prompt else {"continue_final_message": True}
        text = self.speaker.tokenizer.apply_chat_template(chat_history, tokenize=False, add_generation_prompt=add_generation_prompt, **more)
        self.written.add(text)
        return text

    def prompt(self, context: str) -> str:
        """A context as it is to be encoded: as it stands where the chat template was written into it, or a begin token."""
        begin = self.speaker.tokenizer.bos_token
        return Written(context) if context in self.written or (begin and context.startswith(begin)) else context

    def check(self, items: Sequence[Item], requests: Sequence[Instance]) -> None:
        """Raises ValueError for the first request that does not fit the model's context, before any is answered."""
        for item, request in zip(items, requests, strict=True):
            check_fits(self.speaker.model, self.speaker.tokenizer, item, f"harness task {request.task_name!r}, document {request.doc_id}")

    def collect(self, kind: str, items: Sequence[Item], draws: Sequence[str] | None = None) -> list[Prediction]:
        speaker = self.speaker
        taken = conditions(f"{HARNESS}{kind}", self.name, speaker.model, speaker.recipe, speaker.settings, speaker.batch, speaker.tokenizer)
        taken = replace(taken, versions=taken.versions | {"lm_eval": lm_eval.__version__})
        return collect(speaker, items, self.store, taken, self.watch(kind.replace("_", " "), len(items)), draws)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers, ended before the task's `until`. Raises ValueError if a task wants samples and the recipe is greedy."""
        items: list[Item] = []
        for id, request in zip(ids_of(requests), requests, strict=True):
            context, wanted = cast(tuple[str, dict[str, Any]], request.args)
            until = wanted.get("until") or ()
            if wanted.get("do_sample") and wanted.get("temperature", 1.0) > 0 and self.speaker.recipe.temperature == 0:
                raise ValueError(f"task {request.task_name!r} asks for samples, and the recipe's temperature is 0; give --temperature")
            ends = (until,) if isinstance(until, str) else tuple(until)
            items.append(Question(id, prompt=self.prompt(context), until=tuple(filter(None, ends)), chat=False))
        self.check(items, requests)
        return [p.said["text"] for p in self.collect("generate_until", items)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """log p(continuation | context) in nats, a lower bound, and whether decoding greedily gives the continuation (False for `ungreedy` tasks). All
        choices of a document are weighed with the same draws."""
        items: list[Item] = []
        for id, request in zip(ids_of(requests), requests, strict=True):
            context, continuation = cast(tuple[str, str], request.args)
            items.append(Choice(id, prompt=self.prompt(context), choices=(continuation,), greedy=request.task_name not in self.ungreedy))
        self.check(items, requests)
        said = [p.said for p in self.collect("loglikelihood", items, [document(request) for request in requests])]
        return [(found["log_likelihoods"][0], found.get("greedy", [False])[0]) for found in said]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """log p of whole texts, cut into windows that follow one another and fill the model's context, each weighed as one."""
        tokenizer, config = self.speaker.tokenizer, self.speaker.model.config
        first = opening(tokenizer)
        room = self.speaker.settings.window or config.reach - len(first)
        items: list[Item] = []
        owners: list[int] = []
        for i, (id, request) in enumerate(zip(ids_of(requests), requests, strict=True)):
            ids = tokenizer(request.args[0], add_special_tokens=False)["input_ids"]
            for j, (_, window) in enumerate(windows(ids, room)):
                items.append(Passage(f"{id}-{j:04d}", ids=(*first, *window), start=len(first)))
                owners.append(i)
        costs: list[list[float]] = [[] for _ in requests]
        for owner, p in zip(owners, self.collect("loglikelihood_rolling", items), strict=True):
            costs[owner].append(-p.said["nats"])
        return [math.fsum(found) for found in costs]


def document(request: Instance) -> str:
    """A document's name: its task and its place in the task's data, whatever else is asked."""
    return f"{request.task_name}/{request.doc_id}"


def ids_of(requests: Sequence[Instance]) -> list[str]:
    """The same for the same request, asked alone or beside others; of equal ones the further ones are numbered."""
    seen: Counter[str] = Counter()
    found: list[str] = []
    for request in requests:
        name = f"{document(request)}/{request.idx}"
        found.append(f"{name}/{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def needs_greedy(task: Any) -> bool:
    """Whether a task's figures depend on what greedy decoding gives. Multiple choice asks it for the metric exact_match alone."""
    own = type(task).process_results is not ConfigurableTask.process_results or callable(task.config.process_results)
    return own or task.OUTPUT_TYPE != "multiple_choice" or "exact_match" in task._metric_fn_list


class Tasks(TaskManager):
    """The harness's index of tasks. They are built inside the harness, which seeds its draws before, and checked as soon as they are.

    given: names of the recipe's options that were given; ungreedy: gets the names of the tasks of which only the likelihoods count.
    """

    def __init__(self, *more: Any, **named: Any):
        super().__init__(*more, **named)
        self.given: Sequence[str] = ()
        self.ungreedy: set[str] = set()

    def load(self, task_list: Any) -> Any:
        asked = ", ".join(map(str, task_list))
        try:
            found = super().load(task_list)
        except ImportError as error:
            raise ValueError(
                f"harness: {asked} needs a package that is not installed ({first_line(error)}); the extras of lm-eval bring them, "
                "e.g. pip install 'lm-eval[longbench]' for LongBench, 'lm-eval[math]' for MATH"
            ) from None
        except (AssertionError, LookupError, TypeError) as error:
            raise ValueError(
                f"harness: {asked} cannot be built ({type(error).__name__}: {first_line(error)}); accepted: tasks that need no settings beyond their own"
            ) from None
        refuse_ignored(asked, {str(task.OUTPUT_TYPE) for task in found["tasks"].values()}, self.given)
        self.ungreedy.update(name for name, task in found["tasks"].items() if not needs_greedy(task))
        return found


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]


def refuse_synthetic(tasks: Iterable[str]) -> None:
    """Raises ValueError for RULER's tasks in the harness: they load a tokenizer of their own, by name and with remote code."""
    for task in tasks:
        if task.startswith(SYNTHETIC):
            raise ValueError(
                f"harness task={task!r} makes its texts with a tokenizer that it loads with remote code, which is never run here; "
                "use `mezzotint eval ruler --lengths 4096,8192`, which asks the same in its own words"
            )


def refuse_ignored(asked: str, types: set[str], given: Iterable[str]) -> None:
    """Raises ValueError for a recipe's option, though all tasks go by likelihood."""
    ignored = [name for name in given if name != "cfg_scale"]
    if ignored and types and types <= set(LIKELIHOODS):
        raise ValueError(
            f"--{ignored[0].replace('_', '-')} means nothing to {asked}: likelihoods measure the model whatever the recipe; "
            "leave it out, of a recipe only --cfg-scale counts"
        )


def manager_of(tasks: Sequence[str], include_path: Path | None) -> Tasks:
    """The harness's index of tasks: the folder's alone if it has them all, since reading the harness's thousands takes seconds."""
    if include_path is not None:
        if not include_path.is_dir():
            raise ValueError(f"include_path={str(include_path)!r} is not a folder")
        own = Tasks(include_path=str(include_path), include_defaults=False)
        if all(own.match_tasks([task]) for task in tasks):
            return own
    return Tasks(include_path=str(include_path) if include_path else None)


def run_harness(
    tasks: Sequence[str],
    model: Transformer,
    tokenizer: Any,
    recipe: Recipe,
    store: Store,
    *,
    name: str = "bundled",
    samples: int = 32,
    batch: int = 16,
    seed: int = 0,
    limit: int | None = None,
    shots: int | None = None,
    chat: bool = False,
    include_path: Path | None = None,
    unsafe_code: bool = False,
    given: Sequence[str] = (),
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Run tasks of the harness. `harness` in the result holds its own figures as it names them.

    limit: questions per task; shots: instead of the task's own number; chat: through the tokenizer's chat template; include_path: a folder of further
    task files; unsafe_code: allow tasks that run generated code by the harness's own means; given: the recipe's options that somebody chose. Raises
    ValueError for tasks it does not know or cannot build, and if all go by likelihood, for such options but `cfg_scale`.
    """
    if not tasks:
        raise ValueError("harness is empty; give at least one task, e.g. --harness gsm8k,arc_challenge")
    refuse_synthetic(tasks)
    manager = manager_of(tasks, include_path)
    manager.given = given
    for task in tasks:
        if not manager.match_tasks([task]):
            raise ValueError(f"harness task={task!r} is unknown to lm-evaluation-harness {lm_eval.__version__}; give --include-path for tasks of your own")
    if chat and not tokenizer.chat_template:
        raise ValueError("chat=yes, but this tokenizer has no chat template")
    adapter = Mezzotint(
        model,
        tokenizer,
        recipe,
        Settings(samples=samples, seed=seed, cfg_scale=recipe.cfg_scale),
        store=store,
        name=name,
        batch=batch,
        watch=watch,
        ungreedy=manager.ungreedy,
    )
    try:
        found = cast(Any, lm_eval).simple_evaluate(
            model=adapter,
            tasks=list(tasks),
            num_fewshot=shots,
            limit=limit,
            task_manager=manager,
            apply_chat_template=chat,
            bootstrap_iters=100,
            confirm_run_unsafe_code=unsafe_code,
            log_samples=False,
            verbosity="ERROR",
        )
    except (ConnectionError, FileNotFoundError) as error:
        raise ValueError(f"harness: the data of {', '.join(tasks)} could not be read ({str(error).splitlines()[0][:200]})") from None
    counts = {task: sizes["effective"] for task, sizes in found.get("n-samples", {}).items()}
    results = {
        task: {k: v for k, v in metrics.items() if k not in ("alias", "name", "sample_len")} | {"count": counts.get(task)}
        for task, metrics in found["results"].items()
    }
    return {"harness": results, "lm_eval": lm_eval.__version__, "samples": samples, "seed": seed}
