"""Makes tests/fuzz/corpus/tokenizer: small whole files to start fuzzing from.

    python tests/fuzz/corpus/make_tokenizer.py     (needs protobuf and
    sentencepiece; run by hand, from the root of the tree)
"""
import base64
import json
import os
import struct

from sentencepiece import sentencepiece_model_pb2

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer")
MARKS = ["<|startoftext|>", "<|endoftext|>"]


def save(name, data):
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(data)


def charsmap():
    """A double array by hand: "A" becomes "a", "AB" becomes "xy"."""
    text = b"a\0xy\0"
    unit = [0] * 512
    # root: children at 256 ^ byte; offset is stored shifted by 10
    unit[0] = 256 << 10
    at_a = 256 ^ ord("A")
    unit[at_a] = ord("A") | (at_a ^ 128) << 10 | 1 << 8  # children at 128
    unit[128] = 1 << 31 | 0
    at_b = 128 ^ ord("B")
    unit[at_b] = ord("B") | (at_b ^ 64) << 10 | 1 << 8
    unit[64] = 1 << 31 | 2
    trie = struct.pack("<512I", *unit)
    return struct.pack("<I", len(trie)) + trie + text


def clip():
    tokens = list("abcehotf,<|>") + [c + "</w>" for c in "abcehotf,<|>4!"]
    merges = ["a t</w>", "c at</w>", "o f</w>"]
    tokens += ["".join(m.split()) for m in merges] + MARKS
    vocab = {t: i for i, t in enumerate(tokens)}
    config = {"added_tokens_decoder": {
        str(vocab[MARKS[1]]): {"content": MARKS[1], "normalized": True,
                               "lstrip": True, "rstrip": True,
                               "single_word": False}},
        "bos_token": MARKS[0], "eos_token": {"content": MARKS[1]},
        "pad_token": "a"}
    lines = "#version: 0.2\n" + "\n".join(merges) + "\n"
    save("clip_files", b"0" + json.dumps(vocab).encode() + b"\0"
         + lines.encode() + b"\0" + json.dumps(config).encode())
    save("clip_merges", b"1" + lines.encode() + b"at</w> c\r\n")
    save("clip_json", b"2" + json.dumps({
        "added_tokens": [{"id": vocab[m], "content": m, "normalized": False,
                          "single_word": True} for m in MARKS],
        "model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocab,
                  "merges": [m.split() for m in merges]}}).encode())


def bert():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "cat"]
    added = {"[ENC]": len(tokens)}
    save("bert_vocab", b"7" + "\n".join(tokens).encode() + b"\n\0"
         + json.dumps(added).encode())
    save("bert_json", b"8" + json.dumps({
        "added_tokens": [{"id": 3, "content": "[SEP]", "normalized": False}],
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]",
                  "vocab": {t: i for i, t in enumerate(tokens)}}}).encode())


def t5():
    pieces = [("<pad>", 0, 3), ("</s>", 0, 3), ("<unk>", 0, 2), ("\u2581", -2, 1),
              ("a", -3, 1), ("\u2581a", -2.5, 1), ("cat", -5, 1), ("e", -4, 1),
              ("photo", -6, 4), ("xy", -4, 5), ("\u2581x", -3, 1)]
    m = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in pieces:
        m.pieces.add(piece=text, score=score, type=kind)
    m.trainer_spec.model_type = 1
    m.normalizer_spec.precompiled_charsmap = charsmap()
    save("spiece", b"3" + m.SerializeToString(deterministic=True))
    save("charsmap", b"5" + charsmap())
    whole = {
        "added_tokens": [{"id": i, "content": pieces[i][0]} for i in range(3)]
        + [{"id": 11, "content": "<extra_id_7>", "normalized": True}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap":
             base64.b64encode(charsmap()).decode()},
            {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Replace", "pattern": {"String": "''"},
             "content": "\""}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "\u2581",
             "prepend_scheme": "first", "split": True}]},
        "model": {"type": "Unigram", "unk_id": 2,
                  "vocab": [[p[0], p[1]] for p in pieces]}}
    save("t5_json", b"4" + json.dumps(whole, ensure_ascii=False).encode())
    del whole["normalizer"]["normalizers"][0]
    save("t5_json_no_map", b"4" + json.dumps(whole).encode())


os.makedirs(HERE, exist_ok=True)
clip()
t5()
bert()
