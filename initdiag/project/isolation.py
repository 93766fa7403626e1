"""Targets run in a child process: nothing that their code does can decide the result.

The child imports a target, looks at its model, and leaves a JSON file for each target;
the parent believes these files alone. What the child prints goes to stderr.
A child that ends (``os._exit``, a signal) or hangs before it has left a file is that
target's error, and the targets after it are run in another child.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from initdiag import errors
from initdiag._core.serialization import decode, encode
from initdiag.errors import InitdiagError, TargetError, explain, said
from initdiag.project.config import ModelConfig
from initdiag.project.outcome import diagnose_model, trace_model
from initdiag.project.targets import anchored

__all__ = ["Task", "isolated", "serve"]

Task = Literal["diagnose", "trace"]
"""What is asked of a target: a whole report, or its architecture."""

_POLL = 0.01
"""Seconds between two looks at the child: small beside the import of torch."""

_GRACE = 10.0
"""Seconds that an interrupted child has to finish the report of what it had."""

_BOOTSTRAP = (
    "import json, sys; job = json.load(open(sys.argv[1], encoding='utf-8')); "
    "sys.path[:] = job['path']; from initdiag.project.isolation import serve; serve(job)"
)


def isolated(
    models: Sequence[ModelConfig], task: Task = "diagnose", *, progress: bool = False
) -> Iterator[Any]:
    """Yield for each model what the task returns, or its `InitdiagError`.

    Models that share a file share a child, so that torch is imported once for them.

    Raises
    ------
    KeyboardInterrupt
        At Ctrl-C, unless the child still came to a report.
    """
    for _, group in groupby(models, key=_place):
        waiting = list(group)
        while waiting:
            found = list(_run(waiting, task, progress))
            yield from found
            waiting = waiting[len(found) :]


def _place(model: ModelConfig) -> tuple[str, Path]:
    return anchored(model.target, model.folder).rpartition(":")[0], model.folder


def _run(models: list[ModelConfig], task: Task, progress: bool) -> Iterator[Any]:
    """Yield the first models' results, with the one that a child does not survive."""
    with tempfile.TemporaryDirectory(prefix="initdiag-") as name:
        folder = Path(name)
        job = {
            "folder": name, "parent": os.getpid(), "path": sys.path, "task": task,
            "progress": progress, "models": encode(models),
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        with (folder / "said").open("wb") as file:
            child = _started(folder / "job.json", None if progress else file)
            try:
                for index, model in enumerate(models):
                    result, is_alive = _awaited(child, folder / f"{index}.json", model, task)
                    _pass_on(folder / "said", index == len(models) - 1 or not is_alive)
                    yield result
                    if not is_alive:
                        return
            finally:
                _end(child)


def _started(job: Path, output: Any) -> subprocess.Popen[bytes]:
    """Start a child whose stdout is its stderr: the parent's own, or a file."""
    flags = [f"-W{option}" for option in sys.warnoptions]
    return subprocess.Popen(
        [sys.executable, "-P", *flags, "-c", _BOOTSTRAP, str(job)],
        stdin=subprocess.DEVNULL,
        stdout=sys.__stderr__ if output is None else output,
        stderr=output,
        start_new_session=True,
    )


def _awaited(
    child: subprocess.Popen[bytes], path: Path, model: ModelConfig, task: Task
) -> tuple[Any, bool]:
    """Return the result that the child leaves at ``path``, and whether it goes on."""
    deadline = None if model.timeout is None else time.monotonic() + model.timeout
    try:
        while child.poll() is None and not path.exists():
            if deadline is not None and time.monotonic() > deadline:
                return _no_report(f"none after {model.timeout:g} s", "Raise --timeout."), False
            time.sleep(_POLL)
    except KeyboardInterrupt:
        _interrupt(child, path)
        if not path.exists():
            raise
    if path.exists():
        return _read(path, task), True
    return _no_report(_ending(child.returncode), "See what it said above."), False


def _interrupt(child: subprocess.Popen[bytes], path: Path) -> None:
    """Pass Ctrl-C on, and give the child time to report what it had."""
    _signal(child, signal.SIGINT)
    deadline = time.monotonic() + _GRACE
    while child.poll() is None and not path.exists() and time.monotonic() < deadline:
        time.sleep(_POLL)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the child and to what it started."""
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child, whatever it still does: its results are read."""
    _signal(child, signal.SIGKILL)
    child.wait()


def _ending(code: int) -> str:
    if code < 0:
        return f"none: signal {signal.Signals(-code).name} ended it"
    return f"none: its process ended with exit code {code}"


def _no_report(got: str, do: str) -> TargetError:
    return TargetError(explain(expected="a report from the target's process", got=got, do=do))


def _pass_on(path: Path, is_last: bool) -> None:
    """Show on stderr what the child said."""
    if is_last and (text := path.read_bytes().decode("utf-8", "replace")):
        sys.stderr.write(text if text.endswith("\n") else f"{text}\n")
        sys.stderr.flush()


def _read(path: Path, task: Task) -> Any:
    """Return the result in a file, of which nothing is run."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if "error" in data:
        kind = getattr(errors, data["kind"], TargetError)
        is_ours = isinstance(kind, type) and issubclass(kind, InitdiagError)
        return (kind if is_ours else TargetError)(data["error"])
    return decode(_result_type(task), data["result"])


def _result_type(task: Task) -> Any:
    from initdiag.diagnosing.report import Report
    from initdiag.network.architecture import Architecture

    return Report if task == "diagnose" else Architecture


def serve(job: dict[str, Any]) -> None:
    """Work off a job in the child, and end it whatever threads were left behind."""
    folder = Path(job["folder"])
    threading.Thread(target=_end_with, args=(job["parent"],), daemon=True).start()
    tasks: dict[str, Callable[..., Any]] = {"diagnose": diagnose_model, "trace": trace_model}
    code = 0
    try:
        for index, model in enumerate(decode(tuple[ModelConfig, ...], job["models"])):
            _leave(folder / f"{index}.json", _answer(tasks[job["task"]], model, job["progress"]))
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _answer(run: Callable[..., Any], model: ModelConfig, progress: bool) -> dict[str, Any]:
    try:
        return {"result": encode(run(model, progress=progress))}
    except Exception as error:
        return {"error": said(error), "kind": type(error).__name__}


def _leave(path: Path, answer: dict[str, Any]) -> None:
    """Write a result so that the parent sees it whole or not at all."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(answer), encoding="utf-8")
    beside.replace(path)


def _end_with(parent: int) -> None:
    """End the child when its parent has gone: nobody reads its results any more."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
