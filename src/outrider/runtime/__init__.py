"""One step of the device, and the worker that owns everything it needs."""
