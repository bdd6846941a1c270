"""How many KV blocks there are: bytes at hand over bytes of a block, target and drafter together."""

from outrider.core.config import EngineConfig
from outrider.core.errors import ConfigError

CPU_KV_BYTES = 1 << 30
"""A CPU gives this much to the KV cache, times gpu_memory_utilization: memory is shared with everything else."""


def size_blocks(config: EngineConfig, *, bytes_per_block: int, max_model_len: int) -> int:
    """Number of blocks, null block included; never more than max_num_seqs full-length requests can use."""
    if config.num_gpu_blocks_override is not None:
        return config.num_gpu_blocks_override
    most = 1 + config.max_num_seqs * -(-max_model_len // config.block_size)
    count = min(most, int(CPU_KV_BYTES * config.gpu_memory_utilization) // bytes_per_block)
    if count < 2:
        raise ConfigError(
            f"one KV block takes {bytes_per_block} bytes and there is room for {count}: two are the least. "
            "Raise gpu_memory_utilization or choose a smaller model."
        )
    return count
