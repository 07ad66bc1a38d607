"""What of a computation starts something on a device, counted without one."""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Counts the operators called within, by name, less those that start nothing on a device: views and allocations.

    An operator of this project is counted as one, whatever its stand-in for shapes does.
    """

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        views = [r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns]
        if not any(views) and not name.startswith(("empty", "new_empty")):
            self.found[name] += 1
            # On CUDA the bias of a plain convolution is added by a kernel of its own.
            self.found["bias"] += name == "convolution" and args[2] is not None
        return function(*args, **(kwargs or {}))
