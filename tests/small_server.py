"""Real servers of small models, in processes of their own."""

import re
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from heedful.models.load import from_scratch
from processes import Forked, wait_until

CHAT = (
    "{%- for m in messages -%}{%- if m['role'] == 'system' and not loop.first -%}"
    "{{- raise_exception('system messages stand first') -}}{%- endif -%}"
    "<{{ m['role'] }}>{{ m['content'] }}\n{%- endfor -%}<assistant>"
)


def save_small(folder: Path, tokenizer: PreTrainedTokenizerBase, chat: bool, context: int = 4096) -> Path:
    """A folder with a small random Llama for the tokenizer."""
    shape: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": len(tokenizer) + 3,  # rows to spare, as many models have
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": context,
        "initializer_range": 0.4,  # far from uniform
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    tokenizer.chat_template = CHAT if chat else None
    from_scratch(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Server:
    """A running server, its process, and where it listens."""

    def __init__(self, process: Forked, output: Path) -> None:
        self.process, self._output = process, output
        self.url = ""

    def wait(self) -> "Server":
        def told() -> bool:
            assert self.process.poll() is None, self.said()
            found = re.search(r"(http://\S+)/v1 serves", self.said())
            self.url = found[1] if found else ""
            return found is not None

        wait_until(told)
        return self

    def said(self) -> str:
        return self._output.read_text()


def launch(output: Path, *arguments: object) -> Server:
    """`heedful serve` on a free port, computing on one thread; wait() for it before use."""
    output.touch()
    return Server(Forked(output, "serve", *arguments, "--port", 0, "--threads", 1), output)


def stop(server: Server) -> int:
    """End the process and return its exit code."""
    if server.process.poll() is None:
        server.process.terminate()
    return server.process.wait(60)
