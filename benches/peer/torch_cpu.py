"""The CPU cases of our benchmarks in PyTorch, as a PyTorch user would write them, and their times next to ours.

    python benches/peer/torch_cpu.py [--rounds N] [--seconds S] [--only PART] [--markdown]

Peer and benchmark run in turn, round by round, on the same machine; each entry is the median over rounds of the
median of a round. Where PyTorch offers several ways, the fastest counts. Of gradients, autograd's backward pass alone is
timed: the graph is kept, and sparse gradients are summed by id, as ours are. scripts/bench-against-torch sets
everything up.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy
import torch
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = {}


def case(bench, threads=1, ours=None):
    """Registers a function that returns {how: call} under its own name, which is also that of our case, if `ours` does not
    name the cases whose times add up to what the peer's does."""

    def register(make):
        CASES[make.__name__] = (bench, threads, make, ours or [make.__name__])
        return make

    return register


def gradients(leaves, make):
    """A call of the backward pass of `make`: the gradients of the leaves."""
    with torch.enable_grad():
        output = make()
    grad_output = torch.randn_like(output)

    def backward():
        found = torch.autograd.grad(output, leaves, grad_output, retain_graph=True)
        return [gradient.coalesce() if gradient.is_sparse else gradient for gradient in found]

    return backward


def leaf(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).requires_grad_()


def attention(dtype):
    query, key, value = (torch.randn(1, 1, rows, 64).to(dtype) for rows in (16, 10_000, 10_000))

    def products():
        weights = torch.softmax(query @ key.transpose(-1, -2) / 8, dim=-1)
        return weights @ value

    return {
        "scaled_dot_product_attention": lambda: functional.scaled_dot_product_attention(query, key, value),
        "two products and a softmax": products,
    }


@case("target_attention")
def target_attention_c16_l10000_d64_f32():
    return attention(torch.float32)


@case("target_attention")
def target_attention_c16_l10000_d64_bf16():
    return attention(torch.bfloat16)


def attention_backward(dtype):
    query, key, value = leaves = [leaf(1, 1, rows, 64, dtype=dtype) for rows in (16, 10_000, 10_000)]
    fused = lambda: functional.scaled_dot_product_attention(query, key, value)
    products = lambda: torch.softmax(query @ key.transpose(-1, -2) / 8, dim=-1) @ value
    return {
        "scaled_dot_product_attention": gradients(leaves, fused),
        "two products and a softmax": gradients(leaves, products),
    }


@case("target_attention")
def target_attention_backward_c16_l10000_d64_f32():
    return attention_backward(torch.float32)


@case("target_attention")
def target_attention_backward_c16_l10000_d64_bf16():
    return attention_backward(torch.bfloat16)


def skewed_lengths(users):
    """As in crates/longseq-check/src/cases.rs."""
    upper = 1 - (numpy.arange(users) + 0.5) / users
    lengths = numpy.clip(120 * upper ** (-1 / 1.05), 10, 20_000).astype(int)
    lengths[0] = 20_000
    return lengths


@case("target_attention", threads=os.cpu_count())
def target_attention_jagged_64_users_20_candidates():
    lengths = skewed_lengths(64)
    longest = int(lengths.max())
    queries = torch.randn(64, 1, 20, 64)
    # Ours reads keys as values too; so may the peer.
    padded = torch.randn(64, 1, longest, 64)
    present = (torch.arange(longest) < torch.tensor(lengths)[:, None])[:, None, None, :]
    histories = [torch.randn(1, 1, int(length), 64) for length in lengths]
    attend = functional.scaled_dot_product_attention
    return {
        "padded, with a mask": lambda: attend(queries, padded, padded, attn_mask=present),
        "a loop over users": lambda: [
            attend(queries[user : user + 1], history, history) for user, history in enumerate(histories)
        ],
    }


@case("target_attention")
def target_attention_backward_jagged_64_users_20_candidates():
    queries = leaf(64, 1, 20, 64)
    histories = [leaf(1, 1, int(length), 64) for length in skewed_lengths(64)]
    attend = functional.scaled_dot_product_attention

    def loop():
        users = enumerate(histories)
        return torch.cat([attend(queries[user : user + 1], history, history) for user, history in users])

    return {"a loop over users": gradients([queries, *histories], loop)}


def din_published(candidates, history, network):
    query, rows = candidates.expand(-1, 1000, -1), history.expand(16, -1, -1)
    weights = network(torch.cat([query, rows, query - rows, query * rows], dim=-1))
    return weights.transpose(1, 2) @ rows


