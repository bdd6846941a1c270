"""Settings for every test: one fixed number of threads, and warnings in the package's log are errors."""

import torch

from tests.support.log_lines import LOGGER, UnexpectedWarnings

torch.set_num_threads(1)
LOGGER.addHandler(UnexpectedWarnings())
