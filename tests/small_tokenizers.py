"""A small tokenizer that is not word-level."""

from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which a text has several tokenizations."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(vocab_size=280, special_tokens=["<s>", "</s>"], initial_alphabet=ByteLevel.alphabet())
    tokenizer.train_from_iterator(["the boat the boats the boating"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def piece_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE of the SentencePiece kind: spaces are ▁, what is not in the vocabulary falls back to its bytes."""
    words = ["▁", "t", "h", "e", "b", "o", "a", "th", "the", "bo", "at", "boat", "▁the", "▁boat"]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    merges = [("t", "h"), ("th", "e"), ("b", "o"), ("a", "t"), ("bo", "at"), ("▁", "the"), ("▁", "boat")]
    bpe = BPE({piece: i for i, piece in enumerate(vocabulary)}, merges, unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
