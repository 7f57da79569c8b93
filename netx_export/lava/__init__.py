"""Runs on Lava's own simulation of Loihi, in a supervised child process."""
