"""What an answer says: the letter, number, yes/no or time that free text states, or None where it states none.

Every extractor reads what is *stated*, never the first thing that looks alike: "A photo of B" states no option,
"sixteen" holds no six, "I do not know" does not say "no". A change of any rule here is a new version of its metric.
"""

from __future__ import annotations

import re
import unicodedata

_EDGE = " \t\n.,;:!?\"'`*_()[]{}<>“”‘’"


_WIDE = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {"\u3000": " ", "￥": "¥", "￡": "£"}
_MARKS = {"。": ". ", "、": ", ", "【": "[", "】": "]", "〔": "(", "〕": ")"} | dict.fromkeys("「」『』《》〈〉", '"')
_ASCII = str.maketrans(_WIDE | _MARKS)


def plain_form(text: str) -> str:
    """One way to write a text: composed accents (NFC), full-width letters, digits and marks as the ASCII ones they stand for."""
    return unicodedata.normalize("NFC", text).translate(_ASCII)


def one_line(text: str) -> str:
    """The plain form in lower case, with single spaces."""
    return unicodedata.normalize("NFC", " ".join(plain_form(text).casefold().split()))


def normalise(text: str) -> str:
    """Unicode-folded, lower case, single spaces, no punctuation at the edges, no leading article."""
    folded = " ".join(unicodedata.normalize("NFKC", plain_form(text)).casefold().split())
    bare = folded.strip(_EDGE) or folded  # an answer that is a mark ("?") stays one
    return re.sub(r"^(?:a|an|the) (?=\S)", "", bare)


# --- numbers -------------------------------------------------------------------------------------------------------

_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()  # noqa: SIM905
_SMALL += "sixteen seventeen eighteen nineteen".split()  # noqa: SIM905
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
NUMBER_WORDS = {word: value for value, word in enumerate(_SMALL)} | {
    word: 10 * value for value, word in enumerate(_TENS, start=2)
}
"""English number words to their values, up to ninety."""

_UNIT = rf"(?:{'|'.join(_SMALL[1:10])})"
_BELOW_100 = rf"(?:(?:{'|'.join(_TENS)})(?:[- ]{_UNIT})?|{'|'.join(sorted(_SMALL, key=len, reverse=True))})\b"
_WORDS = rf"\b(?:(?:(?:{_UNIT}|an?)[- ])?hundred\b(?:[- ](?:and )?{_BELOW_100})?|{_BELOW_100})"
_DIGITS = r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\d)(?!(?:st|nd|rd|th)\b)"
_NUMBER = re.compile(rf"{_DIGITS}|{_WORDS}")
_STATED = re.compile(r"(?:\banswer(?: is|:)|\btotal(?: of| is|:)|=)[\s*$({]*$")


def number_words(text: str) -> int | None:
    """The value of a text that is an English number up to 999 in words and nothing else, else None."""
    if not re.fullmatch(_WORDS, text):
        return None
    total = 0
    for word in re.split(r"[- ]+", text):
        total = max(total, 1) * 100 if word == "hundred" else total + NUMBER_WORDS.get(word, 0)
    return total


def _value(number: str) -> float:
    words = number_words(number)
    return float(number.replace(",", "").replace("−", "-")) if words is None else float(words)


