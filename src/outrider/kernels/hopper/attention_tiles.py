"""Attention of query tiles over paged KV in Gluon: one warp loads pages through TMA, one or two warpgroups attend.

CTAs take the items of work in turns, back and forth, so that each gets long and short ones. A warpgroup holds 64 query
rows, each owned by one warp. KV comes in tiles of LANES positions. The softmax state (m, the
largest score in log2 units; w, the sum of weights; acc, the weighted values) is kept piece by piece, and pieces are
merged in ascending order, in registers here or from memory in `attention_state`. A tile that a row does not see
changes none of its bits. Decoding, verifying and prefill differ only in how many of the 64 rows are used.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs
# (arguments of kernels are Triton's own)

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from outrider.kernels.hopper.attention_state import merge, normalise
from outrider.kernels.hopper.overlap import launch_dependents, wait
from outrider.kernels.hopper.tma import load_tile, reinterpret
from outrider.kernels.triton import attention_plan
from outrider.kernels.triton.attention_records import (
    FIRST_PART,
    ITEM_ALL_END,
    ITEM_ALL_LOW,
    ITEM_BEGIN,
    ITEM_COUNT,
    ITEM_END,
    ITEM_FIRST_PIECE,
    ITEM_LOW,
    ITEM_MODE,
    ITEM_ROW,
    ITEM_TOKEN,
    ITEM_WIDTH,
    LATER_PART,
    STATE_MAX,
    STATE_SUM,
    STATE_WIDTH,
    WHOLE,
)

PIECE = gl.constexpr(attention_plan.PIECE)
LANES = gl.constexpr(attention_plan.LANES)
HALF = gl.constexpr(64)  # columns of a swizzled tile, 128 bytes


@gluon.constexpr_function
def _mma_layout(columns):
    return gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, columns, 16])


@gluon.constexpr_function
def _out_layout(columns):
    """Each thread has 16 bytes of an output row; every element stays in its warp."""
    bits = [[0, 1 << i] for i in range((columns - 1).bit_length())]
    registers = [*bits[:3], [8, 0], *bits[5:]]
    lanes = [*bits[3:5], [1, 0], [2, 0], [4, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[16, 0], [32, 0]], [], [64, columns])


@gluon.constexpr_function
def _value_layout(columns):
    across = min(32, columns // 8)
    return gl.BlockedLayout([1, 8], [32 // across, across], [4, 1], [1, 0])


@gluon.jit
def _store_state(
    m,
    w,
    acc,
    p_acc,
    p_state,
    i_token,
    count,
    i_head,
    i_piece,
    max_pieces,
    I_ROWS: gl.constexpr,
    I_COLUMNS: gl.constexpr,
    GROUP: gl.constexpr,
    GROUP_PAD: gl.constexpr,
    NUM_HEADS: gl.constexpr,
    D: gl.constexpr,
):
    """Store the states of the rows in use to [num_tokens, NUM_HEADS, max_pieces], at i_piece."""
    o_row = I_ROWS * 64 + gl.arange(0, 64, layout=gl.SliceLayout(1, acc.type.layout))
    o_column = I_COLUMNS * acc.shape[1] + gl.arange(0, acc.shape[1], layout=gl.SliceLayout(0, acc.type.layout))
    m_row = (o_row // GROUP_PAD < count) & (o_row % GROUP_PAD < GROUP)
    o_slot = (i_token + o_row // GROUP_PAD) * NUM_HEADS + i_head * GROUP + o_row % GROUP_PAD
    o_slot = o_slot.to(gl.int64) * max_pieces + i_piece
    gl.store(p_acc + o_slot[:, None] * D + o_column[None, :], acc, mask=m_row[:, None] & (o_column[None, :] < D))
    if I_COLUMNS == 0:
        o_row = I_ROWS * 64 + gl.arange(0, 64, layout=m.type.layout)
        m_row = (o_row // GROUP_PAD < count) & (o_row % GROUP_PAD < GROUP)
        o_slot = (i_token + o_row // GROUP_PAD) * NUM_HEADS + i_head * GROUP + o_row % GROUP_PAD
        o_slot = o_slot.to(gl.int64) * max_pieces + i_piece
        gl.store(p_state + o_slot * STATE_WIDTH + STATE_MAX, m, mask=m_row)
        gl.store(p_state + o_slot * STATE_WIDTH + STATE_SUM, w, mask=m_row)


@gluon.jit
def _num_turns(num_items):
    """Items of this CTA: one of each full round, and one more if the last round reaches it."""
    num_ctas = gl.num_programs(0)
    num_full = num_items // num_ctas
    place = gl.program_id(0)
    if num_full % 2 == 1:
        place = num_ctas - 1 - place
    return num_full + (place < num_items - num_full * num_ctas).to(gl.int32)


@gluon.jit
def _item(turn):
    """The item of this CTA in a round; every second round goes backwards."""
    place = gl.program_id(0)
    if turn % 2 == 1:
        place = gl.num_programs(0) - 1 - place
    return turn * gl.num_programs(0) + place


@gluon.jit
def _load(
    descriptors,
    rings,
    bars,
    p_items,
    p_num_items,
    p_blocks,
    blocks_stride,
    max_blocks,
    BLOCK_SIZE: gl.constexpr,
    KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    STAGES: gl.constexpr,
    ROW_BLOCKS: gl.constexpr,
):
    """Load pages (the producer: one warp)."""
    q_desc, k_desc, v_desc = descriptors
    q_ring, k_ring, v_ring = rings
    q_full, q_empty, full, empty = bars
    HALVES: gl.constexpr = q_ring.shape[0] // (2 * ROW_BLOCKS)
    TOKENS: gl.constexpr = q_ring.shape[1]
    PAGE: gl.constexpr = k_ring.shape[1]
    PAGES: gl.constexpr = LANES // PAGE
    wait()
    num_items = gl.load(p_num_items) * KV_HEADS
    step = 0
    for turn in range(_num_turns(num_items)):
        item = _item(turn)
        i_head = item % KV_HEADS
        # not prefetched into variables of the loop: Triton 3.6 loses those that are bounds of the inner loop
        p_item = p_items + item // KV_HEADS * ITEM_WIDTH
        i_row = gl.load(p_item + ITEM_ROW)
        i_token = gl.load(p_item + ITEM_TOKEN)
        begin = gl.load(p_item + ITEM_BEGIN)
        end = gl.load(p_item + ITEM_END)
        i_q = turn % 2
        mbarrier.wait(q_empty.index(i_q), ((turn // 2) & 1) ^ 1)
        mbarrier.expect(q_full.index(i_q), ROW_BLOCKS * 64 * HALVES * HALF * 2)
        for i_rows in gl.static_range(ROW_BLOCKS):
            for i_box in gl.static_range(HALVES):
                b_q = q_ring.index((i_q * ROW_BLOCKS + i_rows) * HALVES + i_box)
                corner = [i_token + i_rows * TOKENS, i_head * GROUP, i_box * HALF]
                load_tile(q_desc, corner, q_full.index(i_q), b_q)
        p_row = p_blocks + i_row.to(gl.int64) * blocks_stride
        for start in range(begin, end, LANES):
            stage = step % STAGES
            mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), LANES * HALVES * HALF * 4)
            for i_page in gl.static_range(PAGES):
                position = start + i_page * PAGE
                i_block = gl.load(p_row + gl.minimum(position // BLOCK_SIZE, max_blocks - 1))
                i_slot = i_block * BLOCK_SIZE + position % BLOCK_SIZE
                for i_half in gl.static_range(HALVES):
                    i_part = (stage * HALVES + i_half) * PAGES + i_page
                    place = [i_slot, i_head, i_half * HALF]
                    load_tile(k_desc, place, full.index(stage), k_ring.index(i_part))
                    load_tile(v_desc, place, full.index(stage), v_ring.index(i_part))
            step += 1


@gluon.jit
def _attend(
    I_WARPGROUP: gl.constexpr,
    rings,
    bars,
    outputs,
    p_items,
    p_num_items,
    p_lengths,
    p_sinks,
    scale,
    kv_start,
    window,
    out_stride,
    max_pieces,
    KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    GROUP_PAD: gl.constexpr,
    STAGES: gl.constexpr,
    ROW_BLOCKS: gl.constexpr,
    COLUMN_BLOCKS: gl.constexpr,
    HAS_WINDOW: gl.constexpr,
    HAS_SINKS: gl.constexpr,
):
    """Attend (a consumer: 64 query rows, all columns of V or one of COLUMN_BLOCKS)."""
    q_ring, k_ring, v_ring = rings
    q_full, q_empty, full, empty = bars
    p_out, p_acc, p_state = outputs
    D: gl.constexpr = q_ring.shape[2]
    COLUMNS: gl.constexpr = v_ring.shape[2]
    I_ROWS: gl.constexpr = I_WARPGROUP // COLUMN_BLOCKS
    I_COLUMNS: gl.constexpr = I_WARPGROUP % COLUMN_BLOCKS
    NUM_HEADS: gl.constexpr = KV_HEADS * GROUP
    SCORE: gl.constexpr = _mma_layout(LANES)
    VALUE: gl.constexpr = _mma_layout(COLUMNS)
    ROW: gl.constexpr = gl.SliceLayout(1, SCORE)
    TILE: gl.constexpr = _value_layout(COLUMNS)
    OUT: gl.constexpr = _out_layout(COLUMNS)
    o_row = I_ROWS * 64 + gl.arange(0, 64, layout=ROW)
    o_lane = gl.arange(0, LANES, layout=gl.SliceLayout(0, SCORE))
    wait()
    num_items = gl.load(p_num_items) * KV_HEADS
    step = 0
    for turn in range(_num_turns(num_items)):
        item = _item(turn)
        i_head = item % KV_HEADS
        p_item = p_items + item // KV_HEADS * ITEM_WIDTH
        i_token = gl.load(p_item + ITEM_TOKEN)
        count = gl.load(p_item + ITEM_COUNT)
        begin = gl.load(p_item + ITEM_BEGIN)
        end = gl.load(p_item + ITEM_END)
        mode = gl.load(p_item + ITEM_MODE)
        tile_low = gl.load(p_item + ITEM_LOW)
        first_piece = gl.load(p_item + ITEM_FIRST_PIECE)
        all_end = gl.load(p_item + ITEM_ALL_END)
        all_low = gl.load(p_item + ITEM_ALL_LOW)
        m_row = (o_row // GROUP_PAD < count) & (o_row % GROUP_PAD < GROUP)
        b_end = gl.load(p_lengths + i_token + o_row // GROUP_PAD, mask=m_row, other=0).to(gl.int32)
        b_low = gl.zeros_like(b_end) + kv_start
        if HAS_WINDOW:
            b_low = gl.maximum(b_low, b_end - window)
        i_q = turn % 2
        mbarrier.wait(q_full.index(i_q), (turn // 2) & 1)
        b_q = q_ring.index(i_q * ROW_BLOCKS + I_ROWS)
        m = gl.full([64], float("-inf"), gl.float32, ROW)
        w = gl.zeros([64], gl.float32, ROW)
        acc = gl.zeros([64, COLUMNS], gl.float32, VALUE)
        num_pieces = (end + PIECE - 1) // PIECE
        if count <= I_ROWS * 64 // GROUP_PAD:
            # no token of the tile is in these rows: let the KV go by
            for _ in range(begin, end, LANES):
                mbarrier.wait(full.index(step % STAGES), (step // STAGES) & 1)
                mbarrier.arrive(empty.index(step % STAGES))
                step += 1
            num_pieces = 0
        for i_piece in range(begin // PIECE, num_pieces):
            m_piece = gl.full([64], float("-inf"), gl.float32, ROW)
            w_piece = gl.zeros([64], gl.float32, ROW)
            acc_piece = gl.zeros([64, COLUMNS], gl.float32, VALUE)
            piece_begin = gl.maximum(i_piece * PIECE, begin)
            piece_end = gl.minimum(i_piece * PIECE + PIECE, end)
            for start in range(piece_begin, piece_end, LANES):
                stage = step % STAGES
                mbarrier.wait(full.index(stage), (step // STAGES) & 1)
                b_s = gl.zeros([64, LANES], gl.float32, SCORE)
                b_k = k_ring.index(stage).permute((1, 0))
                b_s = warpgroup_mma(b_q, b_k, b_s, use_acc=False, is_async=True)
                b_s = warpgroup_mma_wait(0, deps=(b_s,))
                if (start + LANES > all_end) | (start < all_low):
                    position = start + o_lane
                    m_seen = (position[None, :] < b_end[:, None]) & (position[None, :] >= b_low[:, None])
                    b_s = gl.where(m_seen, b_s, float("-inf"))
                m_new = gl.maximum(m_piece, gl.max(b_s, axis=1) * scale)
                m_finite = gl.where(m_new == float("-inf"), 0.0, m_new)
                b_p = gl.exp2(gl.fma(b_s, gl.zeros_like(b_s) + scale, gl.zeros_like(b_s) - m_finite[:, None]))
                old = gl.exp2(m_piece - m_finite)
                w_piece = gl.fma(w_piece, old, gl.sum(b_p, axis=1))
                m_piece = m_new
                b_v = v_ring.index(stage * COLUMN_BLOCKS + I_COLUMNS)
                if (start + LANES > end) | (start < tile_low):
                    # slots that no row sees may hold anything, and 0 × NaN is NaN
                    o_key = start + gl.arange(0, LANES, layout=gl.SliceLayout(1, TILE))
                    m_key = (o_key < end) & (o_key >= tile_low)
                    b_values = b_v.load(TILE)
                    b_v.store(gl.where(m_key[:, None], b_values, gl.zeros_like(b_values)))
                    fence_async_shared()
                    gl.thread_barrier()
                acc_piece = acc_piece * gl.convert_layout(old, gl.SliceLayout(1, VALUE))[:, None]
                b_p = b_p.to(k_ring.dtype)
                b_p = gl.convert_layout(b_p, gl.DotOperandLayout(operand_index=0, parent=VALUE, k_width=2))
                acc_piece = warpgroup_mma(b_p, b_v, acc_piece, is_async=True)
                acc_piece = warpgroup_mma_wait(0, deps=(acc_piece,))
                mbarrier.arrive(empty.index(stage))
                step += 1
            if mode == LATER_PART:
                _store_state(
                    m_piece,
                    w_piece,
                    acc_piece,
                    p_acc,
                    p_state,
                    i_token,
                    count,
                    i_head,
                    i_piece,
                    max_pieces,
                    I_ROWS,
                    I_COLUMNS,
                    GROUP,
                    GROUP_PAD,
                    NUM_HEADS,
                    D,
                )
            else:
                m, w, acc = merge(m, w, acc, m_piece, w_piece, acc_piece)
        mbarrier.arrive(q_empty.index(i_q))
        if mode == FIRST_PART:
            _store_state(
                m,
                w,
                acc,
                p_acc,
                p_state,
                i_token,
                count,
                i_head,
                first_piece,
                max_pieces,
                I_ROWS,
                I_COLUMNS,
                GROUP,
                GROUP_PAD,
                NUM_HEADS,
                D,
            )
        elif mode == WHOLE:
            out = normalise(m, w, acc, p_sinks, i_head * GROUP + o_row % GROUP_PAD, m_row, HAS_SINKS)
            out = gl.convert_layout(out.to(p_out.dtype.element_ty), OUT)
            o_r = I_ROWS * 64 + gl.arange(0, 64, layout=gl.SliceLayout(1, OUT))
            o_d = I_COLUMNS * COLUMNS + gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, OUT))
            m_out = (o_r // GROUP_PAD < count) & (o_r % GROUP_PAD < GROUP)
            o_out = (i_token + o_r // GROUP_PAD).to(gl.int64) * out_stride + (i_head * GROUP + o_r % GROUP_PAD) * D
            o_out = gl.multiple_of(o_out, 8)
            gl.store(p_out + o_out[:, None] + o_d[None, :], out, mask=m_out[:, None] & (o_d[None, :] < D))


@gluon.jit(do_not_specialize=["kv_start", "window", "out_stride", "blocks_stride", "max_blocks", "max_pieces"])
def attention_kernel(
    q_desc,  # [num_tokens, heads, D]
    k_desc,  # [num_blocks × block_size, kv heads, D]
    v_desc,  # likewise
    p_items,  # [bound, ITEM_WIDTH] int32
    p_num_items,  # [1] int32
    p_blocks,  # [num_rows, max_blocks] int32
    p_lengths,  # [num_tokens] int64
    p_out,  # [num_tokens, heads, D]
    p_acc,  # [num_tokens, heads, max_pieces, D] fp32
    p_state,  # [num_tokens, heads, max_pieces, STATE_WIDTH] fp32
    p_sinks,  # [heads]
    scale,  # times log2(e)
    kv_start,
    window,
    out_stride,
    blocks_stride,
    max_blocks,
    max_pieces,
    BLOCK_SIZE: gl.constexpr,
    KV_HEADS: gl.constexpr,
    GROUP: gl.constexpr,
    GROUP_PAD: gl.constexpr,
    D: gl.constexpr,
    STAGES: gl.constexpr,
    ROW_BLOCKS: gl.constexpr,
    COLUMN_BLOCKS: gl.constexpr,
    HAS_WINDOW: gl.constexpr,
    HAS_SINKS: gl.constexpr,
):
    PAGE: gl.constexpr = k_desc.block_type.shape[0]
    HALVES: gl.constexpr = D // HALF
    PAGES: gl.constexpr = LANES // PAGE
    WARPGROUPS: gl.constexpr = ROW_BLOCKS * COLUMN_BLOCKS
    FLAT: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    DEEP: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=3)
    dtype: gl.constexpr = k_desc.dtype
    # the same memory, as consumers and as TMA see it: [64, D] is D / 64 tiles of 64 columns
    q_ring = gl.allocate_shared_memory(dtype, [2 * ROW_BLOCKS, 64, D], FLAT)
    k_ring = gl.allocate_shared_memory(dtype, [STAGES, LANES, D], FLAT)
    v_ring = gl.allocate_shared_memory(dtype, [STAGES * COLUMN_BLOCKS, LANES, D // COLUMN_BLOCKS], FLAT)
    q_boxes = reinterpret(q_ring, dtype, [2 * ROW_BLOCKS * HALVES, 64 // GROUP_PAD, GROUP_PAD, HALF], DEEP)
    k_boxes = reinterpret(k_ring, dtype, [STAGES * HALVES * PAGES, PAGE, 1, HALF], DEEP)
    v_boxes = reinterpret(v_ring, dtype, [STAGES * HALVES * PAGES, PAGE, 1, HALF], DEEP)
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(2):
        mbarrier.init(q_full.index(i), count=1)
        mbarrier.init(q_empty.index(i), count=WARPGROUPS)
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=WARPGROUPS)
    launch_dependents()
    descriptors = (q_desc, k_desc, v_desc)
    boxes = (q_boxes, k_boxes, v_boxes)
    rings = (q_ring, k_ring, v_ring)
    bars = (q_full, q_empty, full, empty)
    outputs = (p_out, p_acc, p_state)
    if WARPGROUPS == 1:
        gl.warp_specialize(
            [
                (
                    _attend,
                    (
                        0,
                        rings,
                        bars,
                        outputs,
                        p_items,
                        p_num_items,
                        p_lengths,
                        p_sinks,
                        scale,
                        kv_start,
                        window,
                        out_stride,
                        max_pieces,
                        KV_HEADS,
                        GROUP,
                        GROUP_PAD,
                        STAGES,
                        ROW_BLOCKS,
                        COLUMN_BLOCKS,
                        HAS_WINDOW,
                        HAS_SINKS,
                    ),
                ),
                (
                    _load,
                    (
                        descriptors,
                        boxes,
                        bars,
                        p_items,
                        p_num_items,
                        p_blocks,
                        blocks_stride,
                        max_blocks,
                        BLOCK_SIZE,
                        KV_HEADS,
                        GROUP,
                        STAGES,
                        ROW_BLOCKS,
                    ),
                ),
            ],
            [1],
            [40],
        )
    else:
        gl.warp_specialize(
            [
                (
                    _attend,
                    (
                        0,
                        rings,
                        bars,
                        outputs,
                        p_items,
                        p_num_items,
                        p_lengths,
                        p_sinks,
                        scale,
                        kv_start,
                        window,
                        out_stride,
                        max_pieces,
                        KV_HEADS,
                        GROUP,
                        GROUP_PAD,
                        STAGES,
                        ROW_BLOCKS,
                        COLUMN_BLOCKS,
                        HAS_WINDOW,
                        HAS_SINKS,
                    ),
                ),
                (
                    _attend,
                    (
                        1,
                        rings,
                        bars,
                        outputs,
                        p_items,
                        p_num_items,
                        p_lengths,
                        p_sinks,
                        scale,
                        kv_start,
                        window,
                        out_stride,
                        max_pieces,
                        KV_HEADS,
                        GROUP,
                        GROUP_PAD,
                        STAGES,
                        ROW_BLOCKS,
                        COLUMN_BLOCKS,
                        HAS_WINDOW,
                        HAS_SINKS,
                    ),
                ),
                (
                    _load,
                    (
                        descriptors,
                        boxes,
                        bars,
                        p_items,
                        p_num_items,
                        p_blocks,
                        blocks_stride,
                        max_blocks,
                        BLOCK_SIZE,
                        KV_HEADS,
                        GROUP,
                        STAGES,
                        ROW_BLOCKS,
                    ),
                ),
            ],
            [4, 1],
            [232, 40],
        )
