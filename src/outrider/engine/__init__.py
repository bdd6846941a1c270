"""The engine: the loop around scheduler and worker, and all code that handles text."""
