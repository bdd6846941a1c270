"""Every test runs with one thread, as the tests of the engine do."""

import torch

torch.set_num_threads(1)
