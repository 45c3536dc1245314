"""Calls of a function in this process, in several processes, or on an executor; results as they come.

Processes of this machine share nothing with each other: each has a pipe to the one that started them. So one that dies
takes only the call with it that it was at, which another one tries again.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import functools
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator
from multiprocessing.connection import wait
from typing import Any

POLL = 0.05  # s between two looks at an executor's futures
GRACE = 10.0  # s that a process may take to end
MEMORY = "a system that runs out of memory kills processes"
ATTEMPTS = 3  # calls whose process dies, after which their trials count as failed

Trial = dict
Function = Callable[[list[Trial]], list[dict]]


def _outcome(call: Callable):
    """Return what a call returns, or its error."""
    try:
        return call()
    except (Exception, concurrent.futures.CancelledError) as error:
        return error


Outcomes = Generator[tuple[list[Trial], list | Exception], None, None]  # trials with their results, or an error


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


class WorkerTraceback(Exception):
    """Where an error came from in another process: the cause of the error that arrives."""

    def __str__(self) -> str:
        return "\n" + self.args[0]


def _without_exit(call: Callable, *arguments):
    """Return what a call returns; if it wants to end the process, that is a failure, which no other try would mend."""
    try:
        return call(*arguments)
    except SystemExit as error:
        raise RuntimeError(f"function: expected results, got sys.exit({error.code!r})") from error


def _call(function_and_trials: bytes) -> list[dict]:
    function, trials = pickle.loads(function_and_trials)
    return _without_exit(function, trials)


def _answer(outcome) -> bytes:
    """Return an outcome and the text of its traceback, ready to be sent."""
    text = "".join(traceback.format_exception(outcome)) if isinstance(outcome, Exception) else ""
    try:
        answer = pickle.dumps((outcome, text))
        pickle.loads(answer)  # some errors can be pickled and not be read again
        return answer
    except Exception as error:
        kept = f"{type(outcome).__name__}: {outcome}" if isinstance(outcome, Exception) else f"results: {error}"
        return pickle.dumps((RuntimeError(f"what cannot be sent from one process to another: {kept}"), text))


def _work(connection) -> None:
    """Answer calls until the process that started this one closes the pipe, or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: who started this process will end it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(b"ready")
        while True:
            connection.send_bytes(_answer(_outcome(functools.partial(_call, connection.recv_bytes()))))


def _received(answer: bytes):
    """Return the outcome in an answer; an error is caused by what happened over there."""
    content = _outcome(functools.partial(pickle.loads, answer))
    if isinstance(content, Exception):
        return content
    outcome, text = content
    if text:
        outcome.__cause__ = WorkerTraceback(text)
    return outcome


class _Worker:
    """A process that answers one call at a time, and the number of the call that it is at."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # threads, which PyTorch has, do not survive a fork
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,))
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.ready = False
        self.at: int | None = None

    @property
    def idle(self) -> bool:
        return self.ready and self.at is None

    def begin(self, at: int, call: bytes) -> None:
        self.at = at
        with contextlib.suppress(OSError):  # it died just now, which the next look at it will show
            self.connection.send_bytes(call)

    def receive(self) -> bytes | None:
        """Return the answer, or None if the process died, maybe in the middle of it."""
        try:
            answer = self.connection.recv_bytes()
        except (EOFError, OSError):
            return None
        self.ready, self.at = True, None
        return answer

    def end(self, seconds: float) -> str:
        """End the process, unless it does so itself in that time, and return how it did."""
        self.connection.close()  # at which an idle one ends
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        return f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"


def in_processes(function: Function, groups: list[list[Trial]], count: int) -> Outcomes:
    """Yield outcomes as they come from processes of this machine."""
    calls = [pickle.dumps((function, trials)) for trials in groups]
    waiting, deaths, failed_starts = deque(range(len(calls))), [0] * len(calls), 0
    workers = [_Worker() for _ in range(min(count, len(calls)))]
    try:
        while waiting or any(worker.at is not None for worker in workers):
            expected: dict[Any, _Worker] = {worker.connection: worker for worker in workers if not worker.idle}
            for connection in wait(list(expected)):
                worker = expected[connection]
                at, answer = worker.at, worker.receive()
                if answer is not None:
                    failed_starts = 0
                    if at is not None:
                        yield groups[at], _received(answer)
                    continue
                ending = worker.end(GRACE)
                if at is None:
                    failed_starts += 1
                else:
                    deaths[at] += 1
                    if deaths[at] < ATTEMPTS:
                        waiting.append(at)
                    else:
                        times = f"{ATTEMPTS} times, the last time {ending}"
                        yield groups[at], RuntimeError(f"its process ended {times}; {MEMORY}")
                if failed_starts == ATTEMPTS:
                    raise RuntimeError(
                        f"processes: {ATTEMPTS} in a row ended before they began, the last one {ending}. A script that "
                        f'calls run must do so below if __name__ == "__main__"; other reasons are printed above'
                    )
                workers[workers.index(worker)] = _Worker()
            for worker in workers:
                if waiting and worker.idle:
                    at = waiting.popleft()
                    worker.begin(at, calls[at])
    finally:
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end(GRACE if worker.idle else 0)


def _on_executor(function: Function, groups: list[list[Trial]], executor) -> Outcomes:
    """Yield outcomes as they come from an executor."""
    waiting = []
    try:
        for trials in groups:
            future = _outcome(functools.partial(executor.submit, function, copy.deepcopy(trials)))
            if isinstance(future, Exception):  # an executor that is broken or was shut down
                yield trials, future
            else:
                waiting.append((future, trials))
        while waiting:
            done = [pair for pair in waiting if pair[0].done()]  # what every kind of future has
            waiting = [pair for pair in waiting if pair not in done]
            for future, trials in done:
                yield trials, _outcome(functools.partial(_without_exit, future.result))
            if not done:
                time.sleep(POLL)
    finally:
        for future, _ in waiting:
            future.cancel()


def outcomes(function: Function, groups: list[list[Trial]], processes: int, executor) -> Outcomes:
    """Yield each list of trials with its results or its error, in the order in which they come."""
    if executor is not None:
        yield from _on_executor(function, groups, executor)
    elif processes > 1 and groups:
        yield from in_processes(function, groups, processes)
    else:
        for trials in groups:
            # a copy: results are kept under what a trial was, also if the function changes it
            yield trials, _outcome(functools.partial(function, copy.deepcopy(trials)))
