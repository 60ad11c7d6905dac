#!/usr/bin/env bash
# Runs dearlite under the real CPython for Windows with the win_amd64 wheels, on Linux with wine.
#
#   benchmarks/portability/windows.sh [FOLDER]    # FOLDER keeps the installation (default: build/windows), about 900 MB
#
# Needs: wine, x86_64-w64-mingw32-gcc (Debian: wine wine64 gcc-mingw-w64-x86-64), Python 3.12 (PYTHON312, for its standard
# library) and pip. The interpreter is python312.dll of the panda3d wheel, which is that of python.org; a program of ten
# lines starts it. Prints one line per check; the exit status is the number of failed checks.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mkdir -p "${1:-$root/build/windows}" && cd "${1:-$root/build/windows}" && pwd)
python312=${PYTHON312:-python3.12}
export WINEPREFIX=$folder/prefix WINEDEBUG=-all PYTHONPATH='C:\dearlite'
drive=$WINEPREFIX/drive_c
wheels="numpy==1.26.4 onnxruntime==1.32.0 tokenizers rich click platformdirs psutil pygments markdown-it-py mdurl colorama
  huggingface_hub flatbuffers packaging protobuf tqdm filelock pyyaml typing_extensions fsspec
  ir-measures pytrec-eval-terrier llama-cpp-py-sync cffi pycparser jinja2 markupsafe"

