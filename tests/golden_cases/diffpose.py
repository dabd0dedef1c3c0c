"""System ``diffpose``: MixSTE, GCNdiff, GCNpose, DDIM, the evaluations of both settings, the training loss."""

from __future__ import annotations

import torch
from torch import Tensor

from posekernels.models import create, load
from posekernels.models.diffpose import (
    Diffusion,
    FrameDiffPose,
    Sampling,
    VideoDiffPose,
    alpha_bars,
    beta_schedule,
)
from posekernels.models.graph import ChebConv, chebyshev_polynomials, laplacian, row_normalised_adjacency
from posekernels.models.lifting import chunked, stitched
from posekernels.models.load import published_names
from posekernels.ops import denoise_loop
from posekernels.pose.metrics import mean_velocity_error, mpjpe, n_mpjpe, p_mpjpe
from posekernels.pose.skeleton import H36M_17, Skeleton
from posekernels.train.recipes import diffpose as recipe
from tests.golden import Case, Handler
from tests.golden_cases import record, tensors


def array(case: Case, name: str) -> Tensor:
    return torch.from_numpy(case[name])


def skeleton_of(config: dict, joints: int = 17) -> Skeleton:
    """The skeleton whose bones are the manifest's ``edges``; ours when they are the published ones."""
    edges = [tuple(e) for e in config.get("edges", H36M_17.bones)]
    left, right = config.get("kps_left", H36M_17.left), config.get("kps_right", H36M_17.right)
    if {frozenset(e) for e in edges} == {frozenset(e) for e in H36M_17.bones}:
        edges = H36M_17.bones
    joints = max(joints, 1 + max(max(e) for e in edges))
    parents, reached, queue = [-1] * joints, {0}, [0]
    while queue:
        joint = queue.pop()
        for a, b in edges:
            other = b if a == joint else a if b == joint else joint
            if other not in reached:
                parents[other] = joint
                reached.add(other)
                queue.append(other)
    inside = [(l, r) for l, r in zip(left, right) if max(l, r) < joints]
    left, right = tuple(l for l, _ in inside), tuple(r for _, r in inside)
    return Skeleton("case", tuple(map(str, range(joints))), tuple(parents), left, right)


def graph_network(name: str, model: dict, config: dict, weights: dict):
    size = {"channels": model["hid_dim"], "layers": model["num_layer"], "heads": model["n_head"]}
    size |= {"dropout": model["dropout"], "in_channels": model["coords_dim"][0]}
    size |= {"skeleton": skeleton_of(config, model["n_pts"])}
    if name == "gcndiff":
        size["out_channels"] = model["coords_dim"][1]
    return load(weights, create(name, **size))


def mixste_network(model: dict, weights: dict):
    net = create(
        "mixste",
        frames=model["num_frame"],
        joints=model["num_joints"],
        channels=model["embed_dim_ratio"],
        depth=model["depth"],
        heads=model["num_heads"],
        mlp_ratio=model["mlp_ratio"],
        in_channels=model["in_chans"],
        qkv_bias=model["qkv_bias"],
        scale=model["qk_scale"],
        drop_path=model["drop_path_rate"],
    )
    return load(weights, net)


