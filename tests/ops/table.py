"""Every op once: how a problem of it is made, and ``check``, what any backend's answer to a problem must fulfil.

``test_contract`` takes each op at its usual size, ``test_fuzz`` draws the sizes and options, ``test_mutants`` shows
that ``check`` rejects broken kernels, ``tests.sanitizers`` runs all of it in an instrumented build. A new op needs one
function here.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from posekernels import ops
from posekernels.models.rie import PARTS
from posekernels.ops.denoise.reference import TENSORS as DENOISER_TENSORS
from posekernels.ops.encoder_layer import PARAMETERS as LAYER_PARAMETERS
from posekernels.ops.hierarchy_block import PARAMETERS as HIERARCHY_PARAMETERS
from posekernels.ops.transformer_block import PARAMETERS as BLOCK_PARAMETERS
from posekernels.pose.skeleton import H36M_16, H36M_17
from posekernels.testing import BUDGET, assert_within_budget, device_of, guarded, poisoned, relative_error
from tests.ops import (
    test_denoise,
    test_encoder_layer,
    test_graph_conv,
    test_graph_network,
    test_hierarchy_block,
    test_joint_attention,
    test_strided_feed_forward,
    test_strided_temporal_conv,
    test_temporal_attention,
    test_temporal_mlp,
    test_temporal_networks,
    test_transformer_block,
)

Results = tuple[Tensor, ...]


class Choices:
    """Chooses the sizes and options of a problem: here the usual ones. Subclasses draw them.

    Args:
        batch: in place of the usual number of clips or poses.
        seed: of the tensors' values.
    """

    def __init__(self, batch: int | None = None, seed: int = 0):
        self._batch, self.seed = batch, seed
        self._generator = torch.Generator().manual_seed(seed)

    def batch(self, usual: int, most: int = 9) -> int:
        return usual if self._batch is None else self._batch

    def size(self, usual: int, most: int, least: int = 1) -> int:
        return usual

    def of(self, *choices):
        """One of these, the first being the usual one."""
        return choices[0]

    def normal(self, *shape: int, mean: float = 0.0) -> Tensor:
        return mean + torch.randn(shape, generator=self._generator)


class Random(Choices):
    """Draws sizes and options by a generator of its own."""

    def __init__(self, seed: int):
        super().__init__(seed=seed)
        self._random = random.Random(seed)

    def batch(self, usual, most=9):
        return self._random.randint(1, most)

    def size(self, usual, most, least=1):
        return self._random.randint(least, most)

    def of(self, *choices):
        return self._random.choice(choices)


@dataclass(frozen=True)
class Problem:
    """Tensors by name (None: left out), and the op's public function on such tensors and a backend.

    Args:
        call: takes other options by name too.
        optional: names of those that may be left out, each by itself.
        said: what a refusal calls a tensor, from its name here.
        options: the other arguments that the call gives by name, backend aside.
        function: the public function, where it is not called as the op.
    """

    tensors: dict[str, Tensor | None]
    call: Callable[..., Results]
    optional: tuple[str, ...] = ()
    said: Callable[[str], str] = str
    options: dict[str, object] = field(default_factory=dict)
    function: str = ""

    def with_options(self, **changed) -> Problem:
        """The same with other options."""
        return replace(self, call=functools.partial(self.call, **changed), options=self.options | changed)


@dataclass(frozen=True)
class Op:
    """One public op.

    Args:
        make: () -> a problem, as the choices have it.
        cpu_dtypes: what its C++ kernels take.
        torch_gradient: in training some products are PyTorch's, whose last bits go with the number of threads.
        sixteen_bits: whether its Triton kernel takes them.
    """

    name: str
    make: Callable[[Choices], Problem]
    cpu_dtypes: tuple[torch.dtype, ...]
    torch_gradient: bool
    sixteen_bits: bool

    def dtypes(self, backend: str) -> tuple[torch.dtype, ...]:
        """What the kernels of this backend take here."""
        if backend == "cpu":
            return self.cpu_dtypes
        sixteen = torch.float16 if device_of(backend) == "cpu" else torch.bfloat16  # what the interpreter can do
        return (torch.float32, sixteen) if self.sixteen_bits else (torch.float32,)


DENOISER_NAMES = {f"weight{i}": f"weights.{name}" for i, name in enumerate(DENOISER_TENSORS)}
OPS: dict[str, Op] = {}


def _op(*more_dtypes: torch.dtype, torch_gradient: bool = False, sixteen_bits: bool = True):
    def enter(make):
        OPS[make.__name__] = Op(make.__name__, make, (torch.float32, *more_dtypes), torch_gradient, sixteen_bits)
        return make

    return enter


def _tuple(result) -> Results:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _keep(choose: Choices, tensors: dict, *optional: str) -> dict:
    """Leaves some of the optional tensors out."""
    return {n: t if n not in optional or choose.of(True, False) else None for n, t in tensors.items()}


@_op()
def annotated_norm(choose: Choices) -> Problem:
    B, T, C = choose.batch(3), choose.size(5, 70), choose.size(33, 200, 3)
    spread = choose.of(1.0, 1e-4)  # where eps counts
    tensors = {"x": spread * choose.normal(B, T, C), "scale": choose.normal(C, mean=1), "shift": choose.normal(C)}
    tensors["residual"] = choose.of(spread * choose.normal(B, T, C), None)
    rate = choose.of(0.3, 0.0) if tensors["residual"] is not None else 0.0
    optional = () if rate else ("residual",)  # dropout is of the branch that joins it
    options = {"eps": 1e-6, "dropout": rate, "seed": 5}

    def call(t, b, **o):
        return _tuple(ops.annotated_norm(**t, **(options | o), backend=b))

    return Problem(tensors, call, optional, options=options)


@_op()
def best_hypothesis(choose: Choices) -> Problem:
    B, S, J = choose.batch(4), choose.size(7, 80), choose.size(17, 40)
    tensors = {"poses": choose.normal(B, S, J, 3), "target": choose.normal(B, J, 3)}

    def call(t, b, **o):
        best = ops.best_hypothesis(**t, backend=b)
        return best.error, best.errors

    return Problem(tensors, call)


@_op(torch.bfloat16, torch_gradient=True, sixteen_bits=False)
def denoise(choose: Choices) -> Problem:
    heads, J = choose.of(2, 1, 3), choose.size(17, 33)
    C = heads * choose.size(8, 20, -(-5 // heads))  # at least 5, as in ``_hierarchy_channels``
    sizes = C, heads, choose.size(1, 3), choose.size(3, 3)
    channels = choose.size(5, 6)
    x, weights, shifts = test_denoise.network(choose.batch(3), J, *sizes, channels, channels, seed=choose.seed)
    S = choose.size(2, 3)
    tensors = {"x": x, "shifts": shifts[:S].clone(), "coefficients": test_denoise.COEFFICIENTS[:S].clone()}
    tensors["noise"] = choose.of(choose.normal(S, *x.shape), None)
    options = {"trajectory": choose.of(True, False)}
    if tensors["noise"] is None:
        options |= {"seed": choose.of(None, 7), "first_pose": choose.of(0, 2**33)}
    function = choose.of("denoise_loop", "denoise_step", "graph_transformer")
    optional = ("noise",)
    if function != "denoise_loop":  # one step of the chain, or its network alone
        noise = tensors["noise"]
        tensors = {"x": x, "shift": shifts[0].clone()}
        del options["trajectory"]
    if function == "denoise_step":
        noise = None if noise is None else noise[0].clone()
        tensors |= {"coefficients": test_denoise.COEFFICIENTS[0].clone(), "noise": noise}
    if function == "graph_transformer":
        optional, options = ("shift",), {}
    shift = "shifts" if "shifts" in tensors else "shift"
    if choose.of(False, True):  # a timestep for each pose
        *steps, layers, width = tensors[shift].shape
        tensors[shift] = choose.normal(*steps, len(x), layers, width)
    fixed = len(tensors)
    tensors |= {f"weight{i}": t for i, t in enumerate(weights.tensors)}

    def call(t, b, **o):
        x, *others = list(t.values())[:fixed]
        network = weights.with_tensors(list(t.values())[fixed:])
        given = dict(zip(list(t)[1:fixed], others)) | options | o
        return _tuple(getattr(ops, function)(x, network, **given, backend=b))

    return Problem(tensors, call, optional, lambda name: DENOISER_NAMES.get(name, name), options, function)


@_op(torch.bfloat16, torch_gradient=True)
def encoder_layer(choose: Choices) -> Problem:
    B, T, heads, taps = choose.batch(2), choose.size(10, 60), choose.of(2, 1, 3), choose.of(3, 1)
    C, N, stride = heads * choose.size(9, 24, 2), choose.size(21, 70), choose.of(3, 1, 2, 9)
    values = test_encoder_layer.make(B, T, C, heads, N, taps, "cpu")
    tensors = {f"t{i:02d}": t for i, t in enumerate(values)}
    tensors = _keep(choose, tensors, "t01")  # the position
    names = dict(zip(tensors, ("z", "position", *LAYER_PARAMETERS)))

    options = {"heads": heads, "stride": stride, "eps": 1e-6, "dropout": 0.0, "seed": 0}

    def call(t, b, **o):
        return (ops.encoder_layer(*t.values(), **(options | o), backend=b),)

    return Problem(tensors, call, ("t01",), lambda name: names.get(name, name), options)


@_op(torch.bfloat16, torch.float16)
def graph_conv(choose: Choices) -> Problem:
    B, J, K = choose.batch(5), choose.size(17, 40), choose.size(2, 4)
    sizes = choose.size(9, 40), choose.size(20, 70)
    tensors = test_graph_conv.inputs(B, J, *sizes, K, True, seed=choose.seed)
    for k in range(K):  # none, some or all of the matrices diagonal, one of them zero
        kind = choose.of("as it is", "diagonal", "zero")
        if kind != "as it is":
            tensors["adjacency"][k] = torch.diag(torch.diagonal(tensors["adjacency"][k])) * (kind == "diagonal")
    optional = ("bias", "modulation", "scale", "shift", "residual")
    tensors = _keep(choose, tensors, *optional)
    options = {"activation": choose.of("gelu", "relu", "none")}

    def call(t, b, **o):
        return (ops.graph_conv(**t, **(options | o), backend=b),)

    return Problem(tensors, call, optional, options=options)


def _hierarchy_channels(choose: Choices, heads: int) -> int:
    """C, at least 5: its norms pass next to no gradient on where they are over one or two numbers, and what they then
    leave of the other gradients is the rounding of x - mean times eps^-0.5, in PyTorch too."""
    return heads * choose.size(4, 12, -(-5 // heads))


@_op(torch.bfloat16, torch_gradient=True)
def hierarchy_block(choose: Choices) -> Problem:
    B, J, heads = choose.batch(3), choose.of(17, 5), choose.of(2, 1, 4)
    C = _hierarchy_channels(choose, heads)
    weights = test_hierarchy_block.parameters(J, C, choose.size(13, 40), choose.size(19, 50), seed=choose.seed)
    tensors = {"x": choose.normal(B, J, 3 * C)} | dict(zip(HIERARCHY_PARAMETERS, weights))
    options = {"limbs": test_hierarchy_block.LIMBS[J], "heads": heads}

    def call(t, b, **o):
        x, *weights = t.values()
        return (ops.hierarchy_block(x, weights, **(options | o), backend=b),)

    return Problem(tensors, call, options=options)


@_op(torch.bfloat16, torch_gradient=True)
def hierarchy_network(choose: Choices) -> Problem:
    B, J, heads, blocks = choose.batch(3), choose.of(17, 5), choose.of(2, 1, 4), choose.size(2, 3)
    C, G, H = _hierarchy_channels(choose, heads), choose.size(13, 40), choose.size(19, 50)
    ends = test_hierarchy_block.ends(J, C, choose.size(2, 5), choose.size(3, 5), seed=choose.seed)
    tensors = {"x": choose.normal(B, J, ends["embed_weight"].shape[1])} | ends
    for i in range(blocks):
        weights = test_hierarchy_block.parameters(J, C, G, H, seed=choose.seed + i)
        tensors |= {f"{i}.{name}": w for name, w in zip(HIERARCHY_PARAMETERS, weights)}
    options = {"limbs": test_hierarchy_block.LIMBS[J], "heads": heads}

    def call(t, b, **o):
        x, *weights = t.values()
        n, each = len(ends), len(HIERARCHY_PARAMETERS)
        own = [weights[i : i + each] for i in range(n, len(weights), each)]
        return (ops.hierarchy_network(x, ops.HierarchyNetwork(weights[:n], own, **(options | o)), backend=b),)

    return Problem(tensors, call, said=lambda name: name.split(".")[-1], options=options)


@_op(torch.bfloat16, torch_gradient=True)
def graph_network(choose: Choices) -> Problem:
    J, channels, chain = choose.of(*(case[1:] for case in test_graph_network.CHAINS))
    x, layers = test_graph_network.chain(choose.batch(3), J, channels, chain, seed=choose.seed)
    tensors = {"x": x}
    for i, layer in enumerate(layers):
        tensors |= {f"{name}.{i}": t for name, t in layer._asdict().items() if isinstance(t, Tensor)}

    options = layers[-1]._asdict()
    options = {n: options[n] for n in ("activation", "residual")}

    def call(t, b, **o):
        made = [
            ops.GraphLayer(*(t[f"{n}.{i}"] for n in layer._fields[:4]), *layer[4:]) for i, layer in enumerate(layers)
        ]
        made[-1] = made[-1]._replace(**o)
        return (ops.graph_network(t["x"], ops.GraphNetwork(made), backend=b),)

    return Problem(tensors, call, said=lambda name: name.replace(".", " of layer "), options=options)


@_op(torch.bfloat16)
def joint_attention(choose: Choices) -> Problem:
    B, N, H, D = choose.batch(4), choose.size(17, 32), choose.size(2, 4), choose.size(10, 40)
    tensors = {name: choose.normal(B, N, H, D) for name in "qkv"}
    tensors["mask"] = choose.of(test_joint_attention.some_mask(B, N), None)
    options = {"scale": choose.of(None, 0.3, -0.3)}

    def call(t, b, **o):
        return (ops.joint_attention(**t, **(options | o), backend=b),)

    return Problem(tensors, call, ("mask",), options=options)


@_op()
def merge_hypotheses(choose: Choices) -> Problem:
    skeleton, root = choose.of(H36M_17, H36M_16), choose.of(0, 3, None)
    shape = choose.batch(5), choose.size(1, 4), choose.of(2, 1), skeleton.num_joints, 3
    options = {"mirrored": skeleton.mirrored, "root": root}

    def call(t, b, **o):
        return (ops.merge_hypotheses(**t, **(options | o), backend=b),)

    return Problem({"poses": choose.normal(*shape)}, call, options=options)


@_op()
def dropout(choose: Choices) -> Problem:
    x = choose.normal(choose.batch(7), choose.size(17, 40), choose.size(33, 300), mean=2)
    options = {"rate": choose.of(0.25, 0.9), "training": True, "seed": choose.of(5, 2**62 + 1)}

    def call(t, b, **o):
        return (ops.dropout(t["x"], **(options | o), backend=b),)

    return Problem({"x": x}, call, options=options)


@_op()
def norm_activation(choose: Choices) -> Problem:
    rows, C = max(5, choose.batch(7, 70)), choose.size(33, 150)
    tensors = {"x": choose.normal(rows, C, mean=2), "weight": choose.normal(C, mean=1), "bias": choose.normal(C)}
    options = {"eps": 1e-5, "negative_slope": choose.of(0.2, 0.0), "dropout": choose.of(0.25, 0.0), "seed": 5}

    def call(t, b, **o):
        return ops.norm_activation(**t, **(options | o), backend=b)

    return Problem(tensors, call, options=options)


@_op()
def procrustes(choose: Choices) -> Problem:
    B, S, J = choose.batch(3), choose.size(4, 9), choose.size(17, 30, 4)
    target = choose.normal(B, 1, J, 3)
    tensors = {"poses": target + 0.5 * choose.normal(B, S, J, 3), "target": target}  # alike, as predictions are
    tensors = {n: choose.of(1.0, 1e-17, 1e15) * t for n, t in tensors.items()}  # units of their own
    aligned, error = ops.procrustes, ops.procrustes_error
    return Problem(tensors, lambda t, b, **o: (aligned(**t, backend=b), error(**t, backend=b)))


@_op()
def relative_encoding(choose: Choices) -> Problem:
    parts = choose.of(tuple(PARTS["h36m-17"].values()), ((4, 0, 4), (1, 4)))
    x = choose.normal(choose.batch(3), choose.size(9, 90), 17, choose.of(2, 3))
    options = {"parts": parts}

    def call(t, b, **o):
        return ops.relative_encoding(t["x"], **(options | o), backend=b)

    return Problem({"x": x}, call, options=options)


@_op()
def sample_hypotheses(choose: Choices) -> Problem:
    B, S, V, J = choose.batch(3), choose.size(5, 40, 0), choose.of(2, 1), choose.size(17, 30)
    tensors = {"keypoints": choose.normal(B, V, J, 2), "sigma": 2 * choose.normal(B, V, J)}
    options = {"samples": S, "alpha": 0.5, "seed": choose.of(7, -1), "first_pose": choose.of(0, 2**32 - 2)}
    options["first_sample"] = 0

    def call(t, b, **o):
        return (ops.sample_hypotheses(**t, **(options | o), backend=b),)

    return Problem(tensors, call, options=options)


@_op()
def strided_feed_forward(choose: Choices) -> Problem:
    sizes = choose.batch(2), choose.size(10, 70), choose.size(7, 40), choose.size(13, 70), choose.size(9, 40)
    values = test_strided_feed_forward.make(*sizes, choose.of(3, 1), "cpu")
    tensors = _keep(choose, dict(zip(test_strided_feed_forward.NAMES, values)), "residual")
    options = {"stride": choose.of(3, 1, 2, 7), "hidden_dropout": choose.of(0.2, 0.0), "dropout": choose.of(0.3, 0.0)}
    options["seed"] = 3

    def call(t, b, **o):
        return (ops.strided_feed_forward(**t, **(options | o), backend=b),)

    return Problem(tensors, call, ("residual",), options=options)


@_op(torch.bfloat16, torch_gradient=True)
def strided_temporal_conv(choose: Choices) -> Problem:
    G, stride = choose.size(2, 4), choose.of(3, 1)
    channels = [[choose.size(c + 5 * i, 40) for i in range(G)] for c in (7, 18)]
    sizes = choose.batch(3), choose.size(2, 9), choose.of(3, 1, 5)
    values = test_strided_temporal_conv.inputs(*sizes, *channels, stride=stride, seed=choose.seed)
    values = _keep(choose, values, "bias", "scale", "shift", "residual")
    tensors = {f"{n}{i}": t for n, v in values.items() for i, t in enumerate(v or ())}
    slope, tap = choose.of(0.2, 0.0, 1.0), choose.of(*range(stride)[::-1])
    options = {"negative_slope": slope, "residual_stride": stride, "residual_tap": tap}

    def call(t, b, **o):
        given = {n: [t[f"{n}{i}"] for i in range(G)] for n, v in values.items() if v is not None}
        return ops.strided_temporal_conv(**given, **(options | o), backend=b)

    return Problem(tensors, call, said=lambda name: f"{name[:-1]}[{name[-1]}]", options=options)


@_op(torch.bfloat16)
def temporal_attention(choose: Choices) -> Problem:
    T = choose.size(13, 80, 4)  # scores of a query that sees one key have no gradient, only what rounding leaves of it
    sizes = choose.batch(2), T, choose.of(choose.size(70, 90, 4), T), choose.size(2, 4), choose.size(17, 40)
    spread = choose.of(1.0, 30.0)  # scores in the hundreds: a key or two have all the weight
    tensors = dict(zip("qkv", test_temporal_attention.make(*sizes, "cpu")))
    tensors |= {n: spread * tensors[n] for n in "qk"}
    tensors["key_padding_mask"] = choose.of(test_temporal_attention.padding_of(sizes[0], sizes[2], "cpu"), None)
    options = {"causal": choose.of(True, False), "dropout": choose.of(0.3, 0.0), "scale": choose.of(None, 0.4, -0.4)}
    options["seed"] = 11

    def call(t, b, **o):
        return (ops.temporal_attention(**t, **(options | o), backend=b),)

    return Problem(tensors, call, ("key_padding_mask",), options=options)


def _stack(choose: Choices, C: int, T: int) -> tuple[dict, dict]:
    mix, norm = choose.of("temporal", "spatial"), choose.of("spatial", "temporal", "all", "none")
    made = test_temporal_mlp.parameters(C, T, choose.size(2, 3), mix, norm, choose.of(True, False), seed=choose.seed)
    return {n: t.float() for n, t in made.items()}, {"mix": mix, "norm": norm}


@_op(torch.bfloat16, torch.float16)
def temporal_mlp(choose: Choices) -> Problem:
    C, T = choose.size(35, 70, 5), choose.size(18, 50, 5)
    made, options = _stack(choose, C, T)
    x = choose.normal(choose.batch(3), C, T, mean=choose.of(0.0, 100.0))
    options["eps"] = 1e-5

    def call(t, b, **o):
        return (ops.temporal_mlp(**t, **(options | o), backend=b),)

    return Problem({"x": x} | made, call, options=options)


@_op(torch.bfloat16, torch.float16, torch_gradient=True)
def temporal_mlp_forecast(choose: Choices) -> Problem:
    C, T, S, mix, norm = (
        choose.size(15, 40, 5),  # a norm over two or three numbers is ill-conditioned
        choose.size(12, 30, 5),
        choose.size(5, 12),
        *choose.of(("temporal", "spatial"), ("spatial", "all"), ("temporal", "none")),
    )
    net = test_temporal_mlp.network(C, T, S, choose.size(2, 3), 1, mix, norm, dtype=torch.float32)
    net = choose.of(net, net[:7])
    tensors = {"history": choose.normal(choose.batch(3), T, C)}
    for i, value in enumerate(net):
        tensors |= {f"{i}.{n}": t for n, t in value.items()} if isinstance(value, dict) else {f"{i}.": value}

    options = {"mix": mix, "norm": norm, "eps": 1e-5}

    def call(t, b, **o):
        given = [{n: t[f"{i}.{n}"] for n in v} if isinstance(v, dict) else t[f"{i}."] for i, v in enumerate(net)]
        return (ops.temporal_mlp_forecast(t["history"], *given, **(options | o), backend=b),)

    names = ("transform", "inverse", "weight_in", "bias_in", "main", "weight_out", "bias_out", "side")
    names += ("side_weight_out", "side_bias_out")

    def said(name: str) -> str:
        number, dot, rest = name.partition(".")
        return f"{names[int(number)]}{dot if rest else ''}{rest}" if dot else name

    return Problem(tensors, call, said=said, options=options)


@_op(torch.bfloat16, torch_gradient=True)
def temporal_networks(choose: Choices) -> Problem:
    chains = choose.of(*(networks for _, networks in test_temporal_networks.CHAINS))
    xs, layers = test_temporal_networks.chain(choose.batch(3), chains, seed=choose.seed)
    tensors = {f"x{n}": x for n, x in enumerate(xs)}
    for n, network in enumerate(layers):
        for i, layer in enumerate(network):
            tensors |= {f"weight{n}.{i}": layer.weight, f"affine{n}.{i}": layer.affine}

    options = layers[-1][-1]._asdict()
    options = {n: options[n] for n in ("negative_slope", "residual", "tap")}

    def call(t, b, **o):
        made = [
            [ops.Layer(t[f"weight{n}.{i}"], t[f"affine{n}.{i}"], *layer[2:]) for i, layer in enumerate(network)]
            for n, network in enumerate(layers)
        ]
        made[-1][-1] = made[-1][-1]._replace(**o)
        return ops.temporal_networks([t[f"x{n}"] for n in range(len(xs))], ops.TemporalNetworks(made), backend=b)

    def said(name: str) -> str:
        if name.startswith("x"):
            return f"x[{name[1:]}]"
        kind = name.rstrip("0123456789.")
        network, layer = name[len(kind) :].split(".")
        return f"{kind} of layer {layer} of network {network}"

    return Problem(tensors, call, said=said, options=options)


@_op(torch.bfloat16, torch_gradient=True)
def transformer_block(choose: Choices) -> Problem:
    heads = choose.of(2, 1, 4)
    N, C, hidden = choose.size(17, 50), heads * choose.size(8, 20, 6), choose.size(21, 70)
    x, weights = test_transformer_block.inputs((choose.batch(2, 4), choose.size(3, 5)), N, C, hidden, seed=choose.seed)
    tensors = {"x": x} | dict(zip(BLOCK_PARAMETERS, weights))
    optional = ("qkv_bias", "proj_bias", "fc1_bias", "fc2_bias")
    tensors = _keep(choose, tensors, *optional)
    if choose.of(False, True):
        tensors |= {"norm3_weight": None, "norm3_bias": None}
    options = {"heads": heads, "scale": choose.of(None, -0.3), "eps": 1e-6}

    def call(t, b, **o):
        return (ops.transformer_block(*t.values(), **(options | o), backend=b),)

    return Problem(tensors, call, optional, options=options)


_FLAGS = "causal", "training", "trajectory"
_TEXTS = "activation", "mix", "norm"
_LISTS = "limbs", "mirrored", "parts"
_NUMBERS = "alpha", "dropout", "eps", "hidden_dropout", "negative_slope", "rate", "scale"  # the others are integers
_MAY_BE_NONE = "residual", "root", "scale", "seed"


def odd_options(name: str) -> list[tuple[object, bool]]:
    """(value, whether it must be refused) for an option of this name; what need not be refused must be right."""
    nothing = [] if name in _MAY_BE_NONE else [None]
    odd: tuple = ()
    if name in _FLAGS:
        wrong, odd = ("no", 2, 0.5, [], torch.ones(2)), (0, 1, np.bool_(True))
    elif name in _TEXTS:
        wrong = "nonsense", "", 3, ["relu"], b"relu", torch.ones(2)
    elif name in _LISTS:
        wrong = 3, "text", [], [0.5], [None], [-1], [10**9], [[0.5]], [True]
    elif name in _NUMBERS:
        wrong = "text", [1.0], 1j, True, torch.nan, torch.inf, -torch.inf, 1e300, 10**400, torch.ones(())
        odd = -1.0, 1, np.float32(0.3), np.float64(0.3)
        odd += (
            (1e30,) if name != "scale" else ()
        )  # of scores: which key has all the weight is then a matter of rounding
        odd += (0, 0.0, 1e-30) if name != "eps" else ()  # by which numbers that are all alike would be divided
    else:
        wrong = (
            "text",
            [1],
            1j,
            True,
            0.5,
            1.0,
            torch.nan,
            torch.inf,
            2**70,
            -(2**70),
        )
        tensor = (torch.ones((), dtype=torch.int64),)  # which seeds of dropout may be
        wrong, odd = (wrong, tensor) if name == "seed" else (wrong + tensor, ())
        odd += -1, 0, np.int64(1), 2**40, *(() if name == "samples" else (2**31, 2**62))  # those would fill the memory
    return [(value, True) for value in (*nothing, *wrong)] + [(value, False) for value in odd]


def _reversed(t: Tensor) -> Tensor:
    return t.permute(*range(t.dim())[::-1])


def _columns(t: Tensor) -> Tensor:
    """Every second number: of a vector, too, the neighbours are somebody else's."""
    return guarded(torch.stack((t, torch.full_like(t, torch.nan)), -1))[..., 0]


