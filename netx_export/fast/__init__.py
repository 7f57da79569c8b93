"""The simulator in compiled integer code, bit for bit what Lava computes."""
