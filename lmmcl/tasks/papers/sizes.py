"""About how many examples each part has, as its owner counts them: for estimates while the data is not prepared.

What is prepared is counted (`lmmcl data list`), and may differ: rows are left out whose image is gone.
"""

from __future__ import annotations

from lmmcl.tasks.hub.hub_data import TEST, TRAIN

ABOUT: dict[tuple[str, str], int] = {
    ("cub200", TRAIN): 5_994,
    ("cub200", TEST): 5_794,
    ("pixmo_count", TRAIN): 36_900,
    ("pixmo_count", TEST): 540,
    ("path_vqa", TRAIN): 19_654,
    ("path_vqa", TEST): 6_719,
    ("text_vqa", TRAIN): 34_602,
    ("text_vqa", TEST): 5_000,
    ("time_clock", TRAIN): 11_500,
    ("time_clock", TEST): 1_440,
    ("ai2d", TEST): 3_088,
    ("chartqa", TEST): 2_500,
    ("docvqa", TEST): 5_349,
    ("infovqa", TEST): 2_801,
    ("realworldqa", TEST): 765,
    ("seedbench", TEST): 14_233,
    ("scienceqa_img", TEST): 2_017,
    ("mmstar", TEST): 1_500,
    ("imagenet_vqa", TRAIN): 1_281_167,
    ("imagenet_vqa", TEST): 50_000,
    ("imagenet_v2", TEST): 10_000,
    ("flowers102", TEST): 6_149,
    ("caltech101", TEST): 6_085,
    ("stanford_cars", TEST): 8_041,
    ("image_wiki_qa", TEST): 2_000,
    ("mmmu", TEST): 900,
    ("vmcbench", TEST): 1_000,
    ("llava_665k", TRAIN): 665_298,
    ("flickr30k", TRAIN): 29_000,
    ("flickr30k", TEST): 1_000,
    ("okvqa", TRAIN): 9_009,
    ("okvqa", TEST): 5_046,
    ("coco_caption", TEST): 5_000,
    ("textcaps", TEST): 3_166,
    ("nocaps", TEST): 4_500,
    ("vqav2", TEST): 214_354,
    ("gqa", TEST): 12_578,
    ("ocr_vqa", TEST): 100_037,
    ("vizwiz", TEST): 4_319,
    ("ocrbench", TEST): 1_000,
    ("countbench", TEST): 491,
    ("mllm_cl_rs", TRAIN): 60_000,
    ("mllm_cl_rs", TEST): 10_000,
    ("mllm_cl_med", TRAIN): 22_900,
    ("mllm_cl_med", TEST): 9_800,
    ("mllm_cl_ad", TRAIN): 60_000,
    ("mllm_cl_ad", TEST): 10_000,
    ("mllm_cl_sci", TRAIN): 33_400,
    ("mllm_cl_sci", TEST): 8_200,
    ("mllm_cl_fin", TRAIN): 60_000,
    ("mllm_cl_fin", TEST): 10_000,
}
"""Examples by (name, part)."""
