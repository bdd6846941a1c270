"""One file per kind of device; each exports `Platform`. `base.select_platform` chooses."""
