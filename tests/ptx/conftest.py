import pytest

from tests.ptx import build
from tests.ptx.workers import workers


@pytest.fixture(scope="session")
def pool():
    """Processes in which Triton compiles and its kernels run."""
    if build.compiler() is None:
        pytest.skip("no C++ compiler for the executor of PTX")
    build.library()  # once, before the workers want it
    with workers() as made:
        yield made
