"""Writes quantised checkpoints from plain ones: `outrider quantize`."""
