"""What every test may use: helper modules of this folder, and one fixed number of threads."""

import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("", "identity", "server")]
torch.set_num_threads(1)
