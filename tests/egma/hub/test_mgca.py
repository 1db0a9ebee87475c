"""A tiny MGCA with the authors' names, converted, beside a naive reading of their description."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, normalize
from transformers import BertTokenizer

from dataset_scripts.schema import UserError
from egma.evaluation.evaluate import evaluate_model
from egma.hub import mgca
from egma.hub.convert import MGCA, convert, main
from egma.inference.mgca import MgcaModel
from egma.inference.peers import load_peer
from modeling_egma import EgmaModel, EgmaProcessor
from tests.conftest import WORDS
from tests.egma.evaluation.fakes import PROMPTS, corpus

WIDTH, TEXT_WIDTH, HIDDEN, LAST, SIDE, PATCH, LAYERS, TEXT_HEADS = 128, 16, 20, 12, 32, 16, 2, 2
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = (*SPECIAL, *dict.fromkeys([*WORDS.split(), *"abcdefghijklmnopqrstuvwxyz0123456789_"]))
VOCABULARY = [*PIECES, *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789_")]
SENTENCES = ["Small opacity in the LEFT lung.", "clear", "No pneumothorax, zygoma seen; 2. Heart-size normal", "..."]
LEFT_OUT = {
    "attention between words and regions, which no score uses": {
        *("patch_local_atten_layer.in_proj_weight", "word_local_atten_layer.out_proj.bias")
    },
    "cross attention of a text encoder that reads text alone": {
        f"text_encoder_q.model.encoder.layer.{layer}.crossattention.self.query.weight" for layer in range(LAYERS)
    },
    "prototypes, which only training compares with": {"prototype_layer.weight"},
    "indices that the model computes": {"text_encoder_q.model.embeddings.position_ids"},
    "counters of batches": {
        f"{tower}.{kind}_embed.head.{place}.num_batches_tracked"
        for tower in ("img_encoder_q", "text_encoder_q") for kind in ("global", "local") for place in (1, 4)
    },
}  # fmt: skip


def shapes() -> dict[str, tuple[int, ...]]:
    """Of the authors' modules: timm's ViT, a BERT without kinds of tokens, and two heads over each."""
    cells = (SIDE // PATCH) ** 2
    found: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, cells + 1, WIDTH)}
    found |= {"patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,)}
    found |= weights("norm", WIDTH)
    for layer in range(LAYERS):
        for name, shape in (("norm1", (WIDTH,)), ("norm2", (WIDTH,)), ("attn.qkv", (3 * WIDTH, WIDTH))):
            found |= weights(f"blocks.{layer}.{name}", *shape)
        for name, shape in (("attn.proj", (WIDTH, WIDTH)), ("mlp.fc1", (24, WIDTH)), ("mlp.fc2", (WIDTH, 24))):
            found |= weights(f"blocks.{layer}.{name}", *shape)
    named = {f"img_encoder_q.model.{name}": shape for name, shape in found.items()}
    embeddings, block = "text_encoder_q.model.embeddings", "text_encoder_q.model.encoder.layer"
    named[f"{embeddings}.word_embeddings.weight"] = (len(VOCABULARY), TEXT_WIDTH)
    named[f"{embeddings}.position_embeddings.weight"] = (120, TEXT_WIDTH)
    named |= weights(f"{embeddings}.LayerNorm", TEXT_WIDTH)
    for layer in range(LAYERS):
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            named |= weights(f"{block}.{layer}.{name}", TEXT_WIDTH, TEXT_WIDTH)
        for name, sizes in (("intermediate.dense", (28, TEXT_WIDTH)), ("output.dense", (TEXT_WIDTH, 28))):
            named |= weights(f"{block}.{layer}.{name}", *sizes)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            named |= weights(f"{block}.{layer}.{name}", TEXT_WIDTH)
    for tower, width in (("img_encoder_q", WIDTH), ("text_encoder_q", TEXT_WIDTH)):
        for kind, kernel in (("global", ()), ("local", (1,))):
            head = f"{tower}.{kind}_embed.head"
            named |= weights(f"{head}.0", HIDDEN, width, *kernel) | weights(f"{head}.1", HIDDEN)
            named |= weights(f"{head}.3", LAST, HIDDEN, *kernel)
            for place, size in ((1, HIDDEN), (4, LAST)):
                named |= {f"{head}.{place}.running_{what}": (size,) for what in ("mean", "var")}
    return named


def weights(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    """Random, with running variances above 0, and what is left out."""
    torch.manual_seed(5)
    tensors = {name: torch.randn(shape) / max(shape[-1], 4) ** 0.5 for name, shape in shapes().items()}
    tensors |= {name: value.abs() + 0.5 for name, value in tensors.items() if name.endswith("running_var")}
    return tensors | {name: torch.zeros(3) for names in LEFT_OUT.values() for name in names}


@pytest.fixture(scope="module")
def converted(theirs: dict[str, Tensor], tmp_path_factory: Any) -> Path:
    """As Lightning has it, with a tokenizer of word pieces, through the program."""
    folder: Path = tmp_path_factory.mktemp("mgca")
    torch.save({"epoch": 3, "state_dict": theirs}, folder / "vit_base.ckpt")
    word_pieces().save_pretrained(folder / "tokenizer")
    arguments = [str(folder / "vit_base.ckpt"), "--output", str(folder / "out"), "--text-heads", str(TEXT_HEADS)]
    assert main([*arguments, "--tokenizer", str(folder / "tokenizer")]) == 0
    return folder / "out"


def word_pieces() -> BertTokenizer:
    return BertTokenizer(vocab={word: place for place, word in enumerate(VOCABULARY)}, model_max_length=512)


def attended(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    width = query.shape[-1] // heads
    found = []
    for head in range(heads):
        of = slice(head * width, (head + 1) * width)
        found.append((query[:, of] @ key[:, of].T / width**0.5).softmax(dim=-1) @ value[:, of])
    return torch.cat(found, dim=-1)


class Theirs:
    """One image, one sentence at a time, of the authors' tensors by their own names."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.tensors[f"{name}.weight"].flatten(1).T + self.tensors[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, epsilon: float) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    def head(self, name: str, x: Tensor) -> Tensor:
        """Linear, batch norm by its running figures, ReLU, linear, batch norm without weights, length 1."""

        def standard(place: int, x: Tensor) -> Tensor:
            mean, variance = (self.tensors[f"{name}.head.{place}.running_{what}"] for what in ("mean", "var"))
            return (x - mean) / (variance + 1e-5).sqrt()

        x = standard(1, self.linear(f"{name}.head.0", x))
        x = x * self.tensors[f"{name}.head.1.weight"] + self.tensors[f"{name}.head.1.bias"]
        return normalize(standard(4, self.linear(f"{name}.head.3", x.clamp(min=0))), dim=-1)

    def image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W) -> the image's embedding (D,) and its patches' (P, D)."""
        own = "img_encoder_q.model"
        kernel, bias = (self.tensors[f"{own}.patch_embed.proj.{what}"] for what in ("weight", "bias"))
        patches = conv2d(pixels[None], kernel, bias, stride=PATCH)[0].flatten(1).T
        x = torch.cat([self.tensors[f"{own}.cls_token"][0], patches]) + self.tensors[f"{own}.pos_embed"][0]
        for layer in range(LAYERS):
            block = f"{own}.blocks.{layer}"
            qkv = self.linear(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x, 1e-6))
            x = x + self.linear(f"{block}.attn.proj", attended(*qkv.split(WIDTH, dim=-1), heads=WIDTH // 64))
            inner = gelu(self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, 1e-6)))
            x = x + self.linear(f"{block}.mlp.fc2", inner)
        x = self.norm(f"{own}.norm", x, 1e-6)
        return self.head("img_encoder_q.global_embed", x[0]), self.head("img_encoder_q.local_embed", x[1:])

    def sentence(self, tokens: list[str]) -> tuple[Tensor, Tensor]:
        """Tokens from [CLS] to [SEP] -> the sentence's embedding (D,) and its words' (W, D)."""
        own = "text_encoder_q.model"
        x = self.tensors[f"{own}.embeddings.word_embeddings.weight"][[VOCABULARY.index(token) for token in tokens]]
        x = x + self.tensors[f"{own}.embeddings.position_embeddings.weight"][: len(tokens)]
        x = self.norm(f"{own}.embeddings.LayerNorm", x, 1e-12)
        for layer in range(LAYERS):
            block = f"{own}.encoder.layer.{layer}"
            qkv = [self.linear(f"{block}.attention.self.{what}", x) for what in ("query", "key", "value")]
            inner = self.linear(f"{block}.attention.output.dense", attended(*qkv, heads=TEXT_HEADS))
            x = self.norm(f"{block}.attention.output.LayerNorm", x + inner, 1e-12)
            inner = self.linear(f"{block}.output.dense", gelu(self.linear(f"{block}.intermediate.dense", x)))
            x = self.norm(f"{block}.output.LayerNorm", x + inner, 1e-12)
        words: list[Tensor] = []
        for token, feature in zip(tokens[1:], x[1:], strict=True):
            if token.startswith("##"):
                words[-1] = words[-1] + feature
            else:
                words.append(feature)
        local = self.head("text_encoder_q.local_embed", torch.stack(words))
        return self.head("text_encoder_q.global_embed", x[0]), local


def as_read(sentence: str) -> list[str]:
    """Their words, cut into pieces: the longest that the vocabulary has, first; BERT takes `_` for punctuation."""
    words = re.findall(r"\w+", re.sub(r"[0-9]+\.", " ", sentence).lower())
    plain = " ".join(word.encode("ascii", "ignore").decode() for word in words)
    tokens = []
    for word in re.findall(r"[a-z0-9]+|_", plain):
        rest, mark = word, ""
        while rest:
            size = next(size for size in range(len(rest), 0, -1) if mark + rest[:size] in VOCABULARY)
            tokens.append(mark + rest[:size])
            rest, mark = rest[size:], "##"
    return ["[CLS]", *tokens[:110], "[SEP]"]


@torch.no_grad()
def test_scores_and_maps_are_those_of_a_naive_reading(converted: Path, theirs: Any, record_difference: Any) -> None:
    peer, processor = load_peer(str(converted))
    naive = Theirs(theirs)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 44), dtype=np.uint8)).convert("RGB")
    seen = processor(images=[image])["pixel_values"]
    pooled, patches = peer.encode_images(seen)
    assert patches is not None and patches.shape == (1, 4, 2 * LAST)
    tokens = processor(text=SENTENCES)
    embedded = peer.encode_text(tokens["input_ids"], tokens["attention_mask"])
    whole, cells = naive.image(seen[0, :3])[0], naive.image(seen[0, 3:])[1]
    assert any(token.startswith("##") for sentence in SENTENCES for token in as_read(sentence))
    for place, sentence in enumerate(SENTENCES):
        text, words = naive.sentence(as_read(sentence))
        # the mean cosine to the words, by one factor for a whole map; both halves of a sentence weigh the same
        similarity = (cells @ words.T).mean(dim=1) / words.mean(dim=0).norm()
        for name, found, expected in (
            ("scores", pooled[0] @ embedded[place], whole @ text),
            ("maps", patches[0] @ embedded[place], similarity),
        ):
            difference = float((found * 2**0.5 - expected).abs().max())
            record_difference(f"MGCA's {name} to the naive reading", difference)
            assert difference < 2e-6
    probed = peer.get_image_features(seen).last_hidden_state
    assert probed.shape == (1, 1, WIDTH)
    assert naive.head("img_encoder_q.global_embed", probed[0, 0]).sub(whole).abs().max() < 2e-6


def test_every_key_is_used_dropped_or_an_error(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "vit_base.ckpt"
    torch.save(theirs, path)
    model, layout, dropped = convert(path, TEXT_HEADS)
    assert layout is MGCA and isinstance(model, MgcaModel)
    assert {rule: set(names) for rule, names in dropped.items()} == LEFT_OUT
    for lost in (
        "img_encoder_q.model.cls_token", "img_encoder_q.model.pos_embed", "img_encoder_q.model.patch_embed.proj.weight",
        "img_encoder_q.model.blocks.1.attn.qkv.bias", "img_encoder_q.local_embed.head.4.running_var",
        "img_encoder_q.global_embed.head.0.weight", "text_encoder_q.model.embeddings.word_embeddings.weight",
        "text_encoder_q.model.encoder.layer.0.output.LayerNorm.bias", "text_encoder_q.local_embed.head.1.weight",
    ):  # fmt: skip
        torch.save({name: value for name, value in theirs.items() if name != lost}, path)
        with pytest.raises(UserError, match=r"vit_base\.ckpt: (lacks|the weights do not fill .* they lack [1-3] tens)"):
            convert(path, TEXT_HEADS)
    for more, message in (
        (
            "momentum.weight",
            r"no checkpoint of MedCLIP, EGMA or MGCA; unknown or repeated keys momentum\.weight \(1 in all\)",
        ),
        (
            "text_encoder_q.model.embeddings.token_type_embeddings.weight",
            r"repeated keys text_encoder_q\.model\.embeddings\.token_type_embeddings\.weight",
        ),
        ("img_encoder_q.model.blocks.0.attn.extra", "they hold unknown 1 tensors"),
        ("img_encoder_q.model.conv1.weight", "an MGCA with a ResNet-50; expected the one with a ViT-B/16"),
    ):
        torch.save(theirs | {more: torch.zeros(1)}, path)
        with pytest.raises(UserError, match=message):
            convert(path, TEXT_HEADS)


def test_a_lightning_file_with_objects_is_refused_with_what_to_do(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"callbacks": {Path: 1}, "state_dict": theirs}, tmp_path / "objects.ckpt")
    with pytest.raises(UserError, match="of a Lightning file that you trust, save its 'state_dict' alone"):
        convert(tmp_path / "objects.ckpt", TEXT_HEADS)


def test_nothing_of_the_folder_is_executed(converted: Path) -> None:
    files = {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in converted.iterdir()} == files
    config, trap = converted / "config.json", converted.parent / "sprung"
    before = config.read_text()
    code = converted / "evil.py"
    code.write_text(f"open({str(trap)!r}, 'w')\nclass Evil: pass\n")
    config.write_text(json.dumps(json.loads(before) | {"auto_map": {"AutoModel": "evil.Evil"}}))
    peer, _ = load_peer(str(converted))
    code.unlink()
    config.write_text(before)
    assert isinstance(peer.model, MgcaModel) and not trap.exists()


def test_pictures_are_reduced_padded_and_cut_as_theirs(converted: Path) -> None:
    """At a reduction by four, where a mean over pixels is one over whole blocks; the map's view is not cut."""
    _, processor = load_peer(str(converted))
    grey = np.random.default_rng(1).integers(0, 256, (144, 72), dtype=np.uint8)
    found = processor(images=[Image.fromarray(grey).convert("RGB")])["pixel_values"][0].numpy()
    blocks = grey.reshape(36, 4, 18, 4).mean(axis=(1, 3))
    square = np.pad(blocks, ((0, 0), (9, 9)))[2:34, 2:34]
    assert found.shape == (6, SIDE, SIDE)
    assert np.abs(found[:3] - (square / 255 - 0.5) / 0.5).max() <= 1.01 * 2 / 255  # of 8 bits, which are rounded twice
    whole = Image.fromarray(np.pad(grey, ((0, 0), (36, 36)))).resize((SIDE, SIDE), Image.Resampling.BOX)
    assert np.abs(found[3:] - (np.asarray(whole) / 255 - 0.5) / 0.5).max() < 1e-5


