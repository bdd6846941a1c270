"""One file per operation on logits, found by its name. Each exports `Operation`, a `BaseOperation`."""
