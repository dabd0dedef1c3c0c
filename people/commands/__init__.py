"""The commands of ``posekernels``: one module each, with ``main(arguments) -> exit code``."""
