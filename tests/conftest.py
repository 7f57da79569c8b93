"""What all tests share."""

import os

from hypothesis import settings

# Before torch is imported: small networks gain nothing from threads, and lose where a core has other work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run: a change is judged by what it changed. HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("default", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
