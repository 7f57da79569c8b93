"""Who reads NIR files, and what each computes: in one table, from their import functions' source and measured.

``mtt bench readers`` runs them: ``MTT_LAVA_NIR_PYTHONS`` names their Pythons.
"""

from __future__ import annotations

from dataclasses import dataclass

from netx_export.network import NetworkError
from netx_export.text import unknown


@dataclass(frozen=True)
class Reader:
    """A program that imports NIR.

    Parameters
    ----------
    name : str
    resets : tuple of str
        Resets (`netx_export.network.Network.reset`) that it has.
    dt : float
        Seconds a time step, as its import function has it by default.
    recurrent, leaky : bool
        Whether it takes what a layer feeds itself; CubaLIF nodes.
    uniform : bool
        Whether all neurons of a node must have the same values.
    plain : bool
        It knows no SumPool2d, or no exact one, and no Scale: full convolutions are written.
    affine : bool
        It knows no Linear: an Affine with biases of 0 is written.
    depth_first : bool
        It goes through ``nirtorch.load``, which runs nodes depth first: nodes of zeros lead it to what merges, or the
        network is refused.
    delays : bool
        Whether it has Delay nodes.
    ever : bool
        Whether states that never decay are exact in its CubaLIF: 1 - dt / tau is then exactly 1.
    resistance : float
        What it wants as r of an IF node; 0 where it takes none, and a LIF that forgets nothing stands for it.
    explicit : bool
        Whether v_reset is written: NIR has it since 1.0.5.
    version : str
        NIR version of the file.
    """

    name: str
    resets: tuple[str, ...] = ("zero",)
    dt: float = 1e-4
    recurrent: bool = True
    leaky: bool = True
    uniform: bool = False
    plain: bool = True
    affine: bool = False
    depth_first: bool = False
    delays: bool = False
    ever: bool = True
    resistance: float = 1.0
    explicit: bool = False
    version: str = "1.0.8"


READERS = {
    each.name: each
    for each in (
        Reader("nir", resets=("zero", "subtract"), plain=False, delays=True, explicit=True),
        # from_nir makes every IF an IAF with MembraneSubtract and v >= -threshold; its LIF decays by exp(-1 / tau).
        # It pins nir <= 1.0.4.
        Reader(
            "sinabs",
            resets=("subtract",),
            recurrent=False,
            leaky=False,
            affine=True,
            depth_first=True,
            version="1.0.4",
        ),
        # Its IAFCell has no r; LIFBoxCell multiplies by dt * (1 / tau) in float32, so that nothing stays for ever.
        Reader("norse", dt=1e-3, ever=False, depth_first=True),
        # Its IF becomes a Leaky that forgets a tenth a time step. Recurrent graphs need names and nodes of its own.
        Reader("snntorch", uniform=True, recurrent=False, resistance=0.0),
        Reader("spikingjelly", uniform=True, resistance=1e4, explicit=True),
    )
}
"""All readers, by name; ``nir`` is NIR's own definition, which no simulator is asked for."""


def find(name: str) -> Reader:
    """The reader of this name.

    Raises
    ------
    NetworkError
        There is none.
    """
    if name not in READERS:
        raise NetworkError(unknown("reader", name, READERS))
    return READERS[name]
