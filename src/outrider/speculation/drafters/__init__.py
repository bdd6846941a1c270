"""One file per drafter, named after its `method`. Each exports a class `Drafter`, and `Options` if it has any."""
