"""Networks once more, written down from the formulas in float64, at sizes that no paper and no golden case has."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from posekernels import models
from posekernels.models import rie
from posekernels.models.diffpose import Diffusion, FrameDiffPose, Sampling
from posekernels.pose.skeleton import H36M_16
from posekernels.testing import assert_within_budget
from tests.golden_cases.diffpose import skeleton_of
from tests.test_golden_sizes import BONES_5, drawn


def filled(name, **config):
    """(network in eval mode with drawn weights, those weights in float64 by published name)."""
    torch.manual_seed(0)
    net = models.create(name, **config).eval()
    weights = {n: torch.from_numpy(np.asarray(w)) for n, w in drawn(net).items()}
    return models.load(weights, net), {n: t.double() for n, t in weights.items()}


class Layers:
    """Layers by the names of their published weights."""

    def __init__(self, weights):
        self.w = weights

    def linear(self, name, x):
        weight = self.w[f"{name}.weight"]
        return x @ (weight[:, :, 0] if weight.dim() == 3 else weight).T + self.w[f"{name}.bias"]

    def batch_norm(self, name, x):
        mean, var, weight, bias = (self.w[f"{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def annotated_norm(self, name, x):
        x = x - x.mean(-1, keepdim=True)
        return self.w[f"{name}.a_2"] * x / (x.std(-1, keepdim=True) + 1e-6) + self.w[f"{name}.b_2"]

    def attention(self, name, x, heads):
        q, k, v = (self.linear(f"{name}.linears.{i}", x).unflatten(-1, (heads, -1)).transpose(1, 2) for i in range(3))
        x = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
        return self.linear(f"{name}.linears.3", x.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    "frames, strides, heads", [(27, (3, 5), 3), (9, (1, 3, 3, 1), 4), (27, (2,) * 5, 2), (13, (20,), 1)]
)
def test_strided_transformer(frames, strides, heads):
    net, w = filled(
        "strided_transformer", frames=frames, strides=strides, layers=2, channels=24, hidden=20, heads=heads
    )
    l, x = Layers(w), torch.randn(2, frames, 17, 2)
    z = l.batch_norm("encoder.1", l.linear("encoder.0", x.double().flatten(2))).relu() + w["Transformer.pos_embedding"]
    for i in range(2):
        p = f"Transformer.model.layers.{i}"
        z = z + l.attention(f"{p}.self_attn", l.annotated_norm(f"{p}.sublayer.0.norm", z), heads)
        hidden = l.linear(f"{p}.feed_forward.w_1", l.annotated_norm(f"{p}.sublayer.1.norm", z)).relu()
        z = z + l.linear(f"{p}.feed_forward.w_2", hidden)
    full = l.linear("fcn_1.1", l.batch_norm("fcn_1.0", z)).unflatten(-1, (17, 3))
    for i, stride in enumerate(strides):
        p, T = f"Transformer_reduce.model.layers.{i}", z.shape[1]
        if i < 3:
            z = z + w[f"Transformer_reduce.model.pos_embedding_{i + 1}"][:, :T]
        z = z + l.attention(f"{p}.self_attn", l.annotated_norm(f"{p}.sublayer.0.norm", z), heads)
        hidden = l.linear(f"{p}.feed_forward.w_1", l.annotated_norm(f"{p}.sublayer.1.norm", z)).relu()
        taps, rows = w[f"{p}.feed_forward.w_2.weight"], []
        for o in range((T - 1) // stride + 1):
            inside = [k for k in range(3) if 0 <= stride * o + k - 1 < T]
            rows.append(z[:, stride * o] + sum(hidden[:, stride * o + k - 1] @ taps[:, :, k].T for k in inside))
        z = torch.stack(rows, 1) + w[f"{p}.feed_forward.w_2.bias"]
    single = l.linear("fcn.1", l.batch_norm("fcn.0", z)).unflatten(-1, (17, 3))
    with torch.no_grad():
        got = net(x, full=True)
    assert_within_budget(got[0], single)
    assert_within_budget(got[1], full)


@pytest.mark.parametrize("mix", ["temporal", "spatial"])
@pytest.mark.parametrize("norm", ["spatial", "temporal", "all", "none"])
@pytest.mark.parametrize("name, temporal_only", [("pkd", False), ("simlpe", False), ("simlpe", True)])
def test_motion_mlps(name, temporal_only, norm, mix):
    own = {"distill_blocks": 3} if name == "pkd" else {"temporal_only": temporal_only}
    net, w = filled(name, joints=5, history=12, future=7, blocks=2, norm=norm, mix=mix, **own)
    l, x = Layers(w), torch.randn(2, 12, 5, 3)

    def normed(x, axes, scale, shift):
        x = x - x.mean(axes, keepdim=True)
        return x / (x.square().mean(axes, keepdim=True) + 1e-5).sqrt() * w[scale] + w[shift]

    def block(p, x, y):
        z = l.linear(f"{p}.fc0.fc", y.mT).mT if mix == "spatial" else l.linear(f"{p}.fc0.fc", y)
        leaves = ("weight", "bias") if norm == "all" else ("alpha", "beta")
        axes = {"spatial": 1, "temporal": 2, "all": (1, 2)}
        return x + (z if norm == "none" else normed(z, axes[norm], *(f"{p}.norm0.{leaf}" for leaf in leaves)))

    def outer(name, x):  # over coordinates, of [B, C, T]
        return l.linear(name, x) if temporal_only else l.linear(name, x.mT).mT

    k, i = np.arange(12)[:, None], np.arange(12)[None]
    transform = torch.from_numpy(np.where(k, np.sqrt(2 / 12), np.sqrt(1 / 12)) * np.cos(np.pi * (i + 0.5) * k / 12))
    start = outer("motion_fc_in", (transform @ x.double().flatten(2)).mT)
    h = start
    for n in range(2):
        if name == "simlpe":
            h = block(f"motion_mlp.mlps.{n}", h, h)
            continue
        p = f"MLPBlocks.{n}"
        y = normed(l.linear(f"{p}.fc_temporal.fc", h), 2, f"{p}.norm_temporal.alpha", f"{p}.norm_temporal.beta")
        h = block(p, h, h + y)
    found = outer("motion_fc_out", h)
    if name == "pkd":
        for n in range(3):
            start = block(f"PosteriorKnowledgeDistiller.{n}", start, start)
        found = found + outer("motion_fc_for_distill", start)
    want = (torch.linalg.inv(transform) @ found.mT)[:, :7].unflatten(-1, (5, 3)) + x[:, -1:].double()
    with torch.no_grad():
        assert_within_budget(net(x), want)


@pytest.mark.parametrize("name", ["variance_gcn", "mgcn_lw"])
def test_modulated_gcn_of_16_joints(name):
    net, w = filled(name, hidden=10, depth=2, outputs=3, skeleton=H36M_16)
    parents = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14)
    fixed = torch.zeros(16, 16, dtype=torch.float64)
    for joint, parent in enumerate(parents[1:], 1):
        fixed[joint, parent] = fixed[parent, joint] = 1
    fixed = (fixed / fixed.sum(1, keepdim=True)).fill_diagonal_(1)

    def conv(p, x):
        s = fixed + w[f"{p}.adj2"]
        s = (s + s.T) / 2
        d = torch.diag(torch.diag(s))
        graphs = (s,) if name == "mgcn_lw" else (d, s - d)
        return sum(g @ (w[f"{p}.M"] * (x @ W)) for g, W in zip(graphs, w[f"{p}.W"], strict=True)) + w[f"{p}.bias"]

    def layer(p, x):
        return Layers(w).batch_norm(f"{p}.bn", conv(f"{p}.gconv", x)).relu()

    x = torch.randn(4, 1, 16, 2)
    h = layer("gconv_input.0", x.double()[:, 0])
    for i in range(2):
        h = h + layer(f"gconv_layers.{i}.gconv2", layer(f"gconv_layers.{i}.gconv1", h))
    with torch.no_grad():
        assert_within_budget(net(x), conv("gconv_output", h)[:, None])


def test_gcndiff_of_five_joints_and_odd_width():
    net, w = filled("gcndiff", channels=15, layers=2, heads=3, skeleton=skeleton_of({"edges": BONES_5}, 5))
    l, eye = Layers(w), torch.eye(5, dtype=torch.float64)
    graph = eye.clone()
    for a, b in BONES_5:
        graph[a, b] = graph[b, a] = 1
    laplacian = eye - graph / graph.sum(1, keepdim=True)
    polynomials = (eye, laplacian, 2 * laplacian @ laplacian - eye)

    def cheb(p, x):
        return sum(T @ x @ W[0] for T, W in zip(polynomials, w[f"{p}.weight"], strict=True)) + w[f"{p}.bias"][0]

    x, t = torch.randn(3, 5, 5), torch.tensor([0, 7, 50])
    angles = t[:, None] * torch.exp(-torch.arange(7, dtype=torch.float64) * math.log(10000) / 6)
    waves = torch.cat((angles.sin(), angles.cos(), torch.zeros(3, 1)), 1)
    silu = torch.nn.functional.silu
    time = silu(l.linear("temb.dense.1", silu(l.linear("temb.dense.0", waves))))
    h = cheb("gconv_input", x.double())
    for i in range(2):
        p = f"atten_layers.{i}"
        h = h + l.attention(f"{p}.self_attn", l.annotated_norm(f"{p}.sublayer.0.norm", h), 3)
        learnt = w[f"{p}.feed_forward.A_hat"]
        scale = (learnt.sum(0) + 1e-5) ** -0.5
        learnt = scale[:, None] * learnt * scale
        u = learnt @ l.annotated_norm(f"{p}.sublayer.1.norm", h)
        u = learnt @ l.linear(f"{p}.feed_forward.gconv1.fc", u).relu()
        h = h + l.linear(f"{p}.feed_forward.gconv2.fc", u)
        p = f"gconv_layers.{i}"
        u = cheb(f"{p}.gconv1.gconv", h).relu() + l.linear(f"{p}.temb_proj", time)[:, None]
        h = h + cheb(f"{p}.gconv2.gconv", u).relu()
    with torch.no_grad():
        assert_within_budget(net(x, t), cheb("gconv_output", h))


@pytest.mark.parametrize(
    "schedule, eta, skip, limit, steps",
    [("linear", 1.0, "uniform", 50, 7), ("quad", 0.5, "quad", 40, 9), ("sigmoid", 0.0, "quad", 12, 10)],
)
def test_ddim_with_noise(schedule, eta, skip, limit, steps):
    denoiser, _ = filled("gcndiff", channels=16, layers=1, heads=2)
    with torch.no_grad():
        denoiser.conv_out.weight.mul_(0.05)  # so that the chain stays bounded
    net = FrameDiffPose(models.create("gcnpose", channels=16, layers=1, heads=2), denoiser, Diffusion(schedule)).eval()
    sampling = Sampling(steps, limit, skip, eta, hypotheses=2)
    if skip == "quad":
        visited = [int(s) for s in np.linspace(0, np.sqrt(limit * 0.8), steps) ** 2]
    else:
        visited = list(range(0, limit, limit // steps))
    low, high = 1e-4, 1e-3
    betas = {
        "linear": np.linspace(low, high, 51),
        "quad": np.linspace(low**0.5, high**0.5, 51) ** 2,
        "sigmoid": (high - low) / (1 + np.exp(-np.linspace(-6, 6, 51))) + low,
    }[schedule]
    alphas = (1 - torch.from_numpy(np.concatenate(([0], betas)).astype(np.float32))).cumprod(0).double()
    uv, pose, noise = torch.randn(3, 17, 2), torch.randn(3, 17, 3), torch.randn(len(visited), 6, 17, 5)
    x = torch.cat((uv, pose), -1).repeat(2, 1, 1).double()
    with torch.no_grad():
        got = net.refine(uv, pose, sampling, noise=noise)
        for z, t, before in zip(noise, reversed(visited), reversed([-1, *visited[:-1]]), strict=True):
            e, a, b = denoiser(x.float(), torch.full((6,), float(t))).double(), alphas[t + 1], alphas[before + 1]
            clean = (x - (1 - a).sqrt() * e) / a.sqrt()
            c1 = eta * ((1 - a / b) * (1 - b) / (1 - a)).sqrt()
            x = b.sqrt() * clean + c1 * z + (1 - b - c1**2).clamp(min=0).sqrt() * e
    assert_within_budget(got.flatten(0, 1), x)


@pytest.mark.parametrize("stage, widths", [(1, (3, 5)), (2, (3, 5)), (3, (3, 3, 3))])
def test_rie_by_its_dilated_form(monkeypatch, stage, widths):
    monkeypatch.setattr(rie, "HIDDEN", 12)
    net, w = filled("rie", filter_widths=widths, stage=stage, latent=7, channels=6)
    l, T = Layers(w), math.prod(widths)
    x = torch.randn(3, T, 17, 2)
    conv, leaky = torch.nn.functional.conv1d, partial(torch.nn.functional.leaky_relu, negative_slope=0.2)
    parts = {
        "Torso": (0, 7, 8, 9, 10),
        "LArm": (14, 15, 16),
        "RArm": (11, 12, 13),
        "LLeg": (1, 2, 3),
        "RLeg": (4, 5, 6),
    }

    def normed(name, y):  # [B, C, T]
        return leaky(l.batch_norm(name, y.mT).mT)

    def connected(p, y, pairs):
        y = leaky(l.batch_norm(f"{p}.bn_1", l.linear(f"{p}.fc_1", y)))
        for i in range(pairs):
            u = y
            for n in (1, 2):
                u = leaky(l.batch_norm(f"{p}.layers.{i}.batch_norm{n}", l.linear(f"{p}.layers.{i}.w{n}", u)))
            y = y + u
        return l.linear(f"{p}.fc_2", y)

    d = x.double()
    encodings = d, d - d[:, :, :1], d - d[:, T // 2, None]
    local = []
    for part, joints in parts.items():
        p, step = f"LocalLayer_{part}", widths[0]
        y = torch.cat([e[:, :, joints].flatten(2) for e in encodings], -1).mT
        y = normed(f"{p}.expand_bn", conv(y, w[f"{p}.expand_conv.weight"]))
        for i, width in enumerate(widths[1:]):
            pad = (width - 1) * step // 2
            u = normed(f"{p}.layers_bn.{2 * i}", conv(y, w[f"{p}.layers_conv.{2 * i}.weight"], dilation=step))
            u = normed(f"{p}.layers_bn.{2 * i + 1}", conv(u, w[f"{p}.layers_conv.{2 * i + 1}.weight"]))
            y, step = y[:, :, pad : y.shape[2] - pad] + u, step * width
        local.append(conv(y, w[f"{p}.shrink.weight"], w[f"{p}.shrink.bias"])[:, :, 0])
    body = connected("GlobalInfo", d[:, T // 2].flatten(1), 2)
    want = torch.zeros(3, 1, 17, 3, dtype=torch.float64)
    for i, (part, joints) in enumerate(parts.items()):
        features = [local[i]]
        if stage > 1:
            others = torch.cat([f for j, f in enumerate(local) if j != i], 1)
            features.append(connected(f"FuseBlocks.{i}", others, 1))
        pose = connected(f"Integration_{part}", torch.cat((*features, body), 1), 1)
        want[:, 0, list(joints)] = pose.unflatten(1, (len(joints), 3))
    with torch.no_grad():
        assert_within_budget(net(x), want)
