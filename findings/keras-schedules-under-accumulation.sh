#!/usr/bin/env bash
# keras 3.15.1 (jax 0.10.2): where gradients accumulate, a learning rate schedule counts batches.
#
# With gradient_accumulation_steps=3 an optimizer updates once in three batches, and its
# `iterations` counts the updates. Its schedule is not asked for the rate of that number, but of the
# number of batches: a rate of 1 up to step 1 and of 10 after it takes three updates by 1, 1 and 10
# without accumulation, and by 10, 10 and 10 with it. So a warmup or a decay made for the number of
# updates is over in a third of the training. Weight decay, clipping and averages of weights do count
# updates.
#
# Batches left over at an epoch's end count in the first update of the next one, and those at the end
# of a training in none: an epoch of 2 batches leaves the weights as they were.
#
# Ends with 0 while this is so. It needs Python 3.11 or later, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 jax==0.10.2 numpy==2.4.6
cat >"$folder/accumulation.py" <<'PYTHON'
import keras
import numpy as np
from keras.optimizers import SGD
from keras.optimizers.schedules import PiecewiseConstantDecay


def trained(optimizer, gradients, epochs=1):
    """The only weight, from 0, after each epoch of batches with these gradients; the iterations."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(optimizer, loss=lambda target, output: keras.ops.sum(output, axis=-1))
    x = np.array(gradients, np.float32)[:, None]
    found = []
    for _ in range(epochs):
        model.fit(x, x, batch_size=1, shuffle=False, verbose=0)
        found.append(round(model.get_weights()[0].item(), 4))
    return found, int(keras.ops.convert_to_numpy(optimizer.iterations))


def schedule():
    return PiecewiseConstantDecay([1], [1.0, 10.0])


plain = trained(SGD(schedule()), [1] * 3)
accumulated = trained(SGD(schedule(), gradient_accumulation_steps=3), [1] * 9)
print("weight and iterations after three updates:", plain, "accumulated:", accumulated)
assert plain == ([-12.0], 3)
assert accumulated == ([-30.0], 3)

four, _ = trained(SGD(1.0, gradient_accumulation_steps=3), [1, 2, 3, 4], epochs=2)
two, _ = trained(SGD(1.0, gradient_accumulation_steps=3), [1, 2])
print("after each epoch of 4 batches:", four, "and of 2:", two)
assert four == [-2.0, -4.3333]
assert two == [0.0]
PYTHON
KERAS_BACKEND=jax "$folder/venv/bin/python" "$folder/accumulation.py"
