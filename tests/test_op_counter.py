import torch

from tests.op_counter import OpCounter


def test_views_and_allocations_launch_nothing_and_a_foreach_operation_launches_once():
    tensors = [torch.ones(2, 3) for _ in range(5)]
    with OpCounter() as counter:
        torch._foreach_add_(tensors, 1.0)
        tensors[0].T.reshape(-1)[1:].unsqueeze(0).expand(2, -1)
        torch.empty(3)
    assert (counter.ops, counter.waits, counter.transfers) == ({"_foreach_add_": 1, "clone": 1}, 0, 0)


def test_each_read_by_the_host_is_a_wait():
    x = torch.tensor([1.0, 0.0])
    with OpCounter() as counter:
        x.sum().item()
        bool(x[0])
        x[x > 0]
        x.nonzero()
        x.numpy()
        x.cpu()
    assert counter.waits == 4
    with OpCounter(own_reads=True) as counter:
        x.numpy()
        x.cpu()
        x.tolist()
    assert counter.waits == 3


def test_copies_between_devices_are_transfers():
    with OpCounter() as counter:
        torch.ones(2).to("meta")
        torch.ones(2).to(torch.float64)
        torch.ones(2, device="meta").copy_(torch.ones(2))
    assert counter.transfers == 2
