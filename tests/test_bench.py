"""The benchmark: what it covers, what survives of a run, what it refuses to time, what it says of memory and claims."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import __main__ as command
from bench import against, aot, claims, conditions, growth, memory, plan, scaling
from bench.cases import OpCase, model_cases, op_cases
from bench.report import present
from bench.results import Results, committed
from bench.suite import PRECISIONS, OpUnit, Row, measured, prepare
from posekernels import _dispatch
from posekernels.limits import affinity, processors

ROOT = Path(__file__).resolve().parents[1]
FACTS = {"time": "2026-01-01T00:00:00+00:00", "device": "this one", "threads": 2, "torch": "2"}


def row(contender, us, what="op", pass_="inference", **more):
    spread = {"low_us": us and 0.9 * us, "high_us": us and 1.1 * us}
    return Row(what, "B=1", pass_, "float32", contender, median_us=us, **spread, **more)


def test_every_op_is_covered_at_three_sizes_and_every_recipe_trains():
    sizes = {}
    for case in op_cases():
        sizes.setdefault(case.op, set()).add(case.size)
    folders = {p.parent.name for p in (ROOT / "posekernels" / "ops").glob("*/reference.py")}
    assert folders <= sizes.keys() <= _dispatch.OPS.keys()
    assert not {op for op, found in sizes.items() if len(found) < 3}
    trained = {c.model for c in model_cases() if c.training_batch}
    assert {"pkd", "simlpe", "rie", "strided_transformer", "htnet", "mgcn_lw", "mixste", "gcndiff"} <= trained
    assert {"variance_gcn", "variance_linear"} <= trained  # WS-ANL's


def test_a_unit_is_found_again_by_its_name():
    units = plan.units("cpu")
    assert len({u.group for u in units}) == len(units)
    for unit in units:
        found = plan.find(unit.group, "cpu")
        assert (type(found), found.flops, found.bytes) == (type(unit), unit.flops, unit.bytes), str(unit)


def test_what_is_only_counted_is_not_timed():
    counted = {(case.op, case.size) for case in op_cases() if case.counted_only}
    assert counted and not counted & {unit.group[:2] for unit in plan.units("cpu")}


@pytest.mark.parametrize("network", ["strided_transformer", "gcnpose", "htnet"])
def test_nothing_that_a_compiler_leaves_out_of_an_untrained_network_is_timed(network):
    case = next(case for case in model_cases() if case.model == network)

    def alike(net):  # weights of one number, or copies of another
        tensors = [p.flatten() for p in net.parameters()]
        return len(tensors) - len({tuple(t[:8].tolist()) for t in tensors if (t != t[0]).any()})

    assert alike(case.make()) > 0, "the start is as published"
    assert (
        alike(plan.find((network, f"B={case.batches[0]}", "inference", "float32"), "cpu").made(torch.float32)[0]) == 0
    )


CHEAPEST = {}  # of every op, and of everything done with a network
for _unit in sorted(plan.units("cpu", precisions=["float32"]), key=lambda u: u.flops):
    if _unit.pass_ in ("forward", "inference") and _unit.timed:
        CHEAPEST.setdefault(_unit.what, _unit)


@pytest.mark.parametrize("what", [w for w, u in CHEAPEST.items() if u.flops < 2e9])
def test_every_unit_runs_and_is_right(what):
    unit = CHEAPEST[what]
    rows, calls = prepare(unit, ["eager", "auto"])
    assert not [r.rejected for r in rows.values() if r.rejected] and len(calls) == 2
    assert all(0 < r.error < unit.bound for r in rows.values()) or what == "relative_encoding"  # which copies


def test_a_dry_run_lists_units_and_quick_is_short(capsys):
    assert command.main(["--dry-run", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("graph_conv", "temporal_networks", "norm_activation", "mixste", "rie video", "stream", "training"):
        assert any(name in line for line in lines), name
    args = command.parse(["--quick"])
    chosen = [(u, command.ways_of(u, args)) for u in plan.units("cpu", quick=True)]
    assert sum(plan.seconds(u, w, args.budget, memory=True) for u, w in chosen) < 300
    assert growth.main(["--dry-run", "--curve", "steps"]) == 0
    with pytest.raises(ValueError, match="did you mean 'graph_conv'"):
        command.parse(["--op", "graph_con"])


def test_rows_survive_and_only_measured_ones_are_replaced(tmp_path):
    path = tmp_path / "cpu.json"
    Results(path).add([row("eager", 4.0), row("auto", 2.0)], FACTS)
    Results(path).add([row("eager", 8.0, what="other")], FACTS | {"time": "later"})
    Results(path).add([row("auto", 1.0), row("sdpa", 3.0)], FACTS | {"time": "last", "torch": "3"})
    found = Results(path)
    assert [(r.what, r.contender, r.median_us) for r in found.rows] == [
        ("op", "eager", 4.0),
        ("op", "auto", 1.0),
        ("op", "sdpa", 3.0),
        ("other", "eager", 8.0),
    ]
    assert found.runs[found.rows[0].run]["torch"] == "2" and found.runs[found.rows[1].run]["torch"] == "3"
    with pytest.raises(ValueError, match="threads 2, these with 1"):
        found.add([row("auto", 1.0)], FACTS | {"threads": 1})
    assert len(present(found)) == 2 and not list(tmp_path.glob(".*"))


def test_a_wrong_kernel_has_no_figure(monkeypatch):
    from posekernels import _dispatch

    monkeypatch.setitem(_dispatch.OPS, "double", {"cpu": None, "reference": None})
    wrong = {"auto": 2.0, "cpu": 2.001, "reference": 2.0}
    case = OpCase(
        "double",
        "n=64",
        lambda: {"x": torch.arange(64.0)},
        lambda i, b: wrong[b] * i["x"],
        64.0,
        lambda b: 128 * b,
        ("x",),
    )
    unit = OpUnit(case, False, PRECISIONS["float32"], "cpu")
    rows = {r.contender: r for r in measured(unit, unit.ways([], []), 0.01, (1e9, 1e9), None)}
    assert rows["auto"].median_us and rows["auto"].vs_eager
    assert rows["cpu"].median_us is None and "error 5.0e-04" in rows["cpu"].rejected


def _allocate(megabytes, blocks):
    """A call that holds ``megabytes`` at most: blocks one after the other, none kept."""
    return lambda: [torch.ones(megabytes * 250_000).sum() for _ in range(blocks)]


def test_memory_is_the_high_water_mark():
    assert memory.fresh(_allocate, 64, 3) == pytest.approx(64, rel=0.05)
    assert memory.fresh(_allocate, 0, 1) < 1
    unit = plan.find(("htnet", "B=64", "inference", "float32"), "cpu")
    eager, ours = memory.peak_mb(unit, "eager"), memory.peak_mb(unit, "auto")
    assert 4 < eager < 400 and 0 < ours < 400


def test_readme_speaks_of_the_best_peer(tmp_path, monkeypatch):
    results = Results(tmp_path / "cpu.json")
    rows = [row("eager", 2292.0, "htnet"), row("auto", 480.0, "htnet"), row("onnxruntime", 938.0, "htnet")]
    results.add(rows, FACTS)
    assert "| HTNet, poses, B=1 | 0.48 ms | ONNX Runtime, 0.94 ms | **2.0** |" in claims.best_table(
        claims.Rows([results])
    )
    results.add([row("openvino", 1.0, "htnet")], FACTS | {"time": "another run"})  # when the machine was faster
    assert "ONNX Runtime, 0.94 ms" in claims.best_table(claims.Rows([results]))
    results.add([row("openvino", 400.0, "htnet")], FACTS)  # a peer that is ahead stands there all the same
    assert "| HTNet, poses, B=1 | 0.48 ms | OpenVINO, 0.40 ms | 0.83 |" in claims.best_table(claims.Rows([results]))
    assert "| HTNet, poses, B=1 | 2.29 ms | 0.94 ms | 0.40 ms | **0.48 ms** | 0.83 |" in claims.speed_tables(
        claims.Rows([results])
    )

    page = tmp_path / "README.md"
    page.write_text(claims.page([results], "<!-- best -->\n<!-- end -->\n"))
    monkeypatch.setattr(claims, "PAGES", [page])
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    assert claims.problems([results]) == []
    page.write_text(page.read_text().replace("OpenVINO, 0.40 ms | 0.83", "ONNX Runtime, 0.94 ms | **2.0**"))
    assert claims.problems([results]) == [
        "README.md: its tables are not those of the rows; python -m bench.report fills them"
    ]
    assert claims.slower([results]) == []
    results.add([replace(rows[1], median_us=3000.0, low_us=2500.0)], FACTS)
    assert "htnet B=1 inference float32: auto takes 3,000.0 us, eager 2,292.0 us" in claims.slower([results])[0]
    results.add([row("cpu", None, "htnet", rejected="takes float32")], FACTS)  # as an op whose kernel refuses
    assert claims.slower([results]) == []


def test_the_page_is_filled_from_rows(tmp_path):
    results = Results(tmp_path / "cpu.json")
    rows = [row(c, us, "pkd", "training", peak_mb=mb) for c, us, mb in (("eager", 9e5, 1500.0), ("auto", 1e5, 230.0))]
    for r in rows:
        r.size, r.vs_eager = "B=256", 9e5 / r.median_us
    results.add(rows, FACTS)
    text = claims.page([results], claims.PAGES[1].read_text())
    assert "| pkd | B=256 | 1.11 | 10.00 | 9.00x | 1,500 | 230 |" in text
    assert claims.page([results], text) == text
    assert claims.regime(1e6, 1e6, (1e11, 1e10)) == (100.0, "memory")
    assert claims.regime(1e8, 1e6, (1e11, 1e10)) == (1000.0, "arithmetic")
    assert claims.regime(1e3, 1e3, (1e11, 1e10))[1] == "launch"


def test_a_gpus_rows_are_no_claim_of_a_cpu(tmp_path):
    cpu, gpu = Results(tmp_path / "cpu.json"), Results(tmp_path / "z-card.json")
    cpu.add([row("eager", 4.0, what="pkd"), row("auto", 2.0, what="pkd")], FACTS)
    slow = [row("eager", 4.0, what="pkd"), row("auto", 900.0, what="pkd")]
    gpu.add(slow, FACTS | {"device": "a card", "cuda": "13"})
    assert gpu.on_gpu and not cpu.on_gpu
    assert claims.claimed([gpu, cpu]) == [cpu] and claims.claimed([gpu]) == [gpu]
    assert claims.page([gpu, cpu], "<!-- best -->\n<!-- end -->") == claims.page([cpu], "<!-- best -->\n<!-- end -->")
    assert not any("auto takes" in line for line in claims.problems([gpu, cpu]))


def test_rows_of_a_loaded_machine_stand_in_their_own_table(tmp_path):
    idle, busy = Results(tmp_path / "cpu.json"), Results(tmp_path / "cpu-busy.json")
    idle.add([row("eager", 4000.0, what="pkd"), row("auto", 2000.0, what="pkd")], FACTS)
    busy.add([row("eager", 9000.0, what="pkd"), row("auto", 18000.0, what="pkd")], FACTS | {"load": "spinning"})
    pages = claims.page([busy, idle], "<!-- best -->\n<!-- end -->\n<!-- load -->\n<!-- end -->")
    best, load = pages.split("<!-- load -->")
    assert "4.0 ms | **2.0** |" in best and "18.0" not in best
    assert "With spinning, 2 threads" in load and "**18.0 ms** | 0.50 |" in load
    assert not any("auto takes" in line for line in claims.problems([busy, idle]))
    with pytest.raises(ValueError, match="with load spinning, these with none;"):
        busy.add([], FACTS)


def test_a_machine_is_busy_only_as_long_as_it_is_asked_to(monkeypatch):
    started = []
    monkeypatch.setattr(
        conditions.subprocess, "Popen", lambda *a, real=subprocess.Popen: started.append(real(*a)) or started[-1]
    )
    with conditions.busy() as words:
        assert f"{affinity()} cores" in words and [p.poll() for p in started] == [None] * affinity()
    assert [p.returncode for p in started] == [-9] * affinity()


def test_a_quota_limits_this_process_and_is_taken_back():
    with pytest.raises(ValueError, match="--quota -1: a share of processors"), conditions.quota(-1):
        pass
    before = processors()
    try:
        with conditions.quota(0.5) as words:
            assert processors() == 1 and words.startswith("0.5 of ")
    except ValueError as error:
        pytest.skip(str(error))
    assert processors() == before


def test_the_pages_claim_what_committed_rows_have():
    assert claims.problems(committed()) == []


def test_two_processes_take_turns():
    workers = {name: against.Worker(ROOT, "cpu") for name in ("here", "there")}
    try:
        unit = plan.find(("procrustes", "B=7 S=13", "forward", "float32"), "cpu")
        rows = against.turns(workers, unit, 0.2)
        assert all(r.error < 1e-5 and r.median_us > 0 for r in rows.values())
        unit.what = "no such op"
        assert "no such unit" in against.turns(workers, unit, 0.2)["there"].rejected
    finally:
        for worker in workers.values():
            worker.close()
    with pytest.raises(ValueError, match="--against: git rev-parse"):
        against.compare("no-such-commit", [unit], 0.1, None)


def test_one_rank_measures_its_iteration():
    alone = scaling.work("htnet", 2, 1)
    assert alone["iteration"] > 0 and alone["sum"] == 0
    assert scaling.paper_table().count("\n") > 8


def test_aot_rows_know_their_sources(tmp_path):
    made = {op: aot.sources(op) for op in aot.ops_with_kernels()}
    used = "posekernels/ops/graph_conv/triton.py", "posekernels/_triton.py", "csrc/include/posekernels/gpu.h"
    assert set(used) < set(made["graph_conv"])
    (tmp_path / "aot.json").write_text(json.dumps({"sources": made}))
    assert aot.stale(tmp_path) == []
    made["graph_conv"]["csrc/include/posekernels/gpu.h"] = "another"
    (tmp_path / "aot.json").write_text(json.dumps({"sources": made}))
    assert aot.stale(tmp_path) == ["graph_conv"]


def test_the_gpu_page_lists_what_spills():
    held = {}
    for row in json.loads((aot.RESULTS / "aot.json").read_text())["kernels"]:
        key = row["name"], f"sm_{row['target']}"  # variants of a template share a name: the most of them
        held[key] = max(held.get(key, 0), row["spills"])
    page = (aot.ROOT / "docs" / "gpu.md").read_text()
    told = {}
    for names, *numbers in re.findall(r"^\| (`.+?`) \| (\d+) \| (\d+) \|$", page, re.MULTILINE):
        for name in re.findall(r"`(.+?)`", names):
            told |= {(name, target): int(n) for target, n in zip(("sm_80", "sm_90"), numbers)}
    assert {key: n for key, n in told.items() if n} == {key: n for key, n in held.items() if n}
