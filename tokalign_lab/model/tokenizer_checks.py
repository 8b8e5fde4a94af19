"""Checks of a tokenizer: round trips of text, unreachable tokens, the chat template, what is lost from the source.

A token is unreachable if encoding never yields it (Land and Bartolo 2024, "Fishing for Magikarp", section 2): its row
is never read and never trained. There are two causes: the merges cannot make it, or normalizer and pre-tokenizer split
the text before the merges. Parts of characters are not text and are tested with the merges alone. SentencePiece's byte
tokens, and bytes that no UTF-8 text contains, are expected to be unreachable.

Measured on packaged tokenizers: none in SmolLM2's, GPT-2's, Llama 3's, Tekken and Mistral's; 4 in Gemma 3's (0.002 %),
221 in Pythia's (0.4 %, white space that added tokens match), 1,909 in Qwen2's (1.3 %, letters that NFC decomposes).
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from tokalign_lab.evaluation.finding import Finding, percent, several
from tokalign_lab.model.folder_case import FolderCase
from tokalign_lab.model.special_tokens import rendered
from tokalign_lab.provenance import read_record
from tokalign_lab.spelling import NEVER_IN_UTF8, text_of
from tokalign_lab.vocabulary import Vocabulary

# names of conversations, and words that a template which supports them writes
_WRITTEN = {"several turns": "Hi", "a system message": "Be kind", "tools": "zone"}
PROBES = {
    "English": "It isn't 1,234.56 m — the “quick” fox (3rd) said: no!",
    "Spanish": "¿Qué pasó? El niño comió jalapeños en Bogotá.",
    "German": "Über Größe, Straßen und Äpfel: 5 €.",
    "Russian": "Всё хорошо, спасибо. Подъезд № 7.",
    "Greek": "Καλημέρα, τι κάνεις σήμερα;",
    "Chinese": "你好,世界。今天天气很好!",
    "Japanese": "こんにちは、カタカナと漢字。",
    "Korean": "안녕하세요, 만나서 반갑습니다.",
    "Arabic": "مرحبا بالعالم، كيف حالك؟",
    "Hebrew": "שלום עולם, מה שלומך?",
    "Hindi": "नमस्ते दुनिया, आप कैसे हैं?",
    "Thai": "สวัสดีชาวโลก",
    "emoji": "👩‍🚀 launched 🚀 at 🇫🇷 ❤️",
    "code": 'def f(x: int) -> str:\n    if x > 0:\n        return f"{x:>4}"  # ok\n\treturn None\n',
    "JSON": '{"a": [1, 2.5e-3, null], "b": {"c": "\\n"}}',
    "white space": "one  two   three\n\n\nfour\t\tfive\r\nsix \nseven",
    "marks": "a ▁ b Ġ c <0x0A> ## d",
}
UNREACHABLE_WARN, UNREACHABLE_FAIL = 0.02, 0.1
"""Shares of the vocabulary. The worst of the tokenizers above has 1.3 %; a tenth means lost merges or normaliser."""
# no dummy space follows a line end; "a" before continues a WordPiece, "a" after prevents `</w>`
_CONTEXTS = (("", ""), ("\n", ""), ("a", ""), ("", "a"), ("a", "a"))
_MARK = re.compile(r"<[^\s<>]{1,40}>")
_EXAMPLES = 5


def round_trips(case: FolderCase) -> Finding:
    """Whether text survives a round trip, in several scripts, as code and as white space."""
    changed: list[str] = []
    lost: list[str] = []
    for name, probe in PROBES.items():
        # SentencePiece writes a space as this mark and cannot distinguish them; that is no fault of a folder
        text = probe.replace("▁", " ") if case.vocabulary.kind == "sentencepiece" else probe
        back = case.vocabulary.decode(case.vocabulary.encode([probe])[0])
        if back != text:
            (changed if _letters(back) == _letters(text) else lost).append(name)
    values = {"probes": len(PROBES), "changed": changed, "lost": lost}
    if lost:
        evidence = f"Of {len(PROBES)} texts {len(lost)} come back with other characters: {', '.join(lost)}."
        return Finding("round trips", "fail", evidence, "The tokenizer loses text; use its own files, whole.", values)
    if changed:
        evidence = f"{len(changed)} of {len(PROBES)} texts come back with other spaces or forms: {', '.join(changed)}."
        return Finding("round trips", "warn", evidence, "Its normaliser does that; code may change.", values)
    return Finding("round trips", "ok", f"All {len(PROBES)} texts survive the round trip.", values=values)


def _letters(text: str) -> str:
    """Return a text without spaces, case and Unicode form."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def unreachable_tokens(case: FolderCase) -> Finding:
    """Find tokens that encoding never yields."""
    vocabulary = case.vocabulary
    texts, fragments = _spelled(vocabulary)
    left = never_seen(vocabulary, texts)
    expected = [i for i in left if vocabulary.is_byte_fallback[i]]
    left = [i for i in left if not vocabulary.is_byte_fallback[i]]
    expected += [i for i in fragments if vocabulary.is_byte_fallback[i] or vocabulary.token_bytes[i] in NEVER_IN_UTF8]
    broken = [i for i in fragments if i not in set(expected) and not _merges_make(vocabulary, i)]
    unmade = [i for i in left if not _merges_make(vocabulary, i)]
    cut = sorted(set(left) - set(unmade))
    n = len(broken) + len(unmade) + len(cut)
    share = n / max(1, len(texts) + len(fragments))
    severity = "fail" if share >= UNREACHABLE_FAIL else "warn" if share >= UNREACHABLE_WARN else "ok"
    values = {"unreachable": n, "merges": len(unmade), "cut": len(cut), "fragments": len(broken)}
    return Finding(
        "unreachable tokens",
        severity,
        f"{several(n, 'token')} ({percent(share)}) cannot come out of any text: {len(unmade):,} the merges cannot "
        f"make, {len(cut):,} are cut before the merges, {len(broken):,} are parts of characters that they cannot make. "
        f"{len(expected):,} single bytes are not expected to.",
        ""
        if severity == "ok"
        else "The tokenizer's merges or normaliser are not its own; save it again from its source.",
        {**values, "expected": len(expected), "share": share},
        [vocabulary.label(i) for i in [*unmade, *cut, *broken][:_EXAMPLES]],
    )


