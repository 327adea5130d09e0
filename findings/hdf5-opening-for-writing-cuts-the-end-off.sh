#!/usr/bin/env bash
# h5py 3.16.0 (HDF5 2.0.0): a file that is opened with mode "r+", read and closed, is not the same file afterwards.
#
# HDF5 takes a file with bytes behind its own end as valid, and readers ignore them. A program that keeps something
# there (a checksum, a signature, an archive's directory) would expect it to survive a program that only reads. With
# mode "r" it does. With mode "r+" and no write at all, closing cuts the file to the end that HDF5 knows, without a word;
# and while it is open, byte 20 of the superblock is 1, which a killed process leaves behind.
#
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet h5py==3.16.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import h5py

print(f"h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}")
path = Path(sys.argv[1]) / "data.h5"
with h5py.File(path, "w") as file:
    file["x"] = [1.0, 2.0]
whole = path.read_bytes()
path.write_bytes(whole + b"checksum")

with h5py.File(path, "r") as file:
    assert file["x"][0] == 1.0
assert path.read_bytes() == whole + b"checksum"
print('mode "r": the bytes behind the end are still there')

with h5py.File(path, "r+") as file:
    assert file["x"][0] == 1.0
    assert (whole[20], path.read_bytes()[20]) == (0, 1)
print('mode "r+", while open: byte 20 of the superblock is 1, was 0')
assert path.read_bytes() == whole
print('mode "r+", after a read and close: the 8 bytes behind the end are gone')
PYTHON
