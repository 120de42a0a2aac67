"""WSGI application of ``vit-attn explore``: a fixed table of routes, and one sentence for each error."""

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

import numpy as np
from werkzeug import Request, Response

from vit_attn.errors import UserError, is_out_of_memory, one_line
from vit_attn.explore import steps
from vit_attn.explore.cuts_json import cuts_as_json
from vit_attn.explore.guards import MAX_PICTURE_BYTES, Refused, check_sender, guarded, read_body, read_json
from vit_attn.explore.pictures import NoSuchPicture
from vit_attn.explore.pixels import note_of
from vit_attn.explore.questions import ask_cut, ask_judge, ask_try
from vit_attn.explore.rows import RowQuestion, compute_row
from vit_attn.explore.session import NotThere, Place, Session
from vit_attn.tb_plugin.page_files import EXPLORE_STATIC, read_static
from vit_attn.tb_plugin.parameters import number_of, range_of, text_of

JSON, BYTES, PNG = "application/json", "application/octet-stream", "image/png"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>vit-attn explore</title>
<link rel="icon" href="data:,">
<script type="module" src="/static/explore.js"></script>
</head>
<body><noscript>This page needs JavaScript.</noscript></body>
</html>
"""
Reply = tuple[str | bytes, str]
"""Content and its type."""


class ExploreApp:
    """Application that answers questions about a session; it goes on after a question that fails.

    Args:
        session: Networks and pictures.
        port: Port of the server, which ``Host`` and ``Origin`` must have.
    """

    def __init__(self, session: Session, port: int) -> None:
        self.session = session
        self.port = port
        self.routes: dict[tuple[str, str], Callable[[Request], Reply]] = {
            ("GET", "/"): lambda _: (PAGE, "text/html"),
            ("GET", "/runs"): self._runs,
            ("GET", "/pictures"): self._pictures,
            ("GET", "/steps"): self._steps,
            ("GET", "/step"): self._step,
            ("GET", "/image"): self._image,
            ("GET", "/maps"): self._maps,
            ("GET", "/measures"): self._measures,
            ("GET", "/queries_keys"): self._queries_keys,
            ("GET", "/classes"): self._classes,
            ("GET", "/prediction"): self._prediction,
            ("GET", "/row"): self._row,
            ("GET", "/cuts"): self._cuts,
            ("POST", "/picture"): self._add_picture,
            ("POST", "/cut"): self._cut,
            ("POST", "/try"): functools.partial(self._ask, ask_try),
            ("POST", "/judge"): functools.partial(self._ask, ask_judge),
        }
        for name, kind in EXPLORE_STATIC.items():
            self.routes["GET", f"/static/{name}"] = functools.partial(_static, name, kind)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        return guarded(self._respond(environ))(environ, start_response)

    def _respond(self, environ: dict[str, Any]) -> Response:
        try:
            check_sender(environ, self.port)
            request = Request(environ)
            content, kind = self._find(request)(request)
            return Response(content, mimetype=kind)
        except Exception as error:
            status, line = _describe(error)
            return Response(line, status=status, mimetype="text/plain")

    def _find(self, request: Request) -> Callable[[Request], Reply]:
        reply = self.routes.get((request.method, request.path))
        if reply is None:
            known = [method for method, path in self.routes if path == request.path]
            if known:
                raise Refused(405, f"{request.path} takes {known[0]}, got {request.method}")
            raise Refused(404, f"there is nothing at {request.path:.100}")
        return reply

    def _place(self, request: Request) -> Place:
        image = number_of(request, "image") if "image" in request.args else 0
        return Place(text_of(request, "run"), number_of(request, "step"), image)

    def _runs(self, _: Request) -> Reply:
        """Networks; all can be shown."""
        return _json({"runs": [{"name": name, "problem": ""} for name in self.session.runs]})

    def _pictures(self, _: Request) -> Reply:
        """Names of the pictures, and the problem of those that cannot be read."""
        pictures = self.session.pictures
        listed = [{"image": i, "name": pictures[i].name, "problem": pictures[i].problem} for i in range(len(pictures))]
        return _json({"pictures": listed})

    def _steps(self, request: Request) -> Reply:
        """Steps of ``run``."""
        return _json({"steps": self.session.steps(text_of(request, "run"))})

    def _step(self, request: Request) -> Reply:
        """Index of ``run`` at ``step``, with the details of ``image``."""
        return _json(steps.step_index(self.session, self._place(request)))

    def _image(self, request: Request) -> Reply:
        """The picture of ``image`` as ``run`` sees it."""
        return steps.picture_png(self.session, self._place(request)), PNG

    def _maps(self, request: Request) -> Reply:
        """Maps of ``image``, the blobs of ``layers`` (``first-last``, all by default) one after another."""
        return steps.maps_of(self.session, self._place(request), *range_of(request)), BYTES

    def _measures(self, request: Request) -> Reply:
        """Measures of all layers and heads at every step of ``run``."""
        return _json(steps.measures(self.session, text_of(request, "run")))

    def _queries_keys(self, request: Request) -> Reply:
        """Queries and keys of ``image`` in ``layer``, from 0."""
        return steps.layer_queries_keys(self.session, self._place(request), number_of(request, "layer")), BYTES

    def _classes(self, request: Request) -> Reply:
        """Names of all classes of ``run``."""
        return _json({"names": self.session.live(text_of(request, "run")).network.unique_class_names})

    def _prediction(self, request: Request) -> Reply:
        """Logits and probabilities of all classes, and what the network does not see of the picture."""
        place = self._place(request)
        logits = self.session.logits(place)[0].float()
        note = note_of(self.session.pictures.fitted(place.image, place.run))
        numbers = {"logits": logits.tolist(), "probabilities": logits.softmax(dim=-1).tolist()}
        return _json(numbers | {"note": note})

    def _row(self, request: Request) -> Reply:
        """Map of ``query`` for ``target`` by ``method``, as float32, little endian."""

        def number(name: str, nothing: str) -> int | None:
            return None if request.args.get(name, nothing) == nothing else number_of(request, name)

        question = RowQuestion(
            text_of(request, "method"),
            number("query", "pool"),
            number("target", ""),
            number("layer", ""),
            request.args.get("fusion") or None,
        )
        row = compute_row(self.session, self._place(request), question)
        return np.ascontiguousarray(row, "<f4").tobytes(), BYTES

    def _cuts(self, request: Request) -> Reply:
        """Cuts of ``run`` at ``step``, as ``/cut`` takes them."""
        return _json({"cuts": cuts_as_json(self.session.cuts(self._place(request)))})

    def _add_picture(self, request: Request) -> Reply:
        """Add the picture whose bytes are the body; returns its index."""
        name = unquote(request.headers.get("X-Name", "")) or "pasted picture"
        image = self.session.pictures.add(read_body(request, MAX_PICTURE_BYTES), name)
        return _json({"image": image, "name": self.session.pictures[image].name})

    def _cut(self, request: Request) -> Reply:
        """Cut a network, and return its logits before and after."""
        body = read_json(request)
        return self._question(ask_cut, body, False, lambda cuts: self.session.register(body["run"], cuts))

    def _ask(self, answer: Callable[..., dict[str, Any]], request: Request) -> Reply:
        """Answer a question by cutting that keeps no step."""
        return self._question(answer, read_json(request), True)

    def _question(
        self, answer: Callable[..., dict[str, Any]], body: dict[str, Any], gradients: bool, *args: Any
    ) -> Reply:
        run, image = body.get("run"), body.get("image")
        if not isinstance(run, str) or not isinstance(image, int) or isinstance(image, bool):
            raise UserError(f"run must be a name and image a number, got {run!r:.100} and {image!r:.100}")
        with self.session.lock:
            subject = self.session.subject(run, image, gradients)
            return _json(answer(subject, body, *args))


def _json(content: dict[str, Any]) -> Reply:
    return json.dumps(content, allow_nan=False), JSON


def _static(name: str, kind: str, _: Request) -> Reply:
    return read_static(name), kind


def _describe(error: Exception) -> tuple[int, str]:
    """Return the HTTP status and the sentence of an error; that of a bug goes to the terminal, too."""
    if isinstance(error, Refused):
        return error.status, one_line(error)
    if isinstance(error, (NotThere, NoSuchPicture)):
        return 404, one_line(error)
    if isinstance(error, UserError):
        return 422, one_line(error)
    if is_out_of_memory(error):
        return 500, "out of memory: take a smaller network or picture"
    line = one_line(f"{type(error).__name__}: {error}")
    sys.stderr.write(traceback.format_exc() if os.environ.get("VIT_ATTN_TRACEBACK") else f"vit-attn: {line}\n")
    return 500, f"the question failed: {line}"