def _spelled(vocabulary: Vocabulary) -> tuple[dict[int, str], list[int]]:
    """Return tokens that are text by themselves, with that text, and tokens that are parts of characters."""
    texts = {i: text for i, token in enumerate(vocabulary.token_bytes) if (text := text_of(token))}
    return texts, [i for i, token in enumerate(vocabulary.token_bytes) if token and i not in texts]


def never_seen(vocabulary: Vocabulary, texts: dict[int, str]) -> list[int]:
    """Find tokens that encoding their own text yields in no context."""
    left = list(texts)
    for before, after in _CONTEXTS:
        encoded = vocabulary.encode([before + texts[i] + after for i in left])
        left = [i for i, found in zip(left, encoded, strict=True) if i not in found]
    return left


def _merges_make(vocabulary: Vocabulary, token_id: int) -> bool:
    """Whether the tokenizer's model, without normalizer and pre-tokenizer, encodes the token's string as this token."""
    made = vocabulary.tokenizer.backend_tokenizer.model.tokenize(vocabulary.raw_token(token_id))
    return [token.id for token in made] == [token_id]


def chat_template(case: FolderCase) -> Finding:
    """Whether the chat template renders, and suits the tokenizer.

    Marks that are ordinary text (Zephyr's `<|user|>`) are a fault only if no token ends an answer. They are suspect if
    the tokenizer has its own marks, which the template does not write.
    """
    vocabulary = case.vocabulary
    tokenizer = vocabulary.tokenizer
    if not tokenizer.chat_template:
        return Finding("chat template", "ok", "There is none.")
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Goodbye"}] * 2
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program: it may fail in any way
        evidence = f"It does not render: {type(error).__name__}: {str(error)[:200]}."
        return Finding("chat template", "fail", evidence, "Remove it, or use one for this tokenizer.")
    marks = sorted(set(_MARK.findall(text + prompt)))
    pieces = {mark: len(tokenizer.encode(mark, add_special_tokens=False)) for mark in marks}
    split = [mark for mark, n in pieces.items() if n != 1]
    values = {"marks": pieces}
    if "Hello" not in text or "Goodbye" not in text:
        evidence = "It renders, but leaves out a message."
        return Finding("chat template", "fail", evidence, "Use a template for this tokenizer.", values)
    about_marks = f"its marks are single ids: {' '.join(marks)}" if marks else "it writes no marks"
    if split:
        evidence = f"It writes {', '.join(f'{mark} ({pieces[mark]} tokens)' for mark in split[:5])} as ordinary text"
        advice = "Add them to the tokenizer as special tokens, or use a template that it has the marks for."
        eos = getattr(case.model.generation_config, "eos_token_id", None)
        named = np.atleast_1d([] if eos is None else eos)
        ends = {*named.tolist(), vocabulary.roles.get("eos")}
        if ends.isdisjoint(
            tokenizer.encode(text.partition("Goodbye")[2].partition("Hello")[0], add_special_tokens=False)
        ):
            return Finding("chat template", "fail", f"{evidence}, and no eos after an answer.", advice, values)
        control = {vocabulary.raw_token(int(i)) for i in np.flatnonzero(vocabulary.is_control)}
        of_roles = {vocabulary.raw_token(i) for i in vocabulary.roles.values()}
        unused = sorted(mark for mark in control - of_roles if _MARK.fullmatch(mark) and mark not in text + prompt)
        if unused:
            evidence = f"{evidence}, but not the tokenizer's own {', '.join(unused[:5])}."
            return Finding("chat template", "warn", evidence, advice, values)
        about_marks = f"{evidence.removeprefix('It ')}, and an answer ends in eos"
    lacks = [name for name, words in _WRITTEN.items() if words not in (rendered(vocabulary, name) or "")]
    about_lacks = f" It does not write {' or '.join(lacks)}." if lacks else ""
    return Finding("chat template", "ok", f"It renders; {about_marks}.{about_lacks}", values=values)


def carried_over(case: FolderCase) -> Finding:
    """Whether chat template and special tokens of the source are kept, by the folder's `tokalign.json`."""
    record = read_record(case.folder)
    if not record:
        return Finding("carried over", "not verified", "The folder does not record what it was made from.")
    lost = [str(sentence) for sentence in record.get("lost", [])]
    if not lost:
        return Finding("carried over", "ok", "Nothing of its source is recorded as lost.")
    advice = "Rearrange again with special_tokens='keep'."
    return Finding("carried over", "warn", " ".join(lost), advice, {"lost": lost})
