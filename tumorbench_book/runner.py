"""Chapters run by papermill, each in a process of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from tqdm import tqdm

from tumorbench_book import keys
from tumorbench_utils import files, settings


@dataclass(frozen=True)
class Outcome:
    """What became of one chapter: its name, its state and how long it ran (seconds)."""

    name: str
    state: str
    seconds: float = 0.0
    message: str = ""


def execute(name: str, root: Path) -> Outcome:
    """Run one chapter in this process; the executed copy appears only if all of it ran."""
    target, part = keys.executed_path(name, root), keys.part_path(name, root, os.getpid())
    failed = keys.failed_path(name, root)
    part.parent.mkdir(parents=True, exist_ok=True)
    key, start = keys.chapter_key(name, root), time.perf_counter()
    try:
        notebook = run_notebook(root / "notebooks" / f"{name}.ipynb", part)
        seconds = time.perf_counter() - start
        notebook.metadata["tumorbench"] = {
            "key": key,
            "seconds": round(seconds, 1),
            "edition": settings.edition(),
            "versions": keys.versions(),
        }
        # A run that began before the chapter was changed must not replace one that began after.
        now = keys.chapter_key(name, root)
        if key == now or keys.recorded(target).get("key") != now:
            with files.atomic_path(target) as whole:
                nbformat.write(notebook, whole)
        failed.unlink(missing_ok=True)
        return Outcome(name, "done", seconds)
    # Whatever goes wrong (an error in a cell, a killed kernel, no disk space) must not leave a
    # file that looks finished, and papermill's own file does look finished after a killed kernel.
    except Exception as error:
        message = f"notebooks/{name}.ipynb{explain(error)}"
        if part.exists():
            failed.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, failed)
            message += f"\n    failed copy: {failed.relative_to(root).as_posix()}"
        return Outcome(name, "failed", time.perf_counter() - start, message)
    finally:
        part.unlink(missing_ok=True)


def run_notebook(
    source: Path, target: Path, parameters: Mapping | None = None, **options
) -> nbformat.NotebookNode:
    """Run a notebook with papermill in the folder of `target` and return what came out.

    Parameters
    ----------
    source, target : Path
        The notebook, and where papermill writes while it runs.
    parameters : mapping, optional
        In place of values in the cell tagged ``parameters``.
    **options
        Passed on to papermill.

    Raises
    ------
    KeyError
        If the notebook does not know a parameter: papermill itself would only log it.
    papermill.PapermillExecutionError
        If a cell fails.
    """
    import papermill

    known = papermill.inspect_notebook(source) if parameters else {}
    for name in parameters or {}:
        if name not in known:
            raise KeyError(settings.unknown("parameter", name, known))
    papermill.execute_notebook(
        source,
        target,
        parameters,
        kernel_name="python3",
        cwd=target.parent,
        # ipykernel warns about unencrypted loopback sockets once per kernel otherwise.
        extra_arguments=["--log-level=ERROR"],
        **{"progress_bar": False, **options},
    )
    notebook = nbformat.read(target, as_version=4)
    for holder in (notebook, *notebook.cells):
        holder.metadata.pop("papermill", None)
    return notebook


def explain(error: Exception) -> str:
    """Say in which cell a notebook failed, and with what."""
    if not hasattr(error, "cell_index"):
        return f": {type(error).__name__}: {error}".rstrip()
    first = error.source.strip().split("\n")[0]
    return f", cell {error.cell_index} (`{first}`): {error.ename}: {error.evalue}".rstrip()


def start(*arguments: str, **options) -> subprocess.Popen:
    """Start Python on code of the book; no file of the working folder is imported."""
    threads = str(max(1, (os.cpu_count() or 1) // 2))
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=settings.BOOK_ROOT,  # Python 3.10 knows no safe path: there this folder comes first
        env={"OMP_NUM_THREADS": threads, **os.environ, "PYTHONSAFEPATH": "1"},
        **options,
    )


class _Workers:
    """Chapters in processes of their own, so that a crash or Ctrl-C takes nothing else along."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.running: dict[str, subprocess.Popen] = {}
        self.stopped = threading.Event()

    def run(self, name: str) -> Outcome:
        if self.stopped.is_set():
            return Outcome(name, "stopped")
        # The chapter watches its standard input: it ends when this process does, however.
        arguments = ("-m", "tumorbench_book", name, str(self.root), "--watch")
        process = start(*arguments, stdin=subprocess.PIPE, start_new_session=True)
        self.running[name] = process
        # Communicate would close the input.
        watched, process.stdin = process.stdin, None
        out, err = process.communicate()
        watched.close()
        self.running.pop(name)
        # A worker that was killed had no time to remove its part.
        keys.part_path(name, self.root, process.pid).unlink(missing_ok=True)
        try:
            return Outcome(**json.loads(out.strip().split("\n")[-1]))
        except ValueError:
            last = err.strip().split("\n")[-1]
            text = f"notebooks/{name}.ipynb: its process ended with {process.returncode} {last}"
            return Outcome(name, "failed", message=text.strip())

    def stop(self) -> None:
        self.stopped.set()
        for process in list(self.running.values()):
            process.terminate()


def main(name: str, root: str, watch: str = "") -> None:
    """Run one chapter and print its outcome; with `watch`, end as soon as the input is closed."""

    def end_with_parent() -> None:
        os.read(0, 1)
        keys.part_path(name, Path(root), os.getpid()).unlink(missing_ok=True)
        os._exit(1)  # the kernel notices that its parent is gone and ends too

    os.environ["TUMORBENCH_QUIET"] = "1"  # no bars in the outputs of a chapter
    if watch:
        threading.Thread(target=end_with_parent, daemon=True).start()
    print(json.dumps(asdict(execute(name, Path(root)))))


def run(names: list[str], *, workers: int = 2, root: Path = settings.BOOK_ROOT) -> list[Outcome]:
    """Run chapters side by side and return what became of each.

    Parameters
    ----------
    names : list of str
        Chapters to run.
    workers : int
        How many run at once.
    root : Path
        Top level of the book.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, once all running chapters were ended and their parts removed.
    """
    pool, outcomes = _Workers(root), []
    bar = tqdm(total=len(names), desc="chapters", unit="chapter", disable=not names)
    with bar, ThreadPoolExecutor(workers) as threads:
        futures = {threads.submit(pool.run, name) for name in names}
        try:
            while futures:
                done, futures = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
                for outcome in (future.result() for future in done):
                    outcomes.append(outcome)
                    bar.update()
                    if outcome.state == "failed":
                        bar.write(f"FAILED {outcome.message}", file=sys.stderr)
                # In a log file every update would be a line of its own.
                if sys.stderr.isatty():
                    bar.set_postfix_str(", ".join(sorted(pool.running)))
        except KeyboardInterrupt:
            pool.stop()
            raise
    return outcomes
