"""System ``ws_anl``'s layers and HTNet."""

from __future__ import annotations

import torch

from posekernels.models.graph import ModulatedGraphConv, modulated_adjacency
from posekernels.pose.skeleton import Skeleton
from tests.golden import Case, Handler
from tests.golden_cases import SKELETONS, published, record, tensors


def htnet_of(case: Case):
    c = case.config
    return published(case, "htnet", depth=c["depth"], channels=c["channels"], hidden=c["mlp_hidden"])


def htnet(case: Case) -> dict:
    net = htnet_of(case)
    seen = record(
        net,
        {
            "norm": "norm",
            **{f"blocks.{i}": f"block{i}" for i in range(len(net.blocks))},
            **{
                f"blocks.{i}.{ours}": f"block{i}_{theirs}"
                for i in range(len(net.blocks))
                for ours, theirs in (("joint", "ljc"), ("part", "ipc"), ("body", "gbi"))
            },
        },
    )
    block = net.blocks[0]
    seen_in = {}
    block.register_forward_pre_hook(lambda _m, inputs: seen_in.update(embed=inputs[0]))
    x = torch.from_numpy(case["x"])
    level_by_level = net(x)
    first_third = seen_in["embed"].chunk(3, dim=-1)[0]
    seen["block0_ljc_gcn1"] = block.joint.conv1(block.joint.norm_in(first_third))
    with torch.no_grad():
        seen["y"] = net(x)  # each block as one op
    torch.testing.assert_close(seen["y"], level_by_level, rtol=1e-4, atol=1e-4)
    seen["y"] = seen["y"].flatten(0, 1)[:, None]  # the published network folds frames into the batch
    return seen | seen_in


def htnet_gradients(case: Case) -> dict:
    from posekernels.models.load import published_names

    net = htnet_of(case)
    x = torch.from_numpy(case["x"]).requires_grad_()
    loss = (net(x) - torch.from_numpy(case["target"])).norm(dim=-1).mean()
    loss.backward()
    ours = published_names(net)
    grads = {n: net.get_parameter(ours[n.removeprefix("grad.")]).grad for n in case.outputs if n.startswith("grad.")}
    return {"y": net(x), "loss": loss, "grad_x": x.grad, **grads}


def adjacency(case: Case) -> dict:
    c = case.config
    names = tuple(map(str, range(c["joints"])))
    skeleton = Skeleton(
        "case", names, tuple(case["parents"].tolist()), tuple(c["joints_left"]), tuple(c["joints_right"])
    )
    return {"adj": modulated_adjacency(skeleton)}


def modulated(case: Case) -> dict:
    c = case.config
    layer = ModulatedGraphConv(c["in_features"], c["out_features"], c["weight_matrices"], SKELETONS[c["joints"]])
    weights = tensors(case.weights)
    layer.load_state_dict(
        {
            "weight": weights["W"],
            "modulation": weights["M"],
            "adjacency_offset": weights["adj2"],
            "bias": weights.get("bias", torch.zeros(c["out_features"])),
        }
    )
    layer.fixed_adjacency.copy_(torch.from_numpy(case["adj"]))
    with torch.no_grad():
        return {"adj_symmetric": layer.adjacency().sum(0), "y": layer(torch.from_numpy(case["x"]))}


def published_sizes(config: dict) -> bool:
    """Whether HTNet's constants are the published ones; no case may ask for others."""
    return (config.get("heads", 8), config.get("gcn_hidden", 384), config.get("joints", 17)) == (8, 384, 17)


def is_htnet(case: Case) -> bool:
    return case.config.get("model") == "HTNet" and published_sizes(case.config)


HANDLERS = [
    Handler(lambda c: is_htnet(c) and "grad_x" in c.outputs, htnet_gradients),
    Handler(lambda c: is_htnet(c) and "y" in c.outputs, htnet),
    Handler(
        lambda c: c.config.get("module") == "ModulatedGraphConv" and c.config["joints"] in SKELETONS,
        modulated,
    ),
    Handler(lambda c: c.system == "ws_anl" and c.outputs == {"adj"}, adjacency),
]
