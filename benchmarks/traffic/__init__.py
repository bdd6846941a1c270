"""Mixed traffic: the models and loads of workload D, the ways to an engine, and what is measured on them.

`benchmarks/mixed_traffic.py` is the command.
"""
