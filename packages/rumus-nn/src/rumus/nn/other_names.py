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
