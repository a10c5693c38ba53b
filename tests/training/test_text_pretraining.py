from transformers import CLIPTokenizer

from ap3d.training.captions import caption_words
from ap3d.training.text_pretraining import token_ids


def test_every_caption_word_is_one_token_and_strangers_fall_apart(text_folder):
    folder, _, _ = text_folder
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert all(len(tokenizer(word).input_ids) == 3 for word in caption_words())
    assert len(tokenizer.tokenize("wizard")) > 1
    ids = token_ids(tokenizer, ["an old man", "a " * 500])
    assert ids.shape == (2, tokenizer.model_max_length)
    assert (ids[:, 0] == tokenizer.bos_token_id).all() and (ids[:, -1] == tokenizer.eos_token_id).all()


def test_a_short_pretraining_learns(text_folder):
    _, rows, accuracy = text_folder
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert accuracy["framing"] > 0.5  # chance 0.3
