#!/usr/bin/env bash
# Pillow 13.0.0: a YCbCr image in a TIFF file has other colors if it is compressed without loss.
#
# An uncompressed file is read as what it was: the mode YCbCr, the same numbers. One that is compressed
# by LZW, Deflate or PackBits is read by libtiff, which converts to RGB: the mode is RGB, and about half
# of the numbers differ by 1 from those of Pillow's own conversion of the same pixels.
#
# So a data set of such images changes in its last digits when files are compressed, or unpacked, without
# loss; images that are converted to RGB before they are saved do not. (In Pillow 12.3.0 the uncompressed
# file cannot be read: "image file is truncated".)
#
# Ends with 0 while this is so. It needs Python 3.11 or later, and nothing of this project.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0 numpy==2.4.6
cat >"$folder/colors.py" <<'PYTHON'
import io

import numpy as np
from PIL import Image

random = np.random.default_rng(0)
colors = Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert("YCbCr")
wanted = np.asarray(colors.convert("RGB")).astype(int)
for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
    file = io.BytesIO()
    colors.save(file, "TIFF", compression=compression)
    found = Image.open(file)
    found.load()
    off = np.abs(np.asarray(found.convert("RGB")).astype(int) - wanted)
    share = (off > 0).mean()
    print(f"{compression}: read as {found.mode}; {share:.0%} of the numbers differ, by {off.max()} at most")
    if compression is None:
        assert found.mode == "YCbCr" and off.max() == 0
    else:
        assert found.mode == "RGB" and off.max() == 1 and share > 0.3
PYTHON
"$folder/venv/bin/python" "$folder/colors.py"
