"""Chapters run by papermill, each in a process of its own."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat
from tqdm import tqdm

from tumorbench_book.keys import chapter_key, executed_path, part_path, versions
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
    import papermill

    target, part = executed_path(name, root), part_path(name, root)
    part.parent.mkdir(parents=True, exist_ok=True)
    key, start = chapter_key(name, root), time.perf_counter()
    try:
        papermill.execute_notebook(
            root / "notebooks" / f"{name}.ipynb",
            part,
            kernel_name="python3",
            cwd=part.parent,
            progress_bar=False,
            # ipykernel warns about unencrypted loopback sockets once per kernel otherwise.
            extra_arguments=["--log-level=ERROR"],
        )
        seconds = time.perf_counter() - start
        notebook = nbformat.read(part, as_version=4)
        notebook.metadata.pop("papermill", None)
        for cell in notebook.cells:
            cell.metadata.pop("papermill", None)
        notebook.metadata["tumorbench"] = {
            "key": key,
            "seconds": round(seconds, 1),
            "edition": settings.edition(),
            "versions": versions(),
        }
        with files.atomic_path(target) as whole:
            nbformat.write(notebook, whole)
        return Outcome(name, "done", seconds)
    # Whatever goes wrong (an error in a cell, a killed kernel, no disk space) must not leave a
    # file that looks finished, and papermill's own file does look finished after a killed kernel.
    except Exception as error:
        return Outcome(
            name, "failed", time.perf_counter() - start, _explain(name, part, error, root)
        )
    finally:
        part.unlink(missing_ok=True)


def _explain(name: str, part: Path, error: Exception, root: Path) -> str:
    """Keep the failed copy and say which file and cell failed, with what, and where the copy is."""
    where, what = "", f"{type(error).__name__}: {error}"
    if hasattr(error, "cell_index"):
        what = f"{error.ename}: {error.evalue}"
        first = error.source.strip().split("\n")[0]
        where = f", cell {error.cell_index} (`{first}`)"
    message = f"notebooks/{name}.ipynb{where}: {what.strip()}"
    if part.exists():
        kept = root / "_build" / "failed" / f"{name}.ipynb"
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, kept)
        message += f"\n    failed copy: {kept.relative_to(root).as_posix()}"
    return message


class _Workers:
    """Chapters in processes of their own, so that a crash or Ctrl-C takes nothing else along."""

    def __init__(self, root: Path):
        self.root = root
        self.running: dict[str, subprocess.Popen] = {}
        self.stopped = threading.Event()

    def run(self, name: str) -> Outcome:
        if self.stopped.is_set():
            return Outcome(name, "stopped")
        command = [sys.executable, "-m", "tumorbench_book", name, str(self.root)]
        threads = str(max(1, (os.cpu_count() or 1) // 2))
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={"OMP_NUM_THREADS": threads, "TUMORBENCH_QUIET": "1", **os.environ},
        )
        self.running[name] = process
        out, err = process.communicate()
        self.running.pop(name)
        # A worker that was killed had no time to remove its part.
        part_path(name, self.root).unlink(missing_ok=True)
        try:
            return Outcome(**json.loads(out.strip().split("\n")[-1]))
        except ValueError:
            last = (err.strip().split("\n") or [""])[-1]
            text = (
                f"notebooks/{name}.ipynb: the process that ran it ended with {process.returncode}"
            )
            return Outcome(name, "failed", message=f"{text} {last}".strip())

    def stop(self) -> None:
        self.stopped.set()
        for process in list(self.running.values()):
            process.terminate()


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
        futures = [threads.submit(pool.run, name) for name in names]
        ticking = threading.Event()

        def tick() -> None:
            while not ticking.wait(0.5):
                bar.set_postfix_str(", ".join(sorted(pool.running)))

        ticker = threading.Thread(target=tick, daemon=True)
        # In a log file every update would be a line of its own.
        if not sys.stderr.isatty():
            ticking.set()
        ticker.start()
        try:
            for future in as_completed(futures):
                outcomes.append(future.result())
                bar.update()
                if outcomes[-1].state == "failed":
                    bar.write(f"FAILED {outcomes[-1].message}", file=sys.stderr)
        except KeyboardInterrupt:
            pool.stop()
            raise
        finally:
            ticking.set()
            ticker.join()
    return outcomes
