"""From records to token ids: tokenizers, prompt formats, collation. Nothing is cut or dropped without being counted."""
