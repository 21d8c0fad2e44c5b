#!/usr/bin/env python3
"""Writes the golden files of systems whose published code does not run by itself: TIN, MUSE and QIN.

    tests/golden/formulas.py

Results are computed from the papers' formulas in numpy's float64, one candidate at a time; gradients are central differences of
them, so that no derivative was worked out by hand. Inputs are rounded to float32 first. Needs numpy.
"""

import json
import pathlib
import struct

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
STEP = 1e-5


def write(name, meta, **tensors):
    """A safetensors file: the length of the header, the header, the numbers. Floats are stored as float32, integers as int64."""
    header, data = {"__metadata__": {"meta": json.dumps(meta)}}, b""
    for key, value in tensors.items():
        value = np.asarray(value)
        value = value.astype("<f4" if value.dtype.kind == "f" else "<i8")
        end = len(data) + value.nbytes
        dtype = "F32" if value.dtype.kind == "f" else "I64"
        header[key] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [len(data), end]}
        data += value.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (HERE / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def normal(random, *shape):
    """Float64 numbers that float32 holds."""
    return random.standard_normal(shape).astype(np.float32).astype(np.float64)


def gradients(function, grad_out, inputs):
    """The central differences of `sum(function(inputs)·grad_out)` by every number of every input."""
    results = {}
    for key, value in inputs.items():
        result = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            sums = []
            for step in (STEP, -STEP):
                moved = value.copy()
                moved[index] += step
                sums.append(np.sum(function(**{**inputs, key: moved}) * grad_out))
            result[index] = (sums[0] - sums[1]) / (2 * STEP)
        results[f"grad_{key}"] = result
    return results


def softmax(scores):
    """Of one candidate's scores; of none it is empty."""
    exponentials = np.exp(scores - scores.max(initial=-np.inf)) if len(scores) else scores
    return exponentials / exponentials.sum() if len(scores) else scores


def users(offsets, target_offsets):
    """The candidates of every user, each with the slice of the user's behaviours."""
    for user in range(len(offsets) - 1):
        for target in range(target_offsets[user], target_offsets[user + 1]):
            yield target, slice(offsets[user], offsets[user + 1])


def tin(offsets, target_offsets, history_positions, target_positions, targets, history, positions):
    """u = v~ * sum_l softmax_l(<e~_l, v~>/sqrt(d))·e~_l, with e~ = e + p[f(l)] and v~ = v + p[f(target)] (arXiv 2308.08487, section 4)."""
    out = np.zeros_like(targets)
    for target, behaviours in users(offsets, target_offsets):
        candidate = targets[target] + positions[target_positions[target]]
        rows = history[behaviours] + positions[history_positions[behaviours]]
        out[target] = candidate * (softmax(rows @ candidate / np.sqrt(len(candidate))) @ rows)
    return out


def write_tin(random):
    offsets, target_offsets = [0, 9, 9, 26, 27], [0, 3, 4, 6, 9]
    width, rows = 12, 8
    inputs = {"targets": normal(random, 9, width), "history": normal(random, 27, width), "positions": normal(random, rows, width)}
    # The newest behaviour, which is a user's last, is 1; what is older than the table has its last row. Candidates are 0.
    counted = np.concatenate([np.minimum(np.arange(end - start, 0, -1), rows - 1) for start, end in zip(offsets, offsets[1:])])
    given = random.integers(0, rows, 27), random.integers(0, rows, 9)
    for name, (of_history, of_targets) in {"counted": (counted, np.zeros(9, int)), "given": given}.items():
        layer = lambda **inputs: tin(offsets, target_offsets, of_history, of_targets, **inputs)
        grad_out = normal(random, 9, width)
        write(f"tin_{name}", {"given": name == "given"}, offsets=np.array(offsets), target_offsets=np.array(target_offsets),
              history_positions=of_history, target_positions=of_targets, grad_out=grad_out, out=layer(**inputs), **inputs,
              **gradients(layer, grad_out, inputs))


def muse_search(offsets, target_offsets, codes, target_codes, top_k):
    """The top_k greatest cosines of every candidate, those of rows of zeros apart: positions in the user's history, and cosines."""
    for target, behaviours in users(offsets, target_offsets):
        rows = codes[behaviours].astype(float)
        norms = np.linalg.norm(rows, axis=1)
        cosines = rows @ target_codes[target] / np.maximum(norms * np.linalg.norm(target_codes[target]), 1e-12)
        order = np.argsort(-np.where(norms == 0, -np.inf, cosines), kind="stable")[: min(top_k, np.count_nonzero(norms))]
        assert np.all(np.diff(np.sort(cosines[norms > 0])) > 1e-5), "cosines that float32 cannot tell apart: draw others"
        yield target, behaviours, order, cosines


def sim_tier(cosines, steps):
    """The counts of 2·steps + 1 bins of [-1, 1] (arXiv 2512.07216, SimTier); bin ceil(r·steps) + steps."""
    products = cosines * steps
    assert np.all(np.abs(products - np.round(products)) > 1e-4), "a cosine at the edge of a bin: draw others"
    return np.bincount(np.clip(np.ceil(products).astype(int) + steps, 0, 2 * steps), minlength=2 * steps + 1)


def sa_ta(kept, queries, keys, values, gammas):
    """softmax(g1·s + g2·R + g3·s·R)·v over what was kept, s = <q, k>/sqrt(d) (arXiv 2512.07216, SA-TA)."""
    out = np.zeros((len(queries), values.shape[1]))
    for target, behaviours, order, cosines in kept:
        scores = keys[behaviours][order] @ queries[target] / np.sqrt(keys.shape[1])
        similarities = cosines[order]
        mixed = gammas[0] * scores + gammas[1] * similarities + gammas[2] * scores * similarities
        out[target] = softmax(mixed) @ values[behaviours][order]
    return out


def write_muse(random):
    offsets, target_offsets = np.array([0, 40, 43, 43, 60]), np.array([0, 2, 4, 5, 8])
    top_k, steps = 8, 10
    codes, target_codes = random.integers(-127, 128, (60, 24)), random.integers(-127, 128, (8, 24))
    codes[[1, 17, 41]] = 0  # a padding row is never kept
    kept = list(muse_search(offsets, target_offsets, codes, target_codes, top_k))
    inputs = {"queries": normal(random, 8, 10), "keys": normal(random, 60, 10), "values": normal(random, 60, 14),
              "gammas": np.array([0.75, 3.0, -0.5])}
    layer = lambda **inputs: sa_ta(kept, **inputs)
    grad_out = normal(random, 8, 14)
    positions, similarities = np.full((8, top_k), 2**32 - 1), np.full((8, top_k), -np.inf)
    for target, _, order, cosines in kept:
        positions[target, : len(order)], similarities[target, : len(order)] = order, cosines[order]
    write("muse_k8", {"k": top_k, "steps": steps}, offsets=offsets, target_offsets=target_offsets, codes=codes, target_codes=target_codes,
          positions=positions, similarities=similarities, counts=np.array([len(order) for _, _, order, _ in kept]),
          histogram=np.array([sim_tier(cosines[order], steps) for _, _, order, cosines in kept]), grad_out=grad_out,
          out=layer(**inputs), **inputs, **gradients(layer, grad_out, inputs))


def qin(offsets, target_offsets, targets, history, w_q, w_k, w_v, w_o):
    """W_o·(ReLU((W_q x)(W_k X)'/sqrt(d_a))·(W_v X)) + x (arXiv 2504.17699, ASTA); without behaviours it is x."""
    out = targets.copy()
    for target, behaviours in users(offsets, target_offsets):
        rows = history[behaviours]
        scores = (rows @ w_k.T) @ (w_q @ targets[target]) / np.sqrt(len(w_q))
        assert np.all(np.abs(scores) > 1e-4), "a score near the edge of ReLU: draw others"
        weights = np.maximum(scores, 0)
        out[target] += w_o @ (weights @ (rows @ w_v.T))
    return out


def write_qin(random):
    offsets, target_offsets = np.array([0, 21, 21, 33]), np.array([0, 3, 5, 9])
    inputs = {"targets": normal(random, 9, 10), "history": normal(random, 33, 10)}
    inputs |= {name: normal(random, *shape) * 0.25 for name, shape in
               {"w_q": (12, 10), "w_k": (12, 10), "w_v": (12, 10), "w_o": (10, 12)}.items()}
    layer = lambda **inputs: qin(offsets, target_offsets, **inputs)
    grad_out = normal(random, 9, 10)
    write("qin_d12", {}, offsets=offsets, target_offsets=target_offsets, grad_out=grad_out, out=layer(**inputs), **inputs,
          **gradients(layer, grad_out, inputs))


if __name__ == "__main__":
    write_tin(np.random.default_rng(1))
    write_muse(np.random.default_rng(2))
    write_qin(np.random.default_rng(4))
