"""The pretended devices of :mod:`tests.two_devices` refuse what CUDA refuses and let through what it lets through."""

import subprocess
import sys

PROGRAM = """
import torch
from tests.two_devices import FIRST, SECOND, Elsewhere, Literals, TwoDevices

def refused(operation):
    try:
        operation()
    except RuntimeError as error:
        assert "several devices" in str(error), error
        return True
    return False

with TwoDevices(), Literals():
    here, there = torch.arange(4.0).to(FIRST), torch.arange(4.0).to(SECOND)
    plain, index, mask = torch.ones(4), torch.tensor([0, 2]), torch.tensor([True, False, True, False])
    assert (here.device, there.device, (here + here).device) == (FIRST, SECOND, FIRST)
    assert refused(lambda: here + there)
    assert refused(lambda: here + plain)
    assert refused(lambda: torch.cat([here, there]))
    assert refused(lambda: torch.where(here > 1, here, there))
    assert refused(lambda: here.gather(0, index))
    assert refused(lambda: plain[index.to(FIRST)])
    assert refused(lambda: here[index.to(SECOND)])
    assert not refused(lambda: here[index])
    assert not refused(lambda: here + torch.tensor(1.0))
    assert here[mask.to(FIRST)].tolist() == [0.0, 2.0]
    assert (here + there.to(FIRST)).tolist() == [0.0, 2.0, 4.0, 6.0]
    assert torch.arange(3, device=SECOND).device == torch.tensor([1], device=SECOND).device == SECOND
    other = torch.zeros(4, device=SECOND)
    other[1:3] = there[1:3]
    assert other.tolist() == [0.0, 1.0, 2.0, 0.0]
    assert here.to("cpu").tolist() == [0.0, 1.0, 2.0, 3.0]
print("done")
"""


def test_what_is_refused_and_what_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr[-2000:]
