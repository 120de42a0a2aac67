"""Guards of the local server: who may ask, and how much a request may hold.

A page of another site can make the user's browser send requests to 127.0.0.1. Three checks stop it: ``Host`` has the
name of a site whose owner bound it to 127.0.0.1 (DNS rebinding), ``Origin`` has the site of a form or script (CSRF),
``Sec-Fetch-Site`` tells that of a picture; and replies may not be embedded elsewhere.
"""

import contextlib
import json
from typing import Any

from werkzeug import Request, Response

from vit_attn.errors import UserError

MAX_PICTURE_BYTES = 50_000_000
"""Most bytes of a picture that is sent."""
MAX_JSON_BYTES = 1_000_000
"""Most bytes of another question."""
MAX_DRAINED_BYTES = 500_000_000
"""Bytes of a body that is too large which are read and forgotten, so that a browser sees the reply."""
PART = 1 << 16
"""Bytes that are read at a time."""
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content policy, as strict as TensorBoard's: scripts and fetches from the server itself alone."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Refused(UserError):
    """Request that is refused, with its HTTP status.

    Args:
        status: HTTP status.
        message: The reason, in a sentence.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_sender(environ: dict[str, Any], port: int) -> None:
    """Refuse a request that another site's page may have sent.

    Args:
        environ: WSGI environment of the request.
        port: Port of the server.

    Raises:
        Refused: If ``Host`` is not this server, or if another site sent it, or if a POST does not say who sent it.
    """
    hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
    host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
    if host not in hosts:
        raise Refused(403, f"requests must be for {' or '.join(hosts)}, got Host {host!r:.100}")
    sites = ("same-origin", "none", None)  # none: typed by the user; absent in old browsers and other programs
    if environ.get("HTTP_SEC_FETCH_SITE") not in sites and environ.get("PATH_INFO") != "/":  # which others may link to
        raise Refused(403, f"requests must come from the page itself, http://{host}, not from another site")
    if origin is None and environ.get("REQUEST_METHOD") == "GET":
        return  # browsers send none with a GET of their own page
    if origin != f"http://{host}":
        raise Refused(403, f"requests must come from the page itself, http://{host}, got Origin {origin!r:.100}")


def read_body(request: Request, limit: int) -> bytes:
    """Read the body of a request, whether its length is declared or it comes in chunks.

    Raises:
        Refused: If it is larger than the limit, or if the sender stopped.
    """
    parts, size, length = [], 0, request.content_length
    chunked = "wsgi.input_terminated" in request.environ  # the server ends the stream after the last chunk
    expected = None if chunked else length or 0
    too_large = Refused(413, f"the body must be at most {limit / 1e6:g} MB")
    if expected is not None and expected > limit:
        _drain(request, expected)
        raise too_large
    try:
        while part := request.environ["wsgi.input"].read(PART if expected is None else min(PART, expected - size)):
            parts.append(part)
            size += len(part)
            if size > limit:
                parts.clear()
                _drain(request, MAX_DRAINED_BYTES)
                raise too_large
    except OSError as error:  # a chunk that is none
        raise Refused(400, f"the body cannot be read: {error}") from error
    if expected is not None and size < expected:
        raise Refused(400, f"the body ended after {size:,} of {expected:,} bytes")
    return b"".join(parts)


def read_json(request: Request) -> dict[str, Any]:
    """Read a body that is an object in JSON.

    Raises:
        Refused: If it is too large or no such object.
    """
    body = read_body(request, MAX_JSON_BYTES)
    try:
        content = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body must be an object in JSON: {error!s:.200}") from error
    if not isinstance(content, dict):
        raise Refused(400, f"the body must be an object in JSON, got {type(content).__name__}")
    return content


def guarded(response: Response) -> Response:
    """Add the headers that keep a reply from being embedded, sniffed or cached."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _drain(request: Request, left: int) -> None:
    """Read what is left of a body, a part at a time, and forget it."""
    left = min(left, MAX_DRAINED_BYTES)
    with contextlib.suppress(OSError):
        while left > 0 and (part := request.environ["wsgi.input"].read(min(left, PART))):
            left -= len(part)
