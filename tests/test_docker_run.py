"""docker/run and what it calls: exit status, arguments, signals, ways that are missing, races.

Nothing here needs the network: the scripts are copied into a repository of their own, whose
docker/venv.py only pretends to install; the true one is tested with pretended commands.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.serial

DOCKER = Path(__file__).resolve().parents[1] / "docker"

FAKE_VENV = """
import os, sys
from pathlib import Path
directory = Path(sys.argv[1])
(directory / "bin").mkdir(parents=True)
(directory / "complete").touch()
os.execvp(sys.argv[3], sys.argv[3:])
"""

# writes its arguments, one to a line, and answers as $FAKE_* says
FAKE_ENGINE = """#!/bin/sh
printf '%s\\n' "$@" >> "$FAKE_LOG.$1"
case $1 in
  info) exit "${FAKE_INFO:-0}" ;;
  image) exit 1 ;;
  build) exit "${FAKE_BUILD:-0}" ;;
  run) case "$*" in *activate*) exit 9 ;; esac ;;
esac
"""

# the true venv.py with one command that marks its start, takes its time and marks its end
SLOW_VENV = """
import importlib.util, sys
path, log, status, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location("fpsolve_venv", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
work = '''
import os, sys, time
os.makedirs(sys.argv[1] + "/bin", exist_ok=True)
open(sys.argv[2], "a").write("begun ")
time.sleep(0.7)
open(sys.argv[2], "a").write("ended ")
sys.exit(int(sys.argv[3]))
'''
module.commands = lambda directory, repository: [[sys.executable, "-c", work, str(directory), log, status]]
sys.exit(module.main(arguments))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that holds docker/ only, in a directory with an awkward name."""
    repository = tmp_path_factory.mktemp("run").resolve() / "a repository"
    (repository / "docker").mkdir(parents=True)
    for name in ("run", "activate", "packages.txt", "Dockerfile"):
        shutil.copy(DOCKER / name, repository / "docker" / name)
    shutil.copy(DOCKER.parent / "pyproject.toml", repository)
    (repository / "docker" / "venv.py").write_text(FAKE_VENV)
    (repository / "sub dir").mkdir()
    return repository


@pytest.fixture
def environment(checkout: Path) -> dict[str, str]:
    """What docker/run sees: nothing of the caches and settings of the run that started pytest."""
    # nor of its MPI job: a child that joined it would make it crash at its end
    dropped = ("FPSOLVE_", "OMPI_", "PMIX_", "PMI_", "PRTE_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    caches = {"XDG_CACHE_HOME": str(checkout.parent / "cache"), "FPSOLVE_RUN_CACHE": str(checkout.parent / "roots")}
    return kept | caches | {"FPSOLVE_RUN": "host"}


def run(checkout: Path, environment: dict[str, str], *arguments: str, **more: object) -> subprocess.CompletedProcess:
    options: dict = {"capture_output": True, "text": True, "timeout": 15, "cwd": checkout} | more
    return subprocess.run([str(checkout / "docker" / "run"), *arguments], env=environment, **options)


def default_signals() -> None:
    """Undo what a background shell and nohup do: their children ignore interrupts and hang-ups."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("status", [0, 1, 7, 125, 255])
def test_exit_status_passes_through(checkout, environment, status):
    assert run(checkout, environment, "sh", "-c", f"exit {status}").returncode == status


def test_a_command_that_does_not_exist(checkout, environment):
    assert run(checkout, environment, "no-such-command-here").returncode == 127


def test_odd_arguments_pass_through(checkout, environment):
    odd = ["", " ", "a b", "'", '"', "$HOME", "`id`", "\\", "\\n", "two\nlines", "*", "-n", "--", "é", "!", ";", "&"]
    program = "import sys; sys.stdout.write('\\0'.join(sys.argv[1:]))"
    done = run(checkout, environment, "python3", "-c", program, *odd)
    assert done.stdout.split("\0") == odd


def test_standard_input_and_output_pass_through(checkout, environment):
    done = run(checkout, environment, "sh", "-c", "cat; echo there >&2", input="here")
    assert (done.stdout, done.stderr) == ("here", "there\n")


def test_directory_inside_the_repository_is_kept(checkout, environment):
    done = run(checkout, environment, "pwd", "-P", cwd=checkout / "sub dir")
    assert done.stdout == f"{checkout.resolve()}/sub dir\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_command_itself(checkout, environment, number):
    command = [str(checkout / "docker" / "run"), "sh", "-c", "echo $$; exec sleep 100"]
    with subprocess.Popen(
        command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, preexec_fn=default_signals
    ) as process:
        assert process.stdout is not None
        # the command has replaced docker/run: nothing can be left behind
        assert int(process.stdout.readline()) == process.pid
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=5) == -number
        assert time.monotonic() - began < 1


