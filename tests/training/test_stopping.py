import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vit_attn.training.stopping import PARENT_VARIABLE, Stopped

Run = Callable[[str], subprocess.Popen]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts a process, free of torch, that runs this code; it has said that it is ready."""
    processes: list[subprocess.Popen] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(code: str) -> subprocess.Popen:
        program = "import os, signal, sys, time\nfrom vit_attn.training import stopping\n" + textwrap.dedent(code)
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True, env=environment)
        )
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.readline() == "ready\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


WORK = """
    with stopping.listening() as request:
        request.under_way = UNDER_WAY
        print("ready", flush=True)
        for _ in range(200):
            time.sleep(0.05)
            if request.signum and ANSWERS:
                sys.exit(stopping.Stopped(request.signum).exit_code)
"""


def code(under_way: bool, answers: bool) -> str:
    return WORK.replace("UNDER_WAY", str(under_way)).replace("ANSWERS", str(answers))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_signal_during_the_training_is_answered_by_the_training(run: Run, name: str):
    process = run(code(under_way=True, answers=True))
    process.send_signal(signal.Signals[name])
    assert process.wait(10) == 128 + signal.Signals[name]


def test_a_signal_before_the_training_ends_the_process_at_once(run: Run):
    process = run(code(under_way=False, answers=False))
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=5)
    assert process.returncode == 143
    assert told == "vit-attn: stopped by SIGTERM while nothing was being trained\n"


def test_a_second_signal_ends_the_process_at_once(run: Run):
    process = run(code(under_way=True, answers=False))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130


def test_a_process_that_waits_in_a_call_of_the_system_is_ended_as_well(run: Run):
    waits = """
        import threading
        with stopping.listening() as request:
            print("ready", flush=True)
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
    """
    process = run(waits)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 143


def test_a_rank_that_reaches_no_boundary_is_ended_by_its_deadline(run: Run):
    slow = code(under_way=True, answers=False).replace("request.under_way", "request.deadline = 0.4; request.under_way")
    process = run(slow)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=5)
    assert (process.returncode, told) == (143, "vit-attn: no step ended within 0 s: stopped without saving\n")


def test_a_rank_ends_with_the_process_that_launched_it(run: Run):
    launcher = f"""
        import subprocess
        rank = {textwrap.dedent(code(under_way=True, answers=True))!r}
        program = "import os, sys, time; from vit_attn.training import stopping" + chr(10) + rank
        variables = os.environ | {{{PARENT_VARIABLE!r}: str(os.getpid()), "LOCAL_RANK": "1"}}
        child = subprocess.Popen([sys.executable, "-c", program], env=variables, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        print("ready", flush=True)
        print(child.pid, flush=True)
        time.sleep(20)
    """
    process = run(launcher)
    assert process.stdout is not None
    rank = int(process.stdout.readline())
    process.kill()
    process.wait()
    ends = time.monotonic() + 5
    while _runs(rank) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not _runs(rank)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"


def test_signals_of_a_forked_child_are_its_own(run: Run):
    forks = """
        with stopping.listening() as request:
            request.under_way = True
            child = os.fork()
            if not child:
                time.sleep(20)
                os._exit(0)
            time.sleep(0.2)
            os.kill(child, signal.SIGTERM)
            print("ready", flush=True)
            _, status = os.waitpid(child, 0)
            time.sleep(0.3)
            sys.exit(0 if os.WTERMSIG(status) == signal.SIGTERM and not request.signum else 1)
    """
    assert run(forks).wait(10) == 0


def test_reading_workers_leave_signals_to_the_training(run: Run):
    works = """
        stopping.ignore_signals()
        print("ready", flush=True)
        time.sleep(0.6)
    """
    process = run(works)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        process.send_signal(signal.Signals[name])
    assert process.wait(5) == 0


def test_handlers_are_put_back():
    from vit_attn.training import stopping

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stopping.listening():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_exit_codes_are_those_of_a_shell():
    assert [Stopped(number).exit_code for number in (signal.SIGINT, signal.SIGTERM)] == [130, 143]
