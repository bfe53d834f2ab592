"""Texts of the tokenizer goldens: what make_tokenizers.py encodes.

All of it is written or generated here. Random texts draw from characters of
Unicode 3.2, so that every library's tables know them alike.
"""
import random
import unicodedata

SENTENCES = """
a photo of a cat|Hello, world!|A cinematic shot of a baby racoon wearing an
intricate italian priest robe.|The quick brown fox jumps over the lazy dog.
translate English to German: The house is wonderful.
Ein großer Übergang: äöü ÄÖÜ ß ẞ, naïve façade, Ångström.
L'été, l'élève reçoit « Noël » à cœur joie; où êtes-vous?
El niño comió piñas en España. ¿Cómo estás? ¡Muy bien!
São Paulo, coração, ação, pão de açúcar.|Żółć gęślą jaźń, łódź, ćma.
Příliš žluťoučký kůň úpěl ďábelské ódy.|Árvíztűrő tükörfúrógép.
İstanbul'da ışıklı bir gece, ılık IŞIK.|Đây là tiếng Việt: người, được, ở.
Съешь же ещё этих мягких французских булок, да выпей чаю.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΟΔΥΣΣΕΥΣ Σίσυφος
שלום עולם, מה שלומך היום?|مرحبا بالعالم كيف حالك ١٢٣
فارسی: می‌خواهم بروم ۴۵۶|नमस्ते दुनिया, क्षत्रिय १२३|வணக்கம் உலகம்
สวัสดีชาวโลก ๑๒๓|გამარჯობა მსოფლიო|Բարեւ աշխարհ|ሰላም ልዑል
こんにちは世界。カタカナとひらがな、漢字も。|ｶﾞｷﾞｸﾞ ﾊﾟﾋﾟﾌﾟ|你好，世界！这是一只猫。
龍門飛甲 繁體中文 鬱|안녕하세요 세계 한글|각|a 漢 b字c|Монгол ᠮᠣᠩᠭᠣᠯ
""".replace("\n", "|").split("|")

PLAIN = [
    "", " ", "  ", "\t", "\n", "\r\n", " \t\r\n ", "\u3000", "\u00a0", "a", "A",
    " a", "a ", "  a  b  ", "a\tb\nc\r\nd", "a\u3000b\u00a0c\u2009d\u2028e",
    "\x0b\x0c", "a\x85b", "\u1680", "\u180e", "a\u180eb", "\u2028\u2029",
    "0", "7", "42", "1234567890", "3.14159", "1,000,000", "1e-5", "-273.15",
    "2nd 3rd 4th", "v2.0", "½ ¼ ¾ ⅓", "Ⅷ ⅷ Ⅻ", "①②③ ⑳ ⓪", "x² y³ zⁿ", "H₂O",
    "٣٤٥", "१२३", "四十二", "1st 2 3rd4", "50% off", "16:9", "1920x1080", "f/1.8",
    "!", "!!", "!!!", "...", "…", "?!", "--", "---", "-------", "~~~~", "====",
    "***bold***", "(((masterpiece)))", "[[x]]", "{a|b}", "<lora:x:0.8>",
    "a,b", "a, b", "a ,b", "a.b.c", "don't", "DON'T", "can't won't", "it's",
    "we're they've I'm he'll I'd", "'s", "'S", "''s", "'t't", "rock'n'roll",
    "'", "''", "'''", "o'clock", "y'all'd've", "l\u2019été", "it\u2019s",
    "\u2018quoted\u2019 \u201cdouble\u201d", "\"quoted\"", "`code`",
    "foo_bar", "__init__", "snake_case_name", "camelCaseName", "a/b\\c",
    "user@example.org", "https://example.org/a?b=c&d=%20#e", "#hashtag @name",
    "C++ C# F#", "R&B", "AT&T", "$100 €50 £20 ¥3000", "100°C", "±5", "a≠b",
    "α β γ", "∑ ∫ √ ∞", "→ ← ↑ ↓", "♥ ♦ ♣ ♠", "☺ ☹", "✓ ✗", "★☆★", "─│┌┐",
    "™ ® ©", "№ 5", "§ 3", "¶", "•", "‰", "℃ ℉ Å", "㎏ ㎡ ㍿", "㋀", "ﷺ",
    "&amp; &lt;b&gt; &quot;", "&#39;", "<b>bold</b>", "â€™ mojibake Ã©",
]