def test_environment_is_first_on_path_also_in_nested_calls(checkout, environment):
    shown = ["sh", "-c", 'echo "$FPSOLVE_VENV"; echo "$PATH"']
    once = run(checkout, environment, *shown).stdout
    twice = run(checkout, environment, "docker/run", *shown)
    assert twice.stdout == once
    venv, path = once.splitlines()
    assert venv.startswith(environment["XDG_CACHE_HOME"])
    assert path.split(":")[0] == f"{venv}/bin"


def test_environment_follows_pyproject(checkout, environment, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkout, other)
    shown = ["sh", "-c", 'echo "$FPSOLVE_VENV"']
    before = run(other, environment, *shown).stdout
    assert before != run(checkout, environment, *shown).stdout, "two repositories share one editable install"
    with open(other / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    assert run(other, environment, *shown).stdout != before


def test_usage(checkout, environment):
    done = run(checkout, environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "usage: docker/run COMMAND [ARG...]\n"


def test_a_way_that_does_not_exist(checkout, environment):
    done = run(checkout, environment | {"FPSOLVE_RUN": "vm"}, "true")
    assert done.returncode == 125
    assert done.stderr == "docker/run: FPSOLVE_RUN=vm: not host, docker, podman or root\n"


def test_own_python_is_taken_when_it_has_dolfinx(checkout, environment):
    del environment["FPSOLVE_RUN"]
    done = run(checkout, environment, "sh", "-c", "echo $FPSOLVE_VENV")
    assert done.stdout.startswith(environment["XDG_CACHE_HOME"]), done.stderr
    assert not Path(environment["FPSOLVE_RUN_CACHE"]).exists(), "a root was begun"


@pytest.fixture
def engine(checkout: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a `docker` that only notes what it is asked."""
    script = tmp_path / "bin" / "docker"
    script.parent.mkdir()
    script.write_text(FAKE_ENGINE)
    script.chmod(0o755)
    changes = {"PATH": f"{script.parent}:{environment['PATH']}", "FAKE_LOG": str(tmp_path / "log")}
    cache = {"FPSOLVE_RUN": "docker", "FPSOLVE_RUN_CACHE": str(tmp_path / "roots")}
    yield environment | changes | cache | {"DEBIAN_MIRROR": "http://mirror.invalid/debian"}


def test_an_engine_gets_repository_directory_and_command(checkout, engine):
    done = run(checkout, engine, "echo", "a  b", "", cwd=checkout / "sub dir")
    assert done.returncode == 9, done.stderr
    build = Path(engine["FAKE_LOG"] + ".build").read_text().splitlines()
    assert "DEBIAN_MIRROR=http://mirror.invalid/debian" in build
    assert build[-1] == str(checkout / "docker"), "more than docker/ is sent to the engine"
    asked = Path(engine["FAKE_LOG"] + ".run").read_text().splitlines()
    assert asked[-4:] == [str(checkout / "docker" / "activate"), "echo", "a  b", ""]
    assert f"{checkout}:{checkout}" in asked
    assert asked[asked.index("-w") + 1] == f"{checkout}/sub dir"
    assert f"{os.getuid()}:{os.getgid()}" in asked


def test_an_engine_starts_in_the_repository_when_called_from_elsewhere(checkout, engine, tmp_path):
    run(checkout, engine, "true", cwd=tmp_path)
    asked = Path(engine["FAKE_LOG"] + ".run").read_text().splitlines()
    assert asked[asked.index("-w") + 1] == str(checkout)


def test_an_engine_that_does_not_answer(checkout, engine):
    done = run(checkout, engine | {"FAKE_INFO": "1"}, "true")
    assert (done.returncode, done.stderr) == (125, "docker/run: docker does not answer\n")


def test_an_engine_that_cannot_build(checkout, engine):
    done = run(checkout, engine | {"FAKE_BUILD": "1"}, "true")
    assert done.returncode == 125
    assert done.stderr.endswith("docker could not build the image\ndocker/run: docker failed\n")


class Slow:
    """Runs of the true venv.py whose installation is pretended, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        self.log.touch()
        self.venv = directory / "venv-1"
        self.script = directory / "slow.py"
        self.script.write_text(SLOW_VENV)
        self.repository = directory

    def start(self, *command: str, status: int = 0) -> subprocess.Popen:
        given = [DOCKER / "venv.py", self.log, status, self.venv, self.repository, *command]
        return subprocess.Popen(
            [sys.executable, str(self.script), *map(str, given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=default_signals,
        )

    def finish(self, process: subprocess.Popen) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=10)
        return process.returncode, out, err

    def done(self) -> list[str]:
        return self.log.read_text().split()


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    return Slow(tmp_path)


def test_simultaneous_first_runs_install_once(slow):
    runs = [slow.start("echo", "a  b") for _ in range(3)]
    outcomes = [slow.finish(process) for process in runs]
    assert [(status, out) for status, out, _ in outcomes] == [(0, "a  b\n")] * 3
    assert slow.done() == ["begun", "ended"]
    assert sum("installing fpsolve and" in err for *_, err in outcomes) == 1
    assert (slow.venv / "complete").read_text() == f"{slow.repository}\n"


def test_a_complete_environment_is_left_alone(slow):
    slow.venv.mkdir()
    (slow.venv / "complete").touch()
    assert slow.finish(slow.start("sh", "-c", "exit 3", status=1)) == (3, "", "")
    assert slow.done() == []


def test_a_failed_installation_is_reported_and_repaired(slow):
    status, out, err = slow.finish(slow.start("echo", "not this", status=1))
    assert (status, out) == (125, "")
    assert "docker/run: failed: " in err
    assert not (slow.venv / "complete").exists()
    (slow.venv / "rest of it").touch()
    assert slow.finish(slow.start("echo", "this"))[:2] == (0, "this\n")
    assert not (slow.venv / "rest of it").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_installation_as_a_whole(slow, number):
    process = slow.start("echo", "not this")
    wait_for(slow.done)
    process.send_signal(number)
    assert slow.finish(process)[:2] == (128 + number, "")
    with open(slow.venv.with_suffix(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # what was installing would hold it
    assert slow.done() == ["begun"]
    assert not (slow.venv / "complete").exists()


def test_after_a_kill_the_next_run_waits_for_what_is_still_installing(slow):
    first = slow.start("echo", "not this")
    wait_for(slow.done)
    first.kill()
    first.wait(timeout=5)
    assert slow.finish(slow.start("echo", "this"))[:2] == (0, "this\n")
    slow.finish(first)
    assert slow.done() == ["begun", "ended", "begun", "ended"]


def test_environments_of_earlier_states_are_removed_after_a_week(slow):
    ages = {"venv-old": (8, slow.repository), "venv-young": (6, slow.repository), "venv-other": (8, Path("/other"))}
    for name, (days, repository) in ages.items():
        mark = slow.venv.parent / name / "complete"
        mark.parent.mkdir()
        mark.write_text(f"{repository}\n")
        then = time.time() - days * 24 * 3600
        os.utime(mark, (then, then))
    assert slow.finish(slow.start())[0] == 0
    left = {path.name for path in slow.venv.parent.glob("venv-*") if path.is_dir()}
    assert left == {"venv-1", "venv-young", "venv-other"}
