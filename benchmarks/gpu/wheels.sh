#!/usr/bin/env bash
# Fetches the wheels that the GPU machine lacks into benchmarks/gpu/wheels, which git ignores: those
# of Python 3.12 on x86-64, whatever runs here. They travel with `carry: ["benchmarks/gpu/wheels"]`.
set -eu
cd "$(dirname "$0")"
rm -rf wheels
mkdir wheels
fetch() {
  "${PYTHON:-python3}" -m pip download -q --disable-pip-version-check --no-deps \
    --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d wheels "$@"
}
fetch pydantic==2.12.5
# The core that this pydantic asks for, to the digit.
core=$(unzip -p wheels/pydantic-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: \(pydantic-core==[0-9.]*\).*/\1/p')
fetch "$core" annotated-types typing-inspection typing-extensions torch-pruning==1.6.1
ls -l wheels
du -sh wheels
