"""The Trainer's imports: libraries that it only recognises stay unloaded, until somebody has something of theirs.

They take nearly a second of every process that trains: `datasets` brings pandas and pyarrow, `peft` what quantises.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

RECOGNISED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "datasets": {"transformers.trainer": ()},
    "peft": {"transformers.trainer": ("PeftModel",), "transformers.trainer_utils": ("PeftModel", "PeftMixedModel")},
}
"""Libraries that the Trainer imports to recognise what is theirs: the modules that do, and the names that they take of them (the
library itself, where there is none)."""


class _OnceLoaded:
    """Says to a module of transformers that a library is there once somebody has imported it: nobody has anything of it before.

    The module gets the names then that it would have imported.
    """

    def __init__(self, library: str, available: Callable[[], bool]) -> None:
        self.name, self.available = library, available

    def __call__(self) -> bool:
        library = sys.modules.get(self.name)
        wanted = [name for names in RECOGNISED[self.name].values() for name in names]
        if library is None or not all(hasattr(library, name) for name in wanted) or not self.available():
            return False
        for module, names in RECOGNISED[self.name].items():
            vars(sys.modules[module]).update({name: getattr(library, name) for name in names} or {self.name: library})
        return True


@contextmanager
def libraries_unloaded() -> Iterator[None]:
    """Inside the `with`, where the Trainer is first imported, it leaves the libraries that it only recognises unloaded."""
    from transformers import utils

    names = (
        [name for name in RECOGNISED if name not in sys.modules] if "transformers.trainer" not in sys.modules else []
    )
    stand_ins = {f"is_{name}_available": _OnceLoaded(name, getattr(utils, f"is_{name}_available")) for name in names}
    for question, stand_in in stand_ins.items():
        setattr(utils, question, stand_in)
    try:
        yield
    finally:
        for question, stand_in in stand_ins.items():
            loaded = sys.modules.copy()  # other threads import meanwhile
            for module in [module for name, module in loaded.items() if name.startswith("transformers")]:
                if vars(module).get(question) is stand_in and module.__name__ not in RECOGNISED[stand_in.name]:
                    setattr(module, question, stand_in.available)  # others import what they need when they need it
