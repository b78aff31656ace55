"""The command line as a whole: what it starts, and where from."""

import os
import subprocess
import sys

SCRIPT = """
import os
from tumorbench_book import cli
from tumorbench_book.cli.commands import dask_client


def probe():
    with dask_client(2, None) as client:
        print(client.submit(os.environ.get, "TUMORBENCH_CACHE").result())


cli.cli.command("probe")(probe)
if __name__ == "__main__":
    cli.app()
"""


def test_workers_run_no_code_of_the_working_folder_and_know_the_same_cache(tmp_path):
    script, stranger = tmp_path / "bin" / "tumorbench", tmp_path / "stranger"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    stranger.mkdir()
    for module in ("multiprocessing", "distributed"):
        (stranger / f"{module}.py").write_text("open('ran', 'w'); raise SystemExit(7)")
    env = {**os.environ, "TUMORBENCH_CACHE": "my_cache"}
    command = [sys.executable, str(script), "probe"]
    done = subprocess.run(command, cwd=stranger, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(stranger / "my_cache"), done.stderr
    assert not (stranger / "ran").exists()
