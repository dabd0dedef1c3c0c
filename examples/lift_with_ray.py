"""Lift many videos on a Ray cluster, by a pipeline of your own: python examples/lift_with_ray.py OUT/ a.mp4 b.mp4 ...

``posekernels lift FOLDER -o OUT/ --engine ray`` does the same from the command line. Here each row goes on to whatever
comes next in the pipeline: a filter, a table in Parquet, a training set. docs/many-files.md starts a cluster.
"""

import sys
from pathlib import Path

import ray.data

from posekernels.people.commands.lift import parser
from posekernels.people.commands.many import Work

if len(sys.argv) < 3:
    sys.exit(__doc__)
out, *videos = sys.argv[1:]
Path(out).mkdir(exist_ok=True)
options = parser().parse_args([*videos, "-o", out])  # and any other option of posekernels lift
tasks = [{"source": str(Path(v).resolve()), "outs": [str(Path(out).resolve() / f"{Path(v).stem}.npz")]} for v in videos]

rows = (
    ray.data.from_items(tasks, override_num_blocks=len(tasks))
    .map(Work, fn_constructor_args=(options,), concurrency=2, num_cpus=1)  # each worker loads the networks once
    .filter(lambda row: row["result"] == "lifted", num_cpus=0)  # or it waits where workers hold all processors
)
for row in rows.iter_rows():
    print(f"{row['source']}: {row['people']} people in {row['frames']} frames")