def _expanded(t: Tensor) -> Tensor:
    """Its first element along the first axis, over and over: other values."""
    return guarded(t[:1]).expand(t.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "guarded": guarded,
    "sliced": lambda t: guarded(t, strided=True),
    "columns": _columns,
    "reversed axes": lambda t: _reversed(guarded(_reversed(t))),
    "expanded": _expanded,
}


def with_floats(tensors: dict[str, Tensor | None], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor | None]:
    """The same with the floating-point ones changed."""
    return {n: change(t) if isinstance(t, Tensor) and t.is_floating_point() else t for n, t in tensors.items()}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(problem: Problem, tensors: dict[str, Tensor | None], backend: str, gradients: bool) -> dict[str, Tensor]:
    """Results and, under a fixed upstream gradient, the gradient of every floating-point tensor; by name."""
    names = [n for n, t in tensors.items() if isinstance(t, Tensor) and t.is_floating_point()]
    if gradients:
        tensors = with_floats(tensors, lambda t: t.detach().requires_grad_())
    with torch.set_grad_enabled(gradients):
        results = problem.call(tensors, backend)
    found = {f"result {i}": y.detach() for i, y in enumerate(results)}
    if gradients:
        results = [y for y in results if y.requires_grad]
        g = torch.Generator("cpu").manual_seed(1)
        random = functools.partial(torch.randn, generator=g, dtype=torch.float64, device=g.device)
        upstream = [random(y.shape).to(y.device, y.dtype) for y in results]
        grads = torch.autograd.grad(results, [tensors[n] for n in names], upstream, allow_unused=True)
        found |= {f"gradient of {n}": x for n, x in zip(names, grads) if x is not None}
    return found


