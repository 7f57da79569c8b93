"""Writers of published data sets in their true layouts, for tests of the loaders: a few recordings of given events.

Events are lists of (x, y, t, p): column, row, microseconds, polarity (1 is ON).
"""

from __future__ import annotations

import gzip
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
from camera_formats import aedat4

from mtt_lava.data import EVENT_DTYPE, open_dataset

Events = Sequence[tuple[int, int, int, int]]


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def as_array(events: Events) -> np.ndarray:
    return np.array([tuple(each) for each in events], EVENT_DTYPE)


def write_aedat4(path: Path, events: Events) -> Path:
    return put(path, aedat4(as_array(events), (128, 128)))


def write_aedat2(path: Path, events: Events, marks: int = 0) -> Path:
    """As jAER writes what a DVS128 sees: a header, then big-endian addresses and times; `marks` are no pixel's."""
    head = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Creation time: Fri May 08 2015\r\n"
    words = [((127 - x) << 8 | (127 - y) << 1 | (1 - p), t) for x, y, t, p in events]
    words += [(1 << 15, words[-1][1])] * marks
    return put(path, head + b"".join(struct.pack(">II", *word) for word in words))


def write_aedat3(path: Path, events: Events, room: int = 4, wrap: int = 1 << 31) -> Path:
    """As IBM's: packets of `room` events at most, none across an overflow of the time at `wrap`; and one of frames."""
    head = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: Dvs128\r\n#Start-Time: 2016\r\n#!END-HEADER\r\n"
    body = struct.pack("<2h6i", 2, 1, 16, 4, 0, 1, 1, 1) + bytes(16)
    groups: list[list[tuple[int, int, int, int]]] = []
    for event in events:
        if not groups or len(groups[-1]) == room or groups[-1][-1][2] // wrap != event[2] // wrap:
            groups.append([])
        groups[-1].append(event)
    for group in groups:
        body += struct.pack("<2h6i", 1, 1, 8, 4, group[0][2] // wrap, room, len(group), len(group))
        words = [(x << 17 | y << 2 | p << 1 | 1, t % wrap) for x, y, t, p in group]
        words += [(0, 0)] * (room - len(group))
        body += b"".join(struct.pack("<II", *word) for word in words)
    return put(path, head + body)


def packed(events: Events) -> bytes:
    """As N-MNIST and N-Caltech101 have it: 8 bits x, 8 bits y, 1 bit p, 23 bits t, big endian."""
    return b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for x, y, t, p in events)


def write_bin(path: Path, events: Events) -> Path:
    return put(path, packed(events))


def write_npy(path: Path, events: Events) -> Path:
    """As tonic cuts DVS128 Gesture: columns x, y, p, t, milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array([(x, y, p, t / 1000) for x, y, t, p in events]))
    return path


def write_spikes(
    path: Path, recordings: Sequence[tuple[Sequence[float], Sequence[int]]], labels: Sequence[int], keys: int = 20
) -> Path:
    """As SHD and SSC have them: (times in seconds, units) of each recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for which, (name, dtype) in enumerate((("times", np.float16), ("units", np.uint16))):
            each = file.create_dataset(f"spikes/{name}", (len(recordings),), h5py.vlen_dtype(np.dtype(dtype)))
            for i, recording in enumerate(recordings):
                each[i] = np.array(recording[which], dtype)
        file["labels"] = np.array(labels, np.uint16)
        file["extra/keys"] = np.array([f"word {i}".encode() for i in range(keys)])
        file["extra/speaker"] = np.zeros(len(labels), np.uint16)
    return path


