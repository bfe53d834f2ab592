"""Makes the tokenizer goldens; run by hand, from the root of the tree:

    python tests/golden/make_tokenizers.py bpe_simple_vocab_16e6.txt.gz

with transformers >= 5, tokenizers, sentencepiece, protobuf. The argument is
openai/CLIP's list of merges (github.com/openai/CLIP, clip/, MIT licence).

Writes in tests/golden:
  clip_small/      vocab.json, merges.txt: the first 5000 rules of that list
  t5_small/        spiece.model: a unigram model trained on tokenizer_texts.py
                   with SentencePiece's own nmt_nfkc character map (Apache-2.0);
                   tokenizer.json: transformers' conversion of it, without the
                   character map, which stands in spiece.model already
  tokenizers.jsonl a text per line with the ids that others give it
"""
import base64
import gzip
import json
import os
import re
import sys
import tempfile

import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2

sys.path.insert(0, os.path.dirname(__file__))
import tokenizer_texts  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
VARIANT = {  # what transformers 4 made of a spiece.model
    "normalizer": lambda charsmap: {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": charsmap},
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"},
         "content": "\u2581"}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581",
                      "prepend_scheme": "first", "split": True},
}


def byte_symbols():
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + n for n in range(256 - len(itself))]
    return [chr(c) for c in itself + others]


def make_clip(folder, merges):
    os.makedirs(folder, exist_ok=True)
    vocab = byte_symbols()
    vocab += [s + "</w>" for s in vocab]
    vocab += ["".join(m.split()) for m in merges] + [BOS, EOS]
    with open(folder + "/vocab.json", "w", encoding="utf-8") as f:
        json.dump({t: i for i, t in enumerate(vocab)}, f, ensure_ascii=False,
                  separators=(",", ":"))
    with open(folder + "/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "\n".join(merges) + "\n")
    return transformers.CLIPTokenizer.from_pretrained(folder)


def make_t5(folder, scratch):
    os.makedirs(folder, exist_ok=True)
    with open(scratch + "/corpus.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(tokenizer_texts.corpus()) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=scratch + "/corpus.txt", model_prefix=scratch + "/m",
        vocab_size=1400, hard_vocab_limit=False, character_coverage=0.9995,
        normalization_rule_name="nmt_nfkc", model_type="unigram", pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
        input_sentence_size=0, shuffle_input_sentence=False)
    proto = sentencepiece_model_pb2.ModelProto()
    with open(scratch + "/m.model", "rb") as f:
        proto.ParseFromString(f.read())
    proto.trainer_spec.ClearField("input")  # names of this machine
    proto.trainer_spec.ClearField("model_prefix")
    with open(folder + "/spiece.model", "wb") as f:
        f.write(proto.SerializeToString(deterministic=True))
    # transformers adds the extra ids and its pipeline
    os.makedirs(scratch + "/t5", exist_ok=True)
    with open(scratch + "/t5/spiece.model", "wb") as f:
        f.write(proto.SerializeToString(deterministic=True))
    hf = transformers.T5Tokenizer.from_pretrained(scratch + "/t5")
    whole = json.loads(hf.backend_tokenizer.to_str())
    charsmap = whole["normalizer"]["precompiled_charsmap"]
    assert base64.b64decode(charsmap) == \
        proto.normalizer_spec.precompiled_charsmap
    variant = dict(whole, normalizer=VARIANT["normalizer"](charsmap),
                   pre_tokenizer=VARIANT["pre_tokenizer"])
    whole["normalizer"]["precompiled_charsmap"] = ""
    with open(folder + "/tokenizer.json", "w", encoding="utf-8") as f:
        json.dump(whole, f, ensure_ascii=False, separators=(",", ":"))
    spm = sentencepiece.SentencePieceProcessor(
        model_file=folder + "/spiece.model")
    return spm, hf, tokenizers.Tokenizer.from_str(json.dumps(variant))


def spm_ids(spm, text):
    """sentencepiece between the marks that T5 cuts out."""
    marks = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    marks.update({f"<extra_id_{k}>": len(spm) + 99 - k for k in range(100)})
    ids = []
    for part in re.split(r"(<pad>|</s>|<unk>|<extra_id_(?:[1-9]?[0-9])>)", text):
        if part in marks:
            ids.append(marks[part])
        elif part:
            ids += spm.encode(part)
    return ids + [1]


def cut(row, key, ids, length):
    """Ids that fit with the end mark, and their number if some do not."""
    if len(ids) > length:
        row[key + "_n"] = len(ids)
        ids = ids[:length - 1] + ids[-1:]
    row[key] = ids


def main():
    with gzip.open(sys.argv[1]) as f:
        merges = f.read().decode("utf-8").split("\n")[1:49152 - 256 - 2 + 1]
    with tempfile.TemporaryDirectory() as scratch:
        clip = make_clip(scratch + "/clip", merges)
        small = make_clip(HERE + "/clip_small", merges[:5000])
        spm, t5, old = make_t5(HERE + "/t5_small", scratch)
        count = 0
        with open(HERE + "/tokenizers.jsonl", "w", encoding="ascii") as f:
            for text in tokenizer_texts.texts():
                row = {"text": text}
                cut(row, "clip", clip(text).input_ids, 77)
                cut(row, "clip_small", small(text).input_ids, 77)
                cut(row, "spm", spm_ids(spm, text), 512)
                cut(row, "t5", t5(text).input_ids, 512)
                cut(row, "t5_old", old.encode(text).ids, 512)
                assert row["clip"] == clip(text, truncation=True,
                                           max_length=77).input_ids
                assert row["t5"] == t5(text, truncation=True,
                                       max_length=512).input_ids
                for key in ("t5", "t5_old"):
                    if row[key] == row["spm"]:
                        del row[key]  # absent: as spm
                f.write(json.dumps(row, separators=(",", ":")) + "\n")
                count += 1
    print(count, "texts; transformers", transformers.__version__, "tokenizers",
          tokenizers.__version__, "sentencepiece", sentencepiece.__version__)


main()
