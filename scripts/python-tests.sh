#!/usr/bin/env bash
# The tests of the Python integrations, in one virtual environment that is kept in the checkout:
#
#   scripts/python-tests.sh [--environment-only] [integration ...] [-- pytest arguments ...]
#
# Installs every integrations/*/requirements.txt (all pin the same versions of what they share) into .cache/python, only when one
# of them changed; then runs `pytest tests` in each integration that has tests. An integration's requirements-overlay.txt is
# installed as it stands, without dependencies, and seen by that integration alone and first: for an engine that pins other versions
# than the rest, and asks for packages only a GPU can use. --environment-only prints the environment's Python and stops.
# Set SMOE_PYTHON to choose the interpreter (3.10 or newer; SGLang's overlay needs 3.11 or newer); else python3.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

environment_only=false
integrations=()
pytest_arguments=()
while (($#)); do
  case $1 in
    --environment-only) environment_only=true ;;
    --) shift; pytest_arguments=("$@"); break ;;
    -*) echo "error USAGE: unknown flag $1; see the head of scripts/python-tests.sh" >&2; exit 2 ;;
    *) integrations+=("$1") ;;
  esac
  shift
done

interpreter=${SMOE_PYTHON:-python3}
"$interpreter" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || {
  echo "error PYTHON: $interpreter is not Python 3.10 or newer with venv and ensurepip" >&2
  echo "hint: install it (Debian: apt-get install python3 python3-venv), or set SMOE_PYTHON" >&2
  exit 1
}

shopt -s nullglob
requirements=(integrations/*/requirements.txt)
overlays=(integrations/*/requirements-overlay.txt)
environment=$root/.cache/python
stamp=$environment/.requirements
wanted=$({ "$interpreter" --version; cat "${requirements[@]}" ${overlays[@]+"${overlays[@]}"}; } | sha256sum | cut -d ' ' -f 1)
if [[ $(cat "$stamp" 2>/dev/null || true) != "$wanted" ]]; then
  echo "smoe: installing Python packages into .cache/python (PyTorch is large: some minutes the first time)" >&2
  rm -f "$stamp"
  "$interpreter" -m venv --clear "$environment"
  arguments=()
  for file in "${requirements[@]}"; do arguments+=(--requirement "$file"); done
  # DS_BUILD_OPS: DeepSpeed's compiled operators are not needed, and want a CUDA compiler.
  DS_BUILD_OPS=0 "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "${arguments[@]}" >&2
  for file in ${overlays[@]+"${overlays[@]}"}; do
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
      --target "$environment/overlay/$(basename "$(dirname "$file")")" --requirement "$file" >&2
  done
  printf '%s\n' "$wanted" > "$stamp"
fi
if $environment_only; then
  printf '%s\n' "$environment/bin/python"
  exit 0
fi

# Some tests run the command line.
node scripts/ensure.mjs --quiet
if ((${#integrations[@]} == 0)); then
  for folder in integrations/*/tests; do integrations+=("$(basename "$(dirname "$folder")")"); done
fi
failed=0
for integration in "${integrations[@]}"; do
  echo "smoe: pytest in integrations/$integration" >&2
  # One thread a process: several ranks share few cores, and sums do not depend on the host.
  (cd "integrations/$integration" &&
    PYTHONPATH=$environment/overlay/$integration OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 "$environment/bin/python" -m pytest tests \
      -q -p no:cacheprovider ${pytest_arguments[@]+"${pytest_arguments[@]}"}) || failed=1
done
exit $failed
