"""What to write instead of PyTorch's, Lightning's and Keras's names for training."""

from __future__ import annotations

from typing import Final

from rumus.tensor.expression.other_names import OtherNames

_LOOP: Final = "trainer.fit(loader, loss_fn, epochs=...)"

MODULE: Final = OtherNames(
    "rumus.train",
    {
        "TensorDataset": "ArrayDataset(x, y)",
        "IterableDataset": "StreamLoader(stream, batch_size)",
        "WeightedRandomSampler": "WeightedSampler(weights), for sampler= of a DataLoader",
        "pad_sequence": "Pad(), for collate= of a DataLoader",
        "transforms": "rumus.train.images",
        "utils": "DataLoader, ArrayDataset and random_split of rumus.train",
        "ModelCheckpoint": "checkpoints=Checkpoints(folder) of Trainer.fit",
        "load_from_checkpoint": "load_model(path, model)",
        "TensorBoard": "RunFolder(folder), a callback",
        "SummaryWriter": "RunFolder(folder), a callback",
        "CSVLogger": "RunFolder(folder), a callback",
        "LearningRateScheduler": "lr=..., a schedule of the optimizer",
        "ReduceLROnPlateau": "FeedPlateau(Plateau(...)), a callback",
        "GradScaler": "Trainer(optimizer, loss_scale=LossScale())",
        "autocast": "model.half(), and Trainer(optimizer, loss_scale=LossScale())",
    },
)
TRAINER: Final = OtherNames(
    "a Trainer",
    {
        "train": _LOOP,
        "predict_step": "trainer.predict(loader, predict_fn)",
        "validate": "trainer.evaluate(loader, metrics), or validate=(loader, metric_fn) of fit",
        "test": "trainer.evaluate(loader, metrics)",
        "compile": "Trainer(optimizer); the loss function goes to fit",
        "model": "Trainer(optimizer, state={'model': model})",
        "max_epochs": _LOOP,
        "save_checkpoint": "checkpoints=folder of fit",
    },
)
TRAINER_OPTIONS: Final = OtherNames(
    "Trainer",
    {
        "max_epochs": _LOOP,
        "max_steps": "trainer.fit(loader, loss_fn, steps=...)",
        "epochs": _LOOP,
        "callbacks": "trainer.fit(..., callbacks=...)",
        "model": "Trainer(optimizer, state={'model': model})",
        "loss_fn": "trainer.fit(loader, loss_fn, ...)",
        "accelerator": "model.to_gpu() before the optimizer is made",
        "devices": "model.to_gpu() before the optimizer is made",
        "precision": "model.half(), and loss_scale=LossScale()",
        "accumulate_grad_batches": "trainer.fit(..., accumulate=...)",
        "gradient_clip_val": "clip=ClipNorm(...) of the optimizer",
    },
)
FIT: Final = OtherNames(
    "Trainer.fit",
    {
        "batch_size": "DataLoader(dataset, batch_size)",
        "x": "fit(DataLoader(ArrayDataset(x, y), batch_size), loss_fn, ...)",
        "y": "fit(DataLoader(ArrayDataset(x, y), batch_size), loss_fn, ...)",
        "model": "loss_fn, a function that calls the model",
        "train_dataloaders": "loader, the first argument",
        "val_dataloaders": "validate=(loader, metric_fn)",
        "validation_data": "validate=(loader, metric_fn)",
        "max_epochs": "epochs=...",
        "max_steps": "steps=...",
        "ckpt_path": "checkpoints=folder, resume=path",
        "verbose": "progress=None for no line, callbacks=[LiveView()] for one in a log",
        "shuffle": "DataLoader(dataset, batch_size, shuffle=True)",
    },
)
STOPPING: Final = OtherNames(
    "EarlyStopping",
    {
        "monitor": "metric, the first argument: EarlyStopping('accuracy', mode='max')",
        "restore_best_weights": "trainer.fit(..., restore_best=True)",
        "verbose": "nothing: the progress display says why training ended",
        "delta": "min_delta=...",
    },
)
LOADER: Final = OtherNames(
    "a DataLoader",
    {
        "num_workers": "loader.workers, given as workers=...",
        "set_epoch": "loader.seek(epoch)",
    },
)
LOADER_OPTIONS: Final = OtherNames(
    "DataLoader",
    {
        "num_workers": "workers=...",
        "generator": "seed=...",
        "collate_fn": "collate=..., as Pad() for samples of different lengths",
        "batch_sampler": "sampler=LengthBuckets(lengths), and batch_size",
        "pin_memory": "backend=..., which uploads ahead",
        "prefetch_factor": "prefetch=...",
        "persistent_workers": "nothing: workers=... start with each epoch",
        "worker_init_fn": "nothing: transform=... gets a random generator of its sample's own",
        "multiprocessing_context": "processes=True",
    },
)
CHECKPOINTS: Final = OtherNames(
    "Checkpoints",
    {
        "restore": "checkpoints.load()",
        "dirpath": "checkpoints.folder",
        "best_model_path": "checkpoints.list(), each with its metric",
    },
)
CHECKPOINTS_OPTIONS: Final = OtherNames(
    "Checkpoints",
    {
        "save_top_k": "keep_last=..., and keep_best='min' or 'max'",
        "max_to_keep": "keep_last=...",
        "dirpath": "folder, the first argument",
        "filepath": "folder, the first argument",
        "save_best_only": "keep_best='min' or 'max'",
        "monitor": "monitor=... of Trainer.fit",
        "mode": "keep_best='min' or 'max'",
    },
)
