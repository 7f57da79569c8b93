"""Lava processes that feed a network and record it.

Lava's compiler imports and runs every module beside a Process definition: nothing else belongs in this package.
Imported only inside the child process that runs Lava.
"""
