#!/bin/sh
# Make a token that permits quotes of AAPL, and serve a gateway to its holder.
set -eu
tokens=$(mktemp -d)/tokens.toml
token=$(ibfast token analyst --tokens-file "$tokens" --symbols AAPL --data-types QUOTES --days 1)
echo "token    $token"
exec ibfast serve --tokens "$tokens"
