"""The pre-training of tiny-onevision: what is packed equals what is asked one by one, and every part of it learns."""

from itertools import islice

import pytest
import torch

from lmmcl.maintenance.tiny_batches import Packer, TagTargets, batches, patch_pixels, pixels
from lmmcl.maintenance.tiny_grounding import Grounding
from lmmcl.maintenance.tiny_train import align, learn, mimetic, warm_cosine
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.tiny.tiny import untrained
from lmmcl.tasks.examples import ask
from lmmcl.tasks.synthetic.draw_streams import pretraining


@pytest.fixture(scope="module")
def scenes():
    return list(islice(pretraining(7), 64))


def test_a_packed_question_gets_the_scores_that_it_gets_alone(onevision, scenes):
    _, model, processor = onevision
    scene = next(each for each in scenes if len(each.asked) > 3)
    packed = Packer(0, most_questions=10)([scene])
    labels = packed.pop("labels")[0]
    with torch.inference_mode():
        together = model(**packed).logits[0, :-1][labels[1:] != -100]
        alone = []
        order = Packer(0, most_questions=10).rng.permutation(len(scene.asked))
        for question, answer in [scene.asked[at][1:] for at in order] + [("", scene.caption)]:
            one = pad(processor, [encode(processor, ask("q", question, answer, scene.image), with_answer=True)])
            taught = one.pop("labels")[0]
            alone.append(model(**one).logits[0, :-1][taught[1:] != -100])
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-3, rtol=1e-3)


def test_pixels_are_those_of_the_processor(onevision, scenes):
    _, _, processor = onevision
    encoded = encode(processor, ask("a", "What?", "red", scenes[0].image), with_answer=False)
    torch.testing.assert_close(pixels(scenes[:1]), encoded["pixel_values"], atol=1e-5, rtol=0)


def test_patches_are_cut_in_the_order_of_their_tags(scenes):
    images = pixels(scenes[:2])
    patches = patch_pixels(images)
    assert patches.shape == (2, 16, 192)
    assert torch.equal(patches[1, 6], images[1, :, 8:16, 16:24].flatten())


def test_tags_become_columns_of_their_words(scenes):
    targets = TagTargets(scenes)
    rows = targets(scenes[:3])
    assert rows.shape == (3, 16, len(targets.columns))
    for scene, row in zip(scenes[:3], rows, strict=True):
        for said, patch in zip(scene.patch_words(), row, strict=True):
            assert {word for word, column in targets.columns.items() if patch[column]} == set(said)


def test_both_phases_lower_their_loss(scenes):
    losses: list[float] = []
    model = untrained("onevision").train()
    mimetic(model)
    grounding = Grounding(model, scenes)
    before = grounding.loss(scenes[:32]).item()
    align(grounding, batches(pretraining(7), 8), 12, 5e-3, 3e-2, lambda text: None)
    assert grounding.loss(scenes[:32]).item() < 0.7 * before
    learn(
        grounding,
        batches(pretraining(7), 8),
        12,
        4e-3,
        1e-2,
        Packer(0, 4),
        lambda text: losses.append(float(text.split()[-1])),
    )
    assert losses[-1] < 0.8 * losses[0]


def test_the_learning_rate_warms_up_and_falls_to_a_twentieth():
    factor = warm_cosine(100)
    assert factor(0) == pytest.approx(0.2)
    assert factor(5) == pytest.approx(1.0)
    assert factor(100) == pytest.approx(0.05)
