"""Speculative token and request placement for SGLang, as a plug-in through SGLang's own entry point. See docs/sglang.md."""

__version__ = "0.1.0"
