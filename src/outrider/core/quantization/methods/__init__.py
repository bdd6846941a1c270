"""One file per `quant_method`, with `_` for `-`; each exports `read`, which returns a `Quantization`."""
