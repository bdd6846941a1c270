"""The request table, the layout and assembly of a step, captured graphs, staging in and readback out.

Plans enter through `staging.py` and results leave through `readback.py`. One more place copies data to the device:
tiles of attention whose counts the host knows (`kernels/`).
"""
