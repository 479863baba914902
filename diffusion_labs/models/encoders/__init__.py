"""Encoders of conditions: from classes, texts and maps to what networks take."""

from diffusion_labs.models.encoders.bpe_tokenizer import bpe_tokenizer, learn_merges
from diffusion_labs.models.encoders.byte_text_encoder import ByteTextEncoder
from diffusion_labs.models.encoders.byte_tokenizer import ByteTokenizer
from diffusion_labs.models.encoders.cached_text_encoder import CachedTextEncoder
from diffusion_labs.models.encoders.class_embedding import ClassEmbedding
from diffusion_labs.models.encoders.clip import CLIP, EncodedText
from diffusion_labs.models.encoders.clip_text_encoder import (
    CLIPTextEncoder,
    last_states,
    normalised_penultimate_states,
    penultimate_states,
)
from diffusion_labs.models.encoders.concat_text_encoder import ConcatTextEncoder
from diffusion_labs.models.encoders.conditioner import Conditioner
from diffusion_labs.models.encoders.ldm_text_encoder import LDMTextEncoder
from diffusion_labs.models.encoders.pretrained_text_encoder import PretrainedTextEncoder
from diffusion_labs.models.encoders.sentence_encoder import SentenceEncoder
from diffusion_labs.models.encoders.spatial_rescaler import SpatialRescaler
from diffusion_labs.models.encoders.t5_text_encoder import T5TextEncoder
from diffusion_labs.models.encoders.text_encoder import TextEncoder, encode_distinct
from diffusion_labs.models.encoders.transformers_clip import TransformersCLIP, small_clip
from diffusion_labs.models.encoders.unclip_text_encoder import UnCLIPTextEncoder

__all__ = [
    "CLIP",
    "ByteTextEncoder",
    "ByteTokenizer",
    "CLIPTextEncoder",
    "CachedTextEncoder",
    "ClassEmbedding",
    "ConcatTextEncoder",
    "Conditioner",
    "EncodedText",
    "LDMTextEncoder",
    "PretrainedTextEncoder",
    "SentenceEncoder",
    "SpatialRescaler",
    "T5TextEncoder",
    "TextEncoder",
    "TransformersCLIP",
    "UnCLIPTextEncoder",
    "bpe_tokenizer",
    "encode_distinct",
    "last_states",
    "learn_merges",
    "normalised_penultimate_states",
    "penultimate_states",
    "small_clip",
]