def _as_good(problem: Problem, rounded: dict[str, Tensor | None], training: bool) -> Iterator[dict[str, Tensor]]:
    """Answers that are no better than float32 lets them be: plain PyTorch's, and float64's to inputs a last bit off."""
    g = torch.Generator().manual_seed(2)

    def shaken(t: Tensor) -> Tensor:
        return t.double() * (1 + 2.0**-24 * torch.randn(t.shape, generator=g, dtype=torch.float64))

    for change in itertools.chain((Tensor.float,), itertools.repeat(shaken)):
        yield run(problem, with_floats(rounded, change), "reference", training)


def assert_right(
    problem: Problem,
    rounded: dict[str, Tensor | None],
    got: dict[str, Tensor],
    dtype: torch.dtype,
    training: bool,
    kinks: bool = False,
) -> None:
    """``got``, what some backend made of the tensors ``rounded``, is within the budget of float64; see ``check``.

    Args:
        kinks: there may be a ReLU at its kink, which the last bit moves across and with it any of the gradients: allow
            all of them what the worst of them does among answers as good as float32 lets them be.
    """
    want = run(problem, with_floats(rounded, Tensor.double), "reference", training)
    assert got.keys() == want.keys(), f"results {sorted(got)}, expected {sorted(want)}"
    others: list[dict[str, Tensor]] = []
    for name, exact in want.items():
        assert got[name].dtype == dtype, f"{name} is {got[name].dtype}, expected {dtype}"
        bound = BUDGET[dtype]
        if relative_error(got[name].nan_to_num(), exact.nan_to_num()) > bound:
            narrow = training and dtype.itemsize == 2  # gradients go through many roundings to 16 bits
            if not others:
                more = iter(()) if narrow else _as_good(problem, rounded, training)
                others = [run(problem, rounded, "reference", True)] if narrow else [*itertools.islice(more, 3)]
            if (exact.isfinite() & ~others[0][name].isfinite()).any():
                continue  # too large for float32
            if max(exact.norm(), got[name].double().norm()) < 1e-35:
                continue  # too small for it
            known = [*want.values(), *(t for t in rounded.values() if t is not None and t.is_floating_point())]
            largest = max(t.double().norm() for t in known)
            if exact.norm() < 1e-30 * largest and got[name].double().norm() < 1e-6 * largest:
                continue  # zero, but for the rounding of what cancels
            least = bound * 3 if kinks and dtype.itemsize == 2 else bound  # sums of any depth that cancel
            while True:
                errors = {
                    n: max(relative_error(other[n].nan_to_num(), want[n].nan_to_num()) for other in others)
                    for n in (want if kinks else (name,))
                }
                worst = max([errors[name], *(error for error in errors.values() if error < 0.1)])
                # Weights of scores in the millions: the projection, the sum and the size have been rounded.
                enough = 4 if narrow else 128 if kinks else 32
                bound = max(least, (enough if worst < 0.1 else 1000) * worst)  # no digit is right: one that should be 0
                within = relative_error(got[name].nan_to_num(), exact.nan_to_num()) <= bound
                another = None if within or not kinks or len(others) > 60 else next(more, None)
                if another is None:
                    break
                others.append(another)  # few of them cross the kink
        assert_within_budget(got[name], exact, bound=bound, what=name)


