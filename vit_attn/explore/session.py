"""Session of live questions: networks, pictures, and the recordings that answers are computed from."""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vit_attn.attention_maps.methods.registry import AttributionInput
from vit_attn.errors import UserError, did_you_mean
from vit_attn.explore.cuts import Cut, cutting
from vit_attn.explore.kept import ByteCache
from vit_attn.explore.looks import Look, look_at, predict
from vit_attn.explore.networks import LiveNetwork
from vit_attn.explore.pictures import Pictures
from vit_attn.explore.subject import Subject
from vit_attn.inference.images import to_batch

MAX_LOOK_BYTES = 96 * 1024**2
"""Bytes of all kept recordings and encoded maps, without graphs: about seven pictures of ViT-S/16 at 224."""
MAX_LOGIT_BYTES = 16 * 1024**2
"""Bytes of all kept logits."""
MAX_STEPS = 1000
"""Most lists of cuts that a network keeps."""


class NotThere(UserError):
    """Error for a network or a step that the session does not have."""


class Place(NamedTuple):
    """What a question is about.

    Args:
        run: Name of the network.
        step: 0 for the network as it is; another number for a list of cuts.
        image: Index of the picture.
    """

    run: str
    step: int
    image: int


@dataclass
class _State:
    """What a session knows of a network: its lists of cuts and its last index by step, and the look with a graph."""

    live: LiveNetwork
    cuts: list[tuple[Cut, ...]] = field(default_factory=lambda: [()])
    indices: dict[int, bytes] = field(default_factory=dict)
    graph: Look | None = None


class Session:
    """Networks and pictures, and what was computed of them; one question at a time.

    Recordings are kept while they fit a budget of bytes, the graph for gradients of one picture for each network; what
    was dropped is computed again.

    Args:
        networks: The networks, whose parameters are frozen: gradients of attention need none.
        pictures: Pictures that are fitted to these networks.
    """

    def __init__(self, networks: Sequence[LiveNetwork], pictures: Pictures) -> None:
        self.pictures = pictures
        self.lock = threading.RLock()
        self._states = {live.name: _State(live) for live in networks}
        self._looks: ByteCache[Place, Look] = ByteCache(MAX_LOOK_BYTES)
        self._logits: ByteCache[Place, Tensor] = ByteCache(MAX_LOGIT_BYTES)
        for live in networks:
            live.network.net.requires_grad_(False)

    @property
    def runs(self) -> list[str]:
        """Names of the networks."""
        return list(self._states)

    def live(self, run: str) -> LiveNetwork:
        """Get a network by its name.

        Raises:
            NotThere: If there is none.
        """
        return self._state(run).live

    def steps(self, run: str) -> list[int]:
        """List the steps of a network: 0, and one for each list of cuts."""
        return list(range(len(self._state(run).cuts)))

    def register(self, run: str, cuts: tuple[Cut, ...]) -> int:
        """Return the step of a list of cuts, a new one if it is new.

        Raises:
            UserError: If there are too many.
        """
        known = self._state(run).cuts
        if cuts in known:
            return known.index(cuts)
        if len(known) > MAX_STEPS:
            raise UserError(f"a session keeps {MAX_STEPS} lists of cuts at most: start it again for others")
        known.append(cuts)
        return len(known) - 1

    def indices(self, run: str) -> dict[int, bytes]:
        """Return the last index of each step of a network, which is written by the caller."""
        return self._state(run).indices

    def images(self, run: str, image: int) -> Float[Tensor, "1 C height width"]:
        """Return a picture as a network takes it, normalised, on its device and in its precision."""
        network = self.live(run).network
        fitted, parameter = self.pictures.fitted(image, run), next(network.net.parameters())
        return to_batch([fitted], network, parameter.device).to(parameter.dtype)

    def look(self, place: Place, gradients: bool = False) -> Look:
        """Return the recorded attention of a picture, from what is kept or by a forward.

        Args:
            place: Network, step and picture.
            gradients: Whether the recording must have its graph.

        Raises:
            NotThere: If there is no such network, step or picture.
            UserError: If the network cannot be recorded, or gives NaN.
        """
        with self.lock:
            kept = self._looks.get(place)
            if kept is not None and (kept.recording.gradients or not gradients):
                return kept
            state, images = self._state(place.run), self.images(place.run, place.image)
            cut = self.cut(place)
            if state.graph is not None:
                state.graph.drop_graph()
            state.graph = look = look_at(state.live.network.net, images, cut)
            look.encoded = None if kept is None else kept.encoded
            self._logits.put(place, look.logits, look.logits.nbytes)
            self.keep(place, look)
            return look

    def keep(self, place: Place, look: Look) -> None:
        """Keep a look, or count its bytes again after it has grown."""
        self._looks.put(place, look, look.size)

    def logits(self, place: Place) -> Float[Tensor, "1 classes"]:
        """Return the logits of a picture, from what is kept or by a plain forward; errors as for :meth:`look`."""
        with self.lock:
            logits = self._logits.get(place)
            if logits is None:
                net = self.live(place.run).network.net
                logits = predict(net, self.images(place.run, place.image), self.cut(place))
                self._logits.put(place, logits, logits.nbytes)
            return logits

    def known_logits(self, place: Place) -> Float[Tensor, "1 classes"] | None:
        """Return the logits of a picture if they were computed."""
        return self._logits.get(place)

    def inputs(self, place: Place, target: int | None = None, gradients: bool = False) -> AttributionInput:
        """Return the inputs of an attribution method.

        Args:
            place: Network, step and picture.
            target: Class that a class-specific map is for; None for the predicted one.
            gradients: Whether the method needs gradients.
        """
        look, net = self.look(place, gradients), self.live(place.run).network.net
        chosen = look.predicted if target is None else target
        return AttributionInput(net, look.images, look.recording, torch.tensor([chosen], device=look.logits.device))

    def subject(self, run: str, image: int, gradients: bool = True) -> Subject:
        """Return network, picture and uncut recording of a question by cuts."""
        look, live, picture = self.look(Place(run, 0, image), gradients), self.live(run), self.pictures[image]
        return Subject(
            live.network.net,
            look.images,
            look.recording,
            look.logits,
            live.model,
            live.weights,
            live.img_size,
            picture.name if picture.source is None else str(picture.source.absolute()),
            self.pictures.fit,
            picture.source is None,
        )

    def cuts(self, place: Place) -> tuple[Cut, ...]:
        """Return the cuts of a step.

        Raises:
            NotThere: If there is no such step.
        """
        known = self._state(place.run).cuts
        if not 0 <= place.step < len(known):
            raise NotThere(f"{place.run} has steps 0 to {len(known) - 1}, got {place.step}")
        return known[place.step]

    def cut(self, place: Place) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the network is cut as the step says.

        Raises:
            NotThere: If there is no such step.
        """
        cuts = self.cuts(place)
        if not cuts:
            return contextlib.nullcontext()
        layout = self.look(Place(place.run, 0, place.image)).recording
        return cutting(self.live(place.run).network.net, cuts, layout)

    def _state(self, run: str) -> _State:
        if run not in self._states:
            raise NotThere(f"there is no network {run!r}{did_you_mean(run, self._states)}")
        return self._states[run]
