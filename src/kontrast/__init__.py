"""kontrast: contrastive representation learning on your own data."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("kontrast")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
