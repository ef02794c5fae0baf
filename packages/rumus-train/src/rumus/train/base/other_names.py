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
        "LightningModule": "rumus.nn.Module, and loss_fn, a function of a batch",
        "LightningDataModule": "DataLoader(dataset, batch_size)",
        "Fabric": "Trainer(optimizer), whose train_step is for your own loop",
        "Accelerator": "Trainer(optimizer), whose train_step is for your own loop",
        "seed_everything": "rumus.tensor.seed(value), before a model is made",
        "ConcatDataset": "a class with len() and dataset[i]",
        "ChainDataset": "a class with len() and dataset[i]",
        "StackDataset": "ArrayDataset(x, y)",
        "SequentialSampler": "DataLoader(dataset, batch_size)",
        "RandomSampler": "DataLoader(dataset, batch_size, shuffle=True)",
        "SubsetRandomSampler": "DataLoader(Subset(dataset, indices), batch_size, shuffle=True)",
        "BatchSampler": "LengthBuckets(lengths), or a class with count and order",
        "default_collate": "nothing: samples are stacked, unless collate= is given",
        "DistributedSampler": "DataLoader(..., ranks=...)",
        "get_worker_info": "nothing: transform=... gets a random generator of its sample's own",
        "LearningRateMonitor": "RunFolder(folder), a callback",
        "History": "RunFolder(folder), a callback",
        "ModelSummary": "print(model)",
        "RichProgressBar": "LiveView(), a callback",
        "TQDMProgressBar": "LiveView(), a callback",
        "ProgressBar": "LiveView(), a callback",
        "ProgbarLogger": "LiveView(), a callback",
        "tqdm": "LiveView(), a callback",
        "WandbLogger": "LogTo(logger), a callback, or RunFolder(folder)",
        "TensorBoardLogger": "LogTo(logger), a callback, or RunFolder(folder)",
        "MLFlowLogger": "LogTo(logger), a callback, or RunFolder(folder)",
        "StochasticWeightAveraging": "average=SWA(...) or EMA(...) of an optimizer",
        "EMA": "average=SWA(...) or EMA(...) of an optimizer",
        "ModelEMA": "average=SWA(...) or EMA(...) of an optimizer",
        "GradientAccumulationScheduler": "trainer.fit(..., accumulate=...)",
        "Timer": "trainer.fit(..., seconds=...)",
        "BackupAndRestore": "trainer.fit(..., checkpoints=folder, resume=True)",
        "resume": "trainer.fit(..., checkpoints=folder, resume=True)",
        "TerminateOnNaN": "nothing: a NaN gradient raises, unless nonfinite= says otherwise",
        "LambdaCallback": "a class derived from Callback",
        "to_categorical": "rumus.nn.cross_entropy_loss, which takes class numbers",
        "train_test_split": "random_split(dataset, [0.8, 0.2], seed=0)",
        "image_dataset_from_directory": "ImageFolder(folder, ...)",
        "DatasetFolder": "ImageFolder(folder, ...)",
        "text_dataset_from_directory": "a class with len() and dataset[i]",
        "TrainingArguments": "Trainer(optimizer), and arguments of fit",
        "Seq2SeqTrainer": "Trainer(optimizer), and arguments of fit",
        "DataCollator": "Pad(), for collate= of a DataLoader",
        "DataCollatorWithPadding": "Pad(), for collate= of a DataLoader",
        "load_dataset": "datasets.load_dataset, which a DataLoader takes",
        "Accuracy": "rumus.train.metrics.accuracy",
        "accuracy": "rumus.train.metrics.accuracy",
        **dict.fromkeys(
            ("Compose", "ToTensor", "Normalize", "ColorJitter", "RandomCrop", "RandomFlip"),
            "rumus.train.images, for transform= of a DataLoader",
        ),
        "save_checkpoint": "Checkpoints(folder).save(step, state)",
        "load_checkpoint": "Checkpoints(folder).load()",
        "fit": "Trainer(optimizer).fit(loader, loss_fn, epochs=...)",
        "KFold": "Subset(dataset, indices), once for each part",
    },
)
IMAGES: Final = OtherNames(
    "rumus.train.images",
    {
        "Compose": "images.Augment(*transforms)",
        "Sequential": "images.Augment(*transforms)",
        "ToTensor": "images.Normalize(), which also puts the channels first",
        "Rescaling": "images.Normalize(mean, std)",
        "Normalization": "images.Normalize(mean, std)",
        "Normalise": "images.Normalize(mean, std)",
        "Color": "images.ColorJitter(brightness, contrast, saturation)",
        "Colour": "images.ColorJitter(brightness, contrast, saturation)",
        "RandomColorJitter": "images.ColorJitter(brightness, contrast, saturation)",
        "RandomBrightness": "images.ColorJitter(brightness=...)",
        "RandomContrast": "images.ColorJitter(contrast=...)",
        "RandomSaturation": "images.ColorJitter(saturation=...)",
        "RandomCrop": "images.Crop(size, padding=...)",
        "CenterCrop": "images.Crop(size, center=True)",
        "RandomFlip": "images.Flip()",
        "RandomHorizontalFlip": "images.Flip()",
        "RandomVerticalFlip": "images.Flip('vertical')",
        "RandomRotation": "images.Rotate(degrees)",
        "Resize": "ImageFolder(folder, size=..., resize=True)",
        "Resizing": "ImageFolder(folder, size=..., resize=True)",
        "Grayscale": "ImageFolder(folder, mode='L', convert=True)",
        "Lambda": "a function of an image and a NumPy generator",
    },
)
RESULT: Final = OtherNames(
    "a Result",
    {
        "loss": "result.history[-1]['loss']",
        "losses": "[entry['loss'] for entry in result.history if 'loss' in entry]",
        "val_loss": "result.metrics['loss']",
        "epoch": "result.epochs",
        "step": "result.steps",
        "model": "your model, which is trained in place",
        "params": "your model, which is trained in place",
        "best_model": "restore_best=True of trainer.fit",
        "callback_metrics": "result.metrics",
    },
)
TRAINER: Final = OtherNames(
    "a Trainer",
    {
        "train": _LOOP,
        "predict_step": "trainer.predict(loader, predict_fn)",
        "validate": "trainer.evaluate(loader, metrics), or validate=(loader, metric_fn) of fit",
        "test": "trainer.evaluate(loader, metrics)",
        "lr": "trainer.optimizer.set(lr=...), and trainer.optimizer.hyper['lr'] to read",
        "compile": "Trainer(optimizer); the loss function goes to fit",
        "model": "Trainer(optimizer, state={'model': model})",
        "max_epochs": _LOOP,
        "save_checkpoint": "checkpoints=folder of fit",
        "global_step": "trainer.optimizer.steps",
        "current_epoch": "event.epoch, in a callback",
        "epoch": "event.epoch, in a callback",
        "callbacks": "callbacks=[...] of fit",
        "early_stopping_callback": "callbacks=[...] of fit",
        "callback_metrics": "result.history of fit",
        "logged_metrics": "result.history of fit",
        "metrics": "result.history of fit",
        "history": "result.history of fit",
        "log_metrics": "a loss function that returns {'loss': loss, 'name': number}",
        "logger": "a loss function that returns {'loss': loss, 'name': number}",
        "save_model": "model.save_file(path), or checkpoints=folder of fit",
        "save": "model.save_file(path), or checkpoints=folder of fit",
        "load": "fit(..., checkpoints=folder, resume=True)",
        "resume_from_checkpoint": "fit(..., checkpoints=folder, resume=True)",
        "checkpoint_callback": "fit(..., checkpoints=folder, resume=True)",
        "push_to_hub": "model.save_file(path)",
        "lr_scheduler": "lr=..., a schedule of the optimizer",
        "should_stop": "event.run.stop(reason), in a callback",
        "stop": "event.run.stop(reason), in a callback",
        "tune": "rumus.train.find_lr, and find_batch_size",
        "lr_find": "rumus.train.find_lr, and find_batch_size",
        "summary": "print(model)",
        "step": "trainer.train_step(loss_fn, x, y)",
        "training_step": "trainer.train_step(loss_fn, x, y)",
        "validation_step": "trainer.evaluate(loader, metrics)",
        "compute_loss": "loss_fn, an argument of fit",
        "loss_fn": "loss_fn, an argument of fit",
        "train_dataloader": "loader, an argument of fit",
        "get_train_dataloader": "loader, an argument of fit",
        "device": "model.to_gpu() before the optimizer is made",
        "accelerator": "model.to_gpu() before the optimizer is made",
        "strategy": "model.to_gpu() before the optimizer is made",
        "args": "the arguments of fit",
        "train_epoch": "trainer.fit(loader, loss_fn, epochs=...)",
        "run": "trainer.fit(loader, loss_fn, epochs=...)",
        "fit_loop": "trainer.fit(loader, loss_fn, epochs=...)",
        "score": "trainer.evaluate(loader, metrics)",
    },
)
HOOKS: Final = OtherNames(
    "a Trainer",
    {
        **dict.fromkeys(("training_step", "compute_loss"), "loss_fn of fit, a function of a batch"),
        **dict.fromkeys(
            ("validation_step", "test_step", "prediction_step", "compute_metrics"),
            "validate=(loader, metric_fn) of fit",
        ),
        **dict.fromkeys(
            ("configure_optimizers", "create_optimizer", "create_optimizer_and_scheduler"),
            "the optimizer that the Trainer is made with",
        ),
        **dict.fromkeys(
            ("train_dataloader", "get_train_dataloader"), "loader, the first argument of fit"
        ),
        **dict.fromkeys(
            ("val_dataloader", "get_eval_dataloader"), "validate=(loader, metric_fn) of fit"
        ),
        "create_scheduler": "lr=..., a schedule of the optimizer",
        "lr_scheduler_step": "lr=..., a schedule of the optimizer",
        "optimizer_step": "a callback's on_step_end(event)",
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
        **dict.fromkeys(
            ("gradient_clip_val", "gradient_clip_algorithm", "max_grad_norm"),
            "clip=ClipNorm(...) of the optimizer",
        ),
        **dict.fromkeys(
            (
                "max_time",
                "check_val_every_n_epoch",
                "val_check_interval",
                "log_every_n_steps",
                "default_root_dir",
                "enable_checkpointing",
                "enable_progress_bar",
                "num_epochs",
                "train_dataset",
                "eval_dataset",
                "train_dataloader",
                "batch_size",
                "verbose",
                "validate",
                "checkpoints",
                "steps",
                "seconds",
                "progress",
                "resume",
                "loader",
                "validate_every",
                "accumulate",
                "weight_of",
                "nonfinite",
                "spikes",
                "rollbacks",
                "save_every",
                "monitor",
                "mode",
                "restore_best",
                "signals",
                "profile_steps",
            ),
            "an argument of trainer.fit: loader, epochs, steps, seconds, validate, validate_every, "
            "callbacks, checkpoints, save_every, nonfinite, accumulate, resume or progress",
        ),
        **dict.fromkeys(
            ("loss", "criterion", "metrics", "compute_metrics"),
            "trainer.fit(loader, loss_fn, validate=(loader, metric_fn))",
        ),
        **dict.fromkeys(
            ("scheduler", "lr_scheduler", "lr", "learning_rate"), "lr=... of the optimizer"
        ),
        "optimizers": "optimizer, the first argument; MultiOptimizer for several",
        **dict.fromkeys(
            ("device", "gpus", "num_nodes", "tpu_cores"),
            "model.to_gpu() before the optimizer is made",
        ),
        "strategy": "ranks=..., in a program that `python -m rumus.distributed` starts",
        **dict.fromkeys(("amp", "fp16", "bf16", "scaler"), "loss_scale=LossScale()"),
        "logger": "trainer.fit(..., callbacks=[RunFolder(folder)])",
        **dict.fromkeys(
            ("deterministic", "benchmark"), "always so: the same seeds give the same bits"
        ),
        "args": "trainer.fit(loader, loss_fn, epochs=...)",
    },
)
_INSTEAD: Final = {
    "optimizer": "trainer, the first argument",
    "model": "loss_fn, a function that calls the model",
}
_SWEPT: Final = {"trainer": "Trainer(AdamW(model.parameters()), state={'model': model})"}
FIND_LR: Final = OtherNames(
    "find_lr",
    _INSTEAD,
    {
        **_SWEPT,
        "loader": "batches, as in find_lr(Trainer(optimizer), loader, loss_fn)",
        "loss_fn": "a function of a batch, as in find_lr(Trainer(optimizer), loader, loss_fn)",
    },
)
FIND_BATCH_SIZE: Final = OtherNames(
    "find_batch_size",
    _INSTEAD,
    {
        **_SWEPT,
        "batch": "a batch, as in find_batch_size(Trainer(optimizer), batch, loss_fn, memory=...)",
        "loss_fn": "a function of a batch, as for train_step",
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
        "class_weight": "cross_entropy_loss(..., weight=...) in loss_fn",
        "sample_weight": "a field of the dataset, by which loss_fn multiplies",
        "validation_split": "random_split(dataset, [0.8, 0.2], seed=0), and validate=",
        "validation_steps": "validate=(loader, metric_fn), over a loader of so many batches",
        "validation_batch_size": "validate=(DataLoader(dataset, batch_size), metric_fn)",
        "validation_freq": "validate_every=Every(epochs=...)",
        "check_val_every_n_epoch": "validate_every=Every(epochs=...)",
        "val_check_interval": "validate_every=Every(steps=...)",
        "eval_steps": "validate_every=Every(steps=...)",
        "eval_every": "validate_every=Every(steps=...)",
        "save_steps": "save_every=Every(steps=...)",
        **dict.fromkeys(
            (
                "val_loader",
                "valid_loader",
                "eval_loader",
                "val_dataloader",
                "eval_dataset",
                "eval_data",
                "valid_dl",
                "val_data",
            ),
            "validate=(loader, metric_fn)",
        ),
        **dict.fromkeys(
            (
                "train_dataloader",
                "train_loader",
                "dataloader",
                "train_dataset",
                "data",
                "datamodule",
            ),
            "loader, the first argument, as DataLoader(dataset, batch_size)",
        ),
        **dict.fromkeys(
            ("initial_epoch", "start_epoch", "resume_from_checkpoint"),
            "checkpoints=folder, resume=True, which goes on with the epoch that was next",
        ),
        **dict.fromkeys(
            ("steps_per_epoch", "limit_train_batches"),
            "steps=..., the number of all steps: an epoch is one loop over the loader",
        ),
        **dict.fromkeys(("nb_epoch", "n_epochs", "num_epochs", "num_train_epochs"), "epochs=..."),
        **dict.fromkeys(("max_time", "time_limit"), "seconds=..."),
        **dict.fromkeys(("workers", "num_workers"), "DataLoader(dataset, batch_size, workers=...)"),
        "use_multiprocessing": "DataLoader(..., workers=..., processes=True)",
        "max_queue_size": "DataLoader(..., workers=..., prefetch=...)",
        **dict.fromkeys(
            ("loss", "criterion", "compute_loss"), "loss_fn, a function of a batch, by position"
        ),
        "metrics": "validate=(loader, metric_fn), and a loss_fn that returns a dict",
        **dict.fromkeys(("optimizer", "opt"), "Trainer(optimizer)"),
        **dict.fromkeys(
            ("lr_scheduler", "scheduler", "lr", "learning_rate"), "lr=... of the optimizer"
        ),
        **dict.fromkeys(
            ("accumulate_grad_batches", "gradient_accumulation_steps", "accumulation_steps"),
            "accumulate=...",
        ),
        **dict.fromkeys(
            ("gradient_clip_val", "max_grad_norm", "clip_grad_norm", "grad_clip"),
            "clip=ClipNorm(...) of the optimizer",
        ),
        **dict.fromkeys(
            ("default_root_dir", "output_dir", "checkpoint_dir", "save_dir"), "checkpoints=folder"
        ),
        **dict.fromkeys(
            ("enable_progress_bar", "show_progress", "progress_bar", "disable_tqdm"),
            "progress=None for no line, 'auto' for one",
        ),
        **dict.fromkeys(
            ("early_stopping", "patience"), "callbacks=[EarlyStopping(metric, patience=...)]"
        ),
        **dict.fromkeys(
            ("logger", "log_every_n_steps", "logging_steps"),
            "callbacks=[RunFolder(folder)], or LogTo(logger)",
        ),
        **dict.fromkeys(
            ("device", "accelerator", "devices"), "model.to_gpu() before the optimizer is made"
        ),
        **dict.fromkeys(("precision", "amp", "fp16"), "Trainer(optimizer, loss_scale=LossScale())"),
        "seed": "rumus.tensor.seed(value), before the model is made",
    },
)
METRICS: Final = OtherNames(
    "rumus.train.metrics",
    {
        **dict.fromkeys(
            ("Accuracy", "accuracy_score", "BinaryAccuracy", "SparseCategoricalAccuracy"),
            "metrics.accuracy(scores, targets), of (samples, classes)",
        ),
        **dict.fromkeys(
            ("TopKCategoricalAccuracy", "top_k_accuracy", "top_k_accuracy_score"),
            "metrics.accuracy(scores, targets, top=k)",
        ),
        **dict.fromkeys(("F1Score", "f1_score", "F1"), "metrics.f1(scores, targets)"),
        **dict.fromkeys(("Precision", "precision_score"), "metrics.precision(scores, targets)"),
        **dict.fromkeys(("Recall", "recall_score"), "metrics.recall(scores, targets)"),
        **dict.fromkeys(
            ("balanced_accuracy", "balanced_accuracy_score"), "metrics.recall(scores, targets)"
        ),
        **dict.fromkeys(
            ("AUC", "AUROC", "auc", "roc_auc", "roc_auc_score"), "metrics.auroc(scores, targets)"
        ),
        **dict.fromkeys(
            ("AveragePrecision", "average_precision_score"),
            "metrics.average_precision(scores, targets)",
        ),
        **dict.fromkeys(
            ("ConfusionMatrix", "classification_report"), "metrics.confusion_matrix(...).matrix"
        ),
        **dict.fromkeys(
            ("mae", "MeanAbsoluteError", "MAE"), "metrics.mean_absolute_error(predictions, targets)"
        ),
        **dict.fromkeys(
            ("rmse", "RMSE", "RootMeanSquaredError"),
            "metrics.root_mean_squared_error(predictions, targets)",
        ),
        **dict.fromkeys(
            ("mse", "MeanSquaredError", "mean_squared_error"), "mse_loss of rumus.nn, averaged"
        ),
        **dict.fromkeys(("cross_entropy", "log_loss"), "cross_entropy_loss of rumus.nn, averaged"),
        **dict.fromkeys(("R2Score", "r2_score"), "metrics.r2(predictions, targets)"),
        "Perplexity": "metrics.perplexity(logits, targets)",
        **dict.fromkeys(("Mean", "MeanMetric"), "a number by name, which is averaged"),
        **dict.fromkeys(("Metric", "SumMetric", "Sum"), "metrics.MetricState(name, parts, finish)"),
    },
)
OF_METRIC: Final = OtherNames(
    "a metric",
    {
        **dict.fromkeys(("top_k", "k"), "top=..., of accuracy"),
        "average": "positive=None for the mean over classes, positive=1 for one class",
        "pos_label": "positive",
        "num_classes": "nothing: scores have an axis of classes",
        "num_labels": "nothing: scores have an axis of classes",
        "labels": "nothing: scores have an axis of classes",
        "task": "nothing: scores have an axis of classes",
        "threshold": "nothing: the best score counts, so give two columns, as of 1 - p and p",
        "y_true": "targets, the second argument",
        "y_pred": "scores, the first argument",
        "y_score": "scores, the first argument",
        "preds": "scores, the first argument",
        "target": "targets",
        "squared": "root_mean_squared_error",
        "sample_weight": "a MetricState of your own, whose parts are weighted",
        "normalize": "state.matrix, which NumPy divides",
    },
)
METRIC: Final = OtherNames(
    "a MetricState",
    {
        **dict.fromkeys(("item", "compute", "result", "value", "tolist", "numpy"), "float(metric)"),
        **dict.fromkeys(("update", "forward", "merge_state", "update_state"), "state + other"),
        **dict.fromkeys(("reset", "reset_state"), "nothing: each batch has a state of its own"),
        "cpu": "float(metric)",
    },
)
EVERY: Final = OtherNames(
    "Every",
    {
        "n": "steps, epochs or seconds",
        "step": "steps",
        "epoch": "epochs",
        "iterations": "steps",
        "batches": "steps",
        "minutes": "seconds",
        "hours": "seconds",
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
CALLBACK: Final = OtherNames(
    "a callback",
    {
        "model": "a model given to the callback when it is made",
        "trainer": "event.run.trainer, in a method of the callback",
        "stopped_epoch": "result.epochs of fit, and result.reason",
        "best_score": "result.best of fit",
    },
)
HEARD: Final = OtherNames(
    "a callback",
    {
        "on_train_begin": "on_train_start(event)",
        "on_fit_start": "on_train_start(event)",
        "on_pretrain_routine_start": "on_train_start(event)",
        "on_init_end": "on_train_start(event)",
        "on_epoch_begin": "on_epoch_start(event)",
        "on_train_epoch_start": "on_epoch_start(event)",
        "on_train_epoch_begin": "on_epoch_start(event)",
        "on_batch_end": "on_step_end(event)",
        "on_train_batch_end": "on_step_end(event)",
        "on_train_step_end": "on_step_end(event)",
        "on_step": "on_step_end(event)",
        "on_log": "on_step_end(event)",
        "on_batch_begin": "on_step_end(event)",
        "on_batch_start": "on_step_end(event)",
        "on_train_batch_begin": "on_step_end(event)",
        "on_train_batch_start": "on_step_end(event)",
        "on_step_begin": "on_step_end(event)",
        "on_step_start": "on_step_end(event)",
        "on_before_zero_grad": "on_step_end(event)",
        "on_before_backward": "on_step_end(event)",
        "on_after_backward": "on_step_end(event)",
        "on_before_optimizer_step": "on_step_end(event)",
        "on_optimizer_step": "on_step_end(event)",
        "on_test_begin": "on_validation_end(event)",
        "on_test_end": "on_validation_end(event)",
        "on_validation_start": "on_validation_end(event)",
        "on_validation_epoch_start": "on_validation_end(event)",
        "on_validation_epoch_end": "on_validation_end(event)",
        "on_validation_batch_end": "on_validation_end(event)",
        "on_test_batch_end": "on_validation_end(event)",
        "on_evaluate": "on_validation_end(event)",
        "on_predict_end": "on_validation_end(event)",
        "on_eval_end": "on_validation_end(event)",
        "on_train_epoch_end": "on_epoch_end(event)",
        "on_save": "on_checkpoint(event)",
        "on_save_checkpoint": "on_checkpoint(event)",
        "on_load_checkpoint": "on_checkpoint(event)",
        "on_fit_end": "on_train_end(event)",
        "on_training_end": "on_train_end(event)",
        "on_exception": "on_error(event)",
        "on_keyboard_interrupt": "on_error(event)",
    },
)
DATASET: Final = OtherNames(
    "a dataset",
    {
        "transform": "DataLoader(dataset, batch_size, transform=...)",
        "target_transform": "DataLoader(dataset, batch_size, transform=...)",
        "map": "DataLoader(dataset, batch_size, transform=...)",
        "shuffle": "DataLoader(dataset, batch_size, shuffle=True)",
        "batch_size": "DataLoader(dataset, batch_size)",
        "repeat": "trainer.fit(loader, loss_fn, epochs=...)",
        "prefetch": "DataLoader(dataset, batch_size, workers=..., prefetch=...)",
        "cache": "ArrayDataset(x, y), which is in memory",
        "take": "Subset(dataset, range(count))",
        "skip": "Subset(dataset, range(count, len(dataset)))",
        "filter": "Subset(dataset, indices)",
        "select": "Subset(dataset, indices)",
        "train_test_split": "random_split(dataset, [0.8, 0.2], seed=0)",
        "split": "random_split(dataset, [0.8, 0.2], seed=0)",
        "tensors": "dataset.arrays of an ArrayDataset",
        "targets": "dataset[i][1] for each i",
        "labels": "dataset[i][1] for each i",
        "samples": "dataset[i]",
        "to": "DataLoader(dataset, batch_size, backend=...)",
    },
)
_OF_LOADERS: Final = {
    name: f"DataLoader(dataset, batch_size, {name}=...)" for name in ("transform", "shuffle")
} | {"batch_size": "DataLoader(dataset, batch_size)", "target_transform": DATASET.rows["map"]}
FIELDS: Final = OtherNames("a dataset", _OF_LOADERS)
CSV: Final = OtherNames(
    "CsvDataset",
    {
        **_OF_LOADERS,
        "sep": "delimiter=';', or another character",
        "separator": "delimiter=';', or another character",
        "names": "header=[...]",
        "usecols": "columns=[...]",
        "features": "columns=[...]",
        "index_col": "columns=[...], which leaves other columns out",
        "label": "target='its column'",
        "label_name": "target='its column'",
        "class_names": "classes=[...]",
        "parse_dates": "dates=[...]",
        "date_format": "dates={'its column': '%d.%m.%Y'}",
        "true_values": "booleans=[...]",
        "na_values": "missing_cells=['-999'], beside missing=0.0 or another number",
        "fillna": "missing=0.0, or another number",
        "skiprows": "nothing: remove the lines before the names of the columns",
        "skipfooter": "nothing: remove the lines after the table",
        "comment": "nothing: remove the lines of comments",
        "nrows": "Subset(dataset, range(count))",
        "compression": "nothing: unpack the file first",
        "normalize": "standardize=True",
    },
)
IMAGE_FOLDER: Final = OtherNames(
    "ImageFolder",
    {
        **_OF_LOADERS,
        "root": "folder",
        "directory": "folder",
        "image_size": "size=(height, width), resize=True",
        "color_mode": "mode='L', 'RGB' or 'RGBA'",
        "class_names": "classes=[...]",
        "loader": "nothing: write a class with len() and dataset[i] for files of your own",
        "is_valid_file": "Subset(dataset, indices), or a folder without the others",
        "extensions": "nothing: other files than images are left out",
        "validation_split": "random_split(dataset, [0.8, 0.2], seed=0)",
        "allow_empty": "classes=[...], for classes without a folder",
    },
)
SAMPLER: Final = OtherNames(
    "a sampler",
    {
        "num_samples": "count, when it is made",
        "set_epoch": "loader.seek(epoch)",
        "generator": "seed=... of the DataLoader",
    },
)
_STOP: Final = "event.run.stop(reason), in a callback"
RUN: Final = OtherNames(
    "a Run",
    {
        "should_stop": _STOP,
        "should_training_stop": _STOP,
        "stop_training": _STOP,
        "stop_requested": _STOP,
        "should_save": "event.run.save(), in a callback",
        "model": "event.run.trainer.state, by name",
        "optimizer": "event.run.trainer.optimizer",
        "epoch": "event.epoch, in a callback",
        "global_step": "event.step, in a callback",
        "history": "event.run.position.history",
    },
)
TRAINING: Final = OtherNames(
    "a Training",
    {
        "optimizer": "training.trainer.optimizer",
    },
)
LOADER: Final = OtherNames(
    "a DataLoader",
    {
        "num_workers": "loader.workers, given as workers=...",
        "set_epoch": "loader.seek(epoch)",
        "batch_sampler": "sampler=..., when it is made",
        "collate_fn": "loader.collate, given as collate=...",
        "pin_memory": "loader.backend, given as backend=...",
        "generator": "loader.seed",
        "map": "transform=..., when it is made",
        "repeat": "trainer.fit(loader, loss_fn, epochs=...)",
        "take": "itertools.islice(loader, count)",
        "cache": "ArrayDataset(x, y), which is in memory",
        "next": "next(iter(loader))",
        "iter": "iter(loader)",
        "reset": "loader.seek(loader.epoch)",
        "set_seed": "seed=..., when it is made",
        "shard": "ranks=..., when it is made",
        "num_batches": "len(loader)",
        "batches": "len(loader)",
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
        "use_multiprocessing": "workers=..., processes=True",
        "num_parallel_workers": "workers=...",
        "timeout": "nothing: a worker that ends, ends the loop with an error",
        "pin_memory_device": "backend=..., which uploads ahead",
        "in_order": "always so: workers do not change the order",
        "random_state": "seed=...",
        "random_seed": "seed=...",
        "bs": "batch_size, the second argument",
        "drop_remainder": "drop_last=True",
        "rank": "ranks=...",
        "num_replicas": "ranks=...",
        "x": "ArrayDataset(x, y), the first argument",
        "y": "ArrayDataset(x, y), the first argument",
        "device": "backend=...",
        "transforms": "transform=...",
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
