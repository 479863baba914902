"""Encoders of conditions: from classes, texts and maps to what networks take."""

from diffusion_labs.models.encoders.byte_text_encoder import ByteTextEncoder
from diffusion_labs.models.encoders.class_embedding import ClassEmbedding
from diffusion_labs.models.encoders.conditioner import Conditioner
from diffusion_labs.models.encoders.text_encoder import TextEncoder, encode_distinct

__all__ = ["ByteTextEncoder", "ClassEmbedding", "Conditioner", "TextEncoder", "encode_distinct"]
