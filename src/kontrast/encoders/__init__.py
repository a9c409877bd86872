"""Networks that turn texts, vectors and images into embeddings, behind one small interface."""

from kontrast.encoders.base import Batch, Encoder, encode_rows, seeded, to_device
from kontrast.encoders.heads import ProjectionHead
from kontrast.encoders.images import ImageEncoder, ImageEncoderConfig
from kontrast.encoders.inference import Inference, Precision, inference
from kontrast.encoders.resolve import (
    EncoderConfig,
    build_encoder,
    load_text_encoder,
    resolve_encoder,
    resolve_image_encoder,
    resolve_text_encoder,
)
from kontrast.encoders.text import TextEncoder, TextEncoderConfig, encode_texts
from kontrast.encoders.tokens import TokenIds
from kontrast.encoders.vectors import VectorEncoder, VectorEncoderConfig

__all__ = [
    "Batch",
    "Encoder",
    "EncoderConfig",
    "ImageEncoder",
    "ImageEncoderConfig",
    "Inference",
    "Precision",
    "ProjectionHead",
    "TextEncoder",
    "TextEncoderConfig",
    "TokenIds",
    "VectorEncoder",
    "VectorEncoderConfig",
    "build_encoder",
    "encode_rows",
    "encode_texts",
    "inference",
    "load_text_encoder",
    "resolve_encoder",
    "resolve_image_encoder",
    "resolve_text_encoder",
    "seeded",
    "to_device",
]
