"""Tasks of lm-eval on a model of ours: its own by name, or those in a folder of YAML files."""

import difflib
import importlib
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import DataError, GriffinError, InputError
from ...inference import LanguageModel
from ..likelihood import ROWS

EXTRA = "pip install 'griffin-lm[eval]'"
_SEED = 1234  # lm-eval's own


def run_tasks(
    lm: LanguageModel,
    names: Sequence[str],
    folder: Path | None = None,
    shots: int | None = None,
    limit: int | None = None,
    rows: int = ROWS,
    chat: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Results of tasks, groups and tags that lm-eval knows, or whose YAML lies in `folder`.

    shots: examples before each question; None: as the task says. limit: documents of each task.
    rows: contexts side by side. chat: the model's turn template around every question.

    {"lm_eval": its version, "results": {task: {"acc,none": ...}}, "n-shot", "n-samples",
    "versions", "table": Markdown}. Raises InputError for a name that is none, and where lm-eval is
    not installed; DataError for a task whose data can't be had.
    """
    try:
        import lm_eval
        from lm_eval.evaluator import evaluate
        from lm_eval.utils import make_table

        from .adapter import GriffinLM
    except ImportError as error:
        raise InputError(f"--tasks needs lm-eval ({error}); {EXTRA}") from error

    loaded = load_tasks(names, folder)
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (shots is not None and own != 0):  # 0 says that it takes none
            task.set_config(key="num_fewshot", value=shots or 0)
        task.set_fewshot_seed(seed=_SEED)
    random.seed(0)
    np.random.seed(_SEED)
    torch.manual_seed(_SEED)
    found: Any = evaluate(
        lm=GriffinLM(lm, batch_size=rows, progress=progress),
        task_dict=loaded,
        limit=limit,
        log_samples=False,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )
    kept = ("results", "groups", "n-shot", "n-samples", "versions", "higher_is_better")
    figures = {name: found[name] for name in kept if name in found}
    return {"lm_eval": lm_eval.__version__, **figures, "table": make_table(found)}


def load_tasks(names: Sequence[str], folder: Path | None) -> Any:
    """The tasks by name, ready to run, as lm-eval's TaskManager gives them."""
    from lm_eval.tasks import TaskManager

    if folder is not None and not folder.is_dir():
        raise InputError(f"--tasks-dir: there is no folder {folder}")
    try:
        if folder is not None:  # its own alone: reading all that come with lm-eval takes seconds
            small = TaskManager(include_path=str(folder), include_defaults=False)
            if set(names) <= set(small.all_tasks):
                with suppress(KeyError):  # one of lm-eval's is part of a group
                    return small.load(list(names))
        manager = TaskManager(include_path=None if folder is None else str(folder))
        for name in names:
            _refuse_unknown(name, manager.all_tasks, folder)
        return manager.load(list(names))
    except GriffinError:
        raise
    except Exception as error:  # whatever a data set's loader raises
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"{', '.join(names)} can't be loaded ({type(error).__name__}: {reason:.300}); a "
            "task with `dataset_path: json` reads files of yours, others fetch from the hub"
        ) from error


def _refuse_unknown(name: str, known: Sequence[str], folder: Path | None) -> None:
    if name in known or (name.endswith((".yaml", ".yml")) and Path(name).is_file()):
        return
    like = ", ".join(difflib.get_close_matches(name, known, 5))
    raise InputError(
        f"there is no task {name!r} in lm-eval{'' if folder is None else f' or in {folder}'}"
        f"{f' (did you mean {like}?)' if like else ''}; `lm-eval ls tasks` lists its own, and "
        "--tasks-dir DIR adds a folder of YAML files"
    )


def register() -> None:
    """Makes `griffin` a model that lm-eval knows, beside all of its own.

    lm-eval 0.4.13 looks for no entry points, so its command line has to be started by us.
    """
    from lm_eval.api.registry import register_model

    from .adapter import NAME, GriffinLM

    importlib.import_module("lm_eval.models")  # else it lists its own only where there are no more
    register_model(NAME)(GriffinLM)


def command_line() -> None:
    """lm-eval's own command line, in a process in which `griffin` is registered."""
    try:
        register()
    except ImportError as error:
        sys.exit(f"lm-eval is not installed ({error}); {EXTRA}")
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