def check(
    op: Op,
    problem: Problem,
    backend: str,
    dtype: torch.dtype = torch.float32,
    layout: str = "guarded",
    *,
    gradients: bool = True,
) -> None:
    """What ``backend`` makes of a problem of ``op`` is right, in inference and in training: the contract of every op.

    Within the budget of float64 where float32 can hold it; or else, for results that cancel, not much further from it
    than plain PyTorch is in float32 (gradients of 16 bits: in the same dtype), or than float64 itself moves with the
    last bit of its inputs. NaN in the same places; nothing read outside inputs, nothing written outside outputs,
    all of which is written; the same bits again, and the C++ kernels' on any number of threads.

    Args:
        gradients: training too.
    Raises:
        AssertionError: it is not, and why.
        BackendError: the backend does not take this problem.
    """
    moved = {n: None if t is None else t.to(device_of(backend)) for n, t in problem.tensors.items()}
    given = with_floats(moved, lambda t: LAYOUTS[layout](t.to(dtype)))
    rounded = {n: None if t is None else t.cpu().contiguous() for n, t in given.items()}
    for training in (False, True) if gradients else (False,):
        with poisoned(), threads(1):
            got = run(problem, given, backend, training)
        assert_right(problem, rounded, got, dtype, training)
        team = 3 if backend == "cpu" and not (training and op.torch_gradient) else 1
        with threads(team):
            again = run(problem, given, backend, training)
        for name, first in got.items():
            same = torch.equal(first.nan_to_num(), again[name].nan_to_num())
            assert same, f"{name}: other bits when run again on {team} threads"
