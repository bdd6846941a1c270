"""`outrider verify`: whether the engine is exact on this device, for one model, and what was tried to find out."""
