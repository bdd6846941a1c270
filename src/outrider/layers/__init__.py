"""The parts of a decoder: modules that hold weights and call the platform's kernels."""
