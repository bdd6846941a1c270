"""The loop around scheduler and worker, and everything that knows text."""
