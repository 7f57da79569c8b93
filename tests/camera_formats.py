"""Writers of event cameras' file formats, from their specifications, for tests of the readers.

AEDAT 4: docs.inivation.com (FlatBuffers, uncompressed); DAT, EVT 2, EVT 3: docs.prophesee.ai; Event Stream:
github.com/neuromorphicsystems/event_stream. Events have fields x, y, t, p, in order of time.
"""

from __future__ import annotations

import struct
from xml.sax.saxutils import quoteattr

import numpy as np


def dat(events: np.ndarray, size: tuple[int, int], stated: bool = True) -> bytes:
    """DAT 2; without the header's lines, as N-CARS has it, where not `stated`."""
    x, y, t, p = (events[name].astype(np.uint32) for name in "xytp")
    head = b"% Data file containing events.\n"
    if stated:
        head += f"% Version 2\n% Width {size[0]}\n% Height {size[1]}\n".encode()
    return head + bytes([0x0C, 8]) + np.stack([t, x | y << 14 | p << 28], 1).astype("<u4").tobytes()


def evt2(events: np.ndarray, size: tuple[int, int]) -> bytes:
    """One word an event, with six bits of the time; the others in a word of their own."""
    words, high = [], -1
    for x, y, t, p in events.tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high)
        words.append(int(p) << 28 | (t & 63) << 22 | x << 11 | y)
    return f"% evt 2.0\n% geometry {size[0]}x{size[1]}\n% end\n".encode() + np.array(words, "<u4").tobytes()


def evt3(events: np.ndarray, size: tuple[int, int]) -> bytes:
    """Events one by one and in vectors of 8 and 12 columns; the time's upper 12 bits whenever they change, as cameras
    do, over and over again."""
    words, high, low, row = [0x8 << 12], 0, -1, -1
    for i, (x, y, t, p) in enumerate(events.tolist()):
        while high < t >> 12:
            high += 1
            words.append(0x8 << 12 | high & 4095)
        if t != low:
            words.append(0x6 << 12 | t & 4095)
            low = t
        if y != row:
            words.append(0x0 << 12 | y)
            row = y
        if i % 3 == 0:
            words.append(0x2 << 12 | p << 11 | x)
        else:
            first, kind = (x, 0x4) if i % 3 == 1 else (max(x - 7, 0), 0x5)
            words += [0x3 << 12 | p << 11 | first, kind << 12 | 1 << (x - first)]
    return f"% format EVT3;height={size[1]};width={size[0]}\n% end\n".encode() + np.array(words, "<u2").tobytes()


def es(events: np.ndarray, size: tuple[int, int], kind: int = 1) -> bytes:
    """Version 2.0.0 of kind 1 (DVS) or 2 (ATIS, here with an exposure beside every event)."""
    out, now = b"Event Stream" + bytes([2, 0, 0, kind]) + struct.pack("<HH", *size), 0
    for x, y, t, p in events.tolist():
        place = struct.pack("<HH", x, size[1] - 1 - y)
        if kind == 1:
            out += b"\xff" * ((t - now) // 127) + bytes([(t - now) % 127 << 1 | p]) + place
        else:
            many, rest = divmod(t - now, 63)
            out += b"\xff" * (many // 3) + (bytes([0xFC | many % 3]) if many % 3 else b"")
            out += bytes([rest << 2 | p << 1]) + place + bytes([p << 1 | 1]) + place
        now = t
    return out


def aedat4(events: np.ndarray, size: tuple[int, int], cameras: int = 1) -> bytes:
    """Packets of seven events, each of one camera in turn."""
    streams = "".join(
        _node(
            str(i),
            f"{_attribute('compression', 'NONE')}{_attribute('typeIdentifier', 'EVTS')}"
            + _node("info", _attribute("sizeX", size[0]) + _attribute("sizeY", size[1])),
        )
        for i in range(cameras)
    )
    about = f'<dv version="2.0">{_node("outInfo", streams)}</dv>'.encode() + b"\0"
    head = [struct.pack("<i", 0), struct.pack("<q", -1), None]  # no compression, no table of packets
    out = b"#!AER-DAT4.0\r\n" + _flatbuffer(b"IOHE", head, len(about) - 1, about)
    stored = np.zeros(len(events), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("pad", "V3")])
    for name in "xytp":
        stored[name] = events[name]
    for i in range(0, len(stored), 7):
        packet = _flatbuffer(b"EVTS", [None], len(stored[i : i + 7]), stored[i : i + 7].tobytes())
        out += struct.pack("<ii", i // 7 % cameras, len(packet)) + packet
    return out


def _attribute(key: str, value: object) -> str:
    kind = "int" if isinstance(value, int) else "string"
    return f"<attr key={quoteattr(key)} type={quoteattr(kind)}>{value}</attr>"


def _node(name: str, content: str) -> str:
    return f"<node name={quoteattr(name)} path={quoteattr(f'/{name}/')}>{content}</node>"


def _flatbuffer(identifier: bytes, fields: list[bytes | None], length: int, content: bytes) -> bytes:
    """A FlatBuffer with its size before it; the field that is None is a vector of `length` elements, `content`."""
    count = len(fields)
    table = 8 + (4 + 2 * count + 7) // 8 * 8
    end = 8 + 8 * count
    vtable = struct.pack(f"<HH{count}H", 4 + 2 * count, end, *range(8, end, 8))
    body = struct.pack("<I4s", table, identifier) + vtable.rjust(table - 8, b"\0")
    body += struct.pack("<ii", len(vtable), 0)
    for i, field in enumerate(fields):
        body += (struct.pack("<I", end - 8 - 8 * i) if field is None else field).ljust(8, b"\0")
    body += struct.pack("<I", length) + content
    return struct.pack("<I", len(body)) + body
