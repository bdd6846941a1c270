"""Makes `tests` a package, so that `tests.support` is this folder's and no installed package's."""
