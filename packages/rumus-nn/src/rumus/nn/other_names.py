"""What PyTorch's and Keras's names for layers and losses are called here."""

from __future__ import annotations

from typing import Final

from rumus.tensor.expression.other_names import OtherNames

NN: Final = OtherNames(
    "rumus.nn",
    {
        "CrossEntropyLoss": "nn.cross_entropy_loss(logits, targets), a function",
        **{
            name: f"nn.{function}(...), a function"
            for name, function in {
                "NLLLoss": "nll_loss",
                "MSELoss": "mse_loss",
                "L1Loss": "l1_loss",
                "HuberLoss": "huber_loss",
                "SmoothL1Loss": "smooth_l1_loss",
                "BCELoss": "binary_cross_entropy",
                "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
                "KLDivLoss": "kl_div",
                "PoissonNLLLoss": "poisson_nll_loss",
                "GaussianNLLLoss": "gaussian_nll_loss",
                "CTCLoss": "ctc_loss",
                "TripletMarginLoss": "triplet_margin_loss",
                "CosineEmbeddingLoss": "cosine_embedding_loss",
                "CosineSimilarity": "cosine_similarity",
                "PairwiseDistance": "pairwise_distance",
                "HingeEmbeddingLoss": "hinge_embedding_loss",
                "MarginRankingLoss": "margin_ranking_loss",
                "MultiMarginLoss": "multi_margin_loss",
                "SoftMarginLoss": "soft_margin_loss",
            }.items()
        },
        "functional": "nn.relu(x), nn.gelu(x) ..., and losses of rumus.nn",
        "Parameter": "rumus.tensor.Parameter",
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
        "num_parameters": "count",
        "min_val": "low",
        "max_val": "high",
        "start_dim": "start",
        "inplace": "nothing: a result never overwrites its input",
        "device": "backend",
        "use_bias": "bias",
    },
)
