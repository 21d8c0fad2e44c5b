"""Textbook kernels in a language of blocks, whose compiler decides which thread holds what.

Where a block has fewer elements than threads, several lanes of a warp, and several warps, hold the same element. Each stores
it, so lanes of one instruction store the same value to one address of shared memory.
"""

import triton
import triton.language as tl


@triton.jit
def softmax(to, source, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    x = tl.load(source + row * columns + at, mask=at < columns, other=-float("inf"))
    e = tl.exp(x - tl.max(x, axis=0))
    tl.store(to + row * columns + at, e / tl.sum(e, axis=0), mask=at < columns)


@triton.jit
def layer_norm(to, source, weight, bias, columns, epsilon, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < columns
    x = tl.load(source + row * columns + at, mask=inside, other=0.0)
    mean = tl.sum(x, axis=0) / columns
    d = tl.where(inside, x - mean, 0.0)
    scale = 1 / tl.sqrt(tl.sum(d * d, axis=0) / columns + epsilon)
    w = tl.load(weight + at, mask=inside, other=0.0)
    b = tl.load(bias + at, mask=inside, other=0.0)
    tl.store(to + row * columns + at, d * scale * w + b, mask=inside)


@triton.jit
def attention(to, queries, keys, values, length, scale, ROWS: tl.constexpr, STEP: tl.constexpr, WIDTH: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    q = tl.load(queries + rows[:, None] * WIDTH + columns[None, :])
    highest = tl.full([ROWS], -float("inf"), tl.float32)
    sums = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, length, STEP):
        at = start + tl.arange(0, STEP)
        inside = at < length
        k = tl.load(keys + at[None, :] * WIDTH + columns[:, None], mask=inside[None, :], other=0.0)
        v = tl.load(values + at[:, None] * WIDTH + columns[None, :], mask=inside[:, None], other=0.0)
        scores = tl.where(inside[None, :], tl.dot(q, k) * scale, -float("inf"))
        new = tl.maximum(highest, tl.max(scores, axis=1))
        weights = tl.exp(scores - new[:, None])
        old = tl.exp(highest - new)
        sums = sums * old + tl.sum(weights, axis=1)
        out = tl.dot(weights.to(v.dtype), v, out * old[:, None])
        highest = new
    tl.store(to + rows[:, None] * WIDTH + columns[None, :], out / sums[:, None])


@triton.jit
def sort(to, source, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(to + at, tl.sort(tl.load(source + at)))


@triton.jit
def sums_so_far(to, source, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(to + at, tl.cumsum(tl.load(source + at), axis=0))


@triton.jit
def histogram(to, source, BLOCK: tl.constexpr, BINS: tl.constexpr):
    counts = tl.histogram(tl.load(source + tl.arange(0, BLOCK)), BINS)
    tl.store(to + tl.arange(0, BINS), counts)


@triton.jit
def transposed_sums(to, source, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of rows and of columns of a small matrix, each stored as a row."""
    x = tl.load(source + tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :])
    tl.store(to + tl.arange(0, ROWS), tl.sum(x, axis=1))
    tl.store(to + ROWS + tl.arange(0, COLUMNS), tl.sum(x, axis=0))


F32, F16, I32 = "*fp32", "*fp16", "*i32"

# Name, parameters, constants, warps.
KERNELS = [
    (softmax, dict(to=F32, source=F32, columns="i32"), dict(BLOCK=32), 4),
    (softmax, dict(to=F32, source=F32, columns="i32"), dict(BLOCK=256), 4),
    (layer_norm, dict(to=F32, source=F32, weight=F32, bias=F32, columns="i32", epsilon="fp32"), dict(BLOCK=64), 4),
    (attention, dict(to=F32, queries=F16, keys=F16, values=F16, length="i32", scale="fp32"),
     dict(ROWS=16, STEP=32, WIDTH=16), 4),
    (sort, dict(to=F32, source=F32), dict(BLOCK=64), 4),
    (sort, dict(to=F32, source=F32), dict(BLOCK=16), 1),
    (sums_so_far, dict(to=I32, source=I32), dict(BLOCK=64), 4),
    (histogram, dict(to=I32, source=I32), dict(BLOCK=128, BINS=16), 4),
    (transposed_sums, dict(to=F32, source=F32), dict(ROWS=8, COLUMNS=4), 2),
]


def compiled():
    """Yields stem and PTX of each kernel."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for kernel, parameters, constants, warps in KERNELS:
        names = list(kernel.arg_names)
        signature = {name: parameters.get(name, "constexpr") for name in names}
        values = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=values)
        # Without fusion, as for the other compilers.
        options = dict(num_warps=warps, ptx_version=80, enable_fp_fusion=False)
        made = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
        sizes = "_".join(str(value) for value in constants.values())
        yield f"{kernel.fn.__name__}_{sizes}", made.asm["ptx"]
