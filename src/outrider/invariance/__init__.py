"""Checks that kernels are row-invariant, on this machine's device and at the shapes of one model.

An engine runs a few requests while its calls of kernels are recorded (`calls`). Each kind of call becomes a case with
many rows (`rules` says how), and a case runs in several forms: alone, in other sizes and orders, in chunks, with NaN
around. All forms must give the same bits (`check`). Verdicts are kept in the user's cache folder (`memory`). Knows
kernels and caches, and no models, requests or engines.
"""
