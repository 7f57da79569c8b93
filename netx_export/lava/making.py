"""One of Lava's own processes from what a plan (`netx_export.lava.graph`) says of it; needs Lava's own Python."""

from __future__ import annotations

from typing import Any

import numpy as np


def make_process(
    kind: str, time: int, numbers: dict[str, Any], given: dict[str, np.ndarray], time_steps: int
) -> tuple[Any, Any, Any]:
    """Make a process of any kind but ``"source"``.

    Parameters
    ----------
    kind, time, numbers, given
        See `netx_export.lava.graph.Process`; `given` are its arrays.
    time_steps : int
        Steps of a sample, after which all states are reset.

    Returns
    -------
    process, in port, out port
    """
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import DelayDense, Dense
    from lava.proc.lif.process import LIF, LIFReset
    from lava.utils.weightutils import SignMode

    from netx_export.lava.processes.arrays import BufferReset

    process: Any
    if kind == "conv":
        pairs = {name: tuple(numbers[name]) for name in ("input_shape", "stride", "padding", "dilation")}
        bits = numbers["message_bits"]
        process = Conv(weight=given["weight"], groups=numbers["groups"], num_message_bits=bits, **pairs)
        process.proc_params["uncut"] = numbers["uncut"]
        return process, process.s_in, process.a_out
    if kind == "dense":
        bits, sign_mode = numbers["message_bits"], SignMode[numbers["sign_mode"]]
        synapses = {"weights": given["weight"], "num_message_bits": bits, "sign_mode": sign_mode}
        process = DelayDense(delays=given["delay"], **synapses) if "delay" in given else Dense(**synapses)
        if numbers.get("forget"):
            keep, first = numbers["forget"]
            BufferReset(var=process.a_buff, keep=keep, first=first, interval=time_steps)
        return process, process.s_in, process.a_out
    if kind == "relay":
        process = LIF(shape=tuple(numbers["shape"]), du=4095, dv=4096, vth=1)
        return process, process.a_in, process.s_out
    plain = {name: value if value.ndim else int(value) for name, value in given.items()}
    shape = tuple(numbers["shape"])
    process = LIFReset(shape=shape, **plain, bias_exp=6, reset_interval=time_steps, reset_offset=time + 1)
    return process, process.a_in, process.s_out
