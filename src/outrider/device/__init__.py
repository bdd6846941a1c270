"""The request table, the layout and assembly of a step, captured graphs, staging in and readback out.

Plans come in through `staging.py` and results leave through `readback.py`. Two more copies go to the device elsewhere:
rare sampling parameters at admission (`sampling/params.py`), and tiles of attention (`kernels/`).
"""
