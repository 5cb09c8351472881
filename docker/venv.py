"""Make fpsolve's Python environment: ``venv.py DIRECTORY REPOSITORY [COMMAND ARG...]``.

The environment sees the packages of the Python that runs this file (dolfinx, petsc4py, ...) and
holds what only PyPI has (python-flint, ruff, mypy) and an editable install of the repository. A
file ``complete`` inside marks success, written last, so that an interrupted run is repaired by the
next; a lock lets simultaneous first runs wait for each other. Then COMMAND replaces this process.
"""

import fcntl
import os
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

WEEK = 7 * 24 * 3600


def say(text: str) -> None:
    print(f"docker/run: {text}", file=sys.stderr, flush=True)


def commands(directory: Path, repository: Path) -> list[list[str]]:
    """The commands that make the environment, in order."""
    pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-warn-script-location"]
    return [
        [sys.executable, "-m", "venv", "--system-site-packages", str(directory)],
        [*pip, "--editable", f"{repository}[dev]"],
    ]


def run(command: list[str], lock: int) -> int:
    """Run `command` as a whole: it ends with this process, or else keeps the lock until it has ended."""
    # the child has the lock too: were this process killed, pip would go on writing, and the next run must wait
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True, pass_fds=(lock,)
    )
    try:
        return child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise


def finish(directory: Path, repository: Path) -> None:
    """Add what pip does not, and mark the environment complete."""
    if sys.prefix != sys.base_prefix:
        # made from another virtual environment: "system" packages are those below it, but dolfinx may live in it
        base = {"base": str(directory), "platbase": str(directory)}
        below = Path(sysconfig.get_path("purelib", scheme="venv", vars=base))
        below.mkdir(parents=True, exist_ok=True)
        (below / "outer.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
    # pytest of the system starts the system's python3; the tests must see the environment
    script = directory / "bin" / "pytest"
    script.write_text(f"#!{directory}/bin/python\nimport sys\nimport pytest\n\nsys.exit(pytest.main())\n")
    script.chmod(0o755)
    (directory / "complete").write_text(f"{repository}\n")


def prune(directory: Path, repository: Path) -> None:
    """Remove environments of earlier states of pyproject.toml; young ones may still be in use."""
    for mark in directory.parent.glob("venv-*/complete"):
        try:
            old = mark.parent != directory and mark.stat().st_mtime < time.time() - WEEK
            if old and mark.read_text().strip() == str(repository):
                shutil.rmtree(mark.parent, ignore_errors=True)
                mark.parent.with_suffix(".lock").unlink(missing_ok=True)
        except OSError:
            continue  # another run removes it at the same time


def make(directory: Path, repository: Path) -> int:
    """Make the environment unless it is complete; return an exit status."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is installing fpsolve's PyPI packages, waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if (directory / "complete").exists():
            return 0
        say("installing fpsolve and its PyPI packages (once)")
        shutil.rmtree(directory, ignore_errors=True)
        for command in commands(directory, repository):
            status = run(command, lock.fileno())
            if status:
                say(f"failed: {' '.join(command)}")
                return status
        finish(directory, repository)
        prune(directory, repository)
    return 0


def stop(number: int, frame: object) -> None:
    sys.exit(128 + number)


def main(arguments: list[str]) -> int:
    directory, repository, *command = arguments
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    if make(Path(directory), Path(repository)):
        return 125
    if command:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what is ignored stays so
        os.execvp(command[0], command)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
