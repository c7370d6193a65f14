# Posts a body that is too large with the program that is named first, to the URL that is named
# second, and reads why it was refused.
set -eu
body=$(mktemp)
trap 'rm -f "$body"' EXIT
# More than any buffer between a client and the hub takes.
head -c 16777216 /dev/zero >"$body"

check() {
    case $1 in
        *" the limit of 65536"*413 | *"ERROR 413"*) ;;
        *) echo "it saw: $1" >&2 && exit 1 ;;
    esac
}

case ${1##*/} in
    curl)
        check "$("$1" --silent --show-error --write-out '%{http_code}' --data-binary "@$body" "$2")"
        # Without a question first, and without a length.
        check "$("$1" --silent --show-error --write-out '%{http_code}' --header Expect: \
            --header 'Transfer-Encoding: chunked' --data-binary "@$body" "$2")"
        ;;
    wget)
        check "$("$1" --tries=1 --output-document=- --post-file="$body" "$2" 2>&1 || test $? = 8)"
        ;;
esac
echo done