@pytest.mark.parametrize("sentence", [*SENTENCES, "12. Œdème, 3.5 cm;\nnot_seen 7", "opacity, zygoma " * 80])
def test_sentences_are_their_words(converted: Path, sentence: str) -> None:
    _, processor = load_peer(str(converted))
    ids = processor(text=[sentence])["input_ids"][0].tolist()
    assert [VOCABULARY[place] for place in ids] == as_read(sentence)
    assert len(ids) <= 112


def test_a_tokenizer_of_another_kind_or_vocabulary_is_refused(tokenizer: Any, theirs: Any, tmp_path: Path) -> None:
    torch.save(theirs, tmp_path / "vit_base.ckpt")
    model = convert(tmp_path / "vit_base.ckpt", TEXT_HEADS)[0]
    with pytest.raises(UserError, match="0 of them with ##; expected a fast WordPiece tokenizer"):
        mgca.preparation(model, tokenizer, MGCA.resample)
    larger = word_pieces()
    larger.add_tokens(["consolidations"])
    with pytest.raises(UserError, match=rf"expected a fast WordPiece tokenizer of the {len(VOCABULARY)} that the text"):
        mgca.preparation(model, larger, MGCA.resample)


def test_it_stands_beside_the_model_with_maps(converted: Path, tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    rows = corpus(9)
    results = evaluate_model(
        tiny_model, processor, rows, training_rows=rows, prompts=PROMPTS, bootstrap=20,
        others={"mgca": load_peer(str(converted))},
    )  # fmt: skip
    beside = results["baselines"]["mgca"]
    for key in ("zero_shot_auroc", "recall_at_1", "pointing_game"):
        assert 0 <= beside[key] <= 1 and beside["n"][key] == results["n"][key]
        assert 0 < beside["differences"][key]["p_value"] <= 1
