#!/usr/bin/env python3
"""Writes interest_channels.safetensors: interest channels (DiffuMIN) computed with numpy alone, in float64.

It shares nothing with this crate but the formula: right angles come from LAPACK's Householder reflections with signs mended afterwards, and the
gradient through them from the closed form of Seeger et al. ("Auto-Differentiating Linear Algebra", arXiv 1710.08717), held against central differences
here. Run it in this folder: python3 interest_channels.py
"""

import json
import struct

import numpy as np

HISTORIES, CANDIDATES = [9, 0, 23, 1], [2, 1, 3, 1]
WIDTH, CHANNELS, TOP_K, FLOOR = 10, 3, 4, 1e-12


def right_angles(columns):
    """Q and R of a matrix [d, c], with a positive diagonal of R."""
    q, r = np.linalg.qr(columns)
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    return q * signs, r * signs[:, None]


def right_angles_backward(q, r, grad):
    """The gradient of a matrix, from that of its Q."""
    lower = np.tril(-grad.T @ q)
    symmetric = lower + np.tril(lower, -1).T
    return np.linalg.solve(r, (grad + q @ symmetric).T).T


def best(scores, places):
    """Of these places the TOP_K with the highest scores, ties by place."""
    return places[np.argsort(-scores[places], kind="stable")[:TOP_K]]


def choose(columns, history, among):
    """What each channel keeps."""
    scores = history @ right_angles(columns)[0]
    channel = np.argmax(scores, axis=1)
    kept = []
    for i in range(CHANNELS):
        routed, everywhere = np.flatnonzero(channel == i), np.arange(len(history))
        if among == "routed":
            kept.append(best(scores[:, i], routed))
        else:
            kept.append(np.array([l for l in best(scores[:, i], everywhere) if channel[l] == i], dtype=int))
    return kept


def pool(columns, history, kept, normalise):
    """One row for each channel."""
    q = right_angles(columns)[0]
    rows = np.zeros((CHANNELS, WIDTH))
    for i, places in enumerate(kept):
        if len(places):
            rows[i] = (history[places] @ q[:, i]) @ history[places] / len(history)
    if normalise:
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), FLOOR)
    return rows


def gradients(columns, history, kept, normalise, grad):
    """Those of the matrix and of the history."""
    q, r = right_angles(columns)
    rows, of_history, of_q = pool(columns, history, kept, False), np.zeros_like(history), np.zeros_like(q)
    for i, places in enumerate(kept):
        if not len(places):
            continue
        of_row = grad[i]
        if normalise:
            norm = np.linalg.norm(rows[i])
            unit = rows[i] / norm
            of_row = (np.eye(WIDTH) - np.outer(unit, unit)) @ of_row / norm
        e = history[places] / len(history)
        # The row is eᵀ·e·q but for the length of the history.
        of_q[:, i] = e.T @ (history[places] @ of_row)
        of_history[places] = np.outer(e @ q[:, i], of_row) + np.outer(e @ of_row, q[:, i])
    return right_angles_backward(q, r, of_q), of_history


def assert_gradients(columns, history, kept, normalise, grad, of_columns, of_history):
    """Central differences."""
    step = 1e-5
    loss = lambda c, h: np.sum(grad * pool(c, h, kept, normalise))
    for array, found, which in ((columns, of_columns, 0), (history, of_history, 1)):
        for place in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = [columns.copy(), history.copy()]
                moved[which][place] += sign * step
                ends.append(loss(*moved))
            difference = (ends[0] - ends[1]) / (2 * step)
            assert abs(difference - found[place]) < 1e-7 * max(1, np.abs(found).max()), (place, difference, found[place])


def assert_plain(columns, history):
    """No two scores that decide are near each other: `f32` arithmetic must choose alike."""
    scores = history @ right_angles(columns)[0]
    along = np.sort(scores, axis=1)
    assert len(history) == 0 or (along[:, -1] - along[:, -2]).min() > 1e-3
    assert all(len(history) < 2 or np.diff(np.sort(scores[:, i])).min() > 1e-4 for i in range(CHANNELS))


def write(path, tensors, meta):
    """A safetensors file."""
    names = {"float32": "F32", "float64": "F64", "int64": "I64"}
    header, data = {"__metadata__": {"meta": json.dumps(meta)}}, b""
    for name, tensor in tensors.items():
        part = np.ascontiguousarray(tensor).tobytes()
        header[name] = {
            "dtype": names[str(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(part)],
        }
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main():
    rng = np.random.default_rng(9)
    n, m = sum(HISTORIES), sum(CANDIDATES)
    axes = rng.standard_normal((m, CHANNELS, WIDTH)).astype(np.float32)
    # Far from right angles: columns that share a direction.
    axes += rng.standard_normal((m, 1, WIDTH)).astype(np.float32)
    history = rng.standard_normal((n, WIDTH)).astype(np.float32)
    grad_out = rng.standard_normal((m, CHANNELS, WIDTH)).astype(np.float32)
    offsets, target_offsets = np.cumsum([0, *HISTORIES]), np.cumsum([0, *CANDIDATES])
    tensors = {"axes": axes, "history": history, "grad_out": grad_out}
    tensors |= {"offsets": offsets.astype(np.int64), "target_offsets": target_offsets.astype(np.int64)}
    tensors["right_angles"] = np.zeros((m, CHANNELS, WIDTH))
    tensors["triangle"] = np.zeros((m, CHANNELS, CHANNELS))
    for form in ("routed", "all"):
        tensors[f"positions_{form}"] = np.full((m, CHANNELS, TOP_K), 2**32 - 1, dtype=np.int64)
        tensors[f"counts_{form}"] = np.zeros((m, CHANNELS), dtype=np.int64)
        for kind in (form, f"{form}_normalised"):
            tensors[f"out_{kind}"] = np.zeros((m, CHANNELS, WIDTH))
            tensors[f"grad_axes_{kind}"] = np.zeros((m, CHANNELS, WIDTH))
            tensors[f"grad_history_{kind}"] = np.zeros((n, WIDTH))
    for user in range(len(HISTORIES)):
        behaviours = slice(offsets[user], offsets[user + 1])
        e = history[behaviours].astype(np.float64)
        for candidate in range(target_offsets[user], target_offsets[user + 1]):
            columns = axes[candidate].astype(np.float64).T
            assert_plain(columns, e)
            q, r = right_angles(columns)
            tensors["right_angles"][candidate], tensors["triangle"][candidate] = q.T, r
            for form in ("routed", "all"):
                kept = choose(columns, e, form)
                for i, places in enumerate(kept):
                    tensors[f"positions_{form}"][candidate, i, : len(places)] = places
                    tensors[f"counts_{form}"][candidate, i] = len(places)
                for kind, normalise in ((form, False), (f"{form}_normalised", True)):
                    grad = grad_out[candidate].astype(np.float64)
                    of_columns, of_history = gradients(columns, e, kept, normalise, grad)
                    assert_gradients(columns, e, kept, normalise, grad, of_columns, of_history)
                    tensors[f"out_{kind}"][candidate] = pool(columns, e, kept, normalise)
                    tensors[f"grad_axes_{kind}"][candidate] = of_columns.T
                    tensors[f"grad_history_{kind}"][behaviours] += of_history
    assert (tensors["counts_routed"] != tensors["counts_all"]).any()
    assert (tensors["counts_routed"] == TOP_K).any()
    meta = {"peer": f"numpy {np.__version__}, float64", "channels": CHANNELS, "top_k": TOP_K}
    write("interest_channels.safetensors", tensors, meta)


if __name__ == "__main__":
    main()
