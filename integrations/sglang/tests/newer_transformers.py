"""Imported first in processes that import SGLang: the shared test environment has a newer transformers than SGLang 0.5.17 pins."""

from transformers.models.auto import configuration_auto

# SGLang registers model types that transformers has had since: registering twice is all right.
_register = configuration_auto._LazyConfigMapping.register
configuration_auto._LazyConfigMapping.register = lambda self, key, value, exist_ok=False: _register(self, key, value, exist_ok=True)
