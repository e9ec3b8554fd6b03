# What scripts/torture and scripts/oracle need: Python with xxhash, the stock zstd, the binary. To be sourced at the
# root of the project; sets `python` and `birdtape`, which is built with `torture_profile`. What cannot be had ends the script with
# `skipped: …` and code 77.

work="$PWD/target/torture"
python="$work/venv/bin/python"
torture_profile="${torture_profile:-dev}"
birdtape="$(realpath --canonicalize-missing -- "${CARGO_TARGET_DIR:-target}")/${torture_profile/#dev/debug}/birdtape"

have() { command -v "$1" >/dev/null 2>&1; }
skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

have python3 || skip "torture (python3 is not installed)"
have zstd || skip "torture (zstd is not installed)"
mkdir --parents "$work"
if ! cmp --silent tests/torture/requirements.txt "$work/venv/requirements.txt"; then
    python3 -m venv --clear "$work/venv" >"$work/pip.log" 2>&1 || skip "torture (no venv, see target/torture/pip.log)"
    "$python" -m pip install --quiet --disable-pip-version-check --requirement tests/torture/requirements.txt \
        >>"$work/pip.log" 2>&1 || skip "torture (pip could not install xxhash, see target/torture/pip.log)"
    cp tests/torture/requirements.txt "$work/venv/requirements.txt"
fi
# Compiled files would land beside the scripts.
export PYTHONDONTWRITEBYTECODE=1
cargo build --locked --quiet --profile "$torture_profile"
