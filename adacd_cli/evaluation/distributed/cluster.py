"""The address that `--ray` takes, joining a Ray cluster or starting one here, quietly, and how many workers fit.
Ray itself waits two minutes for a head node that is not there, so an address is tried before Ray is imported."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from adacd_cli.config import Settings
from adacd_cli.counting import counted
from adacd_cli.errors import EnvironmentFault, MissingExtraError, UsageError, first_line

# seconds that an address has to answer, that joining may take then, and that starting Ray here may take
ANSWER_S, JOIN_S, START_S = 8.0, 10.0, 120.0
CLIENT_PORT = 10001  # of `ray://` where none is given, Ray's own default
_SEARCHED = ("", "auto", "local")
_NATIVE_STDERR = 2
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the future's default, which Ray warns of
}


class Address(NamedTuple):
    """Where Ray is: `text` as Ray takes it ("" is a running cluster of this machine if there is one, else a new
    one), and the host and port to try, "" and 0 where Ray itself looks."""

    text: str
    host: str = ""
    port: int = 0

    @property
    def from_outside(self) -> bool:
        """Whether this process stays outside the cluster (`ray://`)."""
        return self.text.startswith("ray://")


class Cluster(NamedTuple):
    """A cluster that has been joined: how many workers fit, and what each of those is given."""

    address: Address
    slots: int
    cpus: int
    gpus: int


def parse_address(text: str) -> Address:
    """The address of `--ray`: "" (nothing given), auto, local, HOST:PORT or ray://HOST[:PORT]. Where nothing is
    given, or auto, RAY_ADDRESS decides if it is set, as for every program with Ray, and then what `ray start` wrote
    down on this machine. That cluster may have died: where nothing is given, and it does not answer, a new one is
    started. UsageError where it is none of these."""
    if text not in ("", "auto"):
        return _parse(text, "--ray")
    own = os.environ.get("RAY_ADDRESS", "").strip()
    if own not in _SEARCHED:
        return _parse(own, "RAY_ADDRESS")
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        started = Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        started = ""
    if not started:
        return Address(text)
    address = _parse(started, "Ray's file ray_current_cluster")
    try:
        if text == "":
            check_answers(address, within=ANSWER_S / 2)
    except EnvironmentFault:
        return Address("local")
    return address


def _parse(text: str, where: str) -> Address:
    if text in _SEARCHED:
        return Address(text)
    hint = "Ray prints its address when the head node is started, e.g. --ray 10.0.0.5:6379."
    wrong = UsageError(f"{where} takes auto, local, HOST:PORT or ray://HOST:PORT; got {text!r}.", hint)
    scheme = "ray://" if text.startswith("ray://") else ""
    try:
        parts = urlsplit(f"//{text.removeprefix(scheme)}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if scheme and port is None:
        port = CLIENT_PORT
    more = parts.path or parts.query or parts.fragment or parts.username or parts.password
    if not host or not port or more or any(sign.isspace() for sign in text):
        raise wrong
    joined = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(f"{scheme}{joined}", host, port)


def check_answers(address: Address, *, within: float = ANSWER_S) -> None:
    """Tries the address for so many seconds. EnvironmentFault where nothing answers there."""
    if not address.host:
        return
    try:
        socket.create_connection((address.host, address.port), timeout=within).close()
    except (OSError, UnicodeError) as error:
        why = str(getattr(error, "strerror", None) or error).lower()
        if isinstance(error, TimeoutError):
            why = f"no answer in {within:g} s"
        elif isinstance(error, socket.gaierror):
            why = "there is no such host"
        elif isinstance(error, UnicodeError):
            why = "that is not a host name"
        hint = "Run `ray status` on the head node to see if Ray runs there; --ray alone uses this machine."
        raise EnvironmentFault(f"No Ray cluster answers at {address.text}: {why}.", hint) from error


def require_ray(address: Address) -> None:
    """Checks that Ray is installed. MissingExtraError where it is not; the hint is the pip command."""
    extra, needed = "ray[data]", ["ray", "pyarrow"]
    if address.from_outside:
        extra, needed = "ray[client,data]", [*needed, "grpc"]
    if any(find_spec(name) is None for name in needed):
        raise MissingExtraError(f"--ray needs {extra}, which is not installed.", f"pip install '{extra}'")


def check_settings(settings: Settings) -> None:
    """UsageError where a device is named that Ray itself hands out."""
    if settings.device.startswith("cuda:"):
        what = f"--ray gives each worker a GPU of its own, and --device names {settings.device}."
        raise UsageError(what, "Leave --device out, or use --device cuda or cpu.")


@contextmanager
def joined(address: Address, settings: Settings) -> Iterator[Cluster]:
    """Joins the cluster at an address that answers, or starts Ray on this machine, for as long as the block runs;
    `device` and `threads` say what a worker needs. EnvironmentFault where it cannot be joined, or takes no
    worker."""
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
    """Sends what Ray prints to nowhere: its C++ to file descriptor 2, its Python to stdout. What the block itself
    writes to sys.stderr arrives as ever; what it makes for that must not outlive it."""
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
        native = False
        with suppress(AttributeError, OSError, ValueError):  # there is none, or it is a test's
            native = terminal.fileno() == _NATIVE_STDERR
        if native:
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


def _join(address: Address, ended: threading.Event) -> None:
    """`ray.init` in a thread of its own, because it takes no timeout. The thread lives until ENDED: the system ends
    what a thread has started along with it."""
    import ray

    named = {"address": address.text} if address.text else {}
    raised, back = list[Exception](), threading.Event()

    def join() -> None:
        try:
            ray.init(**named, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:
            raised.append(error)
        back.set()
        ended.wait()

    threading.Thread(target=join, name="ray-init", daemon=True).start()
    limit = START_S if address.text in ("", "local") else JOIN_S
    if back.wait(limit) and not raised:
        return
    why = f"failed: {first_line(raised[0]).rstrip('.')}" if raised else f"took more than {limit:g} s"
    where = f"the Ray cluster at {address.text}" if address.host else "a Ray cluster of this machine"
    needed = "the cluster's versions of Ray and Python, its token, and, but for ray://, one of its nodes"
    raise EnvironmentFault(f"Joining {where} {why}.", f"It takes {needed}.") from (
        raised[0] if raised else None
    )


def _size(settings: Settings, address: Address) -> Cluster:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    found = any(node.get("GPU", 0) >= 1 for node in nodes)
    gpus = int(settings.device == "cuda" or (settings.device == "auto" and found))
    cpus = settings.threads or 1
    fits = [(int(node.get("CPU", 0) // cpus), int(node.get("GPU", 0))) for node in nodes]
    slots = sum(min(each) if gpus else each[0] for each in fits)
    if slots == 0:
        need = "a GPU" if gpus else counted(cpus, "CPU")
        hint = "`ray status` shows what the nodes have; --device and --threads say what a worker needs."
        raise EnvironmentFault(f"No node of the Ray cluster has {need} for a worker.", hint)
    return Cluster(address, slots, cpus, gpus)