def din_network():
    layers = [torch.nn.Linear(256, 80), torch.nn.Sigmoid(), torch.nn.Linear(80, 40), torch.nn.Sigmoid()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(40, 1))


@case("din")
def din_80_40_c16_l1000_d64():
    candidates, history, network = torch.randn(16, 1, 64), torch.randn(1, 1000, 64), din_network()
    return {"concatenation, as published": lambda: din_published(candidates, history, network)}


@case("din")
def din_backward_80_40_c16_l1000_d64():
    candidates, history, network = leaf(16, 1, 64), leaf(1, 1000, 64), din_network()
    leaves = [candidates, history, *network.parameters()]
    published = lambda: din_published(candidates, history, network)
    return {"concatenation, as published": gradients(leaves, published)}


def selected(dtype, candidates=100, length=10_000, kept=64, width=64):
    """MUSE's second stage: scores and similarities mixed, over gathered rows."""
    queries, keys, values = (leaf(rows, width, dtype=dtype) for rows in (candidates, length, length))
    positions = torch.stack([torch.randperm(length)[:kept] for _ in range(candidates)])
    similarities, gammas = torch.rand(candidates, kept) * 2 - 1, leaf(3)

    def gather():
        scores = (keys[positions] @ queries[:, :, None]).squeeze(-1) / width**0.5
        mixed = gammas[0] * scores + gammas[1] * similarities + gammas[2] * scores * similarities
        return (torch.softmax(mixed, dim=-1).to(dtype)[:, None] @ values[positions]).squeeze(1)

    def fused():
        # The product with similarities goes into the queries, their sum into a mask.
        factors = (gammas[0] + gammas[2] * similarities).to(dtype)
        mask = (gammas[1] * similarities).to(dtype)
        rows = keys[positions] * factors[:, :, None]
        attend = functional.scaled_dot_product_attention
        return attend(queries[:, None], rows, values[positions], attn_mask=mask[:, None]).squeeze(1)

    return [queries, keys, values, gammas], {"gathered rows": gather, "gathered rows, fused": fused}


def without_gradients(calls):
    def run(call):
        with torch.no_grad():
            return call()

    return {how: lambda call=call: run(call) for how, call in calls.items()}


@case("selected")
def selected_attention_k64_c100_l10000_d64_f32():
    return without_gradients(selected(torch.float32)[1])


@case("selected")
def selected_attention_k64_c100_l10000_d64_bf16():
    return without_gradients(selected(torch.bfloat16)[1])


@case("selected")
def selected_attention_k50_c1000_l100000_d32_f32():
    return without_gradients(selected(torch.float32, 1000, 100_000, 50, 32)[1])


@case("selected")
def selected_attention_backward_k64_c100_l10000_d64_f32():
    leaves, calls = selected(torch.float32)
    return {how: gradients(leaves, call) for how, call in calls.items()}


@case("selected")
def similarity_histogram_k50_c1000():
    similarities = torch.rand(1000, 50) * 2 - 1

    def one_hot():
        bins = (similarities * 10).ceil().clamp(-10, 10).long() + 10
        return functional.one_hot(bins, 21).sum(1)

    def scatter():
        bins = (similarities * 10).ceil().clamp(-10, 10).long() + 10
        return torch.zeros(1000, 21, dtype=torch.long).scatter_add_(1, bins, torch.ones_like(bins))

    return {"one-hot": one_hot, "scatter_add": scatter}


def signatures(rows, rotations):
    bits = (rows @ rotations > 0).view(len(rows), 16, 3).long()
    return (bits << torch.arange(3)).sum(-1)


@case("sdim")
def sdim_encode_l10000_d64_g16_t3():
    history, rotations = torch.randn(10_000, 64), torch.randn(64, 48)

    def index_add():
        buckets = signatures(history, rotations) + 8 * torch.arange(16)
        repeated = history.unsqueeze(1).expand(-1, 16, -1).reshape(-1, 64)
        return torch.zeros(128, 64).index_add_(0, buckets.flatten(), repeated)

    def one_hot():
        members = functional.one_hot(signatures(history, rotations), 8).flatten(1)
        return members.to(history.dtype).T @ history

    return {"index_add": index_add, "product with one-hot signatures": one_hot}


@case("sdim")
def sdim_query_c100_d64_g16_t3():
    table, candidates, rotations = torch.randn(16, 8, 64), torch.randn(100, 64), torch.randn(64, 48)
    groups = torch.arange(16)
    return {
        "gather": lambda: functional.normalize(table[groups, signatures(candidates, rotations)], dim=-1).mean(1)
    }


