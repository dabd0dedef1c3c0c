"""``pytest bench --benchmark-only``: the benchmark's units through pytest-benchmark."""


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="the units of python -m bench --quick")


def pytest_generate_tests(metafunc):
    from bench import plan

    if {"unit", "way"} <= set(metafunc.fixturenames):
        units = plan.units("cpu", quick=metafunc.config.getoption("--quick"))
        pairs = [(unit, way) for unit in units if unit.timed for way in unit.ways([], [])]
        metafunc.parametrize(("unit", "way"), pairs, ids=[f"{unit} {way}" for unit, way in pairs])
