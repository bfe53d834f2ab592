"""Makes the goldens of BERT's WordPiece; run by hand, from the root of the
tree, after make_tokenizers.py:

    python tests/golden/make_wordpiece.py

with transformers 4 (its slow tokenizers, which ImageReward has) and tokenizers.

Writes in tests/golden:
  bert_small/      vocab.txt: a vocabulary of what tokenizer_texts.py has;
                   added_tokens.json: the two tokens that BLIP adds;
                   tokenizer.json: both, as transformers' fast tokenizer has them
  tokenizers.jsonl ids of BertTokenizer for each of its texts, as key "bert"
"""
import collections
import json
import os
import shutil
import sys
import zlib

import tokenizers
import transformers

sys.path.insert(0, os.path.dirname(__file__))
import tokenizer_texts  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = HERE + "/bert_small"
MARKS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LENGTH = 77


def words_of(texts):
    form = tokenizers.normalizers.BertNormalizer()
    cut = tokenizers.pre_tokenizers.BertPreTokenizer()
    return [w for t in texts
            for w, _ in cut.pre_tokenize_str(form.normalize_str(t))]


def most(counter, num):
    return sorted(counter, key=lambda x: (-counter[x], x))[:num]


def vocabulary():
    """Frequent words, beginnings and endings; four of five characters."""
    words = collections.Counter(words_of(tokenizer_texts.corpus()))
    begins, ends = collections.Counter(), collections.Counter()
    for w, n in words.items():
        for k in range(2, 6):
            if k < len(w):
                begins[w[:k]] += n
                ends["##" + w[-k:]] += n
    chars = sorted(set("".join(words_of(tokenizer_texts.texts()))))
    chars = [c for c in chars if c.isascii() or zlib.crc32(c.encode()) % 5]
    pieces = most(words, 500) + most(begins, 250) + most(ends, 250)
    pieces += chars + ["##" + c for c in chars]
    return list(dict.fromkeys(MARKS + pieces))


def as_blip(t):
    t.add_special_tokens({"bos_token": "[DEC]"})
    t.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    return t


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    with open(OUT + "/vocab.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(vocabulary()) + "\n")
    slow = as_blip(transformers.BertTokenizer(OUT + "/vocab.txt"))
    fast = as_blip(transformers.BertTokenizerFast(OUT + "/vocab.txt"))
    with open(OUT + "/added_tokens.json", "w", encoding="utf-8") as f:
        json.dump({t: slow.convert_tokens_to_ids(t)
                   for t in ("[DEC]", "[ENC]")}, f)
        f.write("\n")
    whole = json.loads(fast.backend_tokenizer.to_str())
    with open(OUT + "/tokenizer.json", "w", encoding="utf-8") as f:
        json.dump(whole, f, ensure_ascii=False, separators=(",", ":"))
    rows, others = [], []
    with open(HERE + "/tokenizers.jsonl", encoding="ascii") as f:
        for line in f:
            row = json.loads(line)
            row.pop("bert", None)
            row.pop("bert_n", None)
            ids = slow(row["text"]).input_ids
            if ids != fast(row["text"]).input_ids:
                others.append(row["text"])
            if len(ids) > LENGTH:
                row["bert_n"] = len(ids)
                ids = slow(row["text"], truncation=True,
                           max_length=LENGTH).input_ids
            row["bert"] = ids
            rows.append(row)
    with open(HERE + "/tokenizers.jsonl", "w", encoding="ascii") as f:
        for row in rows:
            f.write(json.dumps(row, separators=(",", ":")) + "\n")
    unknown = slow.unk_token_id
    print(len(rows), "texts;", len(slow), "ids;", "transformers",
          transformers.__version__, "tokenizers", tokenizers.__version__)
    print("the fast tokenizer gives others:", [ascii(t) for t in others])
    print("unknown:", sum(unknown in r["bert"] for r in rows))


main()
