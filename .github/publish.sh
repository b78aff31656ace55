#!/usr/bin/env bash
# Put a folder of pages into the branch gh-pages: publish.sh PLACE FOLDER
# PLACE is empty for the public pages, preview/NUMBER for a pull request. A FOLDER that does not
# exist takes PLACE away. The branch keeps one commit.
set -euo pipefail
place=$1 folder=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git init --quiet --initial-branch gh-pages "$work"
if git fetch --quiet --depth 1 origin gh-pages 2>/dev/null; then
  git archive FETCH_HEAD | tar -x -C "$work"
fi
if [ -n "$place" ]; then
  case $place in preview/[0-9]*) ;; *) echo "not a place for a preview: $place" >&2; exit 1 ;; esac
  rm -rf "${work:?}/$place"
else
  # The public pages change as a whole; the previews stay.
  find "$work" -mindepth 1 -maxdepth 1 ! -name .git ! -name preview -exec rm -rf {} +
fi
if [ -d "$folder" ]; then
  mkdir -p "$work/$place"
  cp -R "$folder/." "$work/$place/"
fi
touch "$work/.nojekyll"
git -C "$work" add --all
git -C "$work" -c user.name="pages" -c user.email="pages@users.noreply.github.com" \
  commit --quiet --allow-empty --message "Pages"
git fetch --quiet "$work" gh-pages
git push --quiet --force origin FETCH_HEAD:refs/heads/gh-pages
