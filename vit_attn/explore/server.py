"""Local server of ``vit-attn explore``: its port on 127.0.0.1, its threads, and its end."""

import ctypes
import errno
import socket
import sys
import threading
import webbrowser
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from vit_attn.errors import UserError
from vit_attn.explore.app import ExploreApp
from vit_attn.explore.session import Session

HOST = "127.0.0.1"
"""Only this machine is listened to."""
FIRST_PORT, TRIED_PORTS = 8765, 100
"""Ports that are tried by default, the first free one is taken."""
WAITING = 128
"""Connections that may wait to be accepted."""
SENDER_SECONDS = 60
"""Seconds after which a connection that sends nothing is closed."""
M_ARENA_MAX = -8
"""Number of the option in glibc's malloc.h."""
END_SECONDS = 30
"""Seconds that the end waits for a question in progress."""


class _QuietHandler(WSGIRequestHandler):
    """Handler that prints nothing of requests that were answered, and does not wait for a sender that says nothing."""

    timeout = SENDER_SECONDS

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing."""

    def log_error(self, format: str, *args: Any) -> None:
        """Print nothing of a sender that has gone, or that speaks no HTTP."""


def listen(port: int | None) -> socket.socket:
    """Open a socket that listens on 127.0.0.1.

    Args:
        port: The port; None for a free one from ``FIRST_PORT`` on.

    Raises:
        UserError: If the port is in use, not allowed or no port, or if none is free.
    """
    if port is not None:
        if not 0 <= port < 2**16:
            raise UserError(f"--port must be in 0..{2**16 - 1}, got {port}")
        return _listen(port)
    for each in range(FIRST_PORT, FIRST_PORT + TRIED_PORTS):
        try:
            return _listen(each)
        except UserError:
            continue
    raise UserError(f"no port from {FIRST_PORT} to {FIRST_PORT + TRIED_PORTS - 1} is free: name one with --port")


def _listen(port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would share the port with a server that runs
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((HOST, port))
        opened.listen(WAITING)
    except OSError as error:
        opened.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise UserError(f"port {port} {reason}: name another with --port, or leave it out for a free one") from error
    return opened


def make_live_server(session: Session, opened: socket.socket) -> BaseWSGIServer:
    """Create the server of a session on a socket that listens; a thread answers each request."""
    _share_one_arena()
    port = opened.getsockname()[1]
    app = ExploreApp(session, port)
    return make_server(HOST, port, app, threaded=True, request_handler=_QuietHandler, fd=opened.fileno())


def _share_one_arena() -> None:
    """Let all threads share one arena of glibc's malloc: else each request's thread keeps what it has freed."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if mallopt is not None:
            mallopt(M_ARENA_MAX, 1)


def serve(session: Session, opened: socket.socket, browser: bool) -> None:
    """Serve a session until Ctrl-C.

    Args:
        session: Networks and pictures.
        opened: A socket that listens.
        browser: Whether the page is opened in the user's browser.
    """
    with opened:
        server = make_live_server(session, opened)
        address = f"http://{HOST}:{server.port}/"
        sys.stdout.write(f"explore at {address} until Ctrl-C\n")
        sys.stdout.flush()
        if browser:  # which may wait for the browser's end
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server.serve_forever()  # ends at Ctrl-C
    # no thread may compute while the interpreter ends; the lock is kept for good
    session.lock.acquire(timeout=END_SECONDS)
    sys.stdout.write("stopped\n")
