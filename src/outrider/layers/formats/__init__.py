"""One file per weight format; each exports `Format`."""
