"""Requests that start or resume: one record is spread over their rows of the request table, in plain PyTorch.

Integers and copied bits only, so every result is exact on any device. Nothing here waits for the device: the host reads
no value, and no shape depends on data.
"""

import torch

from outrider.kernels.interface.step import AdmissionRecord, TableMemory


def admit(memory: TableMemory, record: AdmissionRecord) -> None:
    """Fill the rows that start or resume, and add new blocks."""
    parts = record.parts
    rows, device = parts.rows, parts.rows.device
    num_rows, num_wide, num_narrow = rows.shape[0], memory.wide.shape[0], memory.narrow.shape[0]

    memory.lengths[:, rows] = parts.lengths.view(num_rows, memory.lengths.shape[0]).T
    parameters = parts.parameters.view(num_rows, num_wide + num_narrow // 2)
    memory.wide[:, rows] = parameters[:, :num_wide].T
    memory.narrow[:, rows] = parameters[:, num_wide:].contiguous().view(torch.int32).view(num_rows, num_narrow).T
    lists = parts.lists.view(torch.int32).view(-1, memory.neutral_lists.shape[0])
    memory.lists[rows] = torch.cat([memory.neutral_lists.unsqueeze(0), lists])[parts.list_index + 1]

    memory.block_tables[rows] = 0
    memory.block_tables.view(-1)[parts.block_places] = parts.block_ids.to(torch.int32)

    counts, num_tokens = parts.token_starts.diff(), parts.token_ids.shape[0]
    entry = torch.repeat_interleave(torch.arange(num_rows, device=device), counts, output_size=num_tokens)
    place = torch.arange(num_tokens, device=device) - parts.token_starts[entry]
    memory.token_ids[rows[entry], place] = parts.token_ids.to(torch.int32)
    is_output = place >= parts.num_prompt_tokens[entry]
    memory.prompt_mask[rows] = False
    memory.output_counts[rows] = 0
    slots = rows[entry] * memory.output_counts.shape[1] + parts.token_ids
    memory.output_counts.view(-1).scatter_add_(0, slots, is_output.to(torch.int32))
    memory.prompt_mask.view(torch.uint8).view(-1).scatter_reduce_(0, slots, (~is_output).to(torch.uint8), "amax")