UNICODE = [
    "é", "e\u0301", "E\u0301", "Å", "A\u030a", "\u212b", "ñ", "n\u0303",
    "ẛ̣", "\u1e9b\u0323", "q\u0307\u0323", "q\u0323\u0307", "\u0344",
    "\u0958", "\u2126", "\u0340a", "\u0374", "\u0387", "\u1fef",
    "a\u0300\u0301\u0302\u0303\u0304\u0305", "Z\u0351\u036b\u0343algo",
    "\u0301", " \u0301", "\u0301a", "a \u0301b", "①\u0301", "ｅ\u0301",
    "ｅ\u0301\u0302\u0303", "Ａ\u030a", "ﬁ\u0301", "½\u0301", "\u00a0\u0301",
    "ＡＢＣ ａｂｃ １２３", "Ｆｕｌｌ　Ｗｉｄｔｈ！", "＜/s＞", "＜pad＞ ＜unk＞",
    "ﬁ ﬂ ﬀ ﬃ ﬄ ﬅ ﬆ", "Ǆ ǅ ǆ", "ĳ Ĳ", "œ Œ æ Æ", "ﬓ", "ſ", "ſt K",
    "soft\u00adhyphen", "\u00ad", "zero\u200bwidth", "\u200b", "\u200b\u200b a",
    "zwnj\u200cx zwj\u200dx", "\u200d", "\ufeffbom", "a\ufeffb", "\u2060x",
    "\u200ertl\u200f mark\u202a\u202e\u202c", "a\u2066b\u2069",
    "İ", "I\u0307", "ı", "DİYARBAKIR", "ΑΣ", "Σ", "ς σ Σ", "ΟΔΟΣ ΟΔΟΣ.",
    "ẞ ß SS", "Ǳ ǲ ǳ", "ᾳ ᾼ", "ŉ", "ǰ", "ΐ", "և", "ѐ Ѐ", "Ⴀ ა Ა", "Ꭰ ꭰ",
    "𝐀𝐁𝐂 𝒜ℬ𝒞 𝔸𝔹ℂ", "𝟏𝟐𝟑", "𐐀 𐐨", "𠮷野家", "𝄞", "𝕳𝖊𝖑𝖑𝖔",
    "ｶﾞ", "か\u3099", "が", "ハ\u309a", "가", "ᄀ\u1161", "ᄀ\u1161\u11a8", "ﾡ",
    "क्\u200dष", "क\u094d\u0937", "நி", "ที่", "กำ", "ເຂົ້າ", "ཀྵ",
    "😀", "😀😀", "a😀b", "😀 smile", "👍🏽", "👩\u200d💻", "👨\u200d👩\u200d👧\u200d👦",
    "🏳️\u200d🌈", "🇩🇪", "🇩🇪🇫🇷", "🇩", "❤️", "❤", "1️⃣", "#️⃣", "☝🏿", "🤷🏻\u200d♀️",
    "🧑🏾\u200d🤝\u200d🧑🏻", "©️", "🫠", "✊🏾 raised fist", "💩" * 20,
    "\x01", "\x00".replace("\x00", "\x02"), "a\x01b", "a\x7fb", "\x1b[31mred",
    "a\x08b", "\x1f", "a\x80b\x9fc", "a\u0085b", "\ufffd", "a\ufffdb", "\ufffe",
    "\uffff", "\U0010ffff", "\ue000 private", "\U000f0000", "\u0378 unassigned",
    "\u2581", "▁a", "a▁b", "▁▁", "a ▁ b", "▁ a ▁", "a\u2581", "\u2581 \u2581",
    "\u0600\u0661", "\u06dd", "\u070f", "\u115f", "\u3164", "\u2800", "\u034f",
    "\ufe0f", "a\ufe0f", "\U000e0061", "\u17b4", "\ufff9x\ufffb",
    "שלום hello עולם", "\u202bשלום\u202c", "אָלֶף", "כ\u05bc", "لا ﻻ", "ﷲ", "ـــ",
    "a" + "\u0301" * 30, "ﷺ" * 4, "㌀㌁", "⑴⒜", "…‥", "‼⁇⁈⁉", "″‴", "ⅠⅡ",
]

MARKS = [
    "<|startoftext|>", "<|endoftext|>", "a<|endoftext|>b", "a <|endoftext|> b",
    "<|endoftext|><|endoftext|>", "<|STARTOFTEXT|>", "A<|EndOfText|>B",
    "!!<|ENDOFTEXT|>!!", "<|ENDOFTEXT|>s 's", "<|endoftext", "|endoftext|>",
    "<|endoftext |>", "< |endoftext|>", "<||endoftext|>|>", "<|start<|endoftext|>",
    "é<|endoftext|>e\u0301", "  <|endoftext|>  ", "<|endoftext|>\u0301",
    "<|ENDOFTEXT|>!!", "a <|StartOfText|>...",
    "</s>", "<pad>", "<unk>", "a</s>b", "a </s> b", "</s></s>", "<PAD>", "</S>",
    "<extra_id_0>", "<extra_id_99>", "<extra_id_100>", "<extra_id_0>a",
    "The <extra_id_0> walks in <extra_id_1> park", "<extra_id_1><extra_id_10>",
    "a<extra_id_5>b", " <extra_id_5> ", "<extra_id_>", "<extra_id_05>",
    "<s>", "<mask>", "[CLS] [SEP]", "<0x41>", "<pad", "pad>", "<<pad>>",
    "<unk><pad></s>", "x<unk>y z", "﹤pad﹥", "＜extra_id_0＞", "<\u200bpad>",
]

