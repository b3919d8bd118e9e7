"""What a processor calls its parts with is worked out once, and is then what it would work out again."""

from __future__ import annotations

from lmmcl.models.tiny.tiny_processor import build_processor
from lmmcl.private_api.processor_settings import remember_merged_settings


class Counting:
    """A processor that counts how often it works out its settings."""

    merged = 0

    def _merge_kwargs(self, *classes: type, tokenizer_init_kwargs: object = None, **settings: object) -> dict:
        self.merged += 1
        return {"text_kwargs": dict(settings), "classes": classes}


def test_a_processor_works_out_settings_once_for_each_way_that_it_is_called() -> None:
    known: dict = {}
    for _ in range(3):  # each time another copy of the processor
        processor = Counting()
        remember_merged_settings(processor, known)
        one = processor._merge_kwargs(int, tokenizer_init_kwargs={"a": 1}, return_tensors="pt")
        assert one["text_kwargs"].pop("return_tensors") == "pt", "what it takes out of them is there again"
        assert processor._merge_kwargs(int, return_tensors="np")["text_kwargs"] == {"return_tensors": "np"}
        assert processor._merge_kwargs(str, return_tensors="np")["classes"] == (str,)
    assert len(known) == 3 and processor.merged == 0
    assert Counting()._merge_kwargs()["classes"] == (), "the class itself stays as it was"


def test_processors_still_work_out_their_settings_in_the_method_that_is_remembered() -> None:
    processor = build_processor("onevision")
    expected = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs, return_tensors="pt")
    remember_merged_settings(processor, known := {})
    processor(text=["a"], return_tensors="pt")
    assert list(known.values()) == [expected]
