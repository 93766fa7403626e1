"""initdiag: what a PyTorch network's gradients will look like, before the first step of
training.

Predicted exactly, measured on the user's own module, and turned into a verdict. Every
public name is listed in ``__init__.pyi`` and loaded when it is first used, so that
importing the package loads neither torch nor scipy.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