def sdim_attend_backward():
    history, candidates, rotations = leaf(10_000, 64), torch.randn(100, 64), torch.randn(64, 48)
    groups = torch.arange(16)

    def pool(table):
        return functional.normalize(table[groups, signatures(candidates, rotations)], dim=-1).mean(1)

    def one_hot():
        members = functional.one_hot(signatures(history, rotations), 8).flatten(1)
        return pool((members.to(history.dtype).T @ history).view(16, 8, 64))

    def index_add():
        buckets = (signatures(history, rotations) + 8 * groups).flatten()
        repeated = history.unsqueeze(1).expand(-1, 16, -1).reshape(-1, 64)
        return pool(torch.zeros(128, 64).index_add(0, buckets, repeated).view(16, 8, 64))

    return {
        "product with one-hot signatures": gradients([history], one_hot),
        "index_add": gradients([history], index_add),
    }


# Ours hashes again and adds the buckets up again.
@case("sdim")
def sdim_attend_backward_c100_l10000_d64_g16_t3():
    return sdim_attend_backward()


# Ours hashes nothing, but adds the buckets up again.
@case("sdim")
def sdim_attend_backward_c100_l10000_d64_g16_t3_given():
    return sdim_attend_backward()


# From signatures and a table that the forward pass made, as autograd keeps them in its graph.
@case("sdim", ours=["sdim_encode_backward_l10000_d64_g16_t3_given", "sdim_query_backward_c100_d64_g16_t3_given"])
def sdim_backward_of_kept_table():
    return sdim_attend_backward()


@case("decoupled")
def search_k64_l100000_a16_c16():
    table, ids = torch.randn(1_000_000, 16), torch.randint(1_000_000, (100_000,))
    candidates = torch.randint(1_000_000, (16,))
    return {"gather, product, topk": lambda: torch.topk(table[candidates] @ table[ids].T, 64)}


@case("decoupled")
def decoupled_backward_top64_of_10000_c16_a16_r64():
    attention, representation = leaf(100_000, 16), leaf(100_000, 64)
    ids, candidates = torch.randint(100_000, (10_000,)), torch.randint(100_000, (16,))

    def attend():
        read = lambda rows, table: functional.embedding(rows, table, sparse=True)
        scores = read(candidates, attention) @ read(ids, attention).T
        best, places = torch.topk(scores, 64)
        weights = torch.softmax(best, dim=-1).unsqueeze(1)
        return weights @ read(ids[places], representation)

    return {"sparse embeddings, topk": gradients([attention, representation], attend)}


@case("lookup")
def lookup_sum_l100000_r64():
    table, ids = torch.randn(1_000_000, 64), torch.randint(1_000_000, (100_000,))
    bags = torch.arange(0, 100_000, 50)
    return {"embedding_bag": lambda: functional.embedding_bag(ids, table, bags, mode="sum")}


@case("lookup")
def lookup_backward_sum_l100000_r64():
    table, ids, bags = leaf(1_000_000, 64), torch.randint(1_000_000, (100_000,)), torch.arange(0, 100_000, 50)
    pool = lambda: functional.embedding_bag(ids, table, bags, mode="sum", sparse=True)
    return {"embedding_bag, sparse": gradients([table], pool)}


@case("lookup")
def update_rows_adagrad_uniform_of_1000000_r64():
    ids = torch.randint(1_000_000, (100_000,))
    table = torch.nn.Parameter(torch.randn(1_000_000, 64))
    optimiser = torch.optim.Adagrad([table], lr=0.01)
    # Ours takes a gradient that is summed by id; so may the peer.
    table.grad = torch.sparse_coo_tensor(ids[None], torch.randn(len(ids), 64), table.shape).coalesce()
    return {"Adagrad, sparse gradient": optimiser.step}


def cosines(keys, queries):
    """Of rows of any type: both sides are normalised, as MUSE's published code does with its 8-bit rows."""
    keys, queries = (functional.normalize(rows.float(), dim=-1, eps=1e-12) for rows in (keys, queries))
    return torch.topk(queries @ keys.T, 50)


@case("search")
def search_cosine_k50_l100000_a128_c16_int8():
    keys, queries = (torch.randint(-127, 128, (rows, 128), dtype=torch.int8) for rows in (100_000, 16))
    return {"normalise, product, topk": lambda: cosines(keys, queries)}


