"""The request table, the layout and assembly of a step, captured graphs, staging in and readback out.

Plans enter through `staging.py` and results leave through `readback.py`. Two more places copy data to the device: rare
sampling parameters at admission (`sampling/params.py`), and tiles of attention (`kernels/`).
"""
