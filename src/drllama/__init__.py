"""Make a small language model good at the questions of one domain, and say honestly whether it worked.

Read ``types``, then ``protocols``, then ``pipeline``; then any leaf.
"""

from importlib.metadata import version

__version__ = version("drllama")
__all__ = ["__version__"]
