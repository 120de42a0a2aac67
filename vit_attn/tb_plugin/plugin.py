"""Server of the Attention tab: a fixed table of routes over the logged data."""

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from tensorboard import errors, plugin_util
from tensorboard.backend.http_util import Respond
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins import base_plugin
from werkzeug import Request, Response

from vit_attn.errors import UserError, one_line
from vit_attn.tb_plugin.blobs import READABLE, VERSION, check_maps
from vit_attn.tb_plugin.index import measures_of_run
from vit_attn.tb_plugin.metadata import (
    INDEX_TAG,
    PLUGIN_NAME,
    image_tag,
    name_of_tag,
    queries_keys_tag,
    version_of,
)
from vit_attn.tb_plugin.page_files import STATIC, read_static
from vit_attn.tb_plugin.parameters import number_of, range_of, text_of
from vit_attn.tb_plugin.queries_keys import check_queries_keys

ALL_STEPS = 1_000_000
"""Steps requested of a time series: all that the reader kept."""


class AttentionLoader(base_plugin.TBLoader):
    """Loader that TensorBoard finds by the entry point."""

    def fix_flags(self, flags: Any) -> None:
        """Keep every logged step in the reader, unless the user chose otherwise: readers thin out by default."""
        if isinstance(getattr(flags, "samples_per_plugin", None), dict):
            flags.samples_per_plugin.setdefault(PLUGIN_NAME, 0)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin:  # pyrefly: ignore[bad-override]
        """Create the plugin."""
        return AttentionPlugin(context)


