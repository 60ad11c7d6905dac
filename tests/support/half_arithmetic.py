"""A CUDA graph on the CPU with every value in the dtype that the graph gives it, product sums in fp32 as cuBLAS does.

ONNX Runtime's CPU has no fp16 products: it casts to fp32 around them and drops the casts between, so a value that fp16
could not hold would go unseen there. This runs the operators of export/decoders/padded_graph.py with torch instead.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

DTYPES = {TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16, TensorProto.INT32: torch.int32}


def run_graph(bundle, build, ids, mask):
    """The scores (rows, 1), and the largest magnitude of any fp16 value on the way."""
    graph = onnx.load_model_from_string(bundle.read(build.graph)).graph
    values = {name: torch.from_numpy(np.array(value)) for name, value in bundle.tensors(build.tensors).items()}
    for tensor in graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            values[tensor.name] = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    values |= {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask)}
    largest = 0.0
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        found = OPERATORS[node.op_type](*(values[name] if name else None for name in node.input), **attributes)
        found = found if isinstance(found, (tuple, list)) else [found]
        for name, value in zip(node.output, found, strict=False):
            values[name] = value
            if value.dtype == torch.float16:
                largest = max(largest, float(value.abs().max()))
    return values["score"].numpy(), largest


def wide(operator):
    """The operator in fp32, its result in the first input's dtype."""
    return lambda x, *rest, **options: operator(x.float(), *(r.float() for r in rest), **options).to(x.dtype)


def split(x, sizes=None, axis=-1, num_outputs=None):
    return torch.split(x, x.shape[axis] // num_outputs if sizes is None else sizes.tolist(), dim=axis)


def rms_norm(x, gain, axis, epsilon):
    x = x.float()
    return (x * torch.rsqrt((x * x).mean(axis, keepdim=True) + epsilon) * gain.float()).to(gain.dtype)


def reshape(x, shape):
    return x.reshape([x.shape[i] if side == 0 else side for i, side in enumerate(shape.tolist())])


def attention(q, k, v, past_k, past_v, ends, longest, cos, sin, num_heads, kv_num_heads, do_rotary):
    rows, tokens = q.shape[:2]
    assert (past_k, past_v, do_rotary) == (None, None, 1)
    assert int(longest) == tokens
    if k is None:
        head = q.shape[2] // (num_heads + 2 * kv_num_heads)
        q, k, v = split(q, torch.tensor([num_heads * head, kv_num_heads * head, kv_num_heads * head]))
    q, k, v = (x.reshape(rows, tokens, -1, q.shape[2] // num_heads).transpose(1, 2) for x in (q, k, v))

    def rotated(x):
        a, b = x.float().chunk(2, dim=-1)
        c, s = cos[:tokens].float(), sin[:tokens].float()
        return torch.cat([a * c - b * s, b * c + a * s], -1).to(x.dtype).float()

    group = num_heads // kv_num_heads
    k, v = (x.repeat_interleave(group, 1) for x in (rotated(k), v.float()))
    out = torch.nn.functional.scaled_dot_product_attention(rotated(q), k, v, is_causal=True)
    return out.transpose(1, 2).reshape(rows, tokens, -1).to(cos.dtype)


OPERATORS = {
    "Identity": lambda x: x,
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "MatMul": wide(torch.matmul),
    "QuickGelu": wide(lambda x, alpha: x * torch.sigmoid(alpha * x)),
    "Cast": lambda x, to: x.to(DTYPES[to]),
    "Shape": lambda x, start, end: torch.tensor(x.shape[start:end]),
    "Squeeze": torch.squeeze,
    "Reshape": reshape,
    "ReduceSum": lambda x, axes, keepdims: x.sum(axes.tolist(), keepdim=bool(keepdims)),
    "Split": split,
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Transpose": torch.t,
    "Gather": lambda table, ids: table[ids],
    "GatherND": lambda x, at, batch_dims: x[torch.arange(len(x)), at[:, 0]],
    "DequantizeLinear": lambda q, scale, axis: (q.float() * scale.float()).to(scale.dtype),
    "SimplifiedLayerNormalization": rms_norm,
    "GroupQueryAttention": attention,
}
