#!/usr/bin/env bash
# The whole check on a machine with a GPU, in under eight minutes: docs/gpu.md.
#
#   bash benchmarks/gpu/run.sh [--device cuda] [--part 2] [--only STEP ...] [--plan] [--quick]
#
# Nothing is fetched: packages that are missing come as wheels from benchmarks/gpu/wheels (made by
# wheels.sh). Figures go to $OUT as soon as they are known. On a machine without one, `--device cpu
# --quick` goes through the same code.
set -u
ulimit -c 0 # a step that is stopped leaves no core
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
export OUT=${OUT:-$(mktemp -d "${TMPDIR:-/tmp}/modelspeed-gpu-out.XXXXXX")}
case " $* " in
  *" --plan "*) MODELSPEED_GPU_SCRATCH=/nowhere exec "$python" "$here/steps.py" "$@" ;;
  *" --quick "*)
    export MODELSPEED_GPU_QUICK=1 OMP_NUM_THREADS=1
    scratch=${MODELSPEED_GPU_SCRATCH:-$OUT/scratch} ;;
  # Beside the repository's copy, so that a second run finds the nets and what was compiled.
  *) scratch=${MODELSPEED_GPU_SCRATCH:-/tmp/modelspeed-gpu} ;;
esac
mkdir -p "$OUT" "$scratch"
export MODELSPEED_GPU_SCRATCH=$scratch
export MODELSPEED_CACHE=$scratch/cache
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$scratch/inductor}
export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$scratch/triton}
export PYTHONFAULTHANDLER=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1
rm -rf "$scratch/cache" # timings of an earlier run may be those of other code

# The package is this folder under its own name, with the metadata that an installation would have.
if ! timeout -k 2 5 "$python" -c 'import importlib.metadata as m, modelspeed; m.version("modelspeed")' \
  2>/dev/null
then
  package=$scratch/package
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/pyproject.toml")
  mkdir -p "$package/modelspeed-$version.dist-info"
  ln -sfn "$root" "$package/modelspeed"
  printf 'Metadata-Version: 2.1\nName: modelspeed\nVersion: %s\n' "$version" \
    >"$package/modelspeed-$version.dist-info/METADATA"
  export PYTHONPATH=$package${PYTHONPATH:+:$PYTHONPATH}
fi
if compgen -G "$here/wheels/*.whl" >/dev/null &&
  ! timeout -k 2 5 "$python" -c 'import pydantic' 2>/dev/null
then
  timeout -k 2 10 "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
    --upgrade --target "$scratch/site" "$here"/wheels/*.whl >>"$OUT/log.txt" 2>&1
  export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$scratch/site
fi
if ! timeout -k 2 8 "$python" -c 'import modelspeed.configs.recipe' 2>>"$OUT/log.txt"
then
  echo "modelspeed can't be imported here; the last lines of $OUT/log.txt:"
  tail -n 15 "$OUT/log.txt"
  exit 1
fi
cd "$root" || exit 1
exec "$python" "$here/steps.py" "$@"
