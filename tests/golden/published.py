#!/usr/bin/env python3
"""Writes the golden files of TWIN and SIM with the published code of FuxiCTR, from a clone of https://github.com/reczoo/FuxiCTR.

    tests/golden/published.py CLONE

Only the classes of the layers are read from it, and run in float64, a candidate at a time; inputs and weights are rounded to float32
first. Needs numpy and torch. (The files of other systems are older than this script.)
"""

import ast
import pathlib
import sys

import numpy as np
import torch
from torch import nn

from formulas import users, write

ATTENTIONS = "fuxictr/pytorch/layers/attentions"


def classes(clone, path, names):
    """The classes of these names in a file, without the rest of it."""
    tree = ast.parse((pathlib.Path(clone) / path).read_text())
    found = {"torch": torch, "nn": nn, "np": np}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in names:
            exec(compile(ast.Module([node], []), path, "exec"), found)
    return found


def leaf(random, *shape):
    """Numbers that float32 holds."""
    numbers = torch.tensor(random.standard_normal(shape).astype(np.float32).astype(np.float64))
    return numbers.requires_grad_()


def weights(random, layer):
    """Rounds the weights of a layer to float32; by lower-case name."""
    for parameter in layer.parameters():
        parameter.data = leaf(random, *parameter.shape).detach() * 0.25
    return {name.removesuffix(".weight").lower(): value.detach().numpy() for name, value in layer.named_parameters()}


def assert_apart(scores):
    """Float32 must tell the scores of a search apart, or it may keep others."""
    gaps = torch.diff(scores.sort(-1).values, dim=-1)
    assert (gaps > 1e-4).all(), "scores too near each other: draw others"


def write_layer(name, random, width, meta, parameters, run):
    """The layer's results for a jagged batch, `run` giving those of one candidate, and their gradients."""
    offsets, target_offsets = np.array([0, 30, 30, 34, 51]), np.array([0, 3, 4, 6, 9])
    targets, history = leaf(random, 9, width), leaf(random, 51, width)
    rows = [torch.zeros(width, dtype=torch.float64)] * 9
    for target, behaviours in users(offsets, target_offsets):
        if behaviours.start < behaviours.stop:  # neither layer was written for a history of none
            rows[target] = run(targets[target : target + 1], history[behaviours].unsqueeze(0))[0]
    out, grad_out = torch.stack(rows), leaf(random, 9, width).detach()
    grads = torch.autograd.grad(out, [targets, history], grad_out)
    write(name, meta, offsets=offsets, target_offsets=target_offsets, targets=targets.detach().numpy(), history=history.detach().numpy(),
          out=out.detach().numpy(), grad_out=grad_out.numpy(), grad_targets=grads[0].numpy(), grad_history=grads[1].numpy(), **parameters)


def write_twin(clone, random):
    width, top_k, heads = 14, 5, 2
    twin = classes(clone, "model_zoo/LongCTR/TWIN/TWIN.py", {"MultiHeadTopKAttention"})["MultiHeadTopKAttention"]
    layer = twin(input_dim=width, attention_dim=12, topk=top_k, num_heads=heads).double()
    parameters = weights(random, layer)

    def run(target, history):
        assert_apart((layer.W_h(history).view(-1, heads, 6) * layer.W_q(target).view(heads, 6)).sum(-1).T)
        return layer(target, history)

    write_layer("twin_k5_h2", random, width, {"k": top_k, "heads": heads}, parameters, run)


def write_sim(clone, random):
    """Its model searches in `forward`; of that, here are the formulas: products of two projections, and the rows of the largest."""
    width, top_k, heads = 10, 6, 2
    found = classes(clone, f"{ATTENTIONS}/dot_product_attention.py", {"ScaledDotProductAttention"})
    attention = classes(clone, f"{ATTENTIONS}/target_attention.py", {"MultiHeadTargetAttention"})["MultiHeadTargetAttention"]
    attention.__init__.__globals__["ScaledDotProductAttention"] = found["ScaledDotProductAttention"]
    layer = attention(input_dim=width, attention_dim=16, num_heads=heads).double()
    parameters = weights(random, layer) | {"w_a": leaf(random, 8, width).detach().numpy(), "w_b": leaf(random, 8, width).detach().numpy()}
    w_a, w_b = torch.tensor(parameters["w_a"]), torch.tensor(parameters["w_b"])

    def run(target, history):
        scores = (target @ w_a.T) @ (history[0] @ w_b.T).T
        assert_apart(scores)
        kept = scores[0].topk(min(top_k, scores.shape[1])).indices
        return layer(target, history[:, kept])

    write_layer("sim_k6_h2", random, width, {"k": top_k, "heads": heads}, parameters, run)


if __name__ == "__main__":
    write_twin(sys.argv[1], np.random.default_rng(4))
    write_sim(sys.argv[1], np.random.default_rng(5))
