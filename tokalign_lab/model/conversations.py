"""Conversations that chat templates are tried on."""

from __future__ import annotations

from typing import Any

from tokalign_lab.vocabulary import Vocabulary

_QUESTION = [{"role": "user", "content": "Hello"}]
_ANSWERED = [*_QUESTION, {"role": "assistant", "content": "Hi"}]
_TOOL = {
    "type": "function",
    "function": {
        "name": "time",
        "description": "The time",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string", "description": "Where"}}},
    },
}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "an answer": {"conversation": _ANSWERED},
    "several turns": {"conversation": [*_ANSWERED, *_ANSWERED, *_QUESTION], "add_generation_prompt": True},
    "a system message": {
        "conversation": [{"role": "system", "content": "Be kind"}, *_QUESTION],
        "add_generation_prompt": True,
    },
    "tools": {"conversation": _QUESTION, "tools": [_TOOL], "add_generation_prompt": True},
}
"""What a chat template is tried on: arguments of `apply_chat_template`, by name. All templates render an answer."""


def rendered(vocabulary: Vocabulary, name: str, template: str | None = None) -> str | None:
    """Render one of `CONVERSATIONS`, by the tokenizer's own template or another; None if that fails."""
    conversation = CONVERSATIONS[name]
    try:
        return str(vocabulary.tokenizer.apply_chat_template(**conversation, chat_template=template, tokenize=False))
    except Exception:  # a template is a program: it may fail in any way, on purpose too
        return None
