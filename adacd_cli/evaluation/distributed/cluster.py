"""Joining a Ray cluster or starting one on this machine, quietly, and how many workers it can take."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from adacd_cli.counting import counted
from adacd_cli.errors import EnvironmentFault, MissingExtraError, UsageError, first_line
from adacd_cli.evaluation.distributed.address import Address

if TYPE_CHECKING:
    from adacd_cli.config import Settings

JOIN_S = 10.0
"""Seconds that joining may take once the address has answered; Ray by itself would wait for minutes."""

_NATIVE_STDERR = 2
_START_S = 120.0  # a local Ray starts a handful of processes
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the future's default, which Ray warns of
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that has been joined: living nodes, how many workers fit, and what each of those is given;
    `from_outside` tells whether this process is outside it (`ray://`)."""

    nodes: int
    slots: int
    cpus: int
    gpus: int
    from_outside: bool = False


def require_ray(address: Address) -> None:
    """Checks that Ray is installed. MissingExtraError where it is not; the hint is the pip command."""
    needed = ("ray", "pyarrow", "grpc") if address.through_client else ("ray", "pyarrow")
    extra = "ray[client,data]" if address.through_client else "ray[data]"
    if any(find_spec(name) is None for name in needed):
        raise MissingExtraError(f"--ray needs {extra}, which is not installed.", f"pip install '{extra}'")


def check_settings(settings: Settings) -> None:
    """Refuses settings that only one machine can have. UsageError where a device is named that Ray itself hands
    out."""
    if settings.device.startswith("cuda:"):
        raise UsageError(
            f"--ray gives each worker a GPU of its own, and --device names {settings.device}.",
            "Leave --device out, or use --device cuda or cpu.",
        )


@contextmanager
def joined(address: Address, settings: Settings) -> Iterator[Cluster]:
    """Joins the cluster, or starts Ray on this machine, for as long as the block runs.

    Args:
        address: answers, see `check_answers`.
        settings: `device` and `threads` say what a worker needs.

    Raises:
        EnvironmentFault: the cluster cannot be joined, or takes no worker.
    """
    own = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ.update(own)
    import ray

    ended = threading.Event()
    try:
        _join(address, ended)
        yield _size(settings, address)
    finally:
        ray.shutdown()
        ended.set()
        for name in own:
            os.environ.pop(name, None)


@contextmanager
def ray_muted() -> Iterator[None]:
    """Sends what Ray prints to nowhere: its C++ to file descriptor 2, its Python to stdout.

    What the block itself writes to sys.stderr arrives as ever; what it makes for that must not outlive it.
    """
    with ExitStack() as stack:
        stack.callback(_release_stdout)
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(nowhere))
        terminal = sys.stderr
        try:
            kept = os.dup(_NATIVE_STDERR)
        except OSError:  # closed
            yield
            return
        stack.callback(os.close, kept)
        if _shows_on(terminal, _NATIVE_STDERR):
            terminal.flush()
            own = stack.enter_context(open(kept, "w", 1, terminal.encoding, terminal.errors, closefd=False))
            stack.enter_context(redirect_stderr(own))
        stack.callback(os.dup2, kept, _NATIVE_STDERR)
        os.dup2(nowhere.fileno(), _NATIVE_STDERR)
        yield


def _release_stdout() -> None:
    """Keeps Ray's colorama from writing its reset to the stdout that it met, when Python ends."""
    for name in ("colorama.initialise", "ray.thirdparty_files.colorama.initialise"):
        if (module := sys.modules.get(name)) is not None:
            atexit.unregister(module.reset_all)


def _shows_on(stream: Any, descriptor: int) -> bool:
    try:
        return bool(stream.fileno() == descriptor)
    except (AttributeError, OSError, ValueError):  # there is none, or it is a test's
        return False


def _join(address: Address, ended: threading.Event) -> None:
    """`ray.init` in a thread of its own, because it takes no timeout.

    Args:
        ended: the thread lives until then: the system ends what a thread has started along with it.
    """
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address.text:
        options["address"] = address.text
    limit = _START_S if address.text in ("", "local") else JOIN_S
    failure = _within(limit, lambda: ray.init(**options), ended)
    if failure is not None:
        late = isinstance(failure, TimeoutError)
        why = f"took more than {limit:g} s" if late else f"failed: {first_line(failure).rstrip('.')}"
        where = f"the Ray cluster at {address.text}" if address.host else "a Ray cluster of this machine"
        raise EnvironmentFault(
            f"Joining {where} {why}.",
            "It takes the cluster's versions of Ray and Python, its token, and, but for ray://, one of its nodes.",
        ) from failure


def _within(seconds: float, call: Callable[[], object], ended: threading.Event) -> Exception | None:
    """Calls it; what it raised, or TimeoutError where it has not come back in time."""
    raised: list[Exception] = []
    back = threading.Event()

    def run() -> None:
        try:
            call()
        except Exception as error:
            raised.append(error)
        back.set()
        ended.wait()

    threading.Thread(target=run, name="ray-init", daemon=True).start()
    if not back.wait(seconds):
        return TimeoutError()
    return raised[0] if raised else None


def _size(settings: Settings, address: Address) -> Cluster:
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    found = any(node["Resources"].get("GPU", 0) >= 1 for node in alive)
    gpus = int(settings.device == "cuda" or (settings.device == "auto" and found))
    cpus = settings.threads or 1
    slots = 0
    for resources in (node["Resources"] for node in alive):
        fits = int(resources.get("CPU", 0) // cpus)
        slots += min(fits, int(resources.get("GPU", 0))) if gpus else fits
    if slots == 0:
        need = "a GPU" if gpus else counted(cpus, "CPU")
        raise EnvironmentFault(
            f"No node of the Ray cluster has {need} for a worker.",
            "`ray status` shows what the nodes have; --device and --threads say what a worker needs.",
        )
    return Cluster(len(alive), slots, cpus, gpus, address.through_client)
