"""The end of a script that a launcher has started on several processes."""

import gc
import time
from typing import Final

from torch import distributed

# Seconds in which a thread of Gloo that something still refers to lets go of the tensors of the last exchange.
_PAUSE: Final = 0.1


def leave_process_group() -> None:
    """Leave the process group, if there is one; call it last, after `main()` has returned.

    torch asks for `destroy_process_group` at the end of every process (torch.distributed, Shutdown:
    https://docs.pytorch.org/docs/stable/distributed.html#shutdown). Where it is missing, Gloo's threads may still hold
    tensors while Python ends, and abort the process with "terminate called without an active exception": the launcher
    then calls a training a failure whose model has been written. Nor does it end those threads while something, such
    as a `Trainer` and its wrapped model, refers to the group; hence "after `main()`". What only refers to itself is
    collected here; what torch keeps itself (FSDP's meshes) is given the time to come to rest.

        if __name__ == "__main__":
            main()
            leave_process_group()

    A `Trainer` cannot be made on several processes in this process afterwards.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()
        time.sleep(_PAUSE)
