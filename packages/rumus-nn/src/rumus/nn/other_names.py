"""What PyTorch's and Keras's names for layers and losses are called here."""

from __future__ import annotations

from typing import Final

from rumus.tensor.expression.other_names import OtherNames

NN: Final = OtherNames(
    "rumus.nn",
    {
        "CrossEntropyLoss": "nn.cross_entropy_loss(logits, targets), a function",
        "NLLLoss": "nn.cross_entropy_loss(logits, targets), which takes logits",
        "MSELoss": "nn.mse_loss(predictions, targets), a function",
        "functional": "functions of rumus.tensor and losses of rumus.nn",
        "Parameter": "rumus.tensor.Parameter",
        "Softmax": "x.softmax(axis=-1)",
        "LogSoftmax": "x.log_softmax(axis=-1)",
        "Dense": "nn.Linear(inputs, outputs)",
        "LazyLinear": "nn.Linear(inputs, outputs)",
        "utils": "clip=ClipNorm(...) of an optimizer, for clip_grad_norm_",
    },
)
STATE: Final = OtherNames(
    "load_state_dict",
    {"strict": "always so; load_weights(state, strict=False) loads what fits, and lists the rest"},
)
LAYER: Final = OtherNames(
    "a layer",
    {
        "in_features": "inputs",
        "out_features": "outputs",
        "in_channels": "inputs",
        "out_channels": "outputs",
        "kernel_size": "kernel",
        "units": "outputs",
        "filters": "outputs",
        "num_features": "channels",
        "num_channels": "channels",
        "num_groups": "groups",
        "num_embeddings": "count",
        "embedding_dim": "size",
        "embed_dim": "size",
        "d_model": "size",
        "num_heads": "heads",
        "nhead": "heads",
        "batch_first": "always so: (batch, length, features)",
        "dim_feedforward": "hidden",
        "negative_slope": "slope",
        "start_dim": "start",
        "inplace": "nothing: a result never overwrites its input",
        "device": "backend",
        "use_bias": "bias",
    },
)