LONG = [
    "cat " * 74, "cat " * 75, "cat " * 76, "cat " * 90, "a" * 200, "ab" * 600,
    "antidisestablishmentarianism" * 12, "word " * 510, "word " * 511,
    "word " * 512, "word " * 600, "!" * 150, "1" * 120, "漢" * 100, "😀" * 60,
    "x " * 1000, "supercalifragilisticexpialidocious " * 20, "- " * 90,
    "é" * 90, "\u200b" * 90, " " * 300 + "a", "a" + " " * 300, "ﷺ" * 60,
    "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz " * 6,
    "don't " * 40, "it's a 'test' of the 'quotes' " * 12, "日本語と English " * 20,
]

COLOURS = "red blue green yellow purple orange black white pink brown".split()
THINGS = ("bench cow bicycle clock carrot vase toothbrush zebra laptop umbrella "
          "giraffe pizza train sandwich teddy-bear fire-hydrant stop-sign").split()
PLACES = ["above", "below", "left of", "right of", "next to", "in front of"]
STYLES = ["oil painting", "watercolor", "35mm photo", "isometric render",
          "pixel art", "studio lighting", "8k, ultra-detailed", "bokeh",
          "trending on artstation", "art nouveau", "low-poly", "ukiyo-e"]
NUMBERS = "two three four five six seven eight nine ten".split()


def prompts(count, seed):
    r = random.Random(seed)
    out = []
    while len(out) < count:
        a, b = r.sample(THINGS, 2)
        c, d = r.sample(COLOURS, 2)
        form = r.choice([
            "a photo of a {c} {a}", "a photo of {n} {a}s",
            "a photo of a {c} {a} and a {d} {b}", "a photo of a {a} {p} a {b}",
            "A {c} {a}, {s}, by Alphonse Mucha", "{n} {c} {a}s {p} a {d} {b}",
            "{s} of a {a}'s {b}; {s2} --ar 16:9 --v {k}",
            "A sign that says \"{a} {k}\" {p} the {d} {b}.",
            "An astronaut riding a {a} on the moon, {s}, {s2}",
            "({c} {a}:1.{k}), {s}, [{b}], best quality"])
        out.append(form.format(a=a, b=b, c=c, d=d, n=r.choice(NUMBERS),
                               p=r.choice(PLACES), s=r.choice(STYLES),
                               s2=r.choice(STYLES), k=r.randrange(1, 10)))
    return out


def alphabet():
    """Characters of Unicode 3.2, by what they do to a tokenizer."""
    old = unicodedata.ucd_3_2_0
    kinds = {}
    for c in range(1, 0x30000):
        kind = old.category(chr(c))
        if kind not in ("Cn", "Cs"):
            kinds.setdefault(kind, []).append(chr(c))
    return kinds


def mixtures(count, seed):
    """Random texts: marks on letters, spaces of all kinds, odd neighbours."""
    r = random.Random(seed)
    kinds = alphabet()
    compat = [chr(c) for c in range(0xA0, 0x10000)
              if unicodedata.ucd_3_2_0.decomposition(chr(c))]
    usual = [c for c in "abcdefghijklmnopqrstuvwxyz ETA'.,!-0123456789"]
    sets = [usual] * 4 + [compat] * 2 + [kinds["Mn"]] * 2 + list(kinds.values())
    out = []
    for _ in range(count):
        few = r.sample(sets, 4) + [usual]
        out.append("".join(r.choice(r.choice(few))
                           for _ in range(r.randrange(1, 28))))
    return out


def invented(count, seed):
    """Sentences of invented words with endings, frequent ones first."""
    r = random.Random(seed)
    parts = [a + b for a in "b ch d f g k l m n p r s st t th v w".split()
             for b in "a e i o u ai ea ou er in al".split()]
    stems = ["".join(r.choices(parts, k=r.randrange(1, 4)))
             for _ in range(1500)]
    ends = ["", "", "", "s", "ing", "ed", "ly", "ness", "er", "ation"]
    weights = [1 / (i + 5) for i in range(len(stems))]
    return [" ".join(s + r.choice(ends)
                     for s in r.choices(stems, weights, k=9)) + "."
            for _ in range(count)]


def corpus():
    """Text to train a small unigram model on."""
    lines = [s for s in SENTENCES if s] + prompts(3000, 1)
    return lines + [s for s in SENTENCES if s] * 12 + invented(2500, 4)


def texts():
    out = [s for s in SENTENCES if s] + PLAIN + UNICODE + MARKS + LONG
    out += prompts(110, 2) + mixtures(190, 3) + invented(20, 5)
    return list(dict.fromkeys(out))
