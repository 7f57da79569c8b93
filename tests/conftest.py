"""What all tests share."""

import os

from hypothesis import settings

# Before torch is imported: small networks gain nothing from threads, and lose where a core has other work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("default", deadline=None)
settings.load_profile("default")
