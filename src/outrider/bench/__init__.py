"""Benchmarks: latency and throughput of an engine, host time per step on a null device, load on a server."""
