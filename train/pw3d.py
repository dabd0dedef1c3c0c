"""Train and evaluate a motion forecaster on 3DPW: ``python -m train.pw3d --data-root DIR``.

Without ``--data-root`` it uses the starter set, a little real motion that the repository carries.
"""

from posekernels.cli import run_cli

from .forecast import ForecastJob

JOB = ForecastJob("pw3d", __doc__.splitlines()[0])
main = JOB.run

if __name__ == "__main__":
    run_cli(JOB.cli)
