"""Mistakes that abort a process in the native library, made through rumus in separate processes.

Every program ends with an exception or a correct answer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from rumus.gpu import devices
from rumus.gpu.engine.engines import ENGINES
from rumus.gpu.engine.protocol import EngineName

pytestmark = pytest.mark.needs_gpu  # in their own processes

HEAD: Final = """
import gc, threading
import numpy as np
from rumus.gpu import *
from rumus.tensor import *
gpu = GpuBackend(Gpu(engine=ENGINE))
def there(*shape, dtype=np.float32):
    return tensor(np.arange(np.prod(shape)).reshape(shape), dtype=dtype, backend=gpu)
"""

# Each prints True at its end, or raises the named exception.
PROGRAMS: Final = {
    "empty tensors": """
e = there(0, 4)
s = (e @ there(4, 3)).sum(), (e * 2).exp().sum(), e.softmax().sum(), concat([e, e]).sum()
g = gather(there(3, 2), there(0, dtype=np.int32)).sum()
k = there(3, 0) @ there(0, 5)
ok = all(x.item() == 0 for x in (*s, g, k.sum())) and e.clone().numpy().shape == (0, 4)
print(ok and (e == e).numpy().shape == (0, 4) and e.T.reshape(-1).numpy().size == 0)
""",
    "empty maximum": "there(0).max()  # ValueError",
    "use after free": """
x = there(100_000)
views = [x[i:].reshape(-1) for i in range(0, 100, 7)]
del x
gc.collect(); gpu.gpu.trim(); [there(100_000) for _ in range(20)]; gpu.gpu.trim()
print(all(v.numpy()[0] == 7 * i for i, v in enumerate(views)))
""",
    "freed before it is submitted": """
total = there(1)
for i in range(500):
    x = there(1000 + i) * 0 + 1
    total = total + x.sum()
    del x
    if i % 50 == 0: gpu.gpu.trim()
print(total.item() == sum(1000 + i for i in range(500)))
""",
    "a freed model that still trains": """
class Model: pass
m = Model(); m.w = Parameter(np.ones((4, 2)), name="w", backend=gpu)
w, loss = m.w, (there(3, 4) @ m.w).sum()
del m; gc.collect(); gpu.gpu.trim()
with loss.backward() as grads: g = grads.take(w)
print(g.numpy().tolist() == [[12, 12], [15, 15], [18, 18], [21, 21]])
""",
    "a huge shape": "zeros((2**20, 2**20), backend=gpu)  # LimitError",
    "a broadcast to a huge shape": "there(2**15, 1) + there(1, 2**15)  # LimitError",
    "100,000 rows": """
x = there(100_000, 3) * 1e-3
p, top = x.softmax(), x.argmax(axis=1)
y = gather(x, there(100_000, dtype=np.int32))
loss = cross_entropy(x, zeros((100_000,), dtype="int32", backend=gpu))
print(abs(p.sum().item() - 1e5) < 1 and (top.numpy() == 2).all() and (y == x).numpy().all()
      and abs(loss.numpy() - loss.numpy()[0]).max() < 1e-2)
""",
    "17 million elements": """
x = full((17_000_002,), 2.0, backend=gpu)
print((x * 0.5).sum().item() == 17_000_002 and (x + 1).numpy()[-1] == 3)
""",
    "threads that make and drop": """
bad = []
def work(seed):
    for i in range(60):
        x = there(500 + seed + i) * 0 + seed
        if x.sum().item() != (500 + seed + i) * seed: bad.append(seed)
        if i % 20 == 0: gc.collect(); gpu.gpu.trim()
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(not bad)
""",
    "arrays of a dead backend": """
other = GpuBackend(Gpu(engine=ENGINE))
x = tensor([1.0, 2.0], backend=other) * 3
del other; gc.collect()
print(x.numpy().tolist() == [3, 6])
""",
    "two devices in one operation": """
there(3) + tensor([1.0, 2.0, 3.0], backend=GpuBackend(Gpu(engine=ENGINE)))  # BackendMismatchError
""",
    "an index out of range": "gather(there(3, 2), there(9, dtype=np.int32))  # IndexError",
    "a device that is gone": """
x = there(10)
gpu.gpu.device.destroy()
(x * 2).numpy()  # DeviceLostError
""",
    "interrupted while it reads": """
import _thread
x = there(1000)
for _ in range(20):
    try:
        threading.Timer(0.002, _thread.interrupt_main).start()
        for _ in range(200): (x * 2).sum().item()
    except KeyboardInterrupt: pass
print((x * 2).sum().item() == 999_000)
""",
    "a tensor at exit": "x = there(10) * 2; y = x.sum(); print(y.item() == 90)",
    "work that nobody waits for": "xs = [there(1000) * i for i in range(300)]; print(True)",
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_ends_in_an_answer_or_an_exception(name: str, engine: EngineName) -> None:
    if not any(engine in info.engines for info in devices()):
        pytest.skip(f"{engine} is not installed, or finds no GPU")
    code = PROGRAMS[name]
    done = subprocess.run(
        [sys.executable, "-c", f"ENGINE = {engine!r}\n{HEAD}{code}"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "panicked" not in done.stderr, done.stderr
    if "  # " in code:
        assert done.returncode == 1, done.stderr
        expected = code.strip().rsplit("  # ", 1)[1]
        assert expected in done.stderr.strip().splitlines()[-1].split(":")[0]
    else:
        assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
