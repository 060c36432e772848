"""Devices: choosing one, checking that it exists, and keeping objects on it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import EmbeddingError, require


def place_for(device: str, able: bool) -> str:
    """``"auto"`` as the first GPU where there is one and torch is installed, else ``"cpu"``.

    Parameters
    ----------
    device : str
        The choice of the user.
    able : bool
        Whether what is to run can run on a GPU.

    Returns
    -------
    str
        A device of torch.

    Raises
    ------
    EmbeddingError
        If a GPU that was asked for is not there.
    """
    if device == "auto":
        return "cuda:0" if able and _has_gpu() else "cpu"
    if device.startswith("cuda"):
        cuda = require("torch", "torch").cuda
        count = cuda.device_count() if cuda.is_available() else 0
        number = int(device.partition(":")[2] or 0)
        if number >= count:
            raise EmbeddingError(
                f"device={device!r} is not there: torch sees {count} GPUs in this process; use device='auto', or "
                "send the work to workers that have one (resources=)"
            )
    return device


def check_device(device: Any) -> None:
    """Raise unless this is a way to name a device.

    Raises
    ------
    ValueError
        If it is not.
    """
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("auto", "cpu", "cuda", "mps", "xpu") or not (number == "" or number.isdigit()):
        raise ValueError(f"device is 'auto', 'cpu', or a device of torch such as 'cuda:0'; got {device!r}")


def _has_gpu() -> bool:
    # torch takes seconds to import: it is not asked where no driver for a GPU is there.
    if importlib.util.find_spec("torch") is None or not ("torch" in sys.modules or _has_driver()):
        return False
    return bool(require("torch", "torch").cuda.is_available())


@lru_cache(maxsize=1)
def _has_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


_copies: OrderedDict[tuple[str, str], Any] = OrderedDict()
_copies_lock = threading.Lock()
_KEPT = 8


def kept[T](token: str, device: str, make: Callable[[], T]) -> T:
    """Return what ``make`` puts on a device, made once per process and token; the last few are kept."""
    key = (token, device)
    with _copies_lock:
        if key not in _copies:
            _copies[key] = make()
            if device.startswith("cuda"):  # lanes do not wait for the stream that it was made on
                require("torch", "torch").cuda.synchronize(device)
            while len(_copies) > _KEPT:
                _copies.popitem(last=False)
        _copies.move_to_end(key)
        found: T = _copies[key]
        return found