@case("search")
def search_cosine_k50_l100000_a128_c16_f32():
    keys, queries = torch.randn(100_000, 128), torch.randn(16, 128)
    return {"normalise, product, topk": lambda: cosines(keys, queries)}


@case("search")
def search_dot_k50_l100000_a64_c16_bf16():
    keys, queries = (torch.randn(rows, 64).bfloat16() for rows in (100_000, 16))
    return {"product, topk": lambda: torch.topk(queries @ keys.T, 50)}


@case("search")
def search_hamming_k50_l100000_b256_c16():
    keys, queries = (torch.randint(0, 2, (rows, 256)) for rows in (100_000, 16))
    signs = [2.0 * bits.float() - 1.0 for bits in (queries, keys)]
    bytes = [bits.to(torch.uint8) for bits in (queries, keys)]
    words = [torch.from_numpy(numpy.packbits(bits.numpy().astype(bool), axis=1)) for bits in (queries, keys)]
    ones = torch.tensor([bin(byte).count("1") for byte in range(256)], dtype=torch.uint8)

    def differing():
        # One candidate at a time: all pairs would be 400 MB.
        distances = [(query ^ bytes[1]).sum(-1, dtype=torch.int32) for query in bytes[0]]
        return torch.topk(torch.stack(distances), 50, largest=False)

    def table():
        distances = [ones[(query ^ words[1]).long()].sum(-1, dtype=torch.int32) for query in words[0]]
        return torch.topk(torch.stack(distances), 50, largest=False)

    return {
        "product of signs, topk": lambda: torch.topk(signs[0] @ signs[1].T, 50),
        "differing bits, topk": differing,
        "packed bits, table of counts, topk": table,
    }


def tin(dtype):
    target, history, positions = (torch.randn(rows, 64).to(dtype) for rows in (16, 10_000, 431))
    places = torch.clamp(torch.arange(10_000, 0, -1), max=430)

    def layer():
        keys, queries = history + positions[places], target + positions[0]
        weights = torch.softmax(queries @ keys.T / 8, dim=-1)
        return queries * (weights @ keys)

    return {"additions, two products, softmax": layer}


@case("tin")
def tin_c16_l10000_d64_f32():
    return tin(torch.float32)


@case("tin")
def tin_c16_l10000_d64_bf16():
    return tin(torch.bfloat16)


def median_ms(call, seconds, threads):
    """The median of runs that fill so many seconds, after a fifth of that to warm up. One thread is timed by its own
    clock, as in our benchmarks: what other programs take does not count."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    times, begin = [], clock()
    while len(times) < 3 or clock() - begin < 1.2 * seconds:
        start = clock()
        call()
        end = clock()
        if end - begin > 0.2 * seconds:
            times.append(1e3 * (end - start))
    return statistics.median(times)


def ours_ms(bench, threads, name, seconds):
    with tempfile.NamedTemporaryFile("r") as results:
        arguments = [f"cpu-{threads}/{name}", "--seconds", str(seconds), "--results", results.name]
        command = ["cargo", "bench", "--quiet", "--locked", "--package", "longseq-check", "--bench", bench, "--", *arguments]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        # The name may be the beginning of others.
        rows = (line.split("\t") for line in results.read().splitlines())
        return next(float(median) / 1e3 for _, case, median, *_ in rows if case == name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--markdown", action="store_true", help="print a markdown table")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    row = "| {} | {} | {} | {} | {} | {} |" if options.markdown else "{:48} {:>7} {:>10} {:>10} {:>6}  {}"
    print(row.format("case", "threads", "torch ms", "longseq ms", "ratio", "PyTorch's way"))
    if options.markdown:
        print("|---|---|---|---|---|---|")
    for name, (bench, threads, make, names) in CASES.items():
        if options.only not in name:
            continue
        torch.set_num_threads(threads)
        ways = make()
        fastest = min(ways, key=lambda way: median_ms(ways[way], options.seconds / 4, threads))
        torch_times, our_times = [], []
        for _ in range(options.rounds):
            torch_times.append(median_ms(ways[fastest], options.seconds, threads))
            our_times.append(sum(ours_ms(bench, threads, ours, options.seconds) for ours in names))
        theirs, ours = statistics.median(torch_times), statistics.median(our_times)
        figures = [f"{theirs:.3f}", f"{ours:.3f}", f"{theirs / ours:.2f}"]
        print(row.format(name, threads, *figures, fastest), flush=True)


if __name__ == "__main__":
    main()
