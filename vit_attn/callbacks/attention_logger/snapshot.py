"""Snapshot of one logging step, from which its figures, scalars and tab are written."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vit_attn.attention_maps.evaluation.baselines import Judgement, judge_maps
from vit_attn.attention_maps.evaluation.ground_truth import ground_truth_in_patches
from vit_attn.attention_maps.methods.registry import AttributionInput, AttributionMethod, find_method
from vit_attn.attention_maps.methods.rollout import raw_rows
from vit_attn.attention_maps.recording.record import record
from vit_attn.attention_maps.recording.recording import Recording
from vit_attn.attention_maps.recording.targets import logits_of
from vit_attn.attention_maps.recording.tokens import prefix_names
from vit_attn.attention_maps.summary import AttentionSummary, method_rows, summaries_of, token_relevance
from vit_attn.callbacks.attention_callback import evaluating, forward_of, net_of, network_name
from vit_attn.callbacks.attention_logger.targets import Rows, choose_targets, rows_by_target, rows_where_supported
from vit_attn.data_protocol import GroundTruth, ProbeData, ProbeImages
from vit_attn.tb_plugin.inputs import COMPUTED_BY_PAGE, POOLED_LAYER

MAX_COMPARED = 8
"""Images on which maps are compared with baselines, at most 1,232 forwards of one image with the default methods."""

Precision = Callable[[], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True)
class SnapshotOptions:
    """Contents of a snapshot.

    Args:
        num_images: Number of probe images.
        methods: Attribution methods whose maps it has.
        token_relevance: Whether it has the relevance of every token to every other.
        comparison: Whether the maps are compared with baselines by deletion and insertion.
        tab_methods: Other methods, whose maps the tab alone shows; those that refuse the network are left out.
        targets: Whether class-specific maps are computed for several target classes.
        target: Class that is one of these, where it is not among the first two; by default the label.
        most_compared: Images whose maps are compared, at most.
    """

    num_images: int
    methods: tuple[AttributionMethod, ...]
    token_relevance: bool = False
    comparison: bool = False
    tab_methods: tuple[AttributionMethod, ...] = ()
    targets: bool = False
    target: int | None = None
    most_compared: int = MAX_COMPARED


@dataclass(frozen=True)
class AttentionSnapshot:
    """Recorded attention, maps and probe images of one logging step, detached.

    Args:
        step: Training step.
        recording: Attention of the network on the probe images.
        logits: Output of the network.
        summaries: Rows of each image's heads, its probabilities and predicted class.
        rows: Map of the pooled row of each image over all tokens, by attribution method.
        token_relevance: Relevance of each token (column) to each token (row) for the predicted class, without the
            identity; none for many tokens.
        comparison: Deletion and insertion of the maps and of baselines, where they were measured.
        probe: The probe images.
        ground_truth: Known regions of each image in patches of the network; none if unknown or if they do not fit.
        prefix_names: Names of the tokens before the patches, such as CLS and R1.
        always: Whether it is the first or the last snapshot, which is written whatever the budget.
        network: Name of the network.
        tab_rows: Maps of other methods, which the tab alone shows.
        targets: Target classes of each image, the predicted class first.
        target_rows: Maps of class-specific methods for each target class.
    """

    step: int
    recording: Recording
    logits: Float[Tensor, "B classes"]
    summaries: list[AttentionSummary]
    rows: dict[AttributionMethod, Rows]
    token_relevance: Float[np.ndarray, "B N N"] | None
    comparison: Judgement | None
    probe: ProbeImages
    ground_truth: list[GroundTruth] | None
    prefix_names: list[str]
    always: bool
    network: str = ""
    tab_rows: dict[AttributionMethod, Rows] = field(default_factory=dict)
    targets: list[list[int]] | None = None
    target_rows: dict[AttributionMethod, Float[np.ndarray, "B T N"]] = field(default_factory=dict)

    @classmethod
    def take(
        cls,
        task: nn.Module,
        data: ProbeData,
        options: SnapshotOptions,
        precision: Precision = contextlib.nullcontext,
        step: int = 0,
        always: bool = False,
    ) -> "AttentionSnapshot":
        """Record a network on the probe images and compute its maps; modes, gradients and random state stay.

        Args:
            task: Task with its network, as :func:`~vit_attn.callbacks.attention_callback.net_of` finds it.
            data: Data module with probe images.
            options: What the snapshot has.
            precision: Context of a forward pass, such as autocast.
            step: Training step.
            always: Whether it is the first or the last snapshot.

        Raises:
            UserError: If the network cannot be recorded or a method does not support it.
            NotFinite: If a map holds NaN or infinity.
        """
        net, probe = net_of(task), data.probe(options.num_images)
        images = data.normalize(probe.images.to(next(net.parameters()).device))
        taken = cls.of_images(net, images, probe, options, forward_of(task), precision, step)
        return replace(taken, always=always, network=network_name(task))

    @classmethod
    def of_images(
        cls,
        net: nn.Module,
        images: Float[Tensor, "B C height width"],
        probe: ProbeImages,
        options: SnapshotOptions,
        forward: Callable[[Tensor], object] | None = None,
        precision: Precision = contextlib.nullcontext,
        step: int = 0,
    ) -> "AttentionSnapshot":
        """Record a network on images and compute its maps, as :meth:`take` does with a task and a data module.

        Args:
            net: The network.
            images: Normalised images, on the network's device.
            probe: The same images before normalisation.
            options: What the snapshot has.
            forward: What calls the network, such as its task; by default the network itself.
            precision: Context of a forward pass, such as autocast.
            step: Training step.

        Raises:
            UserError: If the network cannot be recorded or a method does not support it.
            NotFinite: If a map holds NaN or infinity.
        """
        with evaluating(net), torch.inference_mode(False):
            images = images.clone()  # no tensor of inference mode
            recording, logits = _record(forward or net, net, images, precision)
            summaries = summaries_of(recording, logits)
            inputs = AttributionInput(net, images.to(next(net.parameters()).dtype), recording, logits.argmax(dim=-1))
            rows = {method: method_rows(method, inputs, summaries) for method in options.methods}
            more = rows_where_supported(options.tab_methods, inputs)
            third = probe.labels if options.target is None else torch.full_like(probe.labels, options.target)
            targets = choose_targets(logits, third) if options.targets else None
            by_target = {} if targets is None else rows_by_target(rows | more, inputs, targets)
            related = token_relevance(recording, logits) if options.token_relevance else None
            most = options.most_compared if options.comparison else 0
            compared = compare_with_baselines(inputs, summaries, rows, precision, most) if most else None
        return cls(
            step,
            recording,
            logits,
            summaries,
            rows,
            related,
            compared,
            probe,
            ground_truth_in_patches(probe, recording),
            prefix_names(net, recording.num_prefix_tokens),
            always=False,
            tab_rows=more,
            targets=None if targets is None else targets.tolist(),
            target_rows=by_target,
        )

    def on_host(self) -> "AttentionSnapshot":
        """Copy what is on a device to the host's memory, as writing in the background needs it."""
        return replace(self, recording=self.recording.on_host(), logits=self.logits.cpu())