class AttentionPlugin(base_plugin.TBPlugin):
    """Plugin that replies in JSON and bytes; errors are one line of text with their status."""

    plugin_name = PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._data: Any = context.data_provider
        self._keys: dict[tuple[str, str, str], dict[int, Any]] = {}

    def get_plugin_apps(self) -> dict[str, Any]:
        """Return the table of routes."""
        replies: dict[str, Callable[[Request], tuple[Any, str]]] = {
            "/runs": self._runs,
            "/steps": self._steps,
            "/step": self._step,
            "/image": self._image,
            "/maps": self._maps,
            "/measures": self._measures,
            "/queries_keys": self._queries_keys,
        }
        routes = {route: _application(reply) for route, reply in replies.items()}
        return routes | {f"/static/{name}": _static(name, kind) for name, kind in STATIC.items()}

    def is_active(self) -> bool:
        """Leave it to TensorBoard to find whether there is data."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Return the tab's name and page; the page polls by itself."""
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="Attention")

    def _runs(self, request: Request) -> tuple[Any, str]:
        """Runs with data, and the problem of those that cannot be shown."""
        found = self._data.list_blob_sequences(
            plugin_util.context(request.environ),
            experiment_id=plugin_util.experiment_id(request.environ),
            plugin_name=PLUGIN_NAME,
        )
        runs = []
        for name in sorted(found):
            index = found[name].get(INDEX_TAG)
            version = version_of(index.plugin_content) if index else None
            problem = ""
            if version not in READABLE:
                problem = f"format version {version}; this version of vit_attn reads {VERSION}"
            if not index:
                problem = "no step is complete yet"
            runs.append({"name": name, "problem": problem})
        return {"runs": runs}, "application/json"

    def _steps(self, request: Request) -> tuple[Any, str]:
        """Logged steps of ``run``."""
        steps = self._read_keys(request, text_of(request, "run"), INDEX_TAG)
        return {"steps": sorted(steps)}, "application/json"

    def _step(self, request: Request) -> tuple[Any, str]:
        """Labels, predictions, tokens and layers of ``run`` at ``step``."""
        blob = self._blobs(request, INDEX_TAG, _first)[0]
        try:
            index = json.loads(blob)
            version = index["version"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"corrupt index: {error}") from error
        if version not in READABLE:
            raise UserError(f"index of format version {version}; this version of vit_attn reads {VERSION}")
        return blob, "application/json"

    def _image(self, request: Request) -> tuple[Any, str]:
        """The picture of ``image``."""
        return self._blobs(request, image_tag(number_of(request, "image")), _first)[0], "image/png"

    def _maps(self, request: Request) -> tuple[Any, str]:
        """Maps of ``image``, the blobs of ``layers`` (``first-last``, all by default) one after another."""
        first, last = range_of(request)
        if last is None:
            blobs = self._blobs(request, image_tag(number_of(request, "image")), lambda keys: keys[1:])
        else:
            blobs = self._blobs(
                request, image_tag(number_of(request, "image")), lambda keys: _part(keys[1:], first, last)
            )
        for i, blob in enumerate(blobs):
            try:
                check_maps(blob)
            except UserError as error:
                raise UserError(f"layer {first + i + 1}: {error}") from error
        return b"".join(blobs), "application/octet-stream"

    def _measures(self, request: Request) -> tuple[Any, str]:
        """Measures of all layers and heads at every step of ``run``; null where a step has none or is corrupt."""
        found = {}
        for step, keys in self._read_keys(request, text_of(request, "run"), INDEX_TAG).items():
            with contextlib.suppress(errors.NotFoundError, KeyError):
                found[step] = self._read(request, keys[:1])
        return measures_of_run(found), "application/json"

    def _queries_keys(self, request: Request) -> tuple[Any, str]:
        """Queries and keys of ``image`` in ``layer``, from 0."""
        layer, tag = number_of(request, "layer"), queries_keys_tag(number_of(request, "image"))
        (blob,) = self._blobs(request, tag, lambda keys: _part(keys, layer, layer))
        check_queries_keys(blob)
        return blob, "application/octet-stream"

    def _blobs(self, request: Request, tag: str, choose: Callable[[list[Any]], list[Any]]) -> list[bytes]:
        run, step = text_of(request, "run"), number_of(request, "step")
        series = (plugin_util.experiment_id(request.environ), run, tag)
        keys = self._keys.get(series, {}).get(step)
        if keys is None:
            keys = self._read_keys(request, run, tag).get(step)
        if keys is None:
            raise errors.NotFoundError(f"run {run!r} has no {name_of_tag(tag)} at step {step}")
        try:
            return self._read(request, choose(list(keys)))
        except (errors.NotFoundError, KeyError) as error:
            self._keys.pop(series, None)
            raise errors.NotFoundError(f"run {run!r} no longer has {name_of_tag(tag)} at step {step}") from error

    def _read(self, request: Request, keys: Sequence[Any]) -> list[bytes]:
        context = plugin_util.context(request.environ)
        return [self._data.read_blob(context, blob_key=key.blob_key) for key in keys]

    def _read_keys(self, request: Request, run: str, tag: str) -> dict[int, Any]:
        experiment = plugin_util.experiment_id(request.environ)
        found = self._data.read_blob_sequences(
            plugin_util.context(request.environ),
            experiment_id=experiment,
            plugin_name=PLUGIN_NAME,
            downsample=ALL_STEPS,
            run_tag_filter=RunTagFilter(runs=[run], tags=[tag]),
        )
        if tag not in found.get(run, {}):
            self._keys.pop((experiment, run, tag), None)
            raise errors.NotFoundError(f"run {run!r} has no {name_of_tag(tag)}: it may have been deleted")
        keys = {datum.step: datum.values for datum in found[run][tag]}
        self._keys[experiment, run, tag] = keys
        return keys


def _application(reply: Callable[[Request], tuple[Any, str]]) -> Any:
    @Request.application
    def serve(request: Request) -> Response:
        try:
            content, kind = reply(request)
        except errors.NotFoundError as error:
            return Respond(request, one_line(error), "text/plain", code=404)
        except UserError as error:
            return Respond(request, one_line(error), "text/plain", code=422)
        return Respond(request, content, kind)

    return serve


def _static(name: str, kind: str) -> Any:
    @Request.application
    def serve(request: Request) -> Response:
        return Respond(request, read_static(name), kind)

    return serve


def _first(keys: list[Any]) -> list[Any]:
    if not keys:
        raise UserError("corrupt: nothing was written here")
    return keys[:1]


def _part(layers: list[Any], first: int, last: int) -> list[Any]:
    if first >= len(layers):  # a page may ask for more than there are, as it goes from one network to another
        raise UserError(f"layers must begin within 0-{len(layers) - 1}, got {first}-{last}")
    return layers[first : last + 1]
