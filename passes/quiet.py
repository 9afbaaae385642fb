"""Libraries that log warnings about models: not for the people who run nncc."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

_LIBRARIES = ("onnxscript", "onnx_ir")


@contextmanager
def quiet_libraries() -> Generator[None]:
    """Errors only from the ONNX libraries, while the block runs."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
