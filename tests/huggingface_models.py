"""Small audio encoders with random weights, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
CONVOLUTIONS = {
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "intermediate_size": 64,
}
RATES = {"wav2vec2": 16000, "hubert": 16000, "wavlm": 16000, "ast": 16000, "clap": 48000,
         "whisper": 16000}  # fmt: skip


def save(kind: str, folder: Path, normalize: bool = True) -> Path:
    """Write a model of a kind in `RATES`, and its feature extractor."""
    import transformers as t

    torch.manual_seed(0)
    if kind in ("wav2vec2", "hubert", "wavlm"):
        name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}[kind]
        config = getattr(t, f"{name}Config")(**SMALL, **CONVOLUTIONS)
        model: Any = getattr(t, f"{name}Model")(config)
        front_end: Any = t.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    elif kind == "ast":
        model = t.ASTModel(t.ASTConfig(**SMALL, intermediate_size=64))
        front_end = t.ASTFeatureExtractor()
    elif kind in ("clap", "clap-fusion"):
        fusion = kind == "clap-fusion"
        audio = {
            "patch_embeds_hidden_size": 16,
            "hidden_size": 128,
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "projection_dim": 24,
            "enable_fusion": fusion,
        }
        text = {**SMALL, "intermediate_size": 64, "vocab_size": 99, "projection_dim": 24}
        model = t.ClapModel(t.ClapConfig(text_config=text, audio_config=audio, projection_dim=24))
        front_end = t.ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc")
    else:
        model = t.WhisperModel(
            t.WhisperConfig(
                d_model=32,
                encoder_layers=2,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                vocab_size=99,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                decoder_start_token_id=1,
            )
        )
        front_end = t.WhisperFeatureExtractor()
    model.save_pretrained(folder)
    front_end.save_pretrained(folder)
    return folder
