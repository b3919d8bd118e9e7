"""Private parts of the processors of transformers: how they work out the settings that each of their parts is called with."""

from __future__ import annotations

from typing import Any


def remember_merged_settings(processor: Any, known: dict[str, Any]) -> None:
    """Let a processor work out what its parts are called with once for each way that it is called, and keep it in `known`.

    It does so at every call (a deep copy, sets of all names, a validation), and takes as long as to process a small picture.
    """
    merge = processor._merge_kwargs

    def merged(*classes: Any, tokenizer_init_kwargs: Any = None, **settings: Any) -> dict[str, Any]:
        key = repr((classes, sorted(settings.items())))
        if key not in known:
            known[key] = merge(*classes, tokenizer_init_kwargs=tokenizer_init_kwargs, **settings)
        # a processor takes out of them what it has read
        return {name: value.copy() if isinstance(value, dict) else value for name, value in known[key].items()}

    processor._merge_kwargs = merged
