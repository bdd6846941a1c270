"""The step that runs on the device, and the worker that owns everything it needs."""