install_python() {
    mkdir -p "$folder/wheels" "$folder/unpacked"
    (cd "$folder" && pip download -q --no-deps --platform win_amd64 --platform any --python-version 3.12 \
        --only-binary=:all: -d wheels panda3d $wheels) || return 1
    wine wineboot -i > /dev/null 2>&1
    wine reg add 'HKCU\Software\Wine' /v Version /d win10 /f > /dev/null 2>&1
    local python=$drive/Python stdlib
    stdlib=$("$python312" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') || return 1
    mkdir -p "$python/DLLs" "$python/Lib"
    cp -r "$stdlib/." "$python/Lib/"
    rm -rf "$python"/Lib/{site-packages,lib-dynload,test,config-*}
    mkdir -p "$python/Lib/site-packages"
    python3 -m zipfile -e "$folder"/wheels/panda3d-*.whl "$folder/unpacked"
    cp "$folder"/unpacked/deploy_libs/*.pyd "$python/DLLs/"
    cp "$folder"/unpacked/deploy_libs/{libssl-3,libcrypto-3,libffi-8,sqlite3,zlib1}.dll "$python/DLLs/"
    cp "$folder"/unpacked/deploy_libs/{python312,VCRUNTIME140,VCRUNTIME140_1,libssl-3,libcrypto-3,libffi-8,sqlite3,zlib1}.dll "$python/"
    rm -f "$python/DLLs/_wmi.pyd" # calls a function that wine 8 lacks; the platform module goes on without it
    for wheel in "$folder"/wheels/*.whl; do
        case $wheel in *panda3d*) ;; *) python3 -m zipfile -e "$wheel" "$python/Lib/site-packages" ;; esac
    done
    compile_helpers "$python"
}

# python.exe; python3.dll, which passes every function on to python312.dll; and bcryptprimitives.dll, which wine 8 lacks.
compile_helpers() {
    local work=$folder/helpers gcc=x86_64-w64-mingw32-gcc
    mkdir -p "$work"
    cat > "$work/main.c" << 'C'
#include <wchar.h>
int __declspec(dllimport) Py_Main(int, wchar_t **);
int wmain(int count, wchar_t **arguments) { return Py_Main(count, arguments); }
C
    cat > "$work/random.c" << 'C'
#include <windows.h>
BOOLEAN WINAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) { return SystemFunction036(data, (ULONG)size); }
C
    echo 'int __stdcall DllMain(void *module, unsigned reason, void *reserved) { return 1; }' > "$work/empty.c"
    {
        printf 'LIBRARY python3.dll\nEXPORTS\n'
        objdump -p "$1/python312.dll" | tr -d '\r' |
            awk '/\[Ordinal\/Name Pointer\] Table/ { table = 1; next } table && /\[ *[0-9]+\]/ { print $NF " = python312." $NF }'
    } > "$work/python3.def"
    $gcc -municode "$work/main.c" -o "$1/python.exe" "$1/python312.dll" &&
        $gcc -shared "$work/random.c" -o "$1/bcryptprimitives.dll" -ladvapi32 &&
        $gcc -shared "$work/empty.c" "$work/python3.def" -o "$1/python3.dll"
}

copy_dearlite() {
    rm -rf "$drive/dearlite" "$drive/work"
    mkdir -p "$drive/dearlite" "$drive/work"
    cp -r "$root/dearlite" "$drive/dearlite/dearlite"
    rm -rf "$drive/dearlite/dearlite/export"
    cp -r "$root/export" "$drive/dearlite/dearlite/export"
    cp "$root/models.toml" "$drive/dearlite/dearlite/"
    cp -r "$root/examples" "$drive/work/"
    cp -r "$root/export/data/noveleval" "$drive/work/noveleval"
    cp "$root/dearlite/data/minilm-l12.dear" "$drive/work/own.dear"
}

# windows COMMAND LINE OF CMD: all three streams are pipes, as wine has no console here. The exit status is that of cmd.
windows() {
    cd "$drive/work" && wine cmd /c "$1" 2>&1 < <(sleep 0) | grep -v DXGI | tr -d '\r'
    return "${PIPESTATUS[0]}"
}
D='C:\Python\python.exe -m dearlite'
failed=0
# check NAME EXPECTED_TEXT COMMAND: the output holds the text and no traceback.
check() {
    local output
    output=$(eval "$3" 2>&1)
    if grep -qF -- "$2" <<< "$output" && ! grep -q Traceback <<< "$output"; then
        echo "ok      $1"
    else
        echo "FAILED  $1"
        sed 's/^/        /' <<< "$output" | tail -5
        failed=$((failed + 1))
    fi
}

[ -f "$drive/Python/python3.dll" ] || install_python || exit 1
copy_dearlite
check "Python" "win32" "windows 'C:\Python\python.exe -c \"import sys; print(sys.platform, sys.version)\"'"
check "the README's first command, its output in a file" "13-2" \
    "windows '$D rerank examples\query.txt examples\docs.jsonl > best.jsonl' && head -1 $drive/work/best.jsonl"
check "  all 20 lines of it, in UTF-8, with line feeds" "20 0" \
    "iconv -f UTF-8 -t UTF-8 $drive/work/best.jsonl | awk '/\r/ { returns++ } END { print NR, returns + 0 }'"
check "  and dearlite reads it again" "13-2" "windows '$D rerank examples\query.txt best.jsonl -k 1 --format trec'"
check "a query is left as it was typed" '"query": "what does $OS cost, a?.txt ~"' \
    "windows '$D rerank -q \"what does \$OS cost, a?.txt ~\" examples\docs.jsonl --format json -k 1'"
check "a closed pipe" "closed" \
    "windows '$D rerank examples\query.txt examples\docs.jsonl | C:\Python\python.exe -c \"print(chr(99)+chr(108)+chr(111)+chr(115)+chr(101)+chr(100))\"'"
mkdir -p "$drive/work/modèle"
cp "$root/dearlite/data/minilm-l12.dear" "$drive/work/modèle/naïve.dear"
check "a path beyond ASCII" "13-2" \
    "windows '$D rerank examples\query.txt examples\docs.jsonl -m modèle\naïve.dear -o modèle\ordre.trec' && head -1 $drive/work/modèle/ordre.trec"
check "batch" "" "windows '$D batch noveleval -o out.trec'"
cp "$drive/work/out.trec" "$drive/work/first.trec" 2> /dev/null
check "batch again, from its journal" "420" "windows '$D batch noveleval -o out.trec'"
check "  the same run" "same" "cmp $drive/work/out.trec $drive/work/first.trec && echo same"
check "eval" "nDCG@10" "windows '$D eval noveleval --scored out.trec'"
check "models calibrate onto its own file" "own.dear" \
    "windows '$D models calibrate own.dear noveleval -o own.dear'; ls $drive/work/own.dear"
check "doctor" "llama-cpp-py-sync" "windows '$D doctor'"
[ -z "${GGUF:-}" ] || {
    cp "$GGUF" "$drive/work/list.gguf"
    check "a listwise model" "Q0" "windows '$D rerank examples\query.txt examples\docs.jsonl -m list.gguf --passage-tokens 30 --format trec'"
}
echo "$failed failed"
exit "$failed"
