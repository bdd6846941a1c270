"""How fast it is: latency and throughput of an engine, and the host's share on a device that takes no time."""
