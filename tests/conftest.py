"""What all tests share."""

import os
import signal
from pathlib import Path

from hypothesis import settings
from hypothesis.internal.conjecture import providers

# A shell that starts a job in the background has it ignore Ctrl-C, which tests send on purpose.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported: small networks gain nothing from threads, and lose where a core has other work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before Triton is imported: without a GPU its kernels run in its interpreter.
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The same examples in every run: a change is judged by what it changed. HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
# Else it also draws constants that stand in those of our modules that are imported, which depends on what tests this
# process has run before.
if os.environ.get("HYPOTHESIS_PROFILE", "default") == "default":
    providers._get_local_constants = lambda: providers._local_constants  # type: ignore[attr-defined]

# A program of its own, for a Python that has sinabs.
collect_ignore = ["speck_runner.py"]