def stated_number(text: str) -> float | None:
    """The number a text states in digits ("1,234", "3.0") or in English words up to 999, else None.

    Of several, the last that follows "answer is", "answer:", "total of", "total is" or "=", else the last. A lone
    "one" beside other numbers is taken for the pronoun. Ordinals ("3rd") are not numbers; "none" and "there are no …"
    are 0.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().replace("–", "-").replace("*", "")
    hits = list(_NUMBER.finditer(folded))
    stated = [hit for hit in hits if _STATED.search(folded[: hit.start()])]
    hits = stated or [hit for hit in hits if hit[0] != "one"] or hits
    if hits:
        return _value(hits[-1][0])
    return 0.0 if re.search(r"\bnone\b|\bthere (?:are|is|were|was) no\b", folded) else None


# --- option letters ------------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"\\(?:boxed|text|mathrm)\s*|[*_`${}]")
_REASON = r"(?:because|since|as|for|which|and not)"
# "A" and "I" are also words: before another word they count only in brackets or before a reason
_PLAIN = rf"(?:[B-HJ-Z]\b(?!['’-])|[AI]\b(?!['’-]|\s+(?!{_REASON}\b)\w)|[a-z](?=\s*(?:[.):,;]|$)))"
_ONE = rf"(?:\(\s*([A-Za-z])\s*\)|\[\s*([A-Za-z])\s*\]|({_PLAIN}))"
_CHOOSING = r"(?:\banswer(?:\s+(?:is|would be|should be))?\s*[:=]?|\b(?:choose|pick|select|go with))"
_ANSWER_IS = re.compile(rf"(?i:{_CHOOSING}\s*(?:(?:option|choice)\s+)?){_ONE}")
_IS_ANSWER = re.compile(rf"{_ONE}[.)]?\s+(?i:is|would be)\s+(?i:the\s+)?(?i:correct|right|best|answer|most likely)\b")
_LIST = r"(?!\s*(?:and\s+|or\s+)?[(\[]?[A-Za-z](?:[.):,\]]|\s+(?:and|or)\b))(?!\s*(?:and|or)\s+[A-Za-z]\b)"
_LEADING = re.compile(
    rf"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])(?:[.):;](?=\s|$)|,(?=\s)(?!\s*[A-Za-z]$)|\s[-–—](?=\s))|([A-Z])(?=\s+because\b)){_LIST}"
)
_OPTION = re.compile(rf"(?i:\b(?:option|choice)\s+){_ONE}")
_BRACKETED = re.compile(r"[(\[]\s*([A-Z])\s*[)\]]")
_ALONE = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\].:,;!]*")


def stated_letter(text: str) -> str | None:
    """The option letter (upper case) that a text states, else None.

    In this order: the whole answer is a letter ("b", "(B)", "**B**."); "the answer is B" / "Answer: B" / "I choose B"
    (the last one) or "B is correct"; the answer begins "B. …", "B) …", "(B) …", "B: …", "B because …"; its first or last
    line is a letter; exactly one letter is named by "option B" or in brackets. A letter in running text ("A photo of
    B", "vitamin C") and a list ("A, B and C") state nothing.
    """
    plain = _MARKUP.sub("", plain_form(text)).strip().strip("\"'“”")
    if whole := _ALONE.fullmatch(plain):
        return whole[1].upper()
    for pattern in (_ANSWER_IS, _IS_ANSWER):
        if hits := [_letter(hit) for hit in pattern.finditer(plain)]:
            return hits[-1]
    if leading := _LEADING.match(plain):
        return _letter(leading)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    for line in lines[:1] + lines[-1:]:
        if alone := _ALONE.fullmatch(line):
            return alone[1].upper()
    for pattern in (_OPTION, _BRACKETED):
        if len(named := {_letter(hit) for hit in pattern.finditer(plain)}) == 1:
            return named.pop()
    return None


def _letter(hit: re.Match[str]) -> str:
    return next(group for group in hit.groups() if group).upper()


# --- yes and no, clock times ---------------------------------------------------------------------------------------


def stated_yes_no(text: str) -> str | None:
    """ "yes" or "no" when the text says exactly one of them, or begins with one and a pause; else None.

    "No, yes would be wrong" begins with no; "yes and no" says both and so neither; "not" and "know" do not count as "no".
    """
    folded = normalise(text)
    words = re.findall(r"\b(?:yes|no)\b", folded)
    if len(set(words)) == 1 or re.match(r"(?:yes|no)\s*[.,;:!\n-]", folded):
        return words[0]
    return None


_TIME = re.compile(
    r"(?<![\d:.])(\d{1,2})\s*[:.h]\s*(\d{2})(?:\s*:\s*\d{2})?(?![\d:]|\.\d)|(?<![\d:.])(\d{1,2})\s*o['’]?\s*clock"
)


def stated_time(text: str) -> int | None:
    """Minutes after twelve on a clock face (0–719) of the last time a text states, else None.

    "7:05", "07:05", "7.05", "7h05", "7:05:30", "7:05 PM" and "19:05" are the same: a face shows neither a.m. nor p.m.
    "7 o'clock" is 7:00. Hours above 24, minutes above 59 and one-digit minutes are not times.
    """
    time = None
    for hour, minute, sharp in _TIME.findall(unicodedata.normalize("NFKC", text).casefold()):
        hours, minutes = int(hour or sharp), int(minute or 0)
        if hours <= 24 and minutes < 60:
            time = hours % 12 * 60 + minutes
    return time
