"""One file per attention backend; each exports `Backend`."""