def part(case: Case, prefix: str) -> dict:
    """The weights of one of the case's networks: those whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors(case.weights).items() if n.startswith(prefix)}


def diffusion_of(config: dict) -> Diffusion:
    c = config["diffusion"]
    return Diffusion(c["beta_schedule"], c["beta_start"], c["beta_end"], c["num_diffusion_timesteps"])


def sampling_of(run: dict, config: dict) -> Sampling:
    settings = config.get("testing", {}) | run.get("testing", {}) | run
    return Sampling(
        steps=settings["test_timesteps"],
        limit=settings["test_num_diffusion_timesteps"],
        skip=settings.get("skip_type", config.get("skip_type", "uniform")),
        eta=settings.get("eta", config.get("eta", 0.0)),
        hypotheses=settings.get("test_times", 1),
    )


def noise_of(case: Case, run: str, sampling: Sampling, shape: tuple[int, ...]) -> Tensor | None:
    """The unit noise of a run, whatever the case calls it: the input of its size [S, R * B, J, C]; None for eta = 0."""
    if sampling.eta == 0:
        return None
    names = [n.removeprefix("in.") for n, a in case.arrays.items() if n.startswith("in.") and a.shape == shape]
    if not names:
        raise ValueError(f"run {run!r} has eta={sampling.eta} and no noise {list(shape)}")
    return array(case, next((n for n in names if run and n.startswith(f"{run}.")), names[0]))


def cheb_conv(case: Case) -> dict:
    c = case.config
    skeleton = skeleton_of(c, c["joints"])
    layer = ChebConv(c["in_channels"], c["out_channels"], skeleton, c["order"])
    weight, bias = tensors(case.weights).values()
    layer.load_state_dict({"weight": weight, "bias": bias})
    results = {}
    with torch.no_grad():
        for prefix, matrix in (("", "adj"), ("graph_", "graph")):
            if matrix not in {n.removeprefix("in.") for n in case.arrays}:
                continue
            L = laplacian(array(case, matrix), c.get("normalise", True))
            polynomials = chebyshev_polynomials(L, c["order"])
            results |= {f"{prefix}laplacian": L, f"{prefix}polynomials": polynomials}
            if not torch.equal(array(case, matrix), row_normalised_adjacency(skeleton)):
                layer.polynomials.copy_(polynomials)  # for the skeleton's own graph they are the layer's
            results[f"{prefix}y"] = layer(array(case, "x"))
    return results


def graph_net(case: Case) -> dict:
    c = case.config
    name = c["module"].lower()
    net = graph_network(name, c["model"], c, tensors(case.weights))
    outputs = {"conv_in": "gconv_input", "conv_out": "gconv_output"}
    if name == "gcndiff":
        outputs |= {"time_embedding.fc1": "temb.dense.0", "time_embedding.fc2": "temb.dense.1"}
    for i in range(len(net.blocks)):
        outputs |= {f"attention.{i}": f"atten_layers.{i}", f"blocks.{i}": f"gconv_layers.{i}"}
        outputs |= {f"attention.{i}.attention": f"atten_layers.{i}.self_attn"}
        outputs |= {f"attention.{i}.graph": f"atten_layers.{i}.feed_forward"}
    seen = record(net, outputs)
    inputs = (array(case, "x"), *([array(case, "t")] if name == "gcndiff" else []))
    net(*inputs)  # with gradients it runs module by module, and the hooks see what is inside
    with torch.no_grad():
        y = net(*inputs)
        graphs = {f"graph_net_laplacian_{i}": m.graph.graph() for i, m in enumerate(net.attention)}
    return seen | graphs | {"y": y}


def mixste(case: Case) -> dict:
    net = mixste_network(case.config["model"], tensors(case.weights))
    seen = {}
    if case.outputs > {"y"}:
        frames = case.config["intermediate_frames"]

        # The shared norms run once per depth; the first run is the one asked for.
        def keep(name):
            def hook(_module, _inputs, y):
                seen.setdefault(name, y[:, frames])

            return hook

        net.spatial_norm.register_forward_hook(keep("ste"))
        net.temporal_norm.register_forward_hook(keep("tte"))
        net(array(case, "x"))  # with gradients the blocks run module by module, and the hooks see what is inside
    with torch.no_grad():
        return {"y": net(array(case, "x"))} | seen


def ddim(case: Case) -> dict:
    c = case.config
    results = {}
    for output in case.outputs:
        kind, _, name = output.partition("_")
        if kind in ("betas", "alphas") and "." not in output:
            d = c["diffusion"]
            betas = beta_schedule(name, d["beta_start"], d["beta_end"], d["num_diffusion_timesteps"])
            results[output] = betas if kind == "betas" else alpha_bars(betas)
        elif kind == "seq":
            skip, limit, steps = name.split("_")
            results[output] = torch.tensor(Sampling(int(steps), int(limit), skip).sequence)
    net = graph_network("gcndiff", c["model"], c, tensors(case.weights))
    diffusion = diffusion_of(c)
    x = array(case, "x")
    for name, run in c["runs"].items():
        sampling = sampling_of(run, c)
        timesteps, coefficients = diffusion.coefficients(sampling)
        noise = noise_of(case, name, sampling, (len(timesteps), *x.shape))
        with torch.no_grad():
            shifts = net.time_shifts(timesteps)
            _, states, clean = denoise_loop(x, net.prepared(), shifts, coefficients, noise=noise, trajectory=True)
        results |= {
            f"{name}.seq": torch.tensor(sampling.sequence),
            f"{name}.xs": torch.cat((x[None], states)),
            f"{name}.x0": clean,
        }
    return results


def video(case: Case) -> dict:
    c = case.config
    pipeline = VideoDiffPose(
        mixste_network(c["mixste"], part(case, "model_pose.")),
        graph_network("gcndiff", c["gcndiff"], c, part(case, "model_diff.")),
        diffusion_of(c),
    )
    skeleton = pipeline.denoiser.skeleton
    results = {}
    for name, run in c["runs"].items():
        uv, xyz = array(case, f"{name}.uv"), array(case, f"{name}.xyz").clone()
        sampling = sampling_of(run, c)
        chunks = chunked(uv, c["receptive_field"])
        poses = sampling.hypotheses * chunks[..., 0, 0].numel()
        noise = noise_of(case, name, sampling, (len(sampling.sequence), poses, *uv.shape[1:-1], 5))
        with torch.no_grad():
            refined = pipeline(chunks, sampling, noise=noise)
            raw, raw_mirrored = pipeline.initial(chunks), pipeline.initial(skeleton.mirror(chunks))
        xyz[:, 0] = 0
        target, predicted = chunked(xyz, c["receptive_field"]).flatten(0, 1), refined.xyz.flatten(0, 1)
        errors = [f(predicted, target) for f in (mpjpe, p_mpjpe, n_mpjpe, mean_velocity_error)]
        results |= {
            f"{name}.chunks": chunks,
            f"{name}.pose_raw": raw,
            f"{name}.pose_flipped_raw": raw_mirrored,
            f"{name}.pose": refined.initial,
            f"{name}.uvxyz_mean": refined.uvxyz.mean(0).flatten(0, 1),
            f"{name}.xyz": refined.xyz,
            f"{name}.errors_mm": torch.stack(errors) * 1000,
            f"{name}.stitched": stitched(refined.xyz, len(uv)),
            f"{name}.seq": torch.tensor(sampling.sequence),
        }
    return results


def frame(case: Case) -> dict:
    c = case.config
    pipeline = FrameDiffPose(
        graph_network("gcnpose", c["gcnpose"], c, part(case, "model_pose.")),
        graph_network("gcndiff", c["gcndiff"], c, part(case, "model_diff.")),
        diffusion_of(c),
    )
    uv, sampling = array(case, "uv"), sampling_of({}, c)
    shape = (len(sampling.sequence), sampling.hypotheses * len(uv), *uv.shape[1:-1], 5)
    refined = pipeline(uv, sampling, noise=noise_of(case, "", sampling, shape))
    return {"pose": refined.initial, "uvxyz_mean": refined.uvxyz.mean(0), "xyz": refined.xyz}


def train_loss(case: Case) -> dict:
    c = case.config
    net = graph_network("gcndiff", c["model"], c, tensors(case.weights)).train(not c.get("eval_mode", True))
    diffusion = diffusion_of(c)
    mixture, uniform = array(case, "gmm"), array(case, "uniform")
    x, scale = recipe.training_poses(mixture, array(case, "pose"), uniform)
    t = recipe.timestep_pairs(array(case, "t_half"), diffusion.timesteps, len(x))
    results = {"kernel_index": recipe.pick_components(mixture, uniform), "uvxyz": x, "scale_frame": scale, "t": t}
    ours = published_names(net)
    for setting, by in (("video", torch.tensor(recipe.VIDEO_NOISE)), ("frame", scale)):
        net.zero_grad()
        run = recipe.denoising_loss(net, diffusion, x, array(case, "unit_noise"), by, t)
        run["loss"].backward()
        norm = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
        results |= {f"{setting}.{n}": run[n] for n in ("x_t", "noise", "predicted")}
        results |= {f"{setting}.loss": run["loss"].reshape(1), f"{setting}.grad_norm": norm.reshape(1)}
        for output in case.outputs:
            prefix, _, name = output.partition(".grad.")
            if prefix == setting and name:
                results[output] = net.get_parameter(ours[name]).grad.clone()
    return results


def _module(*names: str):
    return lambda c: c.system == "diffpose" and c.config.get("module") in names


HANDLERS = [
    Handler(_module("ChebConv"), cheb_conv),
    Handler(_module("GCNdiff", "GCNpose"), graph_net),
    Handler(_module("MixSTE2"), mixste),
    Handler(lambda c: c.system == "diffpose" and {"runs", "model"} <= set(c.config), ddim),
    Handler(lambda c: c.system == "diffpose" and "mixste" in c.config, video),
    Handler(lambda c: c.system == "diffpose" and "gcnpose" in c.config, frame),
    Handler(lambda c: c.system == "diffpose" and "in.t_half" in c.arrays, train_loss),
]
