"""Learning: data sets, recipes, the training loop and evaluation; ``python -m train.h36m`` is one program of it."""

from posekernels.door import one_package

one_package(__name__)