def write_idx(path: Path, array: np.ndarray) -> Path:
    """As MNIST has it: zeros, type 8 (bytes), number of axes, lengths, content."""
    raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    return put(path, gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_cifar(path: Path, images: np.ndarray, *labels: Sequence[int]) -> Path:
    """Records of a byte a label and the planes of red, green and blue; `images` are (N, 3, 32, 32)."""
    beside = [np.array(each, np.uint8)[:, None] for each in labels]
    return put(path, np.hstack([*beside, images.reshape(len(images), -1)]).tobytes())


# ------------------------------------------------------------------------------------------------ whole data sets

FEW = [(0, 127, 1_000, 1), (5, 9, 2_000, 0), (127, 0, 900_000, 1)]
"""Events on a sensor of 128 x 128 pixels."""


def cifar10_dvs(root: Path, each: int = 2) -> Path:
    for label, name in enumerate(("airplane", "cat")):
        for i in range(each):
            write_aedat4(root / "CIFAR10DVS" / name / f"cifar10_{name}_{i}.aedat4", [*FEW, (label, i, 900_001, 0)])
    return root


def cifar10_dvs_original(root: Path) -> Path:
    for name in ("airplane", "cat"):
        for i in range(2):
            write_aedat2(root / name / f"cifar10_{name}_{i}.aedat", FEW)
    return root


def dvs_gesture(root: Path) -> Path:
    for part in ("Train", "Test"):
        for label in (0, 10):
            write_npy(root / "DVSGesture" / f"ibmGesture{part}" / "user01_lab" / f"{label}.npy", FEW)
    return root


def dvs_gesture_original(root: Path) -> Path:
    folder = root / "DvsGesture"
    for part, user in (("train", "user01_lab"), ("test", "user24_led")):
        events = [(x, y, t + start, p) for start in (5_000_000, 9_000_000) for x, y, t, p in FEW]
        write_aedat3(folder / f"{user}.aedat", events)
        table = "class,startTime_usec,endTime_usec\n1,5000500,8000000\n11,9000500,12000000\n"
        put(folder / f"{user}_labels.csv", table.encode())
        put(folder / f"trials_to_{part}.txt", f"{user}.aedat\n".encode())
    return root


def n_caltech101(root: Path) -> Path:
    for name in ("BACKGROUND_Google", "yin_yang"):
        for i in (1, 2):
            events = [(3, 7, 10, 0), (9, 7, 5_000, 1), (4, 90, 300_000, 1)]
            write_bin(root / "Caltech101" / name / f"image_{i:04}.bin", events)
    return root


def heidelberg(root: Path, name: str = "shd", keys: int = 20) -> Path:
    for part in ("train", "test"):
        recordings = [([0.0, 0.5, 1.25], [0, 699, 3]), ([0.25], [42])]
        write_spikes(root / name.upper() / f"{name}_{part}.h5", recordings, [keys - 1, 0], keys)
    return root


def ssc(root: Path) -> Path:
    return heidelberg(root, "ssc", 35)


def mnist(root: Path, each: int = 0) -> Path:
    """Three images, or some of each class."""
    labels = np.arange(10 * each) % 10 if each else np.array([7, 0, 9])
    for part in ("train", "t10k"):
        images = np.arange(len(labels) * 28 * 28).reshape(-1, 28, 28).astype(np.uint8)
        write_idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte.gz", labels.astype(np.uint8))
    return root


IMAGES = np.random.default_rng(0).integers(256, size=(4, 3, 32, 32)).astype(np.uint8)


def cifar10(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    write_cifar(folder / "data_batch_2.bin", IMAGES[2:], [9, 4])
    write_cifar(folder / "data_batch_1.bin", IMAGES[:2], [0, 3])
    write_cifar(folder / "test_batch.bin", IMAGES[:1], [5])
    return root


def cifar100(root: Path) -> Path:
    folder = root / "cifar-100-binary"
    write_cifar(folder / "train.bin", IMAGES, [19, 0, 1, 2], [99, 0, 1, 2])
    write_cifar(folder / "test.bin", IMAGES[:1], [7], [50])
    put(folder / "fine_label_names.txt", "\n".join(f"kind {i}".replace(" ", "_") for i in range(100)).encode() + b"\n")
    return root


# ------------------------------------------------------------------------------------ data sets that can be trained on


def nmnist(root: Path, each: int = 5) -> Path:
    """N-MNIST's archives, with some of ``digits-dvs``, whose sensor is alike, in each class of either split."""
    (root / "NMNIST").mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        data = open_dataset("digits-dvs", split=split)
        with zipfile.ZipFile(root / "NMNIST" / f"{split}.zip", "w") as archive:
            for label in range(10):
                for i in np.flatnonzero(data.labels == label)[:each]:
                    events = data.events[int(i)][["x", "y", "t", "p"]].tolist()
                    archive.writestr(f"{split.title()}/{label}/{i:05}.bin", packed(events))
    return root


def pictures(each: int = 5, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Bright squares on noise, (N, side, side, 3); where they stand is their class, one of ten."""
    labels = np.arange(10 * each) % 10
    images = np.random.default_rng(0).integers(60, size=(len(labels), side, side, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = divmod(int(label), 5)
        image[8 + 12 * y : 14 + 12 * y, 2 + 6 * x : 7 + 6 * x] = 230
    return images, labels


def cifar10_npz(root: Path) -> Path:
    """As ``cifar10-camera`` and ``cifar10`` take them."""
    root.mkdir(parents=True, exist_ok=True)
    x, y = pictures()
    for split in ("train", "test"):
        np.savez(root / f"{split}1.npz", x=x, y=y)
    return root


def picture_folders(root: Path) -> Path:
    """A folder of PNG for each of two classes."""
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(pictures(side=64)[0][label::10]):
            plt.imsave(root / name / f"{i}.png", image)
    return root
