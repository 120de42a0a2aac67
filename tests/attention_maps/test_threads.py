"""What runs in other threads, tasks and generators is none of a recording's or a knock-out's business."""

import asyncio
import contextvars
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch.overrides import _get_current_function_mode_stack
from torch.testing import assert_close

from tests.networks import IMAGES, built
from vit_attn.attention_maps import ablate, edges, knockout, legrad, record
from vit_attn.attention_maps.precision import _held
from vit_attn.errors import UserError

EVERYTHING = edges(19, range(19), range(19))


def elsewhere(work: Callable[[], Any]) -> Any:
    """What a function gives in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.fixture
def net():
    net = built("ours")
    yield net
    assert not _held
    assert not _get_current_function_mode_stack()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert not any(module._forward_pre_hooks_with_kwargs for module in net.modules())


@torch.no_grad()
def plain(net) -> torch.Tensor:
    return net(IMAGES)


@pytest.mark.parametrize("gradients", [False, True])
def test_a_forward_in_another_thread_is_neither_broken_nor_recorded(net, gradients: bool):
    expected = plain(net)
    with record(net, gradients=gradients) as recording:
        assert torch.equal(elsewhere(lambda: plain(net)), expected)
        net(IMAGES[:1])
        assert torch.equal(elsewhere(lambda: plain(net)), expected)
    assert recording.batch_size == 1


def test_a_thread_that_was_given_the_context_is_another_thread_too(net):
    expected = plain(net)
    with record(net) as recording, knockout(net, EVERYTHING):
        context = contextvars.copy_context()
        assert torch.equal(elsewhere(lambda: context.run(plain, net)), expected)
        net(IMAGES[:1])
    assert recording.batch_size == 1
    with record(net):  # so that the network has hooks; the context still lists what is over
        assert torch.equal(context.run(plain, net), expected)
    assert recording.batch_size == 1


def test_a_forward_in_another_thread_is_not_cut(net):
    expected = plain(net)
    with knockout(net, EVERYTHING), ablate(net, {0: [0]}):
        assert torch.equal(elsewhere(lambda: plain(net)), expected)
        assert elsewhere(lambda: net.forward_features(IMAGES)).isfinite().all()
        assert not torch.allclose(plain(net), expected)


def test_a_network_that_is_only_run_elsewhere_was_not_recorded(net):
    with record(net) as recording:
        elsewhere(lambda: plain(net))
    with pytest.raises(UserError, match="nothing was recorded"):
        len(recording)


def test_threads_that_record_cut_and_run_one_network_at_once_do_not_mix(net):
    expected, start = plain(net), threading.Barrier(4)
    with ablate(net, {0: [1], 2: [2]}):
        without = plain(net)

    def recording(image: int) -> bool:
        with record(net) as seen:
            found = plain(net)[image]
            net(IMAGES[image : image + 1])
        return seen.batch_size == 4 and torch.equal(found, expected[image])

    def ablating() -> bool:
        with ablate(net, {0: [1], 2: [2]}):
            return torch.equal(plain(net), without)

    def all_well(work: Callable[[], bool]) -> bool:
        start.wait()
        return all([work() for _ in range(10)])

    works = [lambda: recording(0), lambda: recording(1), ablating, lambda: torch.equal(plain(net), expected)]
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(all_well, works))


def test_tasks_of_one_thread_have_their_own_recordings(net):
    async def recording(images) -> Any:
        with record(net) as seen:
            await asyncio.sleep(0)
            net(images)
            await asyncio.sleep(0)
        return seen

    async def running() -> torch.Tensor:
        await asyncio.sleep(0)
        return plain(net)

    async def cutting() -> torch.Tensor:
        with knockout(net, EVERYTHING):
            await asyncio.sleep(0)
            return plain(net)

    async def together() -> list[Any]:
        return await asyncio.gather(recording(IMAGES[:1]), running(), cutting(), recording(IMAGES[1:]))

    with ThreadPoolExecutor(1) as pool:  # a test of the page may have left a loop in this one
        one, whole, cut, two = pool.submit(asyncio.run, together()).result()
    assert (one.batch_size, two.batch_size) == (1, 2)
    assert torch.equal(whole, plain(net))
    assert not torch.allclose(cut, whole)
    with torch.no_grad(), record(net) as alone:
        net(IMAGES[1:])
    assert torch.equal(two[0].weights(), alone[0].weights())


def test_a_generator_that_records_ends_when_it_is_closed(net):
    def recordings():
        with record(net) as seen:
            while True:
                net((yield seen))

    steps = recordings()
    seen = next(steps)
    with ablate(net, {0: [0]}):
        steps.send(IMAGES)
        steps.close()
        plain(net)
    plain(net)
    assert seen.batch_size == 3
    assert seen[0].weights()[:, 0].amax() == 0


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("caught_inside", [True, False])
def test_nothing_is_left_of_a_forward_that_fails(net, error, caught_inside: bool):
    expected, failing = plain(net), [True]

    def fail(*_):
        if failing:
            raise error

    handle = net.blocks[1].mlp.register_forward_hook(fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if caught_inside:
            with record(net) as seen, ablate(net, {0: [0]}):
                with pytest.raises(error):
                    net(IMAGES)
                failing.clear()
                plain(net)
            assert seen.batch_size == 3
        else:
            with pytest.raises(error), record(net), knockout(net, EVERYTHING), ablate(net, {0: [0]}):
                net(IMAGES)
    failing.clear()
    handle.remove()
    assert torch.equal(plain(net), expected)


def test_a_hook_of_the_users_that_fails_after_the_forward_leaves_nothing_recorded(net):
    def fail(*_):
        raise ZeroDivisionError

    handle = net.register_forward_hook(fail)
    with record(net) as seen:
        with pytest.raises(ZeroDivisionError):
            net(IMAGES)
        handle.remove()
        net(IMAGES[:1])
    assert seen.batch_size == 1


def test_compiled_networks_compile_again_after_threads_have_recorded(net):
    stances = []

    def recording(first: threading.Event, last: threading.Event) -> None:
        with record(net):
            first.set()
            last.wait()

    begun, end = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with record(net):
            other = pool.submit(recording, begun, end)
            begun.wait()
        stances.append(torch._dynamo.eval_frame._stance.stance)
        end.set()
        other.result()
    stances.append(torch._dynamo.eval_frame._stance.stance)
    assert stances == ["force_eager", "default"]


def test_the_users_own_modes_and_recordings_nest(net):
    with torch.device("cpu"), record(net) as seen, torch.device("cpu"):
        plain(net)
    assert_close(seen[0].weights().sum(dim=-1), torch.ones(3, 4, 19))


def test_legrad_keeps_nothing_of_a_forward_in_another_thread(net):
    expected = legrad(net, IMAGES)
    begun: list[bool] = []

    def other(*_: Any) -> None:
        if not begun:
            begun.append(True)
            elsewhere(lambda: net(IMAGES.flip(0)))

    handle = net.blocks[0].register_forward_hook(other)
    found = legrad(net, IMAGES)
    handle.remove()
    assert_close(found, expected)
