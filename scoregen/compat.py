r"""Repair of a torchvision whose compiled operators do not load beside the installed torch.

The ordinary wheel links against a CUDA build; beside a CPU build `import torchvision` fails with
"operator torchvision::nms does not exist" and takes diffusers' networks and the metric packages down with it.
Declaring the two missing operators lets the Python parts load (transforms, datasets, utils). Where torchvision loads
by itself nothing is touched.
"""

import sys

import torch

_keep_alive: list[torch.library.Library] = []


def repair_torchvision() -> None:
    r"""Imports torchvision; declares `nms` and `qnms` where only these are missing. Idempotent.

    Without torchvision nothing happens. `ops.nms`, `io` and `v2.JPEG` stay unusable where the repair was needed.
    """
    if "torchvision" in sys.modules:
        return
    try:
        import torchvision
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's own
        for operator in ("nms", "qnms"):
            schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]  # torch's own
        _keep_alive.append(library)
        import torchvision  # noqa: F401
