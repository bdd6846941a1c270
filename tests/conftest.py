"""Settings for every test: one fixed number of threads."""

import torch

torch.set_num_threads(1)
