# What the shell scripts of clients check with. To be sourced first; the script's last line is `run "$@"`.
#
# A case is a function case_NAME. Each starts with an empty folder and an empty pool.

set -Eeuo pipefail
trap 'echo "FAILED: ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR

checks=0

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# held WHAT: one more check was made and held.
held() {
    checks=$((checks + 1))
    echo "ok $checks: $1"
}

# equal WHAT FOUND EXPECTED
equal() {
    [ "$2" = "$3" ] || fail "$1: found '$2', expected '$3'"
    held "$1"
}

# same WHAT FILE FILE: byte for byte.
same() {
    cmp -- "$2" "$3" || fail "$1: the bytes differ"
    held "$1"
}

# has WHAT TEXT PART
has() {
    case $2 in *"$3"*) held "$1" ;; *) fail "$1: no '$3' in: $2" ;; esac
}

# lacks WHAT TEXT PART
lacks() {
    case $2 in *"$3"*) fail "$1: '$3' is in: $2" ;; *) held "$1" ;; esac
}

# refused WHAT PART COMMAND...: the command fails and says PART.
refused() {
    local what=$1 part=$2 said
    shift 2
    if said=$("$@" 2>&1); then
        fail "$what: was not refused: $said"
    fi
    has "$what" "$said" "$part"
}

# piece OFFSET LENGTH FILE: cuts FILE out of the sample.
piece() {
    dd if="$SAMPLE" of="$3" bs=1M iflag=skip_bytes,count_bytes skip="$1" count="$2" status=none
}

md5_of() {
    md5sum < "$1" | cut -d ' ' -f 1
}

# digest ALGORITHM FILE: crc32, md5, sha1 or sha256 in base64, as S3's headers have it.
digest() {
    "$PYTHON" -c '
import base64, hashlib, sys, zlib
algorithm, content = sys.argv[1], open(sys.argv[2], "rb").read()
crc = algorithm == "crc32"
digest = zlib.crc32(content).to_bytes(4, "big") if crc else hashlib.new(algorithm, content).digest()
print(base64.b64encode(digest).decode())' "$1" "$2"
}

# folder NAME: a tree of 60 files of 0 to 59 KB, some with names that need encoding.
folder() {
    local number
    mkdir -p "$1/one/two" "$1/with space"
    for number in $(seq 0 59); do
        case $((number % 4)) in
            0) piece "$number" $((number * 1000)) "$1/file-$number.bin" ;;
            1) piece "$number" $((number * 1000)) "$1/one/file-$number.bin" ;;
            2) piece "$number" $((number * 1000)) "$1/one/two/füü+$number&.bin" ;;
            3) piece "$number" $((number * 1000)) "$1/with space/file $number.bin" ;;
        esac
    done
}

# many NAME: 1,050 small files, 50 of them in another folder: more than one page of a listing.
many() {
    local number
    mkdir -p "$1/a" "$1/b"
    for number in $(seq -w 1 1000); do echo "$number" > "$1/a/$number"; done
    for number in $(seq -w 1 50); do echo "$number" > "$1/b/$number"; done
}

run() {
    checks=0
    "case_$1"
    [ "$checks" -gt 0 ] || fail "the case checked nothing"
    echo "all checks hold"
}