def _record(
    forward: Callable[[Tensor], object], net: nn.Module, images: Tensor, precision: Precision
) -> tuple[Recording, Tensor]:
    with torch.enable_grad(), precision(), record(net, gradients=True) as recording:
        logits = logits_of(forward(images.clone())).detach()
    return recording, logits


def compare_with_baselines(
    inputs: AttributionInput,
    summaries: Sequence[AttentionSummary],
    rows: dict[AttributionMethod, Rows],
    precision: Precision = contextlib.nullcontext,
    most: int = MAX_COMPARED,
) -> Judgement:
    """Measure deletion and insertion of the maps that the tab shows of the pooled row, and of baselines.

    Args:
        inputs: Network, images and recording.
        summaries: Summary of each image.
        rows: Maps by method; those of the tab are added.
        precision: Context of a forward pass.
        most: Images that are compared, the first ones.
    """
    methods = dict.fromkeys([*(find_method(name) for name in COMPUTED_BY_PAGE), *rows])
    found = {each.label: rows[each] if each in rows else method_rows(each, inputs, summaries) for each in methods}
    if inputs.recording.pool is not None:  # "last layer" is then the pool's own row; the tab mixes the layer's rows
        found[POOLED_LAYER] = raw_rows(inputs.recording)[:, 0].detach().cpu().numpy()
    prefix, images = inputs.recording.num_prefix_tokens, inputs.images[:most]
    maps = {label: torch.from_numpy(each[: len(images), prefix:]) for label, each in found.items()}
    with precision():
        return judge_maps(inputs.net, images, maps, inputs.target[: len(images)])
